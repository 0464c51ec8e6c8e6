"""What both databases share: the columns of a film, where the databases are, and how they change.

The service's database and the read model are two databases with one writer each; they share code, never data.
"""

import datetime
import os
from pathlib import Path

from sqlalchemy import BigInteger, Double, Integer
from sqlalchemy.orm import Mapped, mapped_column

from .contract import Movie

SERVICE_URL = os.environ.get("MOVIES_DATABASE", "sqlite+aiosqlite:///movies.sqlite3")
READ_MODEL_URL = os.environ.get("MOVIES_READ_MODEL", "sqlite+aiosqlite:///movies-read-model.sqlite3")
MIGRATIONS = Path(__file__).with_name("migrations")


class MovieColumns:
    """A film as columns. An id is never used twice, or an event about the old film would hit the new one."""

    __table_args__ = {"sqlite_autoincrement": True}  # noqa: RUF012  # SQLAlchemy's way to say it

    # SQLite counts ids up only in a column that is exactly INTEGER.
    id: Mapped[int] = mapped_column(BigInteger().with_variant(Integer, "sqlite"), primary_key=True)
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
