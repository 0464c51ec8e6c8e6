"""The application whose tests these are."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from azure.servicebus.aio import ServiceBusClient
from pydantic import BaseModel

from sbrpc import CallInfo, Contract, Event, EventBus, Queue, RpcServer, method
from sbrpc.errors import NotFound


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
