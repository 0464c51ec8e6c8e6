"""Calls that are cancelled, and streamed replies."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import anyio
import pytest

from sbrpc.contract import Contract, method
from sbrpc.emulator import Emulator
from sbrpc.errors import DataLoss, DeadlineExceeded, InvalidArgument
from sbrpc.server import RpcServer
from tests.integration.laboratory import QUEUES, Item, Wait, make_client

from .world import World


class Endless(Contract, name="endless"):
    @method
    def count(self, request: int) -> AsyncIterator[Item]: ...  # type: ignore[empty-body]


# -- cancellation --------------------------------------------------------------------------------------


def tasks() -> set[object]:
    """All tasks but the SDK's reads, which come and go."""
    coroutines = {task: task.get_coro() for task in asyncio.all_tasks()}
    return {
        task for task, what in coroutines.items() if not getattr(what, "__qualname__", "").endswith(".read")
    }


async def test_a_cancelled_caller_leaves_nothing_behind(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """No future, no task, no word about the late reply; which is counted."""
    await world.lab.wait(Wait(seconds=0, tag="first"))  # the links that it opens stay
    before, late = tasks(), world.client.replies.late
    with caplog.at_level(logging.INFO, "sbrpc"), anyio.move_on_after(0.2):
        await world.lab.wait(Wait(seconds=0.5, tag="given up"))
    assert world.client.pending == 0
    await world.bench.until(lambda: "ended given up" in world.bench.seen)
    await world.bench.until(lambda: world.client.replies.late == late + 1)
    assert not [record for record in caplog.records if record.name.startswith("sbrpc")]
    gc.collect()
    await world.bench.until(lambda: tasks() <= before)


async def test_a_cancellable_handler_is_stopped(world: World) -> None:
    """Where the method opted in, giving up reaches the server that works on the call."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(world.lab.wait_cancellable, Wait(seconds=60, tag="stop me"))
        await world.bench.until(lambda: "stop me" in world.bench.running)
        tasks.cancel_scope.cancel()
    await world.bench.until(lambda: "cancelled stop me" in world.bench.seen)
    assert world.client.pending == 0


async def test_a_cancellable_call_that_is_not_cancelled(world: World) -> None:
    """The notice about where to cancel is not taken for the reply."""
    assert await world.lab.wait_cancellable(Wait(seconds=0.05, tag="fine")) == "fine"


# -- streams -------------------------------------------------------------------------------------------


async def test_a_stream_arrives_in_order(world: World) -> None:
    """Far more replies than its window, each once."""
    assert [item.id async for item in world.lab.count(100)] == list(range(100))
    assert [item async for item in world.lab.count(0)] == []


async def test_streams_run_side_by_side(world: World) -> None:
    """Over one session, without mixing."""

    async def consume(length: int) -> None:
        assert [item.id async for item in world.lab.count(length)] == list(range(length))

    async with anyio.create_task_group() as tasks:
        for length in (5, 17, 40, 3):
            tasks.start_soon(consume, length)


async def test_an_error_in_the_middle_of_a_stream(world: World) -> None:
    """What came before it is delivered, then it is raised."""
    got: list[int] = []

    async def consume() -> None:
        async for item in world.lab.count_and_fail(20):
            got.append(item.id)  # noqa: PERF401 - what was there when it failed is the point

    with pytest.raises(DataLoss, match="broken"):
        await consume()
    assert got == list(range(20))


async def test_breaking_off_stops_the_handler(world: World) -> None:
    """Leaving the loop early reaches the server; it does not go on to the end."""
    world.bench.seen.clear()
    async with aclosing(world.lab.count(10**9)) as items:
        async for item in items:
            if item.id == 20:
                break
    await world.bench.until(lambda: "stopped counting" in world.bench.seen)
    assert world.bench.produced < 100
    assert world.client.pending == 0


async def test_a_slow_consumer_holds_the_handler_back(world: World) -> None:
    """No more than a window is under way, so memory grows on neither side."""
    world.bench.seen.clear()
    async with aclosing(world.lab.count(10**9)) as items:
        assert (await anext(items)).id == 0
        for _ in range(20):  # of which each would have been time enough for some more
            await world.lab.echo(Item(id=1))
        assert world.bench.produced <= 8 + 4 + 1
    await world.bench.until(lambda: "stopped counting" in world.bench.seen)


async def test_a_stream_that_never_cleans_up_keeps_no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has a while for it; then it is ended once more, and the server can stop."""
    monkeypatch.setattr("sbrpc._serving._CLEANING_UP", 0.1)
    cleaning, ended = anyio.Event(), anyio.Event()

    async def count(request: int) -> AsyncIterator[Item]:
        try:
            while True:
                yield Item(id=request)
        finally:
            cleaning.set()
            try:
                await anyio.sleep_forever()
            finally:
                ended.set()

    async with Emulator(queues=QUEUES) as emulator, make_client(emulator.connection_string) as client:
        server = RpcServer(
            emulator.connection_string, Endless, reply_queues=["lab.replies"], grace=0, queue="other"
        )
        server.method(Endless.count)(count)
        async with server:
            await server.ready(20)
            await client.ready(20)
            async with aclosing(client.of(Endless, queue="other").count(1)) as items:
                assert await anext(items) == Item(id=1)
            await cleaning.wait()
    assert ended.is_set()


async def test_a_deadline_covers_the_whole_stream(world: World) -> None:
    """However many replies came before it."""
    with pytest.raises(DeadlineExceeded):
        async for _ in world.lab.count(10**9, timeout=0.7):
            pass
    await world.bench.until(lambda: world.server.running == 0)


async def test_a_stream_can_be_refused(world: World) -> None:
    """An error from before the stream began is an ordinary one."""
    wrong: Any = "x"
    with pytest.raises(InvalidArgument):
        async for _ in world.lab.count(wrong):
            pass
