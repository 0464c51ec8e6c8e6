"""The databases that outbox, inbox, projections, the reply store and the movies are tested on."""

from __future__ import annotations

import os
import warnings
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from tests.postgres import postgres

__all__ = ["database", "postgres_url"]


@pytest.fixture(scope="session")
def postgres_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str | None]:
    """A database of PostgreSQL for this process; the server is one for all workers of pytest-xdist."""
    shared = tmp_path_factory.getbasetemp().parent if "PYTEST_XDIST_WORKER" in os.environ else None
    with postgres(shared) as url:
        if url is None:
            warnings.warn("PostgreSQL is not installed; its half of these tests is skipped", stacklevel=1)
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[AsyncEngine]:
    """An empty database."""
    if request.param == "sqlite":
        url = f"sqlite+aiosqlite:///{tmp_path / 'test.db'}"
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("default")
            found = request.getfixturevalue("postgres_url")
        if found is None:
            pytest.skip("PostgreSQL is not installed")
        url = found
    engine = create_async_engine(url)
    if request.param == "postgresql":
        async with engine.begin() as connection:
            await connection.execute(text("DROP SCHEMA public CASCADE"))
            await connection.execute(text("CREATE SCHEMA public"))
    yield engine
    await engine.dispose()
