"""Every promise about calls when locks are lost, stores fail, requests come twice or servers leave."""

from __future__ import annotations

from collections.abc import AsyncIterator

import anyio
import pytest

from sbrpc.store import CachedReply, MemoryReplyStore
from sbrpc.topology import Queue

from .faulty import CALLERS, Load, World, opened
from .laboratory import Bench, Item, Lab, Wait, make_server

# The SDK leaves sockets of connections that failed to the garbage collector, which complains about them.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
async def running() -> AsyncIterator[World]:
    async with opened() as world:
        yield world


@pytest.fixture
async def world(running: World) -> AsyncIterator[World]:
    async with running.whole():
        yield running


async def test_a_lost_message_lock_cancels_the_handler(world: World) -> None:
    """The request comes to a handler again, with a greater fencing token, and is settled once."""
    world.bench.seen.clear()
    bench = Bench()
    queue = Queue("brief", lock_duration=2)
    world.emulator.broker.create([queue], world.emulator.clock.now())
    server = make_server(world.emulator.connection_string, bench, queue="brief")
    async with server:
        await server.ready(60)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(world.client.of(Lab, queue="brief").wait, Wait(seconds=2.5, tag="x"))
            await bench.until(lambda: "x" in bench.running)
            assert world.emulator.faults.lose_locks(entity="brief").fired == 1
        assert bench.seen == ["started x", "cancelled x", "started x", "ended x"]


async def test_long_handlers_keep_their_locks(world: World) -> None:
    """A handler may run for many times the lock's duration."""
    bench = Bench()
    world.emulator.broker.create([Queue("long", lock_duration=2)], world.emulator.clock.now())
    async with make_server(world.emulator.connection_string, bench, queue="long") as server:
        await server.ready(60)
        assert await world.client.of(Lab, queue="long").wait(Wait(seconds=7, tag="x")) == "x"
    assert bench.seen == ["started x", "ended x"]


async def test_requests_whose_locks_ran_out_in_the_queue_here_are_left_alone(world: World) -> None:
    """Behind a slow handler the locks of those that wait end; they come again, and each runs once."""
    bench = Bench()
    world.emulator.broker.create([Queue("waiting", lock_duration=3)], world.emulator.clock.now())
    string = world.emulator.connection_string
    async with make_server(string, bench, queue="waiting", concurrency=1, prefetch=4, store=None) as server:
        await server.ready(60)
        lab = world.client.of(Lab, queue="waiting")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lab.wait, Wait(seconds=4, tag="slow"))
            await bench.until(lambda: "slow" in bench.running)
            for number in range(3):
                tasks.start_soon(lab.wait, Wait(seconds=0.01, tag=f"quick {number}"))
        await bench.until(lambda: world.emulator.broker.runtime("waiting").active == 0)
    assert sorted(bench.seen) == sorted(
        f"{verb} {tag}" for verb in ("started", "ended") for tag in ("slow", "quick 0", "quick 1", "quick 2")
    )


async def test_a_redelivered_request_is_answered_from_the_store(world: World) -> None:
    """Replied but not settled: the handler does not run again, and the caller ignores the second reply."""
    bench = Bench()
    world.emulator.broker.create([Queue("twice")], world.emulator.clock.now())
    async with make_server(world.emulator.connection_string, bench, queue="twice", concurrency=1) as server:
        await server.ready(60)
        late = world.client.replies.late
        with world.emulator.faults.duplicate(entity="twice"):
            assert await world.client.of(Lab, queue="twice").wait(Wait(seconds=0.1, tag="x")) == "x"
        await bench.until(lambda: world.client.replies.late == late + 1)
    assert bench.seen == ["started x", "ended x"]


class Failing:
    """A store that nobody can reach."""

    async def get(self, key: str) -> CachedReply | None:
        raise ConnectionError("no database")

    async def put(self, key: str, reply: CachedReply, ttl: float) -> None:
        raise ConnectionError("no database")


class Hanging(Failing):
    """A store that never says anything."""

    async def get(self, key: str) -> CachedReply | None:
        await anyio.sleep_forever()
        raise AssertionError


@pytest.mark.parametrize("store", [Failing(), Hanging()])
async def test_a_store_that_fails_keeps_no_caller_from_its_answer(
    world: World, store: Failing, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The call is served as if there were no store, and the log names it."""
    monkeypatch.setattr("sbrpc._serving._STORE_PATIENCE", 0.2)
    queue = type(store).__name__
    world.emulator.broker.create([Queue(queue)], world.emulator.clock.now())
    async with make_server(world.emulator.connection_string, Bench(), queue=queue, store=store) as server:
        await server.ready(60)
        info = await world.client.of(Lab, queue=queue).info(None, timeout=20)
    logged = [record for record in caplog.records if "store" in record.getMessage()]
    assert [getattr(record, "call_id", None) for record in logged] == [info["call_id"]] * 2
    assert {record.levelname for record in logged} == {"ERROR"}


class Noting(MemoryReplyStore):
    """The store of a program that wants to know what is asked of it."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    async def get(self, key: str) -> CachedReply | None:
        self.asked.append("get")
        return await super().get(key)

    async def put(self, key: str, reply: CachedReply, ttl: float) -> None:
        self.asked.append("put")
        await super().put(key, reply, ttl)


async def test_a_store_derived_from_the_one_in_memory_is_asked(world: World) -> None:
    """The short way to replies in memory passes by nobody's methods."""
    store = Noting()
    world.emulator.broker.create([Queue("noting")], world.emulator.clock.now())
    async with make_server(world.emulator.connection_string, Bench(), queue="noting", store=store) as server:
        await server.ready(10)
        assert await world.client.of(Lab, queue="noting").echo(Item(id=1), timeout=20) == Item(id=1)
    assert store.asked == ["get", "put"]


async def test_a_server_that_leaves_hands_back_what_runs(world: World) -> None:
    """Another one takes it at once, and the caller gets its answer."""
    first, second = Bench(), Bench()
    world.emulator.broker.create([Queue("relay")], world.emulator.clock.now())
    string = world.emulator.connection_string
    replies: list[str] = []

    async def call() -> None:
        replies.append(await world.client.of(Lab, queue="relay").wait(Wait(seconds=1, tag="x")))

    async with anyio.create_task_group() as tasks:
        async with make_server(string, first, queue="relay", grace=0.1):
            tasks.start_soon(call)
            await first.until(lambda: "x" in first.running)
        async with make_server(string, second, queue="relay"):
            await second.until(lambda: "ended x" in second.seen)
    assert replies == ["x"]
    assert first.seen == ["started x", "cancelled x"]
    assert second.seen == ["started x", "ended x"]


async def test_no_call_is_lost_or_served_twice_when_servers_take_turns(world: World) -> None:
    """Under load, one server leaves and another comes, again and again."""
    world.emulator.broker.create([Queue("turns")], world.emulator.clock.now())
    string = world.emulator.connection_string
    load, bench = Load(world.client), Bench()
    lab = world.client.of(Lab, queue="turns", timeout=60)

    async def call() -> None:
        while not load.stopping:
            load.made += 1
            number = load.made
            assert (await lab.echo_again(Item(id=number))).id == number
            load.right += 1

    with anyio.fail_after(120):
        async with anyio.create_task_group() as tasks:
            for _ in range(CALLERS):
                tasks.start_soon(call)
            for _ in range(3):
                async with make_server(string, bench, queue="turns") as server:
                    await server.ready(60)
                    so_far = load.right
                    await bench.until(lambda so_far=so_far: load.right > so_far + 3 * CALLERS)
            async with make_server(string, bench, queue="turns"):
                load.stopping = True
                await bench.until(lambda: load.right == load.made)
    assert load.right > CALLERS
    assert len(bench.seen) == load.made
