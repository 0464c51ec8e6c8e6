"""Several things in one process, on one emulator: started together, drained together."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import anyio
import pytest

from sbrpc import Contract, Event, EventBus, RpcClient, RpcServer, serve
from sbrpc.contract import method
from sbrpc.emulator import Emulator
from sbrpc.errors import EntityNotFound
from sbrpc.running import Group
from sbrpc.topology import Queue, Subscription, Topic

HANGS = 30


class Work(Contract, name="work"):
    @method
    async def slow(self, request: str) -> str:
        raise NotImplementedError


class Done(Event, type="tests.done.v1"):
    what: str


@pytest.fixture(scope="module")
async def emulator() -> AsyncIterator[Emulator]:
    """What all tests of this file use."""
    topic = Topic("events", subscriptions=(Subscription("all"),))
    replies = Queue("test.replies", requires_session=True)
    async with Emulator(queues=["work", replies], topics=[topic]) as running:
        yield running


def new_bus(emulator: Emulator, subscription: str = "all") -> tuple[EventBus, list[str]]:
    """A bus with a handler, and what it has handled."""
    bus, handled = EventBus(emulator.connection_string, topic="events", source="/tests"), list[str]()

    @bus.on(Done, subscription=subscription, ordered=False)
    async def handle(event: Done) -> None:
        handled.append(event.what)

    return bus, handled


async def until(holds: Callable[[], bool]) -> None:
    """Wait until something holds; its test bounds the time."""
    while not holds():  # noqa: ASYNC110 - what is waited for does not tell
        await anyio.sleep(0.01)


async def test_one_signal_drains_everything(emulator: Emulator) -> None:
    """A handler that runs when the signal comes can still publish and answer, in whatever order they are."""
    bus, handled = new_bus(emulator)
    server = RpcServer(emulator.connection_string, Work)
    started, ticks = anyio.Event(), list[str]()

    @server.method(Work.slow)
    async def slow(request: str) -> str:
        started.set()
        await until(lambda: not server.is_ready and not bus.is_ready)
        await bus.publish(Done(what=request))
        return f"did {request}"

    async def background() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            ticks.append("ended")

    answers: list[str] = []
    with anyio.fail_after(HANGS):
        async with (
            RpcClient(emulator.connection_string, reply_queue="test.replies") as client,
            anyio.create_task_group() as tasks,
        ):
            work = client.of(Work)

            async def call() -> None:
                answers.append(await work.slow("this"))

            async def interrupt() -> None:
                await started.wait()
                os.kill(os.getpid(), signal.SIGTERM)

            tasks.start_soon(call)
            tasks.start_soon(interrupt)
            await serve(server, bus, background)
            assert not server.is_live
            assert not bus.is_live
    assert answers == ["did this"]
    assert ticks == ["ended"]
    again, handled = new_bus(emulator)
    with anyio.fail_after(HANGS):
        async with again:
            await until(lambda: handled == ["this"])


async def test_one_grace_for_all(emulator: Emulator) -> None:
    """What does not end within the grace is handed back; two that hang do not take twice as long."""
    bus, _ = new_bus(emulator)
    server = RpcServer(emulator.connection_string, Work, grace=3600)
    started = anyio.Event()

    @server.method(Work.slow)
    async def slow(request: str) -> str:
        if request == "hang" and not started.is_set():
            started.set()
            await anyio.sleep_forever()
        return request

    again = RpcServer(emulator.connection_string, Work)
    again.method(Work.slow)(slow)
    with anyio.fail_after(HANGS):
        async with (
            RpcClient(emulator.connection_string, reply_queue="test.replies") as client,
            anyio.create_task_group() as tasks,
        ):
            async with Group(server, bus, grace=0) as group:
                await group.ready()
                assert group.is_ready
                tasks.start_soon(client.of(Work).slow, "hang")
                await started.wait()
            assert not group.is_ready
            async with again:
                await until(lambda: not client.pending)


async def test_a_queue_that_is_missing_ends_it(emulator: Emulator) -> None:
    """The error is the one that names the queue, and nothing else keeps running."""
    bus, _ = new_bus(emulator)
    server = RpcServer(emulator.connection_string, Work, queue="nowhere")

    @server.method(Work.slow)
    async def slow(request: str) -> str:
        return request

    with anyio.fail_after(HANGS), pytest.raises(EntityNotFound, match="nowhere"):
        await serve(bus, server)
    assert not bus.is_live


async def test_a_subscription_that_is_missing_ends_it(emulator: Emulator) -> None:
    """Also where it stands before what runs well."""
    bus, _ = new_bus(emulator, "nothing")
    other, _ = new_bus(emulator)
    with anyio.fail_after(HANGS), pytest.raises(EntityNotFound, match="nothing"):
        await serve(bus, other)
    assert not other.is_live


async def test_a_background_that_fails_ends_it(emulator: Emulator) -> None:
    """Its exception comes out as it is."""
    left: list[str] = []

    @asynccontextmanager
    async def resource() -> AsyncIterator[None]:
        yield
        left.append("resource")

    async def fail() -> None:
        raise RuntimeError("no more")

    with anyio.fail_after(HANGS), pytest.raises(RuntimeError, match="no more"):
        await serve(resource(), fail)
    with anyio.fail_after(HANGS), pytest.raises(KeyError):
        async with Group(fail_never):
            raise KeyError("of the block")


async def fail_never() -> None:
    """A background that does nothing wrong."""
    await anyio.sleep_forever()


@pytest.mark.parametrize(
    ("things", "match"),
    [((), "nothing to serve"), ((3,), "3 cannot be served"), ((RpcServer,), "RpcServer is a class")],
)
async def test_what_cannot_be_served_is_said(things: tuple[object, ...], match: str) -> None:
    """Before anything starts."""
    with pytest.raises(TypeError, match=match):
        await serve(*things)
