"""The migrations of both databases, on SQLite and PostgreSQL: they end where the code is."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, MetaData, inspect, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine

from movies import events, service
from movies.database import engine_at, opened
from tests.postgres import postgres

from .movies_site import EXAMPLES

DATABASES = {"service": service.Base.metadata, "read model": events.ReadModel.metadata}


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database in which nothing is."""
    if request.param == "sqlite":
        yield f"sqlite+aiosqlite:///{tmp_path / 'test.sqlite3'}"
        return
    with postgres() as found:
        if found is None:
            pytest.skip("PostgreSQL is not installed")
        yield found


def differences(connection: Connection, tables: MetaData) -> list[object]:
    """What Alembic would have to change."""
    return compare_metadata(MigrationContext.configure(connection), tables)


@pytest.mark.parametrize("name", DATABASES)
async def test_migrated_tables_are_those_of_the_code(url: str, name: str) -> None:
    """Nothing is left to be migrated, and starting again changes nothing."""
    for _ in range(2):
        async with opened(url, DATABASES[name]) as engine, engine.connect() as connection:
            assert await connection.run_sync(differences, DATABASES[name]) == []


@pytest.mark.parametrize("name", DATABASES)
async def test_a_database_from_before_there_were_migrations_is_taken_over(url: str, name: str) -> None:
    """Its tables were made by the code of then; what is in them stays."""
    films = "movies" if name == "service" else "movie_views"
    engine = create_async_engine(url)
    async with engine.begin() as connection:
        await connection.run_sync(DATABASES[name].create_all)
        if name == "service":  # how calls that were done were kept before
            await connection.execute(text("DROP TABLE sbrpc_calls"))
            await connection.execute(text("CREATE TABLE changes (call_id VARCHAR PRIMARY KEY, movie JSON)"))
        await connection.execute(text(f"INSERT INTO {films} (id, version, title) VALUES (1, 1, 'Crash')"))
    await engine.dispose()
    async with opened(url, DATABASES[name]) as engine, engine.connect() as connection:
        assert await connection.run_sync(differences, DATABASES[name]) == []
        assert (await connection.execute(text(f"SELECT title FROM {films}"))).scalars().all() == ["Crash"]


async def test_of_many_that_start_at_once_one_migrates(url: str) -> None:
    """Nobody fails, and nobody works before the tables are there."""

    async def start() -> None:
        async with opened(url, service.Base.metadata) as engine, engine.connect() as connection:
            await connection.execute(text("SELECT done_by FROM sbrpc_calls"))

    async with anyio.create_task_group() as group:
        for _ in range(6):
            group.start_soon(start)


def test_the_command_migrates_both_databases(tmp_path: Path) -> None:
    """`python -m movies migrate` says what it has brought up to date, and no password."""
    files = [tmp_path / "movies.sqlite3", tmp_path / "views.sqlite3"]
    urls = [f"sqlite+aiosqlite:///{file}" for file in files]
    done = subprocess.run(
        [sys.executable, "-m", "movies", "migrate"],
        cwd=EXAMPLES,
        env={"MOVIES_DATABASE": urls[0], "MOVIES_READ_MODEL": urls[1], "PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"{url} is up to date" for url in urls]
    assert all(file.exists() for file in files)


async def test_a_migration_that_fails_changes_nothing(url: str) -> None:
    """It is undone as a whole, and the next start does it from the beginning."""
    engine = engine_at(url)
    async with engine.begin() as connection:  # in the way of what the second migration does
        await connection.execute(text("CREATE TABLE sbrpc_calls (call_id VARCHAR)"))
    with pytest.raises(Exception, match="cannot be used") as failed:
        async with opened(url, service.Base.metadata):
            raise AssertionError
    assert isinstance(failed.value.__cause__, DBAPIError)
    async with engine.connect() as connection:
        tables = await connection.run_sync(lambda connection: inspect(connection).get_table_names())
    assert tables == ["sbrpc_calls"]
    await engine.dispose()
