"""MovieEventHandler: keeps the read model in step with what the movies service announces.

It knows the events and its own database, and never calls the service. Events of one film arrive in order, yet
one may arrive twice, or late after a crash: the version decides, so the database ends in the same state.
"""

from sqlalchemy import delete, insert
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import DeclarativeBase

from sbrpc import EventBus
from sbrpc.sql import Positions, Projection, engine_for, migrated

from .contract import EVENTS, LANES, SUBSCRIPTION, TOPIC, MovieDeleted, MovieEvent
from .database import MIGRATIONS, READ_MODEL_URL, MovieColumns


class ReadModel(DeclarativeBase):
    """The tables of the read model."""


class MovieView(MovieColumns, ReadModel):
    """A film as readers see it."""

    __tablename__ = "movie_views"


# The version that each film has reached, and a deleted one keeps, against late events.
positions = Positions(ReadModel.metadata)
VIEWS = "movie-views"  # under this name


def app(connection: str) -> list[object]:
    """What `sbrpc run movies.events:app` runs."""
    engine = engine_for(READ_MODEL_URL)
    views = Projection(VIEWS, async_sessionmaker(engine), positions)
    bus = EventBus(connection, topic=TOPIC)

    # What has piled up in a lane is one transaction. Of each film it has the latest event, if that is news.
    @bus.on(*EVENTS, subscription=SUBSCRIPTION, max_concurrent_sessions=LANES, batch=100)
    @views.applies_all(version=lambda event: event.movie.version, key=lambda event: str(event.movie.id))
    async def project(session: AsyncSession, events: list[MovieEvent]) -> None:
        await session.execute(delete(MovieView).where(MovieView.id.in_([e.movie.id for e in events])))
        if rows := [e.movie.model_dump() for e in events if not isinstance(e, MovieDeleted)]:
            await session.execute(insert(MovieView), rows)

    return [migrated(engine, MIGRATIONS, database="read model"), bus]
