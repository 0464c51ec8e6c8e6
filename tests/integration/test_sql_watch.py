"""Watching a projection on real databases: SQLite and PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping

import anyio
import asyncpg
import pytest
from sqlalchemy import MetaData, NullPool
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from sbrpc.errors import NotRunning
from sbrpc.sql import Positions, Watch

HANGS = 60

metadata = MetaData()
positions = Positions(metadata)


@pytest.fixture
async def engine(database: AsyncEngine) -> AsyncEngine:
    """A database in which one key has moved already."""
    async with database.begin() as connection:
        await connection.run_sync(metadata.create_all)
    await move(database, old=1)
    return database


async def move(engine: AsyncEngine, projection: str = "views", **to: int) -> None:
    """Move keys, as a projection does."""
    async with engine.begin() as connection:
        await positions.advance_all(connection, projection, to)


async def some(stream: AsyncIterator[Mapping[str, int]], size: int) -> dict[str, int]:
    """What a stream tells until it has told of so many keys."""
    told: dict[str, int] = {}
    with anyio.fail_after(HANGS):
        while len(told) < size:
            told |= await anext(stream)
    return told


async def test_all_who_follow_hear_what_moves_from_then_on(engine: AsyncEngine) -> None:
    """Neither what was there before nor what another projection does; and each from its own beginning."""
    async with Watch(engine, positions, "views", pause=0.001) as watch:
        first, second = watch.follow(), watch.follow()
        await move(engine, "others", old=7)
        await move(engine, new=1)
        await move(engine, old=2)
        assert await some(first, 2) == await some(second, 2) == {"new": 1, "old": 2}
        later = watch.follow()
        await move(engine, new=3)
        for stream in (first, second, later):
            assert await some(stream, 1) == {"new": 3}


async def test_who_is_slow_is_not_waited_for_and_hears_the_latest(engine: AsyncEngine) -> None:
    """Many moves of a key are told to the idle as one, while others go on; of many keys, 500 at a time."""
    async with Watch(engine, positions, "views", pause=0.001) as watch:
        idle, busy = watch.follow(), watch.follow()
        for at in (1, 2, 3):
            await move(engine, **{f"key-{n}": at for n in range(700)})
            assert set((await some(busy, 700)).values()) == {at}
        portions = [await anext(idle), await anext(idle)]
        assert [len(portion) for portion in portions] == [500, 200]
        assert {**portions[0], **portions[1]} == {f"key-{n}": 3 for n in range(700)}


async def test_all_streams_end_with_the_watch(engine: AsyncEngine) -> None:
    """Those that wait, and those that begin afterwards; the watch itself can be entered again."""
    watch = Watch(engine, positions, "views", pause=0.001)
    ended: list[str] = []

    async def follow(name: str) -> None:
        assert [moved async for moved in watch.follow()] == []
        ended.append(name)

    with anyio.fail_after(HANGS):
        async with anyio.create_task_group() as tasks, watch:
            with pytest.raises(NotRunning):
                await watch.__aenter__()
            tasks.start_soon(follow, "during")
            await anyio.wait_all_tasks_blocked()
        await follow("after")
    assert ended == ["during", "after"]
    async with watch:
        stream = watch.follow()
        await move(engine, old=2)
        assert await some(stream, 1) == {"old": 2}


async def test_a_database_that_cannot_be_read_is_asked_again(
    engine: AsyncEngine, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged, and what has moved meanwhile is told when it can be read again."""
    async with Watch(engine, positions, "views", pause=0.001) as watch:
        stream = watch.follow()
        async with engine.begin() as connection:
            await connection.run_sync(metadata.drop_all)
        with anyio.fail_after(HANGS):
            while "cannot be read" not in caplog.text:  # noqa: ASYNC110 - a log has no event
                await anyio.sleep(0.001)
        async with engine.begin() as connection:
            await connection.run_sync(metadata.create_all)
        await move(engine, new=2)
        assert await some(stream, 1) == {"new": 2}


async def test_a_database_that_refuses_connections_is_asked_again(
    postgres_url: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    """What a driver raises there is none of SQLAlchemy's errors, and ends nothing either."""
    away = False

    async def connect() -> asyncpg.Connection:
        if away:
            raise ConnectionRefusedError("nobody listens")
        return await asyncpg.connect(str(postgres_url).replace("+asyncpg", ""))

    if postgres_url is None:
        pytest.skip("PostgreSQL is not installed")
    engine = create_async_engine("postgresql+asyncpg://", async_creator=connect, poolclass=NullPool)
    async with engine.begin() as connection:
        await connection.run_sync(metadata.drop_all)
        await connection.run_sync(metadata.create_all)
    async with Watch(engine, positions, "views", pause=0.001) as watch:
        stream = watch.follow()
        away = True
        with anyio.fail_after(HANGS):
            while "nobody listens" not in caplog.text:  # noqa: ASYNC110 - a log has no event
                await anyio.sleep(0.001)
        away = False
        await move(engine, new=1)
        assert await some(stream, 1) == {"new": 1}
    await engine.dispose()
