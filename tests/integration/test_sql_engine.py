"""Several programs that write to one database at the same time; what they are is told by engines here."""

from __future__ import annotations

from pathlib import Path

import anyio
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from sbrpc.sql import engine_for


async def test_writers_to_sqlite_wait_for_each_other(tmp_path: Path) -> None:
    """Transactions of two engines on one file, many at once in each, succeed while somebody else reads."""
    engines = [engine_for(f"sqlite+aiosqlite:///{tmp_path / 'test.sqlite3'}") for _ in range(3)]
    async with engines[0].begin() as connection:
        await connection.execute(text("CREATE TABLE steps (number INTEGER)"))

    async def step(engine: AsyncEngine) -> None:
        for _ in range(5):
            async with engine.begin() as connection:
                await connection.execute(text("INSERT INTO steps SELECT count(*) FROM steps"))
                await connection.execute(text("SELECT count(*) FROM steps"))

    async with engines[2].connect() as reader:
        await reader.exec_driver_sql("BEGIN")
        assert await reader.scalar(text("SELECT count(*) FROM steps")) == 0
        async with anyio.create_task_group() as tasks:
            for engine in engines[:2] * 10:
                tasks.start_soon(step, engine)
        assert await reader.scalar(text("SELECT count(*) FROM steps")) == 0
    async with engines[0].connect() as connection:
        assert await connection.scalar(text("SELECT count(DISTINCT number) FROM steps")) == 100
    for engine in engines:
        await engine.dispose()


def test_other_databases_are_left_as_sqlalchemy_has_them() -> None:
    """What is asked for is passed on, and the pool is the usual one."""
    engine = engine_for("postgresql+asyncpg://nobody@nowhere.invalid/films", pool_size=7)
    assert engine.pool.size() == 7
