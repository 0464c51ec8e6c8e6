"""The RPC pattern that comes with aio-pika, with JSON instead of its default pickle."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import aio_pika as library
from aio_pika.abc import AbstractIncomingMessage
from aio_pika.patterns import JsonRPC

from benchmarks.models import GetMovie, Movie, MovieChanged, find
from benchmarks.peers import Journal

PREFETCH = 100


class Client:
    def __init__(self, rpc: JsonRPC, channel: library.abc.AbstractChannel) -> None:
        self.rpc = rpc
        self.channel = channel

    async def call(self, number: int) -> Movie:
        reply = await self.rpc.call("get_movie", {"request": GetMovie(id=number).model_dump(mode="json")})
        return Movie.model_validate(reply)

    async def publish(self, event: MovieChanged) -> None:
        message = library.Message(event.model_dump_json().encode())
        await self.channel.default_exchange.publish(message, "aio-pika.changed")


@contextlib.asynccontextmanager
async def client(settings: dict[str, Any]) -> AsyncIterator[Client]:
    connection = await library.connect_robust(settings["url"])
    async with connection:
        channel = await connection.channel()
        yield Client(await JsonRPC.create(channel), channel)


async def serve(settings: dict[str, Any], journal: Journal) -> None:
    async def get_movie(request: dict[str, Any]) -> dict[str, Any]:
        return find(GetMovie.model_validate(request).id).model_dump(mode="json")

    async def changed(message: AbstractIncomingMessage) -> None:
        async with message.process():
            journal.handled(MovieChanged.model_validate_json(message.body))

    connection = await library.connect_robust(settings["url"])
    async with connection:
        channel = await connection.channel()
        await channel.set_qos(prefetch_count=PREFETCH)
        rpc = await JsonRPC.create(channel)
        await rpc.register("get_movie", get_movie, auto_delete=True)
        queue = await channel.declare_queue("aio-pika.changed", auto_delete=True)
        await queue.consume(changed)
        journal.ready()
        await asyncio.Event().wait()
