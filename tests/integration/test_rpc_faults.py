"""Every promise about calls, with the fault it is made for, under load."""

from __future__ import annotations

import asyncio
import gc
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from typing import Any

import anyio
import pytest

from sbrpc.client import RpcClient
from sbrpc.emulator import Emulator
from sbrpc.errors import DeadlineExceeded, RpcError, Unavailable
from sbrpc.server import RpcServer
from sbrpc.store import CachedReply, MemoryReplyStore
from sbrpc.topology import Queue

from .laboratory import QUEUES, Bench, Item, Lab, Wait, make_client, make_server

# The SDK leaves sockets of connections that failed to the garbage collector, which complains about them.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

CALLERS = 24

# What a server holds when its connection is cut stays locked, and comes to another one when the locks end.
BRIEF = [replace(queue, lock_duration=4) if queue.name == "lab" else queue for queue in QUEUES]


@pytest.fixture(autouse=True)
def collected(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Such complaints come while they are ignored, and not in somebody else's test."""
    yield
    for phase in ("setup", "call", "teardown"):
        caplog.get_records(phase).clear()  # type: ignore[arg-type]  # they hold on to what they are about
    gc.collect()


@dataclass
class World:
    emulator: Emulator
    bench: Bench
    server: RpcServer
    client: RpcClient


@pytest.fixture(scope="module")
async def running() -> AsyncIterator[World]:
    """One of each for all tests of this file: what a fault breaks has to mend itself before the next one."""
    bench = Bench()
    async with AsyncExitStack() as stack:
        emulator = await stack.enter_async_context(Emulator(queues=BRIEF))
        server = make_server(emulator.connection_string, bench, reply_queues=["lab.replies", "*.replies"])
        client = make_client(emulator.connection_string)
        await stack.enter_async_context(server)
        await stack.enter_async_context(client)
        client.of(Lab)
        yield World(emulator, bench, server, client)
    del server, client
    gc.collect()


@pytest.fixture
async def world(running: World) -> AsyncIterator[World]:
    """Everything whole at the beginning, and again at the end."""
    await healthy(running)
    yield running
    running.emulator.faults.clear()
    await healthy(running)


async def healthy(world: World) -> None:
    await world.client.ready(60)
    await world.server.ready(60)
    assert await world.client.of(Lab).echo(Item(id=1), timeout=15) == Item(id=1)


@dataclass
class Load:
    """Callers that call without pause, and what became of their calls."""

    client: RpcClient
    timeout: float = 15.0
    made: int = 0
    right: int = 0
    crossed: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    stopping: bool = False

    async def run(self, fault: Callable[[], Awaitable[Any]]) -> Load:
        """Load, then the fault, then load again; every call comes to its end."""
        with anyio.fail_after(60):
            async with anyio.create_task_group() as tasks:
                for _ in range(CALLERS):
                    tasks.start_soon(self._call)
                await self._answered(4 * CALLERS)
                await fault()
                await self._answered(20 * CALLERS)
                self.stopping = True
        assert self.client.pending == 0
        assert self.made == self.right + self.crossed + self.errors.total()
        return self

    async def _answered(self, more: int) -> None:
        """Wait until so many more calls have got their answers."""
        enough = self.right + more
        while self.right < enough:  # noqa: ASYNC110 (what is waited for tells nobody)
            await anyio.sleep(0.01)

    async def _call(self) -> None:
        lab = self.client.of(Lab, timeout=self.timeout)
        while not self.stopping:
            self.made += 1
            number = self.made
            try:
                reply = await lab.echo(Item(id=number))
            except RpcError as error:
                self.errors[type(error).__name__] += 1
                await anyio.sleep(0.01)
            else:
                if reply.id == number:
                    self.right += 1
                else:
                    self.crossed += 1


def flawless(load: Load) -> None:
    """No call failed, and each got its own answer."""
    assert load.crossed == 0
    assert load.errors == Counter()
    assert load.right > CALLERS


Fault = Callable[[Emulator], Any]

FAULTS: dict[str, Fault] = {
    "the client's reply link is cut": lambda e: e.faults.cut(entity="lab.replies"),
    "the request queue's links are cut": lambda e: e.faults.cut(entity="lab"),
    "all connections are cut": lambda e: e.faults.cut(),
    "all links are detached": lambda e: e.faults.detach(entity="*"),
    "links are detached one by one": lambda e: e.faults.detach(entity="lab", after=10, count=5),
    "the reply session is lost": lambda e: e.faults.lose_sessions(entity="lab.replies"),
    "the broker is busy": lambda e: e.faults.busy(count=10),
    "requests come twice": lambda e: e.faults.duplicate(entity="lab"),
    "replies come twice": lambda e: e.faults.duplicate(entity="lab.replies"),
    "sends fail after they were stored": lambda e: e.faults.fail_sends(stored=True, count=20),
    "sends fail": lambda e: e.faults.fail_sends(count=20),
    "everything is slow": lambda e: e.faults.delay(incoming=0.05, outgoing=0.05, seconds=1),
}


@pytest.mark.parametrize("name", FAULTS)
async def test_no_call_is_lost_when(world: World, name: str) -> None:
    """Callers notice nothing but time, and nobody gets somebody else's answer."""

    async def fault() -> None:
        FAULTS[name](world.emulator)

    flawless(await Load(world.client).run(fault))


async def test_no_call_is_lost_when_the_broker_restarts(world: World) -> None:
    """It drops all connections, is away for a moment and comes back."""
    flawless(await Load(world.client).run(world.emulator.restart))


async def test_no_call_is_lost_when_the_broker_is_away(world: World) -> None:
    """Nobody is let in for a while; calls whose deadline is later than that wait."""

    async def fault() -> None:
        with world.emulator.faults.refuse() as refused:
            world.emulator.faults.cut()
            await world.bench.until(lambda: refused.fired >= 6)

    flawless(await Load(world.client).run(fault))


async def test_calls_end_at_their_deadline_when_the_broker_is_away(world: World) -> None:
    """With the promised errors, and it is over when the broker is back."""
    load = Load(world.client, timeout=1)

    async def fault() -> None:
        with world.emulator.faults.refuse():
            world.emulator.faults.cut()
            await world.bench.until(lambda: load.errors.total() >= 2 * CALLERS)

    await load.run(fault)
    assert load.crossed == 0
    assert set(load.errors) <= {"DeadlineExceeded", "Unavailable"}
    assert load.right > CALLERS


async def test_calls_survive_a_black_hole(world: World) -> None:
    """Everything is swallowed for some seconds, then the connections break."""

    async def fault() -> None:
        with world.emulator.faults.black_hole():
            await anyio.sleep(3)

    flawless(await Load(world.client, timeout=25).run(fault))


async def test_a_silent_reply_link_is_noticed(world: World) -> None:
    """The heartbeat misses what it sent while calls wait, and later calls have another session."""
    epoch = world.client.replies.epoch.number
    with world.emulator.faults.black_hole(entity="lab.replies", container_id="SBReceiver-*"):
        with pytest.raises(DeadlineExceeded):
            await world.client.of(Lab).echo(Item(id=1), timeout=12)
        await world.bench.until(lambda: world.client.replies.epoch.number > epoch)


async def test_a_lost_message_lock_cancels_the_handler(world: World) -> None:
    """The request comes to a handler again, with a greater fencing token, and is settled once."""
    world.bench.seen.clear()
    bench = Bench()
    queue = Queue("brief", lock_duration=1)
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
    world.emulator.broker.create([Queue("long", lock_duration=1)], world.emulator.clock.now())
    async with make_server(world.emulator.connection_string, bench, queue="long") as server:
        await server.ready(60)
        assert await world.client.of(Lab, queue="long").wait(Wait(seconds=3.5, tag="x")) == "x"
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


async def test_after_a_cut_calls_soon_succeed_again(world: World) -> None:
    """Both halves of the way are opened afresh at the same time; nobody waits for the SDK's own recovery."""
    for _ in range(3):
        world.emulator.faults.cut()
        assert await world.client.of(Lab).echo(Item(id=5), timeout=5) == Item(id=5)


async def test_an_idle_link_that_was_detached_costs_no_call(world: World) -> None:
    """Service Bus detaches idle links; the next call finds its way."""
    world.emulator.faults.detach(entity="lab")
    world.emulator.faults.detach(entity="lab.replies")
    assert await world.client.of(Lab).echo(Item(id=5), timeout=10) == Item(id=5)


async def test_a_night_of_idling_costs_no_call() -> None:
    """Each hour links are detached for being idle and session locks run out; the next call is answered."""
    async with Emulator(queues=QUEUES, idle_timeout=600) as emulator:
        string = emulator.connection_string
        async with make_server(string, Bench()) as server, make_client(string) as client:
            await server.ready(60)
            await client.ready(60)
            before = client.replies.epoch.number
            for hour in range(8):
                await emulator.advance(3600)
                assert await client.of(Lab).echo(Item(id=hour), timeout=20) == Item(id=hour)
            assert client.replies.epoch.number >= before + 8


async def test_a_session_lock_that_is_held_elsewhere(world: World) -> None:
    """The channel moves on to a session that nobody holds; the heartbeat proves it."""
    string = world.emulator.connection_string
    client = make_client(string)
    async with client:
        await client.ready(60)
        channel = client.replies
        before = channel.epoch
        world.emulator.faults.lose_sessions(before.session_id, entity="lab.replies")
        await world.bench.until(lambda: channel.ready and channel.epoch.number > before.number)
        assert await client.of(Lab).echo(Item(id=1)) == Item(id=1)


async def test_errors_while_unreachable_name_the_reason() -> None:
    """A caller that cannot reach Service Bus is told so, not only that time is over."""
    async with Emulator(queues=QUEUES) as emulator:
        string = emulator.connection_string
    async with make_client(string) as client:
        with pytest.raises(Unavailable, match="could not be reached"):
            await client.of(Lab).echo(Item(id=1), timeout=0.5)
        with pytest.raises(Unavailable, match="not ready after 1 s"):
            await client.ready(1)
        assert not client.is_ready


async def test_nothing_is_left_of_clients_and_servers() -> None:
    """No task remains after the blocks, whatever state they were left in."""
    async with Emulator(queues=QUEUES) as emulator:
        before = len(asyncio.all_tasks())
        for pause in (0.0, 0.2, 1.2):
            async with (
                make_server(emulator.connection_string, Bench(), grace=0.1) as server,
                make_client(emulator.connection_string) as client,
            ):
                client.of(Lab)
                await anyio.sleep(pause)
                emulator.faults.cut()
                assert server.is_live
            await Bench().until(lambda: len(asyncio.all_tasks()) <= before)
