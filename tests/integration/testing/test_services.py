"""What `sbrpc.testing` gives to the tests of services, met as they meet it."""

from __future__ import annotations

import traceback
from collections.abc import AsyncIterator
from contextvars import ContextVar

import anyio
import anyio.lowlevel
import pytest
from azure.servicebus.aio import ServiceBusClient

from sbrpc import CallInfo, RpcServer
from sbrpc.errors import Internal, NotFound, Unimplemented
from sbrpc.testing import Bench, service_for

from .movies import GetMovie, Movie, Movies, MovieService, Ratings, announcing_server, get_movie


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
