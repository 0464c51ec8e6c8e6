"""The public API in every supported way, for type checkers. Never executed; `wrong.py` is its counterpart.

mypy reports `empty-body` for a method whose body is `...`: contract modules switch that off, as here, or
write `raise NotImplementedError`. pyright accepts both.
"""
# mypy: disable-error-code="empty-body"

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from typing import Any

from azure.servicebus.aio import ServiceBusClient
from pydantic import BaseModel
from sqlalchemy import MetaData
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from typing_extensions import assert_type

from sbrpc import (
    BusError,
    CallInfo,
    Contract,
    Deadline,
    DeadlineExceeded,
    ErrorCode,
    Event,
    EventBus,
    EventInfo,
    MessageTooLarge,
    Queue,
    RpcClient,
    RpcError,
    RpcServer,
    Rule,
    SbrpcError,
    Subscription,
    Topic,
    connect,
    deadline,
    method,
    serve,
)
from sbrpc.contract import BoundMethod, BoundStream, StreamMethod, UnaryMethod
from sbrpc.errors import Aborted, NotFound
from sbrpc.events import Scheduled
from sbrpc.middleware import Next
from sbrpc.sql import Inbox, Outbox, Positions, Projection
from sbrpc.store import CachedReply, MemoryReplyStore
from sbrpc.testing import Bench
from sbrpc.topology import CorrelationFilter


class GetMovie(BaseModel):
    id: int


class Movie(BaseModel):
    id: int
    title: str


class Stale(Aborted):
    data: Movie


# -- contracts -------------------------------------------------------------------------------------------


class Movies(Contract, name="movies"):
    @method(idempotent=True, timeout=5, errors=[NotFound, Stale], key=lambda request: str(request.id))
    async def get_movie(self, request: GetMovie) -> Movie: ...

    @method
    async def count(self, request: None) -> int: ...

    @method(one_way=True)
    async def forget(self, request: GetMovie) -> None: ...

    @method
    def export(self, request: GetMovie) -> AsyncIterator[Movie]: ...

    @method(window=64)
    def follow(self, request: GetMovie) -> AsyncIterator[Movie]: ...


assert_type(Movies.get_movie, UnaryMethod[GetMovie, Movie])
assert_type(Movies.export, StreamMethod[GetMovie, Movie])


# -- calls -----------------------------------------------------------------------------------------------


async def call(client: RpcClient) -> None:
    movies = client.of(Movies, timeout=3, metadata={"tenant": "a"}, queue="movies", key="k")
    assert_type(movies, Movies)
    assert_type(movies.get_movie, BoundMethod[GetMovie, Movie])
    assert_type(movies.export, BoundStream[GetMovie, Movie])
    assert_type(await movies.get_movie(GetMovie(id=1)), Movie)
    assert_type(await movies.get_movie(request=GetMovie(id=1), timeout=1, metadata={}, key="1"), Movie)
    assert_type(await movies.count(None), int)
    await movies.forget(GetMovie(id=1))
    async for movie in movies.export(GetMovie(id=1)):
        assert_type(movie, Movie)
    async for movie in movies.follow(GetMovie(id=1), timeout=60):
        assert_type(movie, Movie)
    with deadline(2) as until:
        assert_type(until, Deadline)
        await movies.count(None)


async def fail(movies: Movies) -> None:
    try:
        await movies.get_movie(GetMovie(id=1))
    except Stale as error:
        assert_type(error.data, Movie)
    except DeadlineExceeded as late:
        builtin: TimeoutError = late
        assert_type(late.code, ErrorCode)
        del builtin
    except MessageTooLarge as large:
        assert_type(large.size, int)
        assert_type(large.limit, int)
    except (RpcError, BusError, SbrpcError) as error:
        root: SbrpcError = error
        del root


# -- servers ---------------------------------------------------------------------------------------------


def handle(server: RpcServer) -> None:
    @server.method(Movies.get_movie)
    async def get_movie(request: GetMovie, info: CallInfo) -> Movie:
        return Movie(id=request.id, title=info.method)

    @server.method(Movies.count)
    def count(request: None) -> int:
        return 1

    @server.method(Movies.forget)
    async def forget(request: GetMovie) -> None: ...

    @server.method(Movies.export)
    async def export(request: GetMovie) -> AsyncIterator[Movie]:
        yield Movie(id=request.id, title="x")

    @server.method(Movies.follow)
    async def follow(request: GetMovie, info: CallInfo) -> AsyncIterator[Movie]:
        yield Movie(id=request.id, title=info.call_id)

    assert_type(await_of(get_movie), Movie)


def await_of(handler: Callable[[GetMovie, CallInfo], Awaitable[Movie]]) -> Movie:
    """A registered handler stays the function that it was."""
    raise NotImplementedError


class Service:
    """Handlers may be methods of an object, which has what they need."""

    async def get_movie(self, request: GetMovie, info: CallInfo) -> Movie:
        return Movie(id=request.id, title=info.method)

    def register(self, server: RpcServer) -> None:
        server.method(Movies.get_movie)(self.get_movie)


async def sign(request: Any, info: CallInfo, call_next: Next) -> Any:
    return await call_next(request, info)


# -- events ----------------------------------------------------------------------------------------------


class MovieCreated(Event, type="movies.movie.created.v1", key="id"):
    id: int
    title: str


class MovieDeleted(Event, type="movies.movie.deleted.v1", key="id"):
    id: int


def listen(bus: EventBus) -> None:
    @bus.on(MovieCreated, subscription="mails")
    def mail(event: MovieCreated) -> None:
        assert_type(event.title, str)

    @bus.on(MovieCreated, MovieDeleted, subscription="views", concurrency=4)
    async def project(event: MovieCreated | MovieDeleted, info: EventInfo) -> None:
        assert_type(event.id, int)
        assert_type(info.key, str | None)

    @bus.on(MovieCreated, MovieDeleted, subscription="search", batch=50)
    async def index(events: list[MovieCreated | MovieDeleted], infos: list[EventInfo]) -> None: ...


async def publish(bus: EventBus) -> None:
    created = MovieCreated(id=1, title="Alien")
    assert_type(await bus.publish(created, key="1", timeout=3), str)
    assert_type(await bus.publish_many([created, MovieDeleted(id=1)]), list[str])
    scheduled = await bus.schedule(created, at=timedelta(hours=1))
    assert_type(scheduled, Scheduled)
    assert_type(await scheduled.cancel(), bool)


def tables(bus: EventBus, sessions: async_sessionmaker[AsyncSession]) -> None:
    metadata = MetaData()
    outbox, inbox, positions = Outbox(metadata, source="/movies"), Inbox(metadata), Positions(metadata)
    views = Projection("views", sessions, positions)

    @bus.on(MovieCreated, MovieDeleted, subscription="views")
    @views.applies(version=lambda event: event.id)
    async def apply(session: AsyncSession, event: MovieCreated | MovieDeleted, info: EventInfo) -> None: ...

    @bus.on(MovieCreated, subscription="mails")
    async def mail(event: MovieCreated, info: EventInfo) -> None:
        async with sessions.begin() as session:
            assert_type(await inbox.first(session, info, consumer="mails"), bool)
            assert_type(await outbox.add(session, MovieDeleted(id=event.id)), str)


# -- running, and tests of one's own ----------------------------------------------------------------------


class NoStore:
    """Whatever has these two methods can be the store of replies."""

    async def get(self, key: str) -> CachedReply | None:
        return None

    async def put(self, key: str, reply: CachedReply, ttl: float) -> None: ...


async def main() -> None:
    queue = Queue("movies", lock_duration=60)
    rules = (Rule("created", CorrelationFilter(subject="movies.movie.created.v1")),)
    topic = Topic("movie-events", subscriptions=(Subscription("views", rules=rules),))
    async with connect() as connection, RpcServer(connection, Movies, middleware=[sign]) as server:
        assert_type(connection, ServiceBusClient)
        handle(server)
        async with RpcClient(connection, reply_queue="gateway.replies", middleware=[sign]) as client:
            await call(client)
            await client.ready(timeout=5)
        await server.serve()
    bus = EventBus("Endpoint=sb://localhost", topic=topic.name, source="/movies")
    servers = RpcServer("x", Movies, store=NoStore()), RpcServer("x", Movies, store=MemoryReplyStore())
    await serve(bus, *servers, grace=10)
    async with Bench(Movies, queue, topic) as bench:
        await call(bench.client)
