"""What `sbrpc.testing` gives to the tests of applications, met as they meet it."""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from datetime import timedelta

import anyio
import anyio.lowlevel
import pytest
from azure.servicebus import ServiceBusMessage
from azure.servicebus.aio import ServiceBusClient
from pydantic import BaseModel
from tenacity import AsyncRetrying, stop_after_attempt

from sbrpc import CallInfo, Contract, Event, EventBus, EventInfo, Queue, RpcClient, RpcServer, Topic, method
from sbrpc.emulator.broker import BrokerError
from sbrpc.errors import (
    Cancelled,
    ContractError,
    DeadlineExceeded,
    EntityNotFound,
    Internal,
    NotFound,
    NotRunning,
    Unimplemented,
)
from sbrpc.testing import Bench, Letter, emulator, service_for
from sbrpc.topology import Subscription


class GetMovie(BaseModel):
    id: int


class Movie(BaseModel):
    id: int
    title: str


class Movies(Contract, name="movies"):
    @method
    async def get_movie(self, request: GetMovie) -> Movie:
        raise NotImplementedError

    @method
    def export(self, request: int) -> AsyncIterator[Movie]:
        raise NotImplementedError

    @method(one_way=True)
    async def forget(self, request: GetMovie) -> None:
        raise NotImplementedError


class Ratings(Contract, name="ratings"):
    @method
    async def rate(self, request: GetMovie) -> str:
        raise NotImplementedError


class MovieAdded(Event, type="test.movie.added.v1", key="id"):
    id: int


class MovieGone(Event, type="test.movie.gone.v1", key="id"):
    id: int


async def get_movie(request: GetMovie) -> Movie:
    if request.id == 0:
        raise NotFound("there is no movie 0")
    return Movie(id=request.id, title="Alien")


class MovieService:
    """A service as an object."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.forgotten: list[int] = []

    async def get_movie(self, request: GetMovie) -> Movie:
        return Movie(id=request.id, title=self.title)

    async def forget(self, request: GetMovie) -> None:
        self.forgotten.append(request.id)


def announcing_server(connection: ServiceBusClient) -> RpcServer:
    """A server as an application makes it: with a bus that it publishes to."""
    server = RpcServer(connection, Movies)
    bus = EventBus(connection, topic="movie-events", source="/movies")

    @server.method(Movies.get_movie)
    async def get_movie(request: GetMovie, info: CallInfo) -> Movie:
        async with bus:
            await bus.publish(MovieAdded(id=request.id))
        return Movie(id=request.id, title=info.metadata.get("title", "none"))

    @server.method(Movies.export)
    async def export(request: int) -> AsyncIterator[Movie]:
        for number in range(request):
            yield Movie(id=number, title="Alien")

    @server.method(Movies.forget)
    async def forget(request: GetMovie) -> None:
        await bus.publish(MovieGone(id=request.id))

    return server


def announcing_app(connection: ServiceBusClient) -> list[object]:
    """What `sbrpc run` would run: a server, the bus it publishes to, a listener, and what they need."""
    bus = EventBus(connection, topic="movie-events", source="/movies")
    server = RpcServer(connection, Movies)

    @server.method(Movies.get_movie)
    async def get_movie(request: GetMovie) -> Movie:
        await bus.publish(MovieAdded(id=request.id))
        return Movie(id=request.id, title="Alien")

    @server.method(Movies.export)
    async def export(request: int) -> AsyncIterator[Movie]:
        yield Movie(id=request, title="Alien")

    @server.method(Movies.forget)
    async def forget(request: GetMovie) -> None: ...

    @bus.on(MovieAdded, subscription="app")
    async def show(event: MovieAdded) -> None:
        shown.append(event.id)

    return [server, bus, [Queue("app-queue"), Movies, MovieAdded]]


shown: list[int] = []


@asynccontextmanager
async def opening_app(connection: ServiceBusClient) -> AsyncIterator[list[object]]:
    """The same, with something that is open as long as it runs."""
    shown.append(-1)
    yield announcing_app(connection)
    shown.append(-2)


@pytest.fixture(scope="module")
async def shared() -> AsyncIterator[Bench]:
    """One bench for all tests of this file."""
    async with Bench(Queue("raw"), Topic("movie-events")) as bench:
        yield bench


@pytest.fixture
def bench(shared: Bench) -> Bench:
    """The bench as a test gets it: empty."""
    shared.reset()
    return shared


# -- services ------------------------------------------------------------------------------------------


async def test_a_handler_is_tested_in_a_few_lines() -> None:
    """Everything is brought up for one test, and nothing is left of it."""
    async with service_for(Movies, {Movies.get_movie: get_movie}) as movies:
        assert await movies.get_movie(GetMovie(id=1)) == Movie(id=1, title="Alien")
        with pytest.raises(NotFound, match="no movie 0"):
            await movies.get_movie(GetMovie(id=0))


async def test_handlers_are_given_by_method_or_by_name(bench: Bench) -> None:
    """Both say the same."""
    async with bench.service_for(Movies, {"get_movie": get_movie}) as movies:
        assert (await movies.get_movie(GetMovie(id=1))).title == "Alien"


async def test_an_object_with_the_methods_is_a_service(bench: Bench) -> None:
    """What it knows is the test's to look at."""
    service = MovieService("Brazil")
    async with bench.service_for(Movies, service) as movies:
        assert (await movies.get_movie(GetMovie(id=1))).title == "Brazil"
        await movies.forget(GetMovie(id=2))
        await bench.settled()
    assert service.forgotten == [2]


async def test_a_server_is_used_as_it_is(bench: Bench) -> None:
    """A function that makes a server, or the server itself, brings its options; calls have theirs."""
    async with bench.service_for(Movies, announcing_server, metadata={"title": "Brazil"}) as movies:
        assert (await movies.get_movie(GetMovie(id=1))).title == "Brazil"
        assert [movie.id async for movie in movies.export(3)] == [0, 1, 2]
    async with bench.service_for(Movies, announcing_server(bench.connection)) as movies:
        assert (await movies.get_movie(GetMovie(id=1))).title == "none"


async def test_what_a_handler_sets_of_context_variables_is_gone_with_it(bench: Bench) -> None:
    """One task serves many calls; none finds the user, the tenant or the trace of the call before it."""
    caller: ContextVar[int] = ContextVar("caller", default=0)
    found: list[int] = []

    async def remember(request: GetMovie) -> Movie:
        found.append(caller.get())
        caller.set(request.id)
        await anyio.lowlevel.checkpoint()
        return Movie(id=caller.get(), title="")

    async with bench.service_for(Movies, {Movies.get_movie: remember}) as movies:
        for id in (1, 2, 3):
            assert (await movies.get_movie(GetMovie(id=id))).id == id
        async with anyio.create_task_group() as group:
            for id in range(4, 24):
                group.start_soon(movies.get_movie, GetMovie(id=id))
    assert found == [0] * 23


async def test_what_has_no_handler_is_unimplemented(bench: Bench) -> None:
    """The test of one method does not need the others, and finds out when it does."""
    async with bench.service_for(Movies, {}) as movies:
        with pytest.raises(Unimplemented, match=r"no handler for movies\.get_movie"):
            await movies.get_movie(GetMovie(id=1))
        with pytest.raises(Unimplemented, match=r"no handler for movies\.export"):
            _ = [movie async for movie in movies.export(1)]


async def test_services_call_each_other(bench: Bench) -> None:
    """Several run side by side, over the same client."""
    async with bench.service_for(Movies, {Movies.get_movie: get_movie}) as movies:

        async def rate(request: GetMovie) -> str:
            return f"{(await movies.get_movie(request)).title}: 5 stars"

        async with bench.service_for(Ratings, {Ratings.rate: rate}) as ratings:
            assert await ratings.rate(GetMovie(id=1)) == "Alien: 5 stars"


@pytest.mark.parametrize("streams", [False, True])
async def test_what_a_handler_raised_is_the_cause(
    bench: Bench, caplog: pytest.LogCaptureFixture, streams: bool
) -> None:
    """The caller gets what every caller gets; the test finds the line that failed, there and in the log."""

    async def broken(request: GetMovie) -> Movie:
        raise KeyError("the shelf is empty")

    async def broken_stream(request: int) -> AsyncIterator[Movie]:
        yield Movie(id=1, title="Alien")
        raise KeyError("the shelf is empty")

    handlers = {Movies.get_movie: broken, Movies.export: broken_stream}
    async with bench.service_for(Movies, handlers) as movies:

        async def use() -> object:
            if streams:
                return [movie async for movie in movies.export(1)]
            return await movies.get_movie(GetMovie(id=1))

        with pytest.raises(Internal) as caught:
            await use()
    cause = caught.value.__cause__
    assert isinstance(cause, KeyError)
    assert "in broken" in "".join(traceback.format_exception(cause))
    assert "the shelf is empty" not in str(caught.value)
    assert "the shelf is empty" in caplog.text


async def test_calls_may_be_ordered_by_key(bench: Bench) -> None:
    """A server that takes sessions gets a queue that has them, and one that does not gets one without."""

    def ordered(connection: ServiceBusClient) -> RpcServer:
        server = RpcServer(connection, Ratings, max_concurrent_sessions=1)

        @server.method(Ratings.rate)
        async def rate(request: GetMovie, info: CallInfo) -> str:
            return str(info.session_id)

        return server

    async with bench.service_for(Ratings, ordered, key="seven") as ratings:
        assert await ratings.rate(GetMovie(id=1)) == "seven"
    async with bench.service_for(Ratings, {"rate": lambda request: "plain"}) as ratings:
        assert await ratings.rate(GetMovie(id=1)) == "plain"


# -- one test after another ----------------------------------------------------------------------------


async def test_the_next_test_gets_the_links_of_the_last(bench: Bench) -> None:
    """Its handlers are its own; no connection is opened for them."""
    async with bench.service_for(Movies, MovieService("first")) as movies:
        await movies.get_movie(GetMovie(id=1))
    before = {peer.container_id for peer in bench.emulator.gateway.peers}
    async with bench.service_for(Movies, MovieService("second")) as movies:
        assert (await movies.get_movie(GetMovie(id=1))).title == "second"
    assert {peer.container_id for peer in bench.emulator.gateway.peers} == before


async def test_a_handler_that_does_not_end_is_cancelled(bench: Bench) -> None:
    """It neither holds up its test for long nor goes on in the next one."""
    ended: list[str] = []
    started = anyio.Event()

    async def stuck(request: GetMovie) -> None:
        started.set()
        try:
            await anyio.sleep_forever()
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    async with bench.service_for(Movies, {Movies.forget: stuck}) as movies:
        await movies.forget(GetMovie(id=1))
        await started.wait()
    assert ended == ["cancelled"]
    bench.reset()
    service = MovieService("next")
    async with bench.service_for(Movies, service) as movies:
        await movies.get_movie(GetMovie(id=1))
    assert service.forgotten == []


async def test_requests_that_were_fetched_ahead_are_gone(bench: Bench) -> None:
    """What a server had taken but not begun when its test ended does not reach the next one."""
    release = anyio.Event()

    def slow(connection: ServiceBusClient) -> RpcServer:
        server = RpcServer(connection, Ratings, concurrency=1, prefetch=10, grace=0.0)

        @server.method(Ratings.rate)
        async def rate(request: GetMovie) -> str:
            seen.append(request.id)
            await release.wait()
            return "done"

        return server

    seen: list[int] = []
    async with anyio.create_task_group() as tasks:
        async with bench.service_for(Ratings, slow, timeout=60) as ratings:
            for number in range(1, 6):
                tasks.start_soon(ratings.rate, GetMovie(id=number))
            while not seen:  # noqa: ASYNC110
                await anyio.sleep(0.01)
        tasks.cancel_scope.cancel()
    assert len(seen) == 1
    bench.reset()
    seen.clear()
    release.set()
    async with bench.service_for(Ratings, slow) as ratings:
        assert await ratings.rate(GetMovie(id=9)) == "done"
        await bench.settled()
    assert seen == [9]


async def test_idle_links_take_nothing(bench: Bench) -> None:
    """A link that is kept for later tests does not get what this one wants to receive by itself."""
    async with bench.service_for(Movies, {Movies.get_movie: get_movie}) as movies:
        await movies.get_movie(GetMovie(id=1))
    connection = bench.emulator.connection_string
    async with (
        ServiceBusClient.from_connection_string(connection) as sdk,
        sdk.get_queue_sender("movies") as sender,
        sdk.get_queue_receiver("movies") as receiver,
    ):
        await sender.send_messages(ServiceBusMessage(b"mine"))
        messages = await receiver.receive_messages(max_wait_time=5)
        assert [str(message) for message in messages] == ["mine"]
        await receiver.complete_message(messages[0])


async def test_raw_links_over_the_bench_are_kept_too(bench: Bench) -> None:
    """What the SDK offers works over them as ever; an unsettled message goes back at once."""
    for attempt in range(2):
        async with bench.connection.get_queue_sender("raw") as sender:
            await sender.send_messages(ServiceBusMessage(b"hello", message_id=str(attempt)))
            assert sender.entity_name == "raw"
        async with bench.connection.get_queue_receiver("raw") as receiver:
            assert [str(m) for m in await receiver.peek_messages(10)] == ["hello"]
            await receiver.receive_messages(max_wait_time=5)
        async with bench.connection.get_queue_receiver("raw") as receiver:
            (again,) = await receiver.receive_messages(max_wait_time=5)
            assert (again.message_id, again.delivery_count) == (str(attempt), 0)
            await receiver.complete_message(again)
    with pytest.raises(NotRunning, match="not open"):
        await receiver.complete_message(again)


async def test_reset_leaves_nothing(bench: Bench) -> None:
    """Messages, dead letters, faults and books of the last test are gone; its calls are cancelled."""
    failures: list[Exception] = []

    async def call() -> None:
        try:
            await bench.client.of(Ratings).rate(GetMovie(id=1))
        except Cancelled as error:
            failures.append(error)

    bench.create(Ratings, "raw")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(call)
        while not bench.emulator.broker.runtime("ratings").active:  # noqa: ASYNC110
            await anyio.sleep(0.01)
        bench.emulator.faults.refuse()
        bench.reset()
    assert [str(error) for error in failures] == ["CANCELLED: the test that made this call is over"]
    assert bench.emulator.broker.runtime("ratings").active == 0
    assert bench.emulator.faults.list() == []
    assert bench.emulator.books["ratings"].operations == 0
    await bench.settled(timeout=0.5)


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # of the connections that are cut
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_a_link_that_broke_is_not_used_again(bench: Bench) -> None:
    """After a test in which connections were cut, the next one gets new ones."""
    async with bench.service_for(Movies, MovieService("first")) as movies:
        await movies.get_movie(GetMovie(id=1))
    bench.emulator.faults.cut()
    async with bench.service_for(Movies, MovieService("second"), timeout=20) as movies:
        assert (await movies.get_movie(GetMovie(id=1))).title == "second"


async def test_the_clock_can_be_put_forward(bench: Bench) -> None:
    """Hours pass at once for Service Bus; the next test begins in the present, with the same links."""
    async with bench.service_for(Movies, MovieService("early")) as movies:
        await movies.get_movie(GetMovie(id=1))
        await bench.emulator.advance(30)
        assert bench.emulator.clock.ahead == pytest.approx(30, abs=1)
        await movies.get_movie(GetMovie(id=1))
    before = {peer.container_id for peer in bench.emulator.gateway.peers}
    bench.reset()
    assert bench.emulator.clock.ahead == 0
    async with bench.service_for(Movies, MovieService("late")) as movies:
        assert (await movies.get_movie(GetMovie(id=1))).title == "late"
    assert {peer.container_id for peer in bench.emulator.gateway.peers} == before


async def test_days_may_pass(bench: Bench) -> None:
    """Then the links are gone, as idle ones are, and the next test gets others."""
    async with bench.service_for(Movies, MovieService("early")) as movies:
        await movies.get_movie(GetMovie(id=1))
    await bench.emulator.advance(86_400)
    bench.reset()
    async with bench.service_for(Movies, MovieService("late"), timeout=20) as movies:
        assert (await movies.get_movie(GetMovie(id=1))).title == "late"


# -- events --------------------------------------------------------------------------------------------


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
