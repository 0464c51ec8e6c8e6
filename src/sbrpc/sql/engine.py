"""An engine on which the programs of an application can write to one database at the same time."""

from __future__ import annotations

from typing import Any

from sqlalchemy import AsyncAdaptedQueuePool, event
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from ._cancelling import cancellable

__all__ = ["engine_for"]


def engine_for(url: str, **options: Any) -> AsyncEngine:
    """SQLAlchemy's `create_async_engine`, with SQLite set up for several programs. Nothing is opened yet.

    SQLite knows one writer. In each process there is one connection, for which sessions wait in turns; of
    several processes, a writer waits up to 5 seconds for another, and readers do not wait. A process that is
    killed loses nothing that was committed, and statements are `cancellable`. `options` are those of
    SQLAlchemy, for other databases too.
    """
    if make_url(url).get_backend_name() != "sqlite":
        return create_async_engine(url, **options)
    # Connections of one process would wait for file locks by trying again and again, in no order.
    one = {"poolclass": AsyncAdaptedQueuePool, "pool_size": 1, "max_overflow": 0}
    engine = cancellable(create_async_engine(url, **{**one, **options}))
    event.listen(engine.sync_engine, "connect", _set_up)
    return engine


def _set_up(connection: Any, _: object) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")  # readers in other processes do not wait for the writer
    cursor.execute("PRAGMA synchronous=NORMAL")  # in WAL mode, a killed process loses nothing
    cursor.execute("PRAGMA busy_timeout=5000")
    cursor.close()
