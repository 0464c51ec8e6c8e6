"""The service that strangers call, and where it runs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from pydantic import BaseModel

from sbrpc import CallInfo, Contract, Queue, RpcServer, method
from sbrpc.emulator import Emulator
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


QUEUES = [
    Queue("movies"),
    Queue("gateway.replies", requires_session=True),
    Queue("plain.replies"),
    Queue("elsewhere"),
]


@asynccontextmanager
async def movies_service(forgotten: list[int]) -> AsyncIterator[Emulator]:
    """An emulator with the service on it."""
    async with Emulator(queues=QUEUES) as emulator:
        server = RpcServer(emulator.connection_string, Movies)

        @server.method(Movies.get_movie)
        async def get_movie(request: GetMovie, info: CallInfo) -> Movie:
            if request.id == 0:
                raise NotFound("there is no movie 0", details=[{"id": 0}])
            return Movie(id=request.id, title=info.metadata.get("title", "Alien"))

        @server.method(Movies.export)
        async def export(request: int) -> AsyncIterator[Movie]:
            for number in range(request):
                yield Movie(id=number, title="Alien")

        @server.method(Movies.forget)
        async def forget(request: GetMovie) -> None:
            forgotten.append(request.id)

        async with server:
            await server.ready(timeout=60)
            yield emulator
