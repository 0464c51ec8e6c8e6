"""What both databases share: the columns of a film, and how a database is opened.

The service's database and the read model are two databases with one writer each; they share code, never data.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import BigInteger, Integer, MetaData, event
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.orm import Mapped, mapped_column
from sqlalchemy.schema import CreateIndex, CreateTable

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
    imdb_rating: Mapped[float | None]
    imdb_votes: Mapped[int | None] = mapped_column(BigInteger)
    worldwide_gross: Mapped[int | None] = mapped_column(BigInteger)


def film(row: object) -> Movie:
    """The film in a row of either database."""
    return Movie.model_validate(row, from_attributes=True)


@asynccontextmanager
async def opened(url: str, tables: MetaData) -> AsyncIterator[AsyncEngine]:
    """An engine on the database at `url`, with its tables made if they are missing."""
    # SQLite has one writer: one connection queues in order here instead of waiting for file locks there.
    sqlite = url.startswith("sqlite")
    engine = create_async_engine(url, **{"pool_size": 1, "max_overflow": 0} if sqlite else {})
    if sqlite:
        event.listen(engine.sync_engine, "connect", _configure_sqlite)
    try:
        async with engine.begin() as connection:
            for table in tables.sorted_tables:  # `if_not_exists`, since several processes may start at once
                await connection.execute(CreateTable(table, if_not_exists=True))
                for index in table.indexes:
                    await connection.execute(CreateIndex(index, if_not_exists=True))
        yield engine
    finally:
        await engine.dispose()


def _configure_sqlite(connection: Any, _: object) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")  # readers in other processes do not wait for the writer
    cursor.execute("PRAGMA synchronous=NORMAL")  # in WAL mode, a killed process loses nothing
    cursor.execute("PRAGMA busy_timeout=5000")
    cursor.close()
