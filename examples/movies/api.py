"""The HTTP API. Writes and single reads go through the movies service, lists come from the read model.

It knows the contract and the read model's table; it has no business rule of its own.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Literal

from fastapi import Depends, FastAPI, Header, Query, Request, Response
from fastapi.sse import EventSourceResponse, ServerSentEvent
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel
from sqlalchemy import extract, func, or_, select
from starlette.middleware.base import RequestResponseEndpoint

from sbrpc import EventBus, RpcClient
from sbrpc.sql import Watch
from sbrpc.web import Web, describe_calls, describe_problems, report_health

from . import contract
from .contract import ChangedMovie, Count, Movie, MovieId, MoviePage, MovieRef, Movies, NewMovie
from .database import READ_MODEL_URL, engine_at, film, prepared
from .events import VIEWS, MovieView, ReadModel, positions

http = FastAPI(title="Movies")
describe_problems(http)
describe_calls(http, Movies, EventBus("", topic=contract.TOPIC, source="/movies"), *contract.EVENTS)


async def service(
    request: Request,
    request_timeout: Annotated[
        float, Header(gt=0, le=300, description="Seconds the caller waits; then 504.")
    ] = 10,
) -> Movies:
    """The movies service, with the deadline this caller asks for."""
    return request.app.state.client.of(Movies, timeout=request_timeout)


Service = Annotated[Movies, Depends(service)]


@http.post("/movies", status_code=201)
async def create_movie(body: NewMovie, movies: Service, response: Response) -> Movie:
    movie = await movies.create_movie(body)
    response.headers["Location"] = f"/movies/{movie.id}"
    return movie


class Change(BaseModel):
    """A film has changed; `movie` is what it is now, unless it is deleted."""

    id: MovieId
    version: int
    movie: Movie | None


@http.get("/movies/events", response_class=EventSourceResponse)
async def movie_events(request: Request) -> AsyncIterator[ServerSentEvent]:
    """Each `Change` as the read model learns of it, as server-sent events."""
    moved = request.app.state.watch.follow()
    yield ServerSentEvent(event="ready", data={}, retry=1000)  # whoever lists after this misses nothing
    async for versions in moved:
        ids = [int(key) for key in versions]
        for start in range(0, len(ids), 500):  # a statement takes only so many parameters
            some = ids[start : start + 500]
            async with request.app.state.read_model.connect() as database:
                found = await database.execute(select(MovieView).where(MovieView.id.in_(some)))
            films = {row.id: film(row) for row in found}
            for id in some:
                movie = films.get(id)
                version = movie.version if movie else versions[str(id)]
                yield ServerSentEvent(data=Change(id=id, version=version, movie=movie))


@http.get("/movies/{id}")
async def get_movie(id: MovieId, movies: Service) -> Movie:
    return await movies.get_movie(MovieRef(id=id))


@http.put("/movies/{id}")
async def update_movie(id: MovieId, body: ChangedMovie, movies: Service) -> Movie:
    return await movies.update_movie(Movie(id=id, **body.model_dump()))


@http.delete("/movies/{id}", status_code=204)
async def delete_movie(id: MovieId, movies: Service) -> None:
    await movies.delete_movie(MovieRef(id=id))


@http.get("/movies")
async def list_movies(
    request: Request,
    search: Annotated[str, Query(max_length=100, description="In the title or the director.")] = "",
    genre: str | None = None,
    rating: str | None = None,
    year: Annotated[int | None, Query(ge=1, le=9999)] = None,
    sort: Literal["id", "title", "released", "imdb_rating"] = "id",
    descending: bool = False,
    offset: Count = 0,
    limit: Annotated[int, Query(ge=1, le=200)] = 20,
) -> MoviePage:
    """A page of the read model, which follows the service within moments."""
    found = select(MovieView)
    if search:
        found = found.where(
            or_(*(c.icontains(search, autoescape=True) for c in (MovieView.title, MovieView.director)))
        )
    wanted = {MovieView.genre: genre, MovieView.rating: rating, extract("year", MovieView.released): year}
    for column, value in wanted.items():
        if value is not None:
            found = found.where(column == value)
    order = getattr(MovieView, sort)
    page = found.order_by(order.desc() if descending else order, MovieView.id).offset(offset).limit(limit)
    async with request.app.state.read_model.connect() as database:
        total = await database.scalar(select(func.count()).select_from(found.subquery()))
        return MoviePage(movies=[film(row) for row in await database.execute(page)], total=total or 0)


async def ready() -> None:
    """Calls can leave, replies can arrive and the read model can be read."""
    await http.state.client.ready(timeout=1)
    async with http.state.read_model.connect() as database:
        await database.execute(select(MovieView.id).limit(1))


report_health(http, ready)


@http.middleware("http")
async def trace(request: Request, call_next: RequestResponseEndpoint) -> Response:
    """Say in each response which process answered, and how many milliseconds it took."""
    began = time.perf_counter()
    response = await call_next(request)
    served_by = f"movies-api {socket.gethostname()}:{os.getpid()}"
    took = f"total;dur={(time.perf_counter() - began) * 1000:.1f}"
    response.headers.update({"Served-By": served_by, "Server-Timing": took, "Cache-Control": "no-cache"})
    response.headers.update({"X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY"})
    return response


# Last, since it takes every path that no route above has taken.
http.mount("/", StaticFiles(directory=Path(__file__).with_name("static"), html=True))


def app(connection: str) -> list[object]:
    """What `sbrpc run movies.api:app` runs: what the routes need first, and HTTP last."""
    http.state.read_model = engine = engine_at(READ_MODEL_URL)
    http.state.watch = Watch(engine, positions, VIEWS)
    http.state.client = RpcClient(connection, reply_queue=contract.REPLY_QUEUE)
    host, port = os.environ.get("MOVIES_HOST", "127.0.0.1"), int(os.environ.get("MOVIES_PORT", "8000"))
    web = Web(http, host=host, port=port)
    return [prepared(engine, ReadModel.metadata), http.state.client, Movies, http.state.watch, web]
