"""grpc.aio, with the same pydantic models as everybody here in place of protobuf messages."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import grpc as library

from benchmarks.models import GetMovie, Movie, find
from benchmarks.peers import Journal


def _encode(value: GetMovie | Movie) -> bytes:
    return value.model_dump_json().encode()


class Client:
    def __init__(self, channel: library.aio.Channel) -> None:
        self.get_movie = channel.unary_unary(
            "/movies.Movies/GetMovie",
            request_serializer=_encode,
            response_deserializer=Movie.model_validate_json,
        )

    async def call(self, number: int) -> Movie:
        movie: Movie = await self.get_movie(GetMovie(id=number), timeout=30)
        return movie


@contextlib.asynccontextmanager
async def client(settings: dict[str, Any]) -> AsyncIterator[Client]:
    async with library.aio.insecure_channel(settings["url"]) as channel:
        yield Client(channel)


async def serve(settings: dict[str, Any], journal: Journal) -> None:
    async def get_movie(request: GetMovie, context: Any) -> Movie:
        return find(request.id)

    handler = library.unary_unary_rpc_method_handler(
        get_movie, request_deserializer=GetMovie.model_validate_json, response_serializer=_encode
    )
    # A server cancels calls at random once a thousand wait for it, unless it is told that they may.
    most = [
        ("grpc.server.max_pending_requests", 10_000),
        ("grpc.server.max_pending_requests_hard_limit", 20_000),
    ]
    server = library.aio.server(options=most)
    server.add_generic_rpc_handlers(
        (library.method_handlers_generic_handler("movies.Movies", {"GetMovie": handler}),)
    )
    server.add_insecure_port(settings["url"])
    await server.start()
    try:
        journal.ready()
        await asyncio.Event().wait()
    finally:
        await server.stop(1)
