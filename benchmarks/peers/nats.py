"""Request-reply of nats-py: a broker that stores nothing and confirms nothing."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import nats as library
from nats.aio.client import Client as Connection
from nats.aio.msg import Msg

from benchmarks.models import GetMovie, Movie, MovieChanged, find
from benchmarks.peers import Journal


class Client:
    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    async def call(self, number: int) -> Movie:
        request = GetMovie(id=number).model_dump_json().encode()
        reply = await self.connection.request("movies.get_movie", request, timeout=30)
        return Movie.model_validate_json(reply.data)

    async def publish(self, event: MovieChanged) -> None:
        await self.connection.publish("movie.changed", event.model_dump_json().encode())


@contextlib.asynccontextmanager
async def client(settings: dict[str, Any]) -> AsyncIterator[Client]:
    connection = await library.connect(settings["url"])
    try:
        yield Client(connection)
    finally:
        await connection.close()


async def serve(settings: dict[str, Any], journal: Journal) -> None:
    async def get_movie(message: Msg) -> None:
        request = GetMovie.model_validate_json(message.data)
        await message.respond(find(request.id).model_dump_json().encode())

    async def changed(message: Msg) -> None:
        journal.handled(MovieChanged.model_validate_json(message.data))

    connection = await library.connect(settings["url"])
    try:
        await connection.subscribe("movies.get_movie", cb=get_movie)
        await connection.subscribe("movie.changed", cb=changed)
        await connection.flush()
        journal.ready()
        await asyncio.Event().wait()
    finally:
        await connection.close()
