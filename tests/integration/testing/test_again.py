"""One test after another on the same bench: what is kept, and what is not."""

from __future__ import annotations

import asyncio

import anyio
import anyio.lowlevel
import pytest
from azure.servicebus import ServiceBusMessage
from azure.servicebus.aio import ServiceBusClient

from sbrpc import RpcServer
from sbrpc.errors import Cancelled, NotRunning
from sbrpc.testing import Bench

from .movies import GetMovie, Movies, MovieService, Ratings, get_movie


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
