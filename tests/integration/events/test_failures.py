"""What becomes of events whose handlers, locks or connections fail, alone and in batches."""

from __future__ import annotations

from collections.abc import Callable

import anyio
import pytest
from azure.servicebus import ServiceBusMessage

from sbrpc.emulator import Emulator
from sbrpc.event import EventInfo
from sbrpc.events import EventBus

from .world import HANGS, SOON, Created, Deleted, Seen, counted, dead_letters, left, raw, true

# -- failures ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("subscription", ["ordered", "parallel"])
async def test_dead_letter_has_type_and_message_of_the_exception(
    new_bus: Callable[..., EventBus], emulator: Emulator, subscription: str
) -> None:
    """After its attempts an event is dead-lettered with what failed, and the next of its key is handled."""
    bus, seen = new_bus(), Seen()
    attempts: list[int] = []

    @bus.on(Created, subscription=subscription, retry=SOON)
    async def handle(event: Created, info: EventInfo) -> None:
        if event.n == 0:
            attempts.append(info.attempt)
            raise ValueError("the year is missing")
        seen.add(event.n)

    async with bus:
        await bus.publish_many([Created(movie="7", n=0), Created(movie="7", n=1)])
        (dead,) = await dead_letters(emulator, subscription, 1)
        await seen.until(1)
    assert attempts == [0, 1, 2]
    assert dead == ("ValueError", "the year is missing (after 3 attempts)")
    assert (bus.counts["dead_lettered"], bus.counts["handled"], bus.counts["retried"]) == (1, 1, 2)


@pytest.mark.parametrize("subscription", ["ordered", "parallel"])
async def test_malformed_event_is_dead_lettered_with_each_field(
    new_bus: Callable[..., EventBus], emulator: Emulator, subscription: str
) -> None:
    """What does not decode is not retried, and the reason names what is wrong with it."""
    bus = new_bus()

    @bus.on(Created, subscription=subscription)
    async def handle(event: Created) -> None:
        pytest.fail("must not be called")

    async with bus:
        async with raw(emulator) as client, client.get_topic_sender("events") as sender:
            await sender.send_messages(ServiceBusMessage("hello", session_id="7"))
        (dead,) = await dead_letters(emulator, subscription, 1)
    assert dead[0] == "DecodeError"
    assert "id is missing" in str(dead[1])


@pytest.mark.parametrize("subscription", ["ordered", "parallel"])
async def test_unknown_type_is_dead_lettered_by_default(
    new_bus: Callable[..., EventBus], emulator: Emulator, subscription: str
) -> None:
    """An event nobody handles is kept where an operator finds it, and counted by its type."""
    bus = new_bus()

    @bus.on(Deleted, subscription=subscription)
    async def handle(event: Deleted) -> None: ...

    async with bus:
        await bus.publish(Created(movie="7"))
        (dead,) = await dead_letters(emulator, subscription, 1)
    assert dead == ("UnknownEventType", "no handler of this subscription takes 'movies.created.v1' events")
    assert (bus.counts["unknown"], bus.counts["unknown movies.created.v1"]) == (1, 1)


async def test_unknown_type_is_completed_where_declared(
    new_bus: Callable[..., EventBus], emulator: Emulator
) -> None:
    """A subscription may declare that it does not care for other events."""
    bus, seen = new_bus(), Seen()

    @bus.on(Deleted, subscription="parallel", unknown="complete")
    async def handle(event: Deleted) -> None:
        seen.add(event)

    async with bus:
        await bus.publish_many([Created(movie="7"), Deleted(movie="7")])
        await seen.until(1)
        await counted(bus, "unknown", 1)
    assert left(emulator, "parallel") == 0


@pytest.mark.parametrize("subscription", ["brief", "fleeting"])
async def test_lost_lock_cancels_the_handler(
    new_bus: Callable[..., EventBus], emulator: Emulator, subscription: str
) -> None:
    """A handler whose lock is gone is cancelled; the event comes again, with a greater token."""
    bus, seen = new_bus(), Seen()
    cancelled: list[int] = []

    @bus.on(Created, subscription=subscription)
    async def handle(event: Created, info: EventInfo) -> None:
        seen.add(event, info)
        if len(seen.events) == 1:
            try:
                await anyio.sleep_forever()
            finally:
                cancelled.append(event.n)

    async with bus:
        await bus.publish(Created(movie="7", n=3))
        await seen.until(1)
        await emulator.advance(5)
        await seen.until(2)
    assert cancelled == [3]
    assert [info.delivery_count for info in seen.infos] == [0, 1]
    assert seen.infos[1].fencing_token > seen.infos[0].fencing_token


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("subscription", ["ordered", "parallel"])
async def test_handlers_survive_a_cut_connection(
    new_bus: Callable[..., EventBus], emulator: Emulator, subscription: str
) -> None:
    """After every connection was dropped, publishing and handling go on by themselves."""
    bus, seen = new_bus(), Seen()

    @bus.on(Created, subscription=subscription)
    async def handle(event: Created) -> None:
        seen.add(event.n)

    async with bus:
        await bus.publish(Created(movie="7", n=1))
        await seen.until(1)
        await emulator.restart()
        await bus.publish(Created(movie="7", n=2))
        await bus.publish(Created(movie="7", n=3))
        await true(lambda: {1, 2, 3} <= set(seen.events))


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_event_is_settled_over_another_link(
    new_bus: Callable[..., EventBus], emulator: Emulator
) -> None:
    """Where the connection breaks while a handler runs, its event is settled over the next one, and done."""
    bus, seen, go = new_bus(), Seen(), anyio.Event()

    @bus.on(Created, subscription="parallel")
    async def handle(event: Created) -> None:
        seen.add(event)
        await go.wait()

    async with bus:
        await bus.publish(Created(movie="7"))
        await seen.until(1)
        await emulator.restart()
        await anyio.sleep(0.3)  # until the receiver has noticed; finishing sooner would be the easier case
        go.set()
        await counted(bus, "handled", 1)
    assert len(seen.events) == 1
    assert left(emulator, "parallel") == 0


async def test_process_asks_for_what_it_has_a_place_for(
    new_bus: Callable[..., EventBus], emulator: Emulator
) -> None:
    """Where every handler of one process is busy, nothing waits there that another one could handle."""
    go, seen = anyio.Event(), Seen()

    def busy() -> EventBus:
        bus = new_bus()

        @bus.on(Created, subscription="parallel", concurrency=9)
        async def handle(event: Created, info: EventInfo) -> None:
            seen.add(event.n, info)
            await go.wait()

        return bus

    async with new_bus() as publisher, busy() as one, busy() as other:
        await one.ready(HANGS)
        await other.ready(HANGS)
        await publisher.publish_many([Created(movie="7", n=n) for n in range(20)])
        await seen.until(18)
        assert len(set(seen.events)) == 18
        go.set()
        await seen.until(20)
    assert [info.delivery_count for info in seen.infos] == [0] * 20
    assert left(emulator, "parallel") == 0


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_connection_that_breaks_while_all_are_busy(
    new_bus: Callable[..., EventBus], emulator: Emulator
) -> None:
    """What runs is settled, what comes after it is handled, each once and no more at a time than before."""
    bus, seen, go = new_bus(), Seen(), anyio.Event()
    running = most = 0

    @bus.on(Created, subscription="parallel", concurrency=8)
    async def handle(event: Created, info: EventInfo) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        seen.add(event.n, info)
        await go.wait()
        running -= 1

    async with bus:
        await bus.publish_many([Created(movie="7", n=n) for n in range(8)])
        await seen.until(8)
        await emulator.restart()
        await bus.publish_many([Created(movie="7", n=n) for n in range(8, 12)])
        await anyio.sleep(1)  # until links are there again; finishing sooner would be the easier case
        go.set()
        await counted(bus, "handled", 12)
    assert sorted(seen.events) == list(range(12))
    assert [info.delivery_count for info in seen.infos] == [0] * 12
    assert most == 8


# -- batches -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("subscription", ["ordered", "parallel"])
async def test_batch_handler_gets_several_at_once(
    new_bus: Callable[..., EventBus], subscription: str
) -> None:
    """A batch handler gets what is there, in order within a key, up to its size."""
    bus, seen = new_bus(), Seen()
    sizes: list[int] = []

    @bus.on(Created, subscription=subscription, batch=8, concurrency=1)
    async def handle(events: list[Created], infos: list[EventInfo]) -> None:
        sizes.append(len(events))
        for event, info in zip(events, infos, strict=True):
            seen.add(event.n, info)

    async with bus:
        await bus.publish_many([Created(movie="7", n=n) for n in range(20)])
        await seen.until(20)
    assert seen.events == list(range(20))
    assert max(sizes) > 1
    assert max(sizes) <= 8


@pytest.mark.parametrize("subscription", ["ordered", "parallel"])
async def test_bad_event_is_isolated_from_its_batch(
    new_bus: Callable[..., EventBus], emulator: Emulator, subscription: str
) -> None:
    """One event that fails the batch is dead-lettered alone; the others are handled."""
    bus = new_bus()
    stored: set[int] = set()

    @bus.on(Created, subscription=subscription, batch=10, concurrency=1, retry=SOON)
    async def handle(events: list[Created]) -> None:
        if any(event.n == 3 for event in events):
            raise ValueError("three")
        stored.update(event.n for event in events)

    async with bus:
        await bus.publish_many([Created(movie="7", n=n) for n in range(6)])
        (dead,) = await dead_letters(emulator, subscription, 1)
        await true(lambda: len(stored) == 5)
    assert dead == ("ValueError", "three (after 3 attempts)")
    assert stored == {0, 1, 2, 4, 5}
