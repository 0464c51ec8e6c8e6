"""Two services: one doubles numbers, the other has films."""

from __future__ import annotations

from collections.abc import AsyncIterator

from sbrpc import RpcServer

from .contract import Movie, MovieRef, Movies, Shop


def server(connection: str) -> RpcServer:
    """The films."""
    made = RpcServer(connection, Movies)

    @made.method(Movies.get_movie)
    async def get_movie(request: MovieRef) -> Movie:
        return Movie(id=request.id)

    @made.method(Movies.create_movie)
    async def create_movie(request: Movie) -> Movie:
        return request

    @made.method(Movies.export_movies)
    async def export_movies(request: dict[str, str]) -> AsyncIterator[Movie]:
        for number in range(1000):
            yield Movie(id=number)

    @made.method(Movies.refresh)
    async def refresh(request: MovieRef) -> None: ...

    return made


def app(connection: str) -> list[object]:
    """Both of them."""
    made = RpcServer(connection, Shop)

    @made.method(Shop.double)
    async def double(request: int) -> int:
        return 2 * request

    return [made, server(connection)]
