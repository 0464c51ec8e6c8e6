"""sbrpc as its documentation shows it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from benchmarks import models
from benchmarks.models import GetMovie, Movie, find
from benchmarks.peers import Journal
from sbrpc import Contract, RpcClient, RpcServer, method
from sbrpc.event import Event
from sbrpc.events import EventBus

# Requests that a server takes at once; the default of 16 is meant for handlers that do something.
CONCURRENCY = 256


class Movies(Contract, name="movies"):
    @method(idempotent=True)
    async def get_movie(self, request: GetMovie) -> Movie: ...


class MovieChanged(models.MovieChanged, Event, type="movies.movie.changed.v1"):
    pass


class Client:
    def __init__(self, movies: Movies, bus: EventBus) -> None:
        self.movies = movies
        self.bus = bus

    async def call(self, number: int) -> Movie:
        return await self.movies.get_movie(GetMovie(id=number))

    async def publish(self, event: models.MovieChanged) -> None:
        await self.bus.publish(MovieChanged(**event.model_dump()))


@contextlib.asynccontextmanager
async def client(settings: dict[str, Any]) -> AsyncIterator[Client]:
    async with (
        RpcClient(settings["url"], reply_queue="gateway.replies") as connection,
        EventBus(settings["url"], topic="movie-events", source="/movies") as bus,
    ):
        movies = connection.of(Movies)
        await connection.ready(20)
        yield Client(movies, bus)


async def serve(settings: dict[str, Any], journal: Journal) -> None:
    server = RpcServer(settings["url"], Movies, concurrency=settings.get("concurrency", CONCURRENCY))
    bus = EventBus(settings["url"], topic="movie-events")
    delay = settings.get("delay", 0.0)

    @server.method(Movies.get_movie)
    async def get_movie(request: GetMovie) -> Movie:
        if delay:
            await asyncio.sleep(delay)
        return find(request.id)

    @bus.on(MovieChanged, subscription="movie-event-handler")
    async def handled(event: MovieChanged) -> None:
        journal.handled(event)

    async with server, bus:
        await server.ready(20)
        journal.ready()
        await asyncio.Event().wait()
