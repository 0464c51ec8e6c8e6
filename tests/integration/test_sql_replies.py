"""The reply store on real databases: SQLite and PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest
from sqlalchemy import MetaData, func, select
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from sbrpc._cache import CachedReply
from sbrpc.sql import ReplyStore
from tests.postgres import postgres


@pytest.fixture(params=["sqlite", "postgresql"])
async def engine(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[AsyncEngine]:
    """A database without replies."""
    with postgres() as found:
        url = f"sqlite+aiosqlite:///{tmp_path / 'test.db'}" if request.param == "sqlite" else found
        if url is None:
            pytest.skip("PostgreSQL is not installed")
        engine = create_async_engine(url)
        yield engine
        await engine.dispose()


async def test_a_reply_is_kept_once_by_many_servers_and_expires(engine: AsyncEngine) -> None:
    """The first reply wins among servers that answer at once; an expired one is not found, and is deleted."""
    metadata = MetaData()
    stores = [ReplyStore(engine, metadata)]
    stores += [stores[0]] * 4
    async with engine.begin() as connection:
        await connection.run_sync(metadata.create_all)
    async with anyio.create_task_group() as tasks:
        for number, store in enumerate(stores):
            tasks.start_soon(store.put, "call", CachedReply("OK", bytes([number])), 3600.0)
    first = await stores[0].get("call")
    assert first is not None
    await stores[1].put("call", CachedReply("INTERNAL", b"later"), 3600.0)
    assert await ReplyStore(engine, MetaData()).get("call") == first

    for number in range(5):
        await stores[0].put(f"old {number}", CachedReply("OK", b""), -1.0)
        assert await stores[0].get(f"old {number}") is None
    async with engine.connect() as connection:
        assert await connection.scalar(select(func.count()).select_from(stores[0].table)) == 1
