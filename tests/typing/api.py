"""The public API in every supported way, for type checkers. Never executed.

mypy reports `empty-body` for a method whose body is `...`: contract modules switch that off, as here, or
write `raise NotImplementedError`. pyright accepts both.
"""
# mypy: disable-error-code="empty-body"

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from pydantic import BaseModel
from typing_extensions import assert_type

from sbrpc import CallInfo, Contract, RpcClient, RpcServer, connect, deadline, method
from sbrpc.contract import BoundMethod, BoundStream, StreamMethod, UnaryMethod
from sbrpc.errors import Aborted, NotFound
from sbrpc.middleware import Next


class GetMovie(BaseModel):
    id: int


class Movie(BaseModel):
    id: int
    title: str


class Stale(Aborted):
    data: Movie


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
    with deadline(2):
        await movies.count(None)
    await movies.get_movie(Movie(id=1, title="x"))  # type: ignore[arg-type]
    await movies.get_movie()  # type: ignore[call-arg]
    text: str = await movies.count(None)  # type: ignore[assignment]
    try:
        await movies.get_movie(GetMovie(id=1))
    except Stale as error:
        assert_type(error.data, Movie)
    del text


def serve(server: RpcServer) -> None:
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

    @server.method(Movies.get_movie)  # type: ignore[arg-type]
    async def wrong_reply(request: GetMovie) -> int:
        return 1

    @server.method(Movies.get_movie)  # type: ignore[arg-type]
    async def wrong_request(request: int) -> Movie:
        return Movie(id=1, title="x")

    @server.method(Movies.export)  # type: ignore[arg-type]
    async def no_stream(request: GetMovie) -> Movie:
        return Movie(id=1, title="x")


async def sign(request: Any, info: CallInfo, call_next: Next) -> Any:
    return await call_next(request, info)


async def main() -> None:
    async with connect() as connection, RpcServer(connection, Movies, middleware=[sign]) as server:
        serve(server)
        async with RpcClient(connection, reply_queue="gateway.replies", middleware=[sign]) as client:
            await call(client)
            await client.ready(timeout=5)
        await server.serve()
