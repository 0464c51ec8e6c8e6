"""MovieEventHandler: keeps the read model in step with what the movies service announces.

It knows the events and its own database, and never calls the service. Events of one film arrive in order, yet
one may arrive twice, or late after a crash: the version decides, so the database ends in the same state.
"""

from __future__ import annotations

from sqlalchemy import MetaData, delete, insert
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlalchemy.orm import DeclarativeBase

from sbrpc import EventBus
from sbrpc.sql import Positions

from .contract import EVENTS, LANES, SUBSCRIPTION, TOPIC, MovieDeleted, MovieEvent
from .database import READ_MODEL_URL, MovieColumns, engine_at, prepared


class ReadModel(DeclarativeBase):
    metadata = MetaData(info={"database": "read model"})


class MovieView(MovieColumns, ReadModel):
    """A film as readers see it."""

    __tablename__ = "movie_views"


# The version that each film has reached, and a deleted one keeps, against late events.
positions = Positions(ReadModel.metadata)
VIEWS = "movie-views"  # under this name


def app(connection: str) -> list[object]:
    """What `sbrpc run movies.events:app` runs."""
    engine = engine_at(READ_MODEL_URL)
    sessions = async_sessionmaker(engine)
    bus = EventBus(connection, topic=TOPIC)

    # What has piled up in a lane is one transaction.
    @bus.on(*EVENTS, subscription=SUBSCRIPTION, max_concurrent_sessions=LANES, batch=100)
    async def project(events: list[MovieEvent]) -> None:
        newest = {str(e.movie.id): e for e in sorted(events, key=lambda e: e.movie.version)}
        versions = {key: e.movie.version for key, e in newest.items()}
        async with sessions.begin() as session:
            # Without those that came before, and those that a later one has overtaken.
            news = [newest[key] for key in await positions.advance_all(session, VIEWS, versions)]
            await session.execute(delete(MovieView).where(MovieView.id.in_([e.movie.id for e in news])))
            if rows := [e.movie.model_dump() for e in news if not isinstance(e, MovieDeleted)]:
                await session.execute(insert(MovieView), rows)

    return [prepared(engine, ReadModel.metadata), bus]
