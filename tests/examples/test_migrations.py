"""The migrations of both databases, on SQLite and PostgreSQL: they end where the code is."""

from __future__ import annotations

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, MetaData, inspect, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from movies import events, service
from movies.database import MIGRATIONS
from sbrpc.sql import engine_for, migrated

DATABASES = {"service": service.Base.metadata, "read model": events.ReadModel.metadata}


@pytest.fixture
def url(database: AsyncEngine) -> str:
    """Of a database in which nothing is."""
    return database.url.render_as_string(hide_password=False)


def differences(connection: Connection, tables: MetaData) -> list[object]:
    """What Alembic would have to change."""
    return compare_metadata(MigrationContext.configure(connection), tables)


@pytest.mark.parametrize("name", DATABASES)
async def test_migrated_tables_are_those_of_the_code(url: str, name: str) -> None:
    """Nothing is left to be migrated, and starting again changes nothing."""
    for _ in range(2):
        async with (
            migrated(engine_for(url), MIGRATIONS, database=name) as engine,
            engine.connect() as connection,
        ):
            assert await connection.run_sync(differences, DATABASES[name]) == []


async def test_a_migration_that_fails_changes_nothing(url: str) -> None:
    """It is undone as a whole, and the next start does it from the beginning."""
    engine = engine_for(url)
    async with engine.begin() as connection:  # in the way of what the migration does
        await connection.execute(text("CREATE TABLE movies (id INTEGER)"))
    with pytest.raises(Exception, match="cannot be used") as failed:
        async with migrated(engine_for(url), MIGRATIONS, database="service"):
            raise AssertionError
    assert isinstance(failed.value.__cause__, DBAPIError)
    async with engine.connect() as connection:
        tables = await connection.run_sync(lambda connection: inspect(connection).get_table_names())
    assert tables == ["movies"]
    await engine.dispose()
