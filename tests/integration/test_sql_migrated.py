"""Databases that are brought up to date at the start, on SQLite and PostgreSQL."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest
from sqlalchemy import inspect, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from sbrpc.errors import SbrpcError
from sbrpc.sql import migrated

ENV = """
from alembic import context

context.configure(connection=context.config.attributes["connection"])
with context.begin_transaction():
    context.run_migrations(table=context.config.attributes["table"])
"""
FIRST = """
from alembic import op
from sqlalchemy import Column, Integer

revision, down_revision = "1", None

def upgrade(table):
    op.create_table(table, Column("id", Integer, primary_key=True))
"""
SECOND = """
from alembic import op

revision, down_revision = "2", "1"

def upgrade(table):
    op.execute(f"INSERT INTO {table} (id) VALUES (7)")
"""


@pytest.fixture
def scripts(tmp_path: Path) -> Path:
    folder = tmp_path / "migrations"
    (folder / "versions").mkdir(parents=True)
    (folder / "env.py").write_text(ENV)
    (folder / "versions" / "1.py").write_text(FIRST)
    (folder / "versions" / "2.py").write_text(SECOND)
    return folder


async def test_of_many_that_start_at_once_one_migrates(database: AsyncEngine, scripts: Path) -> None:
    """Each finds all of it done, once, and so does who starts later."""

    async def start() -> None:
        async with (
            migrated(create_async_engine(database.url), scripts, table="films") as engine,
            engine.connect() as connection,
        ):
            assert (await connection.execute(text("SELECT id FROM films"))).scalars().all() == [7]

    async with anyio.create_task_group() as tasks:
        for _ in range(5):
            tasks.start_soon(start)
    await start()


async def test_a_migration_that_fails_leaves_nothing(database: AsyncEngine, scripts: Path) -> None:
    """The error names the database and the reason, and what was done before it failed is undone."""
    (scripts / "versions" / "2.py").write_text(SECOND.replace("(id)", "(no_such_column)"))
    with pytest.raises(SbrpcError, match=r"cannot be used: .*no_such_column"):
        async with migrated(create_async_engine(database.url), scripts, table="films"):
            raise AssertionError
    async with database.connect() as connection:
        tables = await connection.run_sync(lambda connection: inspect(connection).get_table_names())
    assert tables == []
