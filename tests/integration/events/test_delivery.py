"""Events from publisher to handler, and in which order."""

from __future__ import annotations

import os
import random
from collections import defaultdict
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from itertools import pairwise
from typing import Any

import anyio
import pytest
from azure.servicebus import ServiceBusMessage
from tenacity import AsyncRetrying, stop_after_attempt, wait_fixed

from sbrpc.emulator import Emulator
from sbrpc.errors import DeadlineExceeded, MessageTooLarge
from sbrpc.event import EventInfo
from sbrpc.events import EventBus

from .world import Created, Deleted, Padded, Seen, counted, left, raw

# -- from publisher to handler -------------------------------------------------------------------------


@pytest.mark.parametrize("subscription", ["ordered", "parallel"])
async def test_event_arrives_with_its_facts(new_bus: Callable[..., EventBus], subscription: str) -> None:
    """A handler gets the event as it was published, and everything about its delivery."""
    bus, seen = new_bus(), Seen()

    @bus.on(Created, subscription=subscription)
    async def handle(event: Created, info: EventInfo) -> None:
        seen.add(event, info)

    time = datetime(2026, 3, 1, 12, tzinfo=timezone.utc)
    async with bus:
        event_id = await bus.publish(
            Created(movie="7"), time=time, subject="the film", extensions={"traceparent": "00-a-b-01", "x": 5}
        )
        await seen.until(1)
    assert seen.events == [Created(movie="7")]
    info = seen.infos[0]
    assert (info.id, info.source, info.type, info.time) == (event_id, "/movies", "movies.created.v1", time)
    assert (info.key, info.subject, info.traceparent, info.extensions["x"]) == (
        "7",
        "the film",
        "00-a-b-01",
        5,
    )
    assert (info.delivery_count, info.attempt, info.sequence_number) == (0, 0, 1)
    assert info.enqueued_at.tzinfo is not None
    assert bus.counts == {"published": 1, "handled": 1}


async def test_sync_handler(new_bus: Callable[..., EventBus], emulator: Emulator) -> None:
    """A plain function handles events too, and its message is settled."""
    bus = new_bus()
    handled: list[str] = []

    @bus.on(Created, subscription="parallel")
    def handle(event: Created) -> None:
        handled.append(event.movie)

    async with bus:
        await bus.publish_many([Created(movie=str(n)) for n in range(5)])
        await counted(bus, "handled", 5)
    assert sorted(handled) == ["0", "1", "2", "3", "4"]
    assert left(emulator, "parallel") == 0


async def test_every_subscription_gets_every_event(new_bus: Callable[..., EventBus]) -> None:
    """Two subscriptions each handle all events; two buses on one subscription share them."""
    seen, other = Seen(), Seen()
    first, second = new_bus(), new_bus(source=None)

    @first.on(Created, subscription="parallel", concurrency=1)
    async def one(event: Created) -> None:
        seen.add(event.n)

    @second.on(Created, subscription="parallel", concurrency=1)
    async def two(event: Created) -> None:
        seen.add(event.n)

    @second.on(Created, subscription="other")
    async def three(event: Created) -> None:
        other.add(event.n)

    async with first, second:
        await first.publish_many([Created(movie="7", n=n) for n in range(20)])
        await seen.until(20)
        await other.until(20)
    assert sorted(seen.events) == sorted(other.events) == list(range(20))


async def test_event_without_key_is_handled_where_sessions_are_required(
    new_bus: Callable[..., EventBus],
) -> None:
    """No key means no order to keep, not an event that no session takes."""
    bus, seen = new_bus(), Seen()

    @bus.on(Padded, subscription="ordered")
    async def handle(event: Padded) -> None:
        seen.add(event)

    async with bus:
        await bus.publish_many([Padded(text=str(n)) for n in range(3)])
        await seen.until(3)


async def test_follow_up_names_its_cause(new_bus: Callable[..., EventBus]) -> None:
    """What a handler publishes carries the handled event as its cause and the chain's first one."""
    bus, seen = new_bus(), Seen()

    @bus.on(Created, subscription="ordered")
    async def follow(event: Created) -> None:
        await bus.publish(Deleted(movie=event.movie))

    @bus.on(Deleted, subscription="ordered")
    async def last(event: Deleted, info: EventInfo) -> None:
        seen.add(event, info)

    @bus.on(Created, Deleted, subscription="parallel")
    async def ignore(event: Created | Deleted) -> None: ...

    async with bus:
        first = await bus.publish(Created(movie="7"), extensions={"traceparent": "00-a-b-01"})
        await seen.until(1)
    info = seen.infos[0]
    assert (info.causation_id, info.correlation_id, info.traceparent) == (first, first, "00-a-b-01")


@pytest.mark.parametrize("mode", ["colon", "structured"])
async def test_events_of_other_libraries_are_handled(
    new_bus: Callable[..., EventBus], emulator: Emulator, mode: str
) -> None:
    """An event in the other separator, or in structured mode, is an event like ours."""
    bus, seen = new_bus(), Seen()

    @bus.on(Created, subscription="parallel")
    async def handle(event: Created, info: EventInfo) -> None:
        seen.add(event, info)

    if mode == "colon":
        names = {"specversion": "1.0", "id": "1", "source": "/theirs", "type": "movies.created.v1"}
        properties: Any = {f"cloudEvents:{name}": value for name, value in names.items()}
        message = ServiceBusMessage(b'{"movie":"7"}', application_properties=properties)
    else:
        message = ServiceBusMessage(
            b'{"specversion":"1.0","id":"1","source":"/theirs","type":"movies.created.v1","data":{"movie":"7"}}',
            content_type="application/cloudevents+json; charset=UTF-8",
        )
    async with bus:
        async with raw(emulator) as client, client.get_topic_sender("events") as sender:
            message.session_id = "7"
            await sender.send_messages(message)
        await seen.until(1)
    assert seen.events == [Created(movie="7")]
    assert seen.infos[0].source == "/theirs"


# -- order ---------------------------------------------------------------------------------------------


async def test_order_per_key_survives_failures(new_bus: Callable[..., EventBus]) -> None:
    """With handlers failing at random, events of a key are still handled in the order of publishing.

    `SBRPC_TEST_LONG=1` makes it 10,000 events with 100 keys.
    """
    count, keys = (10_000, 100) if os.environ.get("SBRPC_TEST_LONG") else (300, 20)
    chance = random.Random(7)
    bus, seen = new_bus(), Seen()
    failures = 0

    @bus.on(
        Created,
        subscription="ordered",
        max_concurrent_sessions=5,
        retry=AsyncRetrying(stop=stop_after_attempt(20), wait=wait_fixed(0.001)),
    )
    async def handle(event: Created) -> None:
        nonlocal failures
        await anyio.sleep(chance.random() / 500)
        if chance.random() < 0.2:
            failures += 1
            raise RuntimeError("at random")
        seen.add(event)

    async with bus:
        await bus.publish_many([Created(movie=str(n % keys), n=n) for n in range(count)])
        await seen.until(count, hangs=600)
    by_key: dict[str, list[int]] = defaultdict(list)
    for event in seen.events:
        by_key[event.movie].append(event.n)
    assert by_key == {str(key): list(range(key, count, keys)) for key in range(keys)}
    assert failures > 0


async def test_failing_event_holds_up_its_key_only(new_bus: Callable[..., EventBus]) -> None:
    """While one key waits between attempts, another goes on; what follows in the key comes after."""
    bus, seen = new_bus(), Seen()
    mended = anyio.Event()

    @bus.on(
        Created,
        subscription="ordered",
        retry=AsyncRetrying(stop=stop_after_attempt(10_000), wait=wait_fixed(0.01)),
    )
    async def handle(event: Created) -> None:
        if event.movie == "bad" and event.n == 0 and not mended.is_set():
            raise RuntimeError("not yet")
        seen.add((event.movie, event.n))

    async with bus:
        await bus.publish_many([Created(movie="bad", n=n) for n in range(3)])
        await bus.publish_many([Created(movie="good", n=n) for n in range(3)])
        await seen.until(3)
        assert seen.events == [("good", 0), ("good", 1), ("good", 2)]
        mended.set()
        await seen.until(6)
    assert seen.events[3:] == [("bad", 0), ("bad", 1), ("bad", 2)]


async def test_more_keys_than_sessions_take_turns(new_bus: Callable[..., EventBus]) -> None:
    """With a single session at a time, every key gets its turn."""
    bus, seen = new_bus(), Seen()

    @bus.on(Created, subscription="ordered", max_concurrent_sessions=1)
    async def handle(event: Created) -> None:
        seen.add(event.movie)

    async with bus:
        await bus.publish_many([Created(movie=str(n)) for n in range(6)])
        await seen.until(6)
    assert sorted(seen.events) == ["0", "1", "2", "3", "4", "5"]


# -- publishing ----------------------------------------------------------------------------------------


async def test_concurrent_publishes_leave_together(new_bus: Callable[..., EventBus]) -> None:
    """What is published while a send is on its way gathers into batches, and nothing is lost by it."""
    bus, seen = new_bus(), Seen()

    @bus.on(Created, subscription="parallel")
    async def handle(event: Created) -> None:
        seen.add(event.n)

    async with bus:
        async with anyio.create_task_group() as tasks:
            for n in range(200):
                tasks.start_soon(bus.publish, Created(movie=str(n), n=n))
        await seen.until(200)
        assert bus._sender is not None
        assert bus._sender.batches < 20
    assert sorted(seen.events) == list(range(200))


async def test_many_events_arrive_whole(new_bus: Callable[..., EventBus]) -> None:
    """What fits into one batch is one batch: nothing that is published meanwhile comes between."""
    bus, seen = new_bus(), Seen()

    @bus.on(Created, subscription="ordered")
    async def handle(event: Created) -> None:
        seen.add(event.n)

    async with bus:
        async with anyio.create_task_group() as tasks:
            for start in range(0, 100, 25):
                tasks.start_soon(bus.publish_many, [Created(movie="7", n=start + n) for n in range(25)])
        await seen.until(100)
    assert sorted(seen.events) == list(range(100))
    assert all(number == before + 1 or number % 25 == 0 for before, number in pairwise(seen.events))


async def test_more_than_a_batch_is_split_in_order(new_bus: Callable[..., EventBus]) -> None:
    """Events that do not fit together leave in several batches, in their order."""
    bus, seen = new_bus(), Seen()

    @bus.on(Padded, subscription="ordered")
    async def handle(event: Padded, info: EventInfo) -> None:
        seen.add(event.text[:2], info)

    async with bus:
        ids = await bus.publish_many([Padded(text=f"{n:02}" + "x" * 90_000) for n in range(6)], key="7")
        await seen.until(6)
    assert seen.events == ["00", "01", "02", "03", "04", "05"]
    assert [info.id for info in seen.infos] == ids


async def test_too_large_event_is_refused_before_it_is_sent(new_bus: Callable[..., EventBus]) -> None:
    """The error says how large it is and how large it may be."""
    async with new_bus() as bus:
        with pytest.raises(MessageTooLarge) as caught:
            await bus.publish(Padded(text="x" * 300_000))
        assert caught.value.size > caught.value.limit == 256 * 1024
        with pytest.raises(MessageTooLarge):
            await bus.publish_many([Padded(text="x"), Padded(text="x" * 300_000)])


async def test_scheduled_event_is_published_at_its_time(
    new_bus: Callable[..., EventBus], emulator: Emulator
) -> None:
    """Service Bus holds a scheduled event back until its time; a cancelled one never comes."""
    bus, seen = new_bus(), Seen()

    @bus.on(Created, subscription="parallel")
    async def handle(event: Created) -> None:
        seen.add(event.n)

    async with bus:
        first = await bus.schedule(Created(movie="7", n=1), at=timedelta(hours=1))
        second = await bus.schedule(
            Created(movie="7", n=2), at=datetime.now(timezone.utc) + timedelta(hours=1)
        )
        assert await second.cancel() is True
        assert await second.cancel() is False
        await bus.publish(Created(movie="7", n=0))
        await counted(bus, "handled", 1)
        await emulator.advance(3601)
        await seen.until(2)
        assert await first.cancel() is False
    assert seen.events == [0, 1]


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_publishing_is_bounded_in_time() -> None:
    """While Service Bus is away, publishing ends with a typed error; when it is back, it works again."""
    async with Emulator(topics=["events"]) as gone:
        port, bus = gone.port, EventBus(gone.connection_string, topic="events", source="/movies")
        await bus.__aenter__()
        await bus.publish(Created(movie="7"))
    with pytest.raises(DeadlineExceeded):
        await bus.publish(Created(movie="7"), timeout=0.5)
    async with Emulator(topics=["events"], port=port):
        await bus.publish(Created(movie="7"))
        await bus.__aexit__(None, None, None)
