"""Calls that work once, on real databases: SQLite and PostgreSQL."""

from __future__ import annotations

import anyio
import pytest
from pydantic import BaseModel
from sqlalchemy import Column, Integer, MetaData, String, Table, func, insert, select
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from sbrpc import CallInfo
from sbrpc.errors import ContractError, NotFound
from sbrpc.event import Event
from sbrpc.sql import Calls, Outbox, reading

metadata = MetaData()
films = Table("films", metadata, Column("id", Integer, primary_key=True), Column("title", String(100)))
calls = Calls(metadata)
outbox = Outbox(metadata, source="/films")


class Film(BaseModel):
    id: int
    title: str


class Filmed(Event, type="films.filmed.v1"):
    title: str


@pytest.fixture
async def engine(database: AsyncEngine) -> AsyncEngine:
    """A database without films and calls."""
    async with database.begin() as connection:
        await connection.run_sync(metadata.create_all)
    return database


@pytest.fixture
def sessions(engine: AsyncEngine) -> async_sessionmaker[AsyncSession]:
    return async_sessionmaker(engine)


def call(id: str, reply_to: str | None = "gateway.replies") -> CallInfo:
    return CallInfo("create_film", id, reply_to=reply_to)


async def create(session: AsyncSession, title: str = "Crash") -> Film:
    """What a handler does: write, and announce it."""
    row = await session.execute(insert(films).values(title=title).returning(films.c.id))
    await outbox.add(session, Filmed(title=title))
    return Film(id=row.scalar_one(), title=title)


async def count(engine: AsyncEngine, table: Table) -> int:
    async with engine.connect() as connection:
        return int(await connection.scalar(select(func.count()).select_from(table)) or 0)


async def test_a_call_that_comes_again_gets_its_result_and_does_nothing(
    engine: AsyncEngine, sessions: async_sessionmaker[AsyncSession]
) -> None:
    """Also where several deliveries run at once; the same id of another caller is another call."""
    results: list[Film] = []

    async def deliver(info: CallInfo) -> None:
        results.append(await calls.once(sessions, info, create, Film))

    async with anyio.create_task_group() as group:
        for _ in range(5):
            group.start_soon(deliver, call("one"))
    await deliver(call("one"))
    assert results == [Film(id=1, title="Crash")] * 6
    assert (await count(engine, films), await count(engine, outbox.table)) == (1, 1)
    for other in (call("two"), call("one", "other.replies"), call("one", None)):
        await deliver(other)
    assert len({film.id for film in results}) == 4


async def test_work_that_fails_leaves_nothing_and_is_tried_again(
    engine: AsyncEngine, sessions: async_sessionmaker[AsyncSession]
) -> None:
    """The exception reaches the caller as it is, and neither film nor event nor call is kept."""

    async def fail(session: AsyncSession) -> Film:
        await create(session)
        raise NotFound("there is no studio")

    with pytest.raises(NotFound, match="no studio"):
        await calls.once(sessions, call("one"), fail, Film)
    for table in (films, outbox.table, calls.table):
        assert await count(engine, table) == 0
    assert (await calls.once(sessions, call("one"), create, Film)).title == "Crash"


async def test_a_function_becomes_a_handler_that_works_once(
    engine: AsyncEngine, sessions: async_sessionmaker[AsyncSession]
) -> None:
    """It takes the session first, and what is known of the call if it asks for that; None is a result too."""

    @calls.handler(sessions)
    async def add(session: AsyncSession, title: str) -> Film:
        return await create(session, title)

    @calls.handler(sessions)
    async def drop(session: AsyncSession, title: str, info: CallInfo) -> None:
        await session.execute(films.delete().where(films.c.title == f"{title} {info.call_id}"))

    assert [await add("Crash two", call("one")) for _ in range(2)] == [Film(id=1, title="Crash two")] * 2
    assert [await drop("Crash", call("two")) for _ in range(2)] == [None, None]
    assert [await count(engine, table) for table in (films, outbox.table, calls.table)] == [0, 1, 2]


async def test_a_function_becomes_a_handler_that_only_reads(
    engine: AsyncEngine, sessions: async_sessionmaker[AsyncSession]
) -> None:
    """Its session is its own, and what it might write is not kept."""

    @reading(sessions)
    async def count_films(session: AsyncSession, title: str) -> int:
        await session.execute(insert(films).values(title=title))
        return int(await session.scalar(select(func.count()).select_from(films)) or 0)

    assert [await count_films("Crash", call("one")) for _ in range(2)] == [1, 1]
    assert [await count(engine, table) for table in (films, calls.table)] == [0, 0]


async def test_a_function_that_cannot_be_a_handler_is_refused(
    sessions: async_sessionmaker[AsyncSession],
) -> None:
    """At once, and with what is missing."""

    async def silent(session: AsyncSession, title: str):
        raise AssertionError

    async def short(session: AsyncSession) -> None:
        raise AssertionError

    with pytest.raises(ContractError, match="silent does not say what it returns"):
        calls.handler(sessions)(silent)
    with pytest.raises(ContractError, match=r"short must take \(session, request\)"):
        calls.handler(sessions)(short)


async def test_old_calls_are_forgotten(
    engine: AsyncEngine, sessions: async_sessionmaker[AsyncSession]
) -> None:
    """Those that were done long enough ago, by the clock of the database; method and process are noted."""
    await calls.once(sessions, call("one"), create, Film)
    async with engine.begin() as connection:
        noted = (await connection.execute(select(calls.table.c.method, calls.table.c.done_by))).one()
        assert noted.method == "create_film"
        assert noted.done_by.rpartition(":")[2].isdecimal()
        assert await calls.forget(connection, older_than=3600) == 0
        assert await calls.forget(connection, older_than=-1) == 1
    assert await count(engine, calls.table) == 0
