"""What `sbrpc.testing` gives to the tests of events."""

from __future__ import annotations

import logging
from datetime import timedelta

import anyio
import anyio.lowlevel
import pytest
from azure.servicebus import ServiceBusMessage
from azure.servicebus.aio import ServiceBusClient
from tenacity import AsyncRetrying, stop_after_attempt

from sbrpc import EventBus, EventInfo, Queue, Topic
from sbrpc.testing import Bench, Letter
from sbrpc.topology import Subscription

from .movies import GetMovie, MovieAdded, MovieGone, Movies, Ratings, announcing_server


def listening(seen: list[object], **options: object) -> EventBus | object:
    """What makes a bus whose handler notes what it gets."""

    def make(connection: ServiceBusClient) -> EventBus:
        bus = EventBus(connection, topic="movie-events", source="/movies")

        @bus.on(MovieAdded, MovieGone, subscription="listener", **options)  # type: ignore[call-overload,untyped-decorator]
        async def note(event: MovieAdded | MovieGone, info: EventInfo) -> None:
            seen.append((event, info.key))
            if event.id < 0:
                raise ValueError("negative")

        return bus

    return make


async def test_what_is_published_can_be_looked_at(bench: Bench) -> None:
    """As soon as the call has returned, with type, data and envelope; earlier events are not among it."""
    published = bench.events("movie-events")
    async with bench.service_for(Movies, announcing_server) as movies:
        await movies.get_movie(GetMovie(id=7))
        assert published.of(MovieAdded) == [MovieAdded(id=7)]
        later = bench.events()
        assert len(later) == 0
        await movies.get_movie(GetMovie(id=8))
    assert later.of(MovieAdded) == [MovieAdded(id=8)]
    assert published.types == ["test.movie.added.v1"] * 2
    assert published.of(MovieGone) == []
    assert [(event.source, event.extensions["partitionkey"]) for event in published] == [
        ("/movies", "7"),
        ("/movies", "8"),
    ]
    bench.reset()
    assert len(published) == 2


async def test_events_nobody_waits_for_can_be_waited_for(bench: Bench) -> None:
    """Up to a limit, after which the error says what there was."""
    published = bench.events("movie-events")
    async with bench.bus_for(listening([])) as bus, anyio.create_task_group() as tasks:

        async def publish() -> None:
            await anyio.sleep(0.02)
            await bus.publish(MovieAdded(id=1))

        tasks.start_soon(publish)
        await published.until(1)
        with pytest.raises(TimeoutError, match=r"1 instead of 2 events.*test\.movie\.added\.v1"):
            await published.until(2, timeout=0.05)


async def test_handlers_of_events_get_what_is_published(bench: Bench) -> None:
    """In order, and `settled` waits until they are done."""
    seen: list[object] = []
    async with bench.bus_for(listening(seen)) as bus:
        for number in range(10):
            await bus.publish(MovieAdded(id=number))
        await bench.settled()
    assert seen == [(MovieAdded(id=number), str(number)) for number in range(10)]


async def test_dead_letters_say_why(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """A handler that fails for good leaves a dead letter with its reason, and its traceback in the log."""
    seen: list[object] = []
    caplog.set_level(logging.WARNING)
    make = listening(seen, retry=AsyncRetrying(stop=stop_after_attempt(2)))
    async with bench.bus_for(make) as bus:
        await bus.publish(MovieGone(id=-1))
        await bench.settled()
    assert len(seen) == 2
    where = "movie-events/Subscriptions/listener"
    assert bench.dead_letters() == [
        Letter(where, "test.movie.gone.v1", "ValueError", "negative (after 2 attempts)")
    ]
    assert 'raise ValueError("negative")' in caplog.text


async def test_handlers_that_need_sessions_get_them(bench: Bench) -> None:
    """`ordered=True` is honoured, at the price of opening each session."""
    seen: list[object] = []
    async with bench.bus_for(listening(seen, ordered=True)) as bus:
        (subscription,) = (
            s for s in bench.emulator.broker.subscriptions("movie-events") if s.name == "listener"
        )
        assert subscription.requires_session
        await bus.publish(MovieAdded(id=1))
        await bench.settled()
    assert seen == [(MovieAdded(id=1), "1")]


async def test_scheduled_events_wait_for_the_clock(bench: Bench) -> None:
    """They do not keep a test from settling, and come when their time does."""
    seen: list[object] = []
    async with bench.bus_for(listening(seen)) as bus:
        published = bench.events("movie-events")
        await bus.schedule(MovieAdded(id=1), at=timedelta(hours=1))
        await bench.settled()
        assert (seen, len(published)) == ([], 0)
        await bench.emulator.advance(3601)
        await published.until(1)
        await bench.settled()
    assert seen == [(MovieAdded(id=1), "1")]


async def test_what_does_not_settle_is_named(bench: Bench) -> None:
    """With the place and the number of messages."""
    bench.create(Ratings)
    async with bench.connection.get_queue_sender("ratings") as sender:
        await sender.send_messages(ServiceBusMessage(b"x"))
    with pytest.raises(TimeoutError, match="1 in 'ratings'"):
        await bench.settled(timeout=0.05)


async def test_given_topology_is_kept(bench: Bench) -> None:
    """What a bench was made with, or a test has made, is not changed by what runs on it."""
    bench.create(Queue("own", lock_duration=7), Topic("own-events", (Subscription("one", lock_duration=7),)))
    bench.create("own", Topic("own-events", (Subscription("two"),)))
    broker = bench.emulator.broker
    assert broker.get_queue("own").lock_duration == 7
    assert broker.get_subscription("own-events", "one").lock_duration == 7
    assert broker.get_subscription("own-events", "two").lock_duration == 60
