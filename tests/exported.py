"""A shop of films as three programs, which the tests of exports name on the command line."""

# mypy: disable-error-code="empty-body"

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from pydantic import BaseModel, Field

from sbrpc import Contract, Event, EventBus, Queue, RpcClient, RpcServer, connect, method
from sbrpc.errors import NotFound


class GetMovie(BaseModel):
    id: int = Field(ge=1)


class Movie(BaseModel):
    """A film."""

    id: int
    title: str
    sequel: Movie | None = None


class NoSuchMovie(NotFound):
    data: int


class Movies(Contract, name="movies"):
    """The films."""

    @method(idempotent=True, timeout=5, errors=[NoSuchMovie])
    async def get_movie(self, request: GetMovie) -> Movie:
        """One film by its id."""

    @method
    def export(self, request: GetMovie) -> AsyncIterator[Movie]: ...

    @method(one_way=True)
    async def forget(self, request: GetMovie) -> None: ...


class Ratings(Contract, name="ratings"):
    """Of another team."""

    @method
    async def rate(self, request: GetMovie) -> float: ...


class MovieCreated(Event, type="movies.movie.created.v1", key="id"):
    """A film is new."""

    id: int


class MovieDeleted(Event, type="movies.movie.deleted.v1", key="id"):
    """A film is gone."""

    id: int


connection = connect()
server = RpcServer(connection, Movies)
service = [
    server,
    EventBus(connection, topic="movie-events", source="/movies"),
    MovieCreated,
    MovieDeleted,
    Queue("movies", lock_duration=30),
]
api = [RpcClient(connection, reply_queue="gateway.replies"), Movies, Ratings]


def events(connection: str) -> EventBus:
    """The bus that follows the films; a function, as it may need something to work with."""
    bus = EventBus(connection, topic="movie-events")

    @bus.on(MovieCreated, MovieDeleted, subscription="views")
    async def project(event: MovieCreated | MovieDeleted) -> None: ...

    return bus


class Relay:
    """What runs beside the others, and has no queue of its own."""

    async def run(self) -> None: ...


@asynccontextmanager
async def app(connection: str) -> AsyncIterator[list[Any]]:
    """A program that opens something before there is anything to run."""
    yield [RpcServer(connection, Ratings), Relay(), [Queue("all.replies", requires_session=True)]]
