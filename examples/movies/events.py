"""MovieEventHandler: keeps the read model in step with what the movies service announces.

It knows the events and its own database, and never calls the service. Events of one film arrive in order, yet
one may arrive twice, or late after a crash: the version decides, so the database ends in the same state.
"""

from __future__ import annotations

from sqlalchemy import delete
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlalchemy.orm import DeclarativeBase

from sbrpc import EventBus, connect
from sbrpc.sql import Positions

from .contract import LANES, SUBSCRIPTION, TOPIC, MovieCreated, MovieDeleted, MovieEvent, MovieUpdated
from .database import READ_MODEL_URL, MovieColumns, opened


class ReadModel(DeclarativeBase):
    pass


class MovieView(MovieColumns, ReadModel):
    """A film as readers see it."""

    __tablename__ = "movie_views"


# The version that each film has reached, and a deleted one keeps, against late events.
positions = Positions(ReadModel.metadata)


async def serve(database: str = READ_MODEL_URL) -> None:
    """Follow the events until SIGTERM or SIGINT."""
    async with connect() as connection, opened(database, ReadModel.metadata) as engine:
        bus = EventBus(connection, topic=TOPIC)
        sessions = async_sessionmaker(engine)

        # What has piled up in a lane is one transaction.
        @bus.on(
            MovieCreated,
            MovieUpdated,
            MovieDeleted,
            subscription=SUBSCRIPTION,
            max_concurrent_sessions=LANES,
            batch=100,
        )
        async def project(events: list[MovieEvent]) -> None:
            async with sessions.begin() as session:
                for event in events:
                    movie = event.movie
                    if not await positions.advance(session, "movie-views", str(movie.id), movie.version):
                        continue  # it came before, or a later one did
                    if isinstance(event, MovieDeleted):
                        await session.execute(delete(MovieView).where(MovieView.id == movie.id))
                    else:
                        await session.merge(MovieView(**movie.model_dump()))

        print("The event handler keeps the read model up to date.", flush=True)
        await bus.serve()
