"""Work on SQLite that is cancelled at any moment: the database is free, and nothing goes on unseen."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import anyio
import pytest
from sqlalchemy import MetaData, event, select
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine

from sbrpc import CallInfo
from sbrpc.emulator import Emulator
from sbrpc.event import Event
from sbrpc.events import EventBus
from sbrpc.sql import Calls, Outbox, OutboxRelay, Positions, ReplyStore, Watch, cancellable
from sbrpc.store import CachedReply
from sbrpc.topology import Topic

HANGS = 60
# Seconds that each statement takes: enough to be cancelled within.
SLOW = 0.003

metadata = MetaData()
calls, positions, outbox = Calls(metadata), Positions(metadata), Outbox(metadata, source="/films")


class Changed(Event, type="films.changed.v1", key="film"):
    film: str


class Moment:
    """Cancels a scope in the middle of the n-th statement that the database is given."""

    def __init__(self, engine: AsyncEngine) -> None:
        self.scope = anyio.CancelScope()
        self.left = 0
        self._loop = asyncio.get_running_loop()
        event.listen(engine.sync_engine, "connect", self._trace)

    def _trace(self, connection: object, _: object) -> None:
        connection.run_async(lambda driver: driver.set_trace_callback(self._statement))  # type: ignore[attr-defined]

    def _statement(self, _: str) -> None:
        self.left -= 1
        if self.left == 0:
            self._loop.call_soon_threadsafe(self.scope.cancel)
        time.sleep(SLOW)

    async def cancels(self, work: Callable[[], Awaitable[object]], after: int) -> bool:
        """Whether the work was cancelled; false when it has no so many statements."""
        self.left = after
        with anyio.fail_after(HANGS):
            with anyio.CancelScope() as self.scope:
                await work()
        self.left = 0
        return self.scope.cancel_called


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[AsyncEngine]:
    """A database in a file, where garbage is left alone: what is not closed remains open."""
    engine = cancellable(create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'test.db'}"))
    gc.disable()
    yield engine
    gc.enable()
    await engine.dispose()


async def test_cancelled_at_any_statement_the_database_is_free_and_nobody_waits(engine: AsyncEngine) -> None:
    """Calls with positions and an outbox, replies and a watch: others can write, and no task is left over."""
    moment, standing = Moment(engine), asyncio.all_tasks()
    store = ReplyStore(engine, metadata)
    async with engine.begin() as connection:
        await connection.run_sync(metadata.create_all)
    sessions = async_sessionmaker(engine)

    async def write_and_read(session: AsyncSession) -> int:
        await outbox.add(session, Changed(film="7"))
        await positions.advance(session, "views", "7", 1)
        return len((await session.execute(select(outbox.table))).all())

    async def call() -> None:
        await calls.once(sessions, CallInfo("change", f"{moment.left}"), write_and_read, int)

    async def reply() -> None:
        await store.put("call", CachedReply("OK", b""), -1.0)
        await store.get("call")

    async def look() -> None:
        async with Watch(engine, positions, "views", pause=0.0):
            await anyio.sleep_forever()

    for work in (call, reply, look):
        after = 1
        while after < 12 and await moment.cancels(work, after):
            with anyio.fail_after(HANGS):
                async with sessions.begin() as session:
                    await outbox.add(session, Changed(film="8"))
            after += 1
        assert after > 3
    with anyio.fail_after(HANGS):
        while asyncio.all_tasks() - standing:  # noqa: ASYNC110 - they close connections
            await anyio.sleep(0.001)


async def test_a_relay_cancelled_while_it_claims_leaves_nothing_claimed(engine: AsyncEngine) -> None:
    """The next one need not wait for a lease that nobody makes use of."""
    moment = Moment(engine)
    async with engine.begin() as connection:
        await connection.run_sync(metadata.create_all)
    async with (
        Emulator(topics=[Topic("films")]) as emulator,
        EventBus(emulator.connection_string, topic="films", source="/x") as bus,
    ):
        after = 0
        while True:
            after += 1
            async with engine.begin() as connection:
                await outbox.add(connection, Changed(film="7"))
            relay = OutboxRelay(engine, outbox, bus)
            cancelled = await moment.cancels(relay.relay_once, after)
            published = relay.published + await OutboxRelay(engine, outbox, bus).relay_once()
            assert published == 1
            if not cancelled:
                break
        assert after > 5
