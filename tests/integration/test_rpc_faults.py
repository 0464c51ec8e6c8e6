"""Every promise about calls when links, connections or the broker fail, under load."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import anyio
import pytest

from sbrpc.emulator import Emulator
from sbrpc.errors import DeadlineExceeded, Unavailable

from .faulty import CALLERS, Load, World, flawless, opened
from .laboratory import QUEUES, Bench, Item, Lab, make_client, make_server

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
