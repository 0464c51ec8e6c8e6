"""What the shop's services offer."""

from __future__ import annotations

from collections.abc import AsyncIterator

from pydantic import BaseModel

from sbrpc import Contract, method


class MovieRef(BaseModel):
    id: int


class Movie(MovieRef):
    title: str = "Alien"


class Shop(Contract, name="shop"):
    @method
    async def double(self, request: int) -> int:
        raise NotImplementedError


class Movies(Contract, name="movies"):
    @method
    async def get_movie(self, request: MovieRef) -> Movie:
        raise NotImplementedError

    @method
    async def create_movie(self, request: Movie) -> Movie:
        raise NotImplementedError

    @method
    def export_movies(self, request: dict[str, str]) -> AsyncIterator[Movie]:
        raise NotImplementedError

    @method(one_way=True)
    async def refresh(self, request: MovieRef) -> None:
        raise NotImplementedError
