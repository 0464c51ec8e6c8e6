"""MovieEventHandler: keeps the read model in step with what the movies service announces.

It knows the events and its own database, and never calls the service. Events of one film arrive in order, yet
one may arrive twice, or late after a crash: the version decides, so the database ends in the same state.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from sbrpc import EventBus, connect

from .contract import LANES, SUBSCRIPTION, TOPIC, MovieCreated, MovieDeleted, MovieEvent, MovieUpdated
from .database import READ_MODEL_URL, MovieColumns, opened


class ReadModel(DeclarativeBase):
    pass


class MovieView(MovieColumns, ReadModel):
    """A film as readers see it. A deleted one leaves its version behind, against late events."""

    __tablename__ = "movie_views"

    deleted: Mapped[bool] = mapped_column(index=True)


INSERT: dict[str, Any] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}


async def serve(database: str = READ_MODEL_URL) -> None:
    """Follow the events until SIGTERM or SIGINT."""
    async with connect() as connection, opened(database, ReadModel.metadata) as engine:
        bus = EventBus(connection, topic=TOPIC)
        insert = INSERT[engine.dialect.name](MovieView)
        newer = MovieView.version < insert.excluded.version
        upsert = insert.on_conflict_do_update(index_elements=["id"], set_=dict(insert.excluded), where=newer)

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
            rows = [e.movie.model_dump() | {"deleted": isinstance(e, MovieDeleted)} for e in events]
            async with engine.begin() as transaction:
                await transaction.execute(upsert, rows)

        print("The event handler keeps the read model up to date.", flush=True)
        await bus.serve()
