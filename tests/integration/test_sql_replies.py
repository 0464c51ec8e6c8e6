"""The reply store on real databases: SQLite and PostgreSQL."""

from __future__ import annotations

from contextlib import AsyncExitStack

import anyio
from sqlalchemy import MetaData, func, select
from sqlalchemy.ext.asyncio import AsyncEngine

from sbrpc._serving import Job
from sbrpc._wire import Request
from sbrpc.client import RpcClient
from sbrpc.context import CallInfo, Deadline
from sbrpc.contract import Contract, method
from sbrpc.emulator import Emulator
from sbrpc.server import RpcServer
from sbrpc.sql import ReplyStore
from sbrpc.store import CachedReply
from sbrpc.topology import Queue


async def test_a_reply_is_kept_once_by_many_servers_and_expires(database: AsyncEngine) -> None:
    """The first reply wins among servers that answer at once; an expired one is not found, and is deleted."""
    metadata = MetaData()
    stores = [ReplyStore(database, metadata)]
    stores += [stores[0]] * 4
    async with database.begin() as connection:
        await connection.run_sync(metadata.create_all)
    async with anyio.create_task_group() as tasks:
        for number, store in enumerate(stores):
            tasks.start_soon(store.put, "call", CachedReply("OK", bytes([number])), 3600.0)
    first = await stores[0].get("call")
    assert first is not None
    await stores[1].put("call", CachedReply("INTERNAL", b"later"), 3600.0)
    assert await ReplyStore(database, MetaData()).get("call") == first

    for number in range(5):
        await stores[0].put(f"old {number}", CachedReply("OK", b""), -1.0)
        assert await stores[0].get(f"old {number}") is None
    async with database.connect() as connection:
        assert await connection.scalar(select(func.count()).select_from(stores[0].table)) == 1


class Shared(Contract, name="shared"):
    @method
    async def run(self, request: int) -> str:
        raise NotImplementedError


async def test_what_one_server_answered_another_does_not_run_again(database: AsyncEngine) -> None:
    """A server answers and is gone before its request is settled: the next one sends the same reply again."""
    metadata = MetaData()
    store = ReplyStore(database, metadata)
    async with database.begin() as connection:
        await connection.run_sync(metadata.create_all)
    ran: list[tuple[str, int]] = []
    queues = [Queue("shared"), Queue("callers.replies", requires_session=True)]
    async with Emulator(queues=queues) as emulator, AsyncExitStack() as stack:
        string = emulator.connection_string

        def serving(name: str) -> RpcServer:
            server = RpcServer(string, Shared, concurrency=1, prefetch=0, store=store)

            @server.method(Shared.run)
            async def run(request: int, info: CallInfo) -> str:
                ran.append((name, info.delivery_count))
                emulator.faults.lose_locks(entity="shared")
                leaving.set()
                with anyio.fail_after(10):
                    while server.is_ready:  # noqa: ASYNC110 (it tells nobody)
                        await anyio.sleep(0.01)
                return name

            return server

        leaving = anyio.Event()
        client = await stack.enter_async_context(RpcClient(string, reply_queue="callers.replies"))
        answers: list[str] = []

        async def call() -> None:
            answers.append(await client.of(Shared).run(1, timeout=30))

        async with anyio.create_task_group() as tasks, serving("first") as first:
            await first.ready(60)
            tasks.start_soon(call)
            with anyio.fail_after(10):
                await leaving.wait()
        assert answers == ["first"]
        assert emulator.broker.runtime("shared").active == 1
        async with serving("second"):
            with anyio.fail_after(10):
                while client.replies.late == 0:  # noqa: ASYNC110 (nor does this)
                    await anyio.sleep(0.01)
        assert emulator.broker.runtime("shared").active == 0
    assert ran == [("first", 0)]


async def test_the_longest_call_fits(database: AsyncEngine) -> None:
    """Its reply queue, session and id are as long as Service Bus takes them."""
    metadata = MetaData()
    store = ReplyStore(database, metadata)
    async with database.begin() as connection:
        await connection.run_sync(metadata.create_all)
    longest = Request("run", b"", call_id="c" * 128, reply_to="q" * 260, reply_to_session_id="s" * 128)
    key = Job(longest, Deadline.never()).key
    await store.put(key, CachedReply("OK", b"1"), 60.0)
    assert await store.get(key) == CachedReply("OK", b"1")
