"""What both databases share: the columns of a film, and how a database is opened.

The service's database and the read model are two databases with one writer each; they share code, never data.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from sqlalchemy import AsyncAdaptedQueuePool, BigInteger, Connection, Double, Integer, MetaData, event
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.orm import Mapped, mapped_column

from sbrpc import SbrpcError

from .contract import Movie

SERVICE_URL = os.environ.get("MOVIES_DATABASE", "sqlite+aiosqlite:///movies.sqlite3")
READ_MODEL_URL = os.environ.get("MOVIES_READ_MODEL", "sqlite+aiosqlite:///movies-read-model.sqlite3")

# SQLite counts ids up only in a column that is exactly INTEGER.
Id = BigInteger().with_variant(Integer, "sqlite")


class MovieColumns:
    """A film as columns. An id is never used twice, or an event about the old film would hit the new one."""

    __table_args__ = {"sqlite_autoincrement": True}  # noqa: RUF012  # SQLAlchemy's way to say it

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    version: Mapped[int]
    title: Mapped[str]
    released: Mapped[datetime.date | None]
    genre: Mapped[str | None]
    director: Mapped[str | None]
    distributor: Mapped[str | None]
    rating: Mapped[str | None]
    running_time_min: Mapped[int | None]
    imdb_rating: Mapped[float | None] = mapped_column(Double)
    imdb_votes: Mapped[int | None] = mapped_column(BigInteger)
    worldwide_gross: Mapped[int | None] = mapped_column(BigInteger)


def film(row: object) -> Movie:
    """The film in a row of either database."""
    return Movie.model_validate(row, from_attributes=True)


def engine_at(url: str) -> AsyncEngine:
    """An engine for the database at `url`. Nothing is opened yet."""
    if not url.startswith("sqlite"):
        return create_async_engine(url)
    # SQLite has one writer: one connection queues in order here instead of waiting for file locks there.
    engine = create_async_engine(url, poolclass=AsyncAdaptedQueuePool, pool_size=1, max_overflow=0)
    event.listen(engine.sync_engine, "connect", _configure_sqlite)
    return engine


@asynccontextmanager
async def prepared(engine: AsyncEngine, tables: MetaData) -> AsyncIterator[AsyncEngine]:
    """The engine, on a database that has the tables as the code knows them; closed in the end."""
    try:
        try:
            async with engine.begin() as connection:
                await connection.run_sync(migrate, tables)
        except (SQLAlchemyError, OSError) as error:
            reason = getattr(error, "orig", error)
            raise SbrpcError(f"the database {engine.url} cannot be used: {reason}") from error
        yield engine
    finally:
        await engine.dispose()


def opened(url: str, tables: MetaData) -> AbstractAsyncContextManager[AsyncEngine]:
    """The same for a URL."""
    return prepared(engine_at(url), tables)


def migrate(connection: Connection, tables: MetaData) -> None:
    """Bring a database up to date. Of processes that start at once, one does it and the others wait."""
    sqlite = connection.dialect.name == "sqlite"
    connection.exec_driver_sql("BEGIN IMMEDIATE" if sqlite else "SELECT pg_advisory_xact_lock(1)")
    config = Config(attributes={"connection": connection, "tables": tables})
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")))
    command.upgrade(config, "head")


def _configure_sqlite(connection: Any, _: object) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")  # readers in other processes do not wait for the writer
    cursor.execute("PRAGMA synchronous=NORMAL")  # in WAL mode, a killed process loses nothing
    cursor.execute("PRAGMA busy_timeout=5000")
    cursor.close()
