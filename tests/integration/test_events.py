"""Events from publisher to handler: the real SDK against the emulator on a socket."""

from __future__ import annotations

import os
import random
import signal
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime, timedelta, timezone
from itertools import pairwise
from typing import Any

import anyio
import pytest
from azure.servicebus import ServiceBusMessage
from azure.servicebus.aio import ServiceBusClient
from tenacity import AsyncRetrying, stop_after_attempt, wait_fixed

from sbrpc._sdk import connect
from sbrpc.emulator import Emulator
from sbrpc.errors import ContractError, DeadlineExceeded, EntityNotFound, MessageTooLarge, NotRunning
from sbrpc.event import Event, EventInfo
from sbrpc.events import EventBus
from sbrpc.topology import Subscription, Topic

SOON = AsyncRetrying(stop=stop_after_attempt(3), wait=wait_fixed(0.01))

# Only against hanging for ever; nothing is measured with it.
HANGS = 30


class Created(Event, type="movies.created.v1", key="movie"):
    movie: str
    n: int = 0


class Deleted(Event, type="movies.deleted.v1", key="movie"):
    movie: str


class Padded(Event, type="movies.padded.v1"):
    text: str


class Seen:
    """What handlers saw, and a way to wait for it."""

    def __init__(self) -> None:
        self.events: list[Any] = []
        self.infos: list[EventInfo] = []
        self._changed = anyio.Event()

    def add(self, event: Any, info: EventInfo | None = None) -> None:
        self.events.append(event)
        if info is not None:
            self.infos.append(info)
        self._changed.set()
        self._changed = anyio.Event()

    async def until(self, count: int, hangs: float = HANGS) -> None:
        with anyio.fail_after(hangs):
            while len(self.events) < count:
                await self._changed.wait()


async def true(condition: Callable[[], bool]) -> None:
    """Wait until something is the case that nobody announces."""
    with anyio.fail_after(HANGS):
        while not condition():  # noqa: ASYNC110
            await anyio.sleep(0.01)


async def counted(bus: EventBus, what: str, count: int) -> None:
    """Wait until the bus has counted that many; unlike the handler, it counts what is settled."""
    await true(lambda: bus.counts[what] >= count)


@pytest.fixture
async def emulator() -> AsyncIterator[Emulator]:
    """A namespace with one topic: subscriptions with sessions and without."""
    subscriptions = (
        Subscription("ordered", requires_session=True),
        Subscription("brief", requires_session=True, lock_duration=1),
        Subscription("parallel"),
        Subscription("fleeting", lock_duration=5),
        Subscription("other"),
    )
    async with Emulator(topics=[Topic("events", subscriptions=subscriptions)]) as running:
        yield running


@pytest.fixture
def new_bus(emulator: Emulator) -> Callable[..., EventBus]:
    """Makes buses on the topic."""

    def make(**options: Any) -> EventBus:
        return EventBus(emulator.connection_string, **{"topic": "events", "source": "/movies", **options})

    return make


@asynccontextmanager
async def raw(emulator: Emulator) -> AsyncIterator[ServiceBusClient]:
    async with connect(emulator.connection_string) as client:
        yield client


async def dead_letters(emulator: Emulator, subscription: str, count: int) -> list[tuple[object, object]]:
    """Reason and description of a subscription's dead letters, once there are that many."""
    address = f"events/Subscriptions/{subscription}"
    await true(lambda: emulator.broker.runtime(address).dead_letter >= count)
    found = emulator.broker.look(f"{address}/$DeadLetterQueue", 0, 100, None, emulator.clock.now())
    properties = [message.content.user() for message in found]
    return [(each["DeadLetterReason"], each["DeadLetterErrorDescription"]) for each in properties]


def left(emulator: Emulator, subscription: str) -> int:
    """How many messages the subscription still has."""
    return emulator.broker.runtime(f"events/Subscriptions/{subscription}").active


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


# -- life ----------------------------------------------------------------------------------------------


async def test_stopping_loses_nothing(new_bus: Callable[..., EventBus], emulator: Emulator) -> None:
    """A bus that stops amid events finishes what runs; the next one handles the rest, each event once."""
    handled: list[int] = []
    for _ in range(4):
        bus, enough = new_bus(), Seen()

        @bus.on(Created, subscription="ordered")
        async def handle(event: Created, enough: Seen = enough) -> None:
            enough.add(event)
            await anyio.sleep(0.005)
            handled.append(event.n)

        async with bus:
            if not handled:
                await bus.publish_many([Created(movie=str(n % 7), n=n) for n in range(120)])
            await enough.until(20)
    bus, rest = new_bus(), Seen()

    @bus.on(Created, subscription="ordered")
    async def finish(event: Created) -> None:
        rest.add(event)
        handled.append(event.n)

    async with bus:
        await true(lambda: len(handled) >= 120)
    assert sorted(handled) == list(range(120))


@pytest.mark.parametrize("subscription", ["ordered", "parallel"])
async def test_handler_that_outlives_the_grace_gives_its_event_back(
    new_bus: Callable[..., EventBus], emulator: Emulator, subscription: str
) -> None:
    """After the grace a handler is cancelled, and its event is there at once for the next bus."""
    bus, seen = new_bus(grace=0.05), Seen()

    @bus.on(Created, subscription=subscription)
    async def stuck(event: Created) -> None:
        seen.add(event)
        await anyio.sleep_forever()

    async with bus:
        await bus.publish(Created(movie="7", n=1))
        await seen.until(1)
    bus, again = new_bus(), Seen()

    @bus.on(Created, subscription=subscription)
    async def handle(event: Created) -> None:
        again.add(event)

    async with bus:
        await again.until(1)
    assert again.events == [Created(movie="7", n=1)]


@pytest.mark.parametrize("subscription", ["ordered", "parallel"])
async def test_stopping_does_not_wait_for_retries(
    new_bus: Callable[..., EventBus], subscription: str
) -> None:
    """An event that waits for its next attempt is given back when the bus stops."""
    bus, seen = new_bus(), Seen()

    @bus.on(
        Created,
        subscription=subscription,
        retry=AsyncRetrying(stop=stop_after_attempt(2), wait=wait_fixed(3600)),
    )
    async def failing(event: Created) -> None:
        seen.add(event)
        raise RuntimeError("no")

    async with bus:
        await bus.publish(Created(movie="7"))
        await seen.until(1)
    assert bus.counts["dead_lettered"] == 0


async def test_serve_ends_on_sigterm(new_bus: Callable[..., EventBus]) -> None:
    """SIGTERM ends `serve()` after what is being handled is done."""
    bus, seen = new_bus(), Seen()
    finished: list[int] = []

    @bus.on(Created, subscription="ordered")
    async def handle(event: Created) -> None:
        seen.add(event)
        await anyio.sleep(0.05)
        finished.append(event.n)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(bus.serve)
        async with new_bus() as publisher:
            await publisher.publish(Created(movie="7", n=5))
        await seen.until(1)
        os.kill(os.getpid(), signal.SIGTERM)
    assert finished == [5]


@pytest.mark.parametrize(
    ("subscription", "ordered", "match"),
    [
        ("parallel", True, "does not require sessions.*requires_session=True"),
        ("ordered", False, "requires sessions.*ordered=True"),
    ],
)
async def test_subscription_that_does_not_fit_says_so(
    new_bus: Callable[..., EventBus], subscription: str, ordered: bool, match: str
) -> None:
    """Order that a subscription cannot keep, or keeps unasked, is an error with the remedy."""
    bus = new_bus()

    @bus.on(Created, subscription=subscription, ordered=ordered)
    async def handle(event: Created) -> None: ...

    with pytest.raises(ContractError, match=match), anyio.fail_after(HANGS):
        await bus.serve()


async def test_missing_subscription_is_named(new_bus: Callable[..., EventBus]) -> None:
    """A subscription that does not exist ends `serve()` with its name."""
    bus = new_bus()

    @bus.on(Created, subscription="missing")
    async def handle(event: Created) -> None: ...

    with pytest.raises(EntityNotFound, match="'missing' of topic 'events'"), anyio.fail_after(HANGS):
        await bus.serve()


async def test_failing_consumer_ends_the_block(new_bus: Callable[..., EventBus]) -> None:
    """A bus that cannot listen does not let the program go on as if it did."""
    bus = new_bus()

    @bus.on(Created, subscription="missing")
    async def handle(event: Created) -> None: ...

    with pytest.raises(EntityNotFound), anyio.fail_after(HANGS):
        async with bus:
            await anyio.sleep_forever()


async def test_missing_topic_is_named(new_bus: Callable[..., EventBus]) -> None:
    """Publishing to a topic that does not exist raises at once."""
    async with new_bus(topic="missing") as bus:
        with pytest.raises(EntityNotFound, match="missing"):
            await bus.publish(Created(movie="7"))


async def test_misuse_is_named(new_bus: Callable[..., EventBus]) -> None:
    """Publishing without a running bus or without a source, and registering too late, say what to do."""
    bus = new_bus()
    with pytest.raises(NotRunning, match="async with"):
        await bus.publish(Created(movie="7"))
    async with bus:
        with pytest.raises(ContractError, match="before the bus runs"):
            bus.on(Created, subscription="parallel")
        with pytest.raises(NotRunning, match="runs already"):
            await bus.__aenter__()
        with pytest.raises(ContractError, match="derives from Event"):
            await bus.publish({"movie": "7"})  # type: ignore[arg-type]
    async with new_bus(source=None) as listener:
        with pytest.raises(ContractError, match="source="):
            await listener.publish(Created(movie="7"))
    with pytest.raises(ContractError, match="source"):
        new_bus(source=" ")


async def test_exception_of_the_block_comes_out_unwrapped(new_bus: Callable[..., EventBus]) -> None:
    """Leaving the block with an exception stops the bus and raises just that."""
    with pytest.raises(KeyError):
        async with new_bus():
            raise KeyError("mine")


async def test_topology_of_a_bus_delivers_what_its_handlers_take() -> None:
    """A namespace made from the handlers gets them their events, old versions included, and nothing else."""
    bus, seen = EventBus("Endpoint=sb://unused", topic="events", source="/movies"), Seen()

    @bus.on(Deleted, subscription="deletions", ordered=False)
    async def handle(event: Deleted) -> None:
        seen.add(event)

    async with Emulator(topics=[bus.topology()]) as emulator:
        bus._connection = emulator.connection_string
        async with bus:
            await bus.publish_many(
                [Created(movie="1"), Deleted(movie="1"), Created(movie="2"), Deleted(movie="2")]
            )
            await seen.until(2)
    assert bus.counts["unknown"] == 0
