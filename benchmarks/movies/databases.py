"""Two databases for each application that is run, in SQLite or in a PostgreSQL that runs already.

Owns their URLs, and what is in them in the end. Knows nothing of processes.
"""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
from sqlalchemy import make_url, text
from sqlalchemy.ext.asyncio import create_async_engine

__all__ = ["books", "databases"]

_NAMES = {"MOVIES_DATABASE": "movies", "MOVIES_READ_MODEL": "read_model"}
_numbers = itertools.count(1)


@asynccontextmanager
async def databases(server: str | None, directory: Path) -> AsyncIterator[Mapping[str, str]]:
    """Two empty databases as the programs want them: URLs by environment variable.

    They are files in the directory, or in the PostgreSQL that `server` is a URL of, and gone afterwards.
    """
    if server is None:
        yield {key: f"sqlite+aiosqlite:///{directory / name}.sqlite3" for key, name in _NAMES.items()}
        return
    number = next(_numbers)
    names = {key: f"{name}_{number}" for key, name in _NAMES.items()}
    await _do(server, *(f"CREATE DATABASE {name}" for name in names.values()))
    try:
        url = make_url(server)
        yield {
            key: url.set(database=name).render_as_string(hide_password=False) for key, name in names.items()
        }
    finally:
        with anyio.CancelScope(shield=True):
            await _do(server, *(f"DROP DATABASE {name} WITH (FORCE)" for name in names.values()))


async def _do(server: str, *statements: str) -> None:
    engine = create_async_engine(server, isolation_level="AUTOCOMMIT")
    try:
        async with engine.connect() as connection:
            for statement in statements:
                await connection.execute(text(statement))
    finally:
        await engine.dispose()


async def books(urls: Mapping[str, str], acknowledged: Sequence[str], asked: Sequence[str]) -> dict[str, int]:
    """What became of the films that were to be created: their titles, and those that were promised.

    The read model has half a minute to follow.
    """
    ends = time.monotonic() + 30
    while True:
        films = await _rows(urls["MOVIES_DATABASE"], "movies")
        views = await _rows(urls["MOVIES_READ_MODEL"], "movie_views")
        apart = len(set(films) ^ set(views))
        if not apart or time.monotonic() > ends:
            break
        await anyio.sleep(0.2)
    titles = Counter(title for _, title, _ in films)
    return {
        "asked": len(asked),
        "acknowledged": len(acknowledged),
        "lost": sum(not titles[title] for title in acknowledged),
        "doubled": sum(titles[title] > 1 for title in asked),
        "done_unacknowledged": sum(titles[title] > 0 for title in set(asked) - set(acknowledged)),
        "apart": apart,
    }


async def _rows(url: str, table: str) -> list[tuple[int, str, int]]:
    """Id, title and version of each film in a table."""
    engine = create_async_engine(url)
    try:
        async with engine.connect() as connection:
            found = await connection.execute(text(f"SELECT id, title, version FROM {table}"))
            return [(row.id, row.title, row.version) for row in found]
    finally:
        await engine.dispose()
