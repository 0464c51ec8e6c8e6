"""FastStream's request over RabbitMQ."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from faststream.rabbit import RabbitBroker

from benchmarks.models import GetMovie, Movie, MovieChanged, find
from benchmarks.peers import Journal


class Client:
    def __init__(self, broker: RabbitBroker) -> None:
        self.broker = broker

    async def call(self, number: int) -> Movie:
        reply = await self.broker.request(GetMovie(id=number), "movies.get_movie", timeout=30)
        return Movie.model_validate(await reply.decode())

    async def publish(self, event: MovieChanged) -> None:
        await self.broker.publish(event, "movie.changed")


@contextlib.asynccontextmanager
async def client(settings: dict[str, Any]) -> AsyncIterator[Client]:
    async with RabbitBroker(settings["url"], logger=None) as broker:
        yield Client(broker)


async def serve(settings: dict[str, Any], journal: Journal) -> None:
    broker = RabbitBroker(settings["url"], logger=None)

    @broker.subscriber("movies.get_movie")
    async def get_movie(request: GetMovie) -> Movie:
        return find(request.id)

    @broker.subscriber("movie.changed")
    async def changed(event: MovieChanged) -> None:
        journal.handled(event)

    async with broker:
        await broker.start()
        journal.ready()
        await asyncio.Event().wait()
