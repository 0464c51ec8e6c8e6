"""Whole applications on a bench, what makes no sense, and the emulator alone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import anyio
import anyio.lowlevel
import pytest
from azure.servicebus.aio import ServiceBusClient

from sbrpc import EventBus, Queue, RpcClient, RpcServer, Topic
from sbrpc.emulator.broker import BrokerError
from sbrpc.errors import ContractError, DeadlineExceeded, EntityNotFound, NotRunning
from sbrpc.testing import Bench, emulator
from sbrpc.topology import Subscription

from .movies import (
    GetMovie,
    Movie,
    MovieAdded,
    Movies,
    MovieService,
    Ratings,
    announcing_app,
    get_movie,
    opening_app,
    shown,
)

# -- mistakes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("service", "problem"),
    [
        (MovieService, r"is a class; pass an object of it: MovieService\(\.\.\.\)"),
        ({"get_movies": get_movie}, "'get_movies' is no method of Movies; it has get_movie, export, forget"),
        ({Ratings.rate: get_movie}, r"rate.* is no method of Movies"),
        (
            get_movie,
            r"get_movie.*, not an RpcServer; a handler is passed with its method: \{Movies\.get_movie",
        ),
        (object(), "has none of the methods of Movies"),
        (lambda connection: RpcServer(connection, Ratings), "does not serve Movies"),
        (lambda connection: RpcServer("Endpoint=sb://elsewhere", Movies), "connects elsewhere"),
    ],
)
async def test_services_that_make_no_sense_are_explained(bench: Bench, service: object, problem: str) -> None:
    """With what would make sense."""
    with pytest.raises(ContractError, match=problem):
        async with bench.service_for(Movies, service):
            raise AssertionError("it ran")


@pytest.mark.parametrize("app", [announcing_app, opening_app])
async def test_an_app_runs_whole(bench: Bench, app: Callable[[ServiceBusClient], object]) -> None:
    """What `sbrpc run` takes, a test takes too: its server answers, its bus listens."""
    shown.clear()
    async with bench.service_for(Movies, app) as movies:
        assert (await movies.get_movie(GetMovie(id=7))).title == "Alien"
        await bench.settled()
        assert [id for id in shown if id > 0] == [7]
        assert bench.emulator.broker.get_queue("app-queue")
    assert shown == ([7] if app is announcing_app else [-1, 7, -2])


async def test_a_bus_is_found_in_an_app(bench: Bench) -> None:
    """With what belongs to it."""
    shown.clear()
    async with bench.bus_for(announcing_app) as bus:
        await bus.publish(MovieAdded(id=8))
        await bench.settled()
    assert shown == [8]


async def test_subscriptions_of_earlier_tests_hold_up_nobody(bench: Bench) -> None:
    """Topics outlive a test; what they still send to its subscriptions is nobody's business any more."""
    bench.create(Topic("movie-events", (Subscription("earlier"),)))
    bench.reset()
    async with bench.bus_for(announcing_app) as bus:
        await bus.publish(MovieAdded(id=9))
        await bench.settled()
        bench.create(Topic("movie-events", (Subscription("earlier"),)))
        with pytest.raises(TimeoutError, match="1 in 'movie-events/Subscriptions/earlier'"):
            await bench.settled(timeout=0.05)


async def test_buses_that_make_no_sense_are_explained(bench: Bench) -> None:
    """Likewise."""
    with pytest.raises(ContractError, match="connects elsewhere"):
        async with bench.bus_for(EventBus("Endpoint=sb://elsewhere", topic="t")):
            raise AssertionError("it ran")
    with pytest.raises(ContractError, match="no EventBus"):
        async with bench.bus_for(lambda connection: None):
            raise AssertionError("it ran")


async def test_failures_of_what_runs_come_out(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """A bus that cannot listen ends its block with the reason, even if it fails after the start."""

    def make(connection: ServiceBusClient) -> EventBus:
        bus = EventBus(connection, topic="movie-events")

        @bus.on(MovieAdded, subscription="vanishing", ordered=True)
        async def handle(event: MovieAdded) -> None: ...

        return bus

    async def use() -> None:
        broker, now = bench.emulator.broker, bench.emulator.clock.now()
        async with bench.bus_for(make):
            broker.delete_subscription("movie-events", "vanishing", now)
            with anyio.fail_after(10):
                while "vanishing" not in caplog.text:  # noqa: ASYNC110
                    await anyio.sleep(0.01)

    with pytest.raises(EntityNotFound, match="vanishing"):
        await use()


async def test_a_bench_is_used_while_it_is_open(bench: Bench) -> None:
    """Before and after, it says so; opening it twice is a mistake, and opening it again is not."""
    other = Bench()
    with pytest.raises(NotRunning, match="async with"):
        _ = other.client
    with pytest.raises(NotRunning, match="open already"):
        await bench.__aenter__()
    await asyncio.to_thread(lambda: asyncio.run(_use_in_other_loop(bench)))


async def _use_in_other_loop(bench: Bench) -> None:
    with pytest.raises(NotRunning, match="another event loop"):
        _ = bench.client


async def test_a_bench_that_cannot_open_says_why() -> None:
    """For instance where its topology makes no sense."""
    with pytest.raises(BrokerError, match="nowhere"):
        await Bench(Queue("a", forward_to="nowhere")).__aenter__()


async def test_a_caller_that_gives_up_is_none_of_the_tests_business(bench: Bench) -> None:
    """Deadlines hold on a bench as anywhere."""

    async def slow(request: GetMovie) -> Movie:
        await anyio.sleep_forever()
        raise AssertionError

    async with bench.service_for(Movies, {Movies.get_movie: slow}, timeout=0.1) as movies:
        with pytest.raises(DeadlineExceeded):
            await movies.get_movie(GetMovie(id=1))


# -- the emulator alone --------------------------------------------------------------------------------


async def test_an_emulator_has_what_its_users_need() -> None:
    """Queues of contracts and servers, topics of buses, and a reply queue; topology wins over both."""
    server = RpcServer("Endpoint=sb://unused", Ratings, queue="rated", max_concurrent_sessions=2)
    bus = EventBus("Endpoint=sb://unused", topic="movie-events")

    @bus.on(MovieAdded, subscription="listener")
    async def listen(event: MovieAdded) -> None: ...

    topic = Topic("Movie-Events", (Subscription("own"),))
    async with emulator("raw", Queue("Movies", lock_duration=5), Movies, server, bus, topic) as namespace:
        queues = {queue.name: queue for queue in namespace.broker.queues()}
        assert set(queues) == {"raw", "Movies", "rated", "testing.replies"}
        assert queues["Movies"].lock_duration == 5
        assert queues["rated"].requires_session
        assert queues["testing.replies"].requires_session
        subscriptions = {each.name: each for each in namespace.broker.subscriptions("movie-events")}
        assert set(subscriptions) == {"own", "listener"}
        assert subscriptions["listener"].requires_session
        async with RpcClient(namespace.connection_string, reply_queue="testing.replies") as client:
            await client.ready(timeout=60)


def test_what_needs_no_entity_is_refused() -> None:
    """Rather than ignored."""
    with pytest.raises(TypeError, match="says nothing about queues or topics"):
        emulator(42)  # type: ignore[arg-type]
