"""The HTTP API. Writes and single reads go through the movies service, lists come from the read model.

It knows the contract and the read model's table; it has no business rule of its own.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import Depends, FastAPI, Header, Query, Request, Response
from fastapi.responses import HTMLResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel
from sqlalchemy import extract, func, or_, select
from starlette.middleware.base import RequestResponseEndpoint

from sbrpc import EventBus, RpcClient
from sbrpc.errors import Unavailable
from sbrpc.export import asyncapi_document, asyncapi_page, system_of
from sbrpc.sql import Watch
from sbrpc.web import Web, describe_problems

from . import contract
from .contract import ChangedMovie, Count, Movie, MovieId, MoviePage, MovieRef, Movies, NewMovie
from .database import READ_MODEL_URL, engine_at, film, prepared
from .events import VIEWS, MovieView, ReadModel, positions

http = FastAPI(title="Movies")
describe_problems(http)


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
        left = [*versions]
        while some := [int(left.pop()) for _ in left[:500]]:  # a statement takes only so many parameters
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


@http.get("/asyncapi.json")
async def asyncapi() -> dict[str, Any]:
    """The service and its events as AsyncAPI, for tools."""
    offered = [Movies, EventBus("", topic=contract.TOPIC, source="/movies"), *contract.EVENTS]
    return asyncapi_document(system_of({"movies": offered}), title="Movies", version=http.version)


@http.get("/asyncapi", response_class=HTMLResponse)
async def asyncapi_as_page() -> str:
    """The same for people."""
    return asyncapi_page(await asyncapi())


@http.get("/health/live")
async def live() -> dict[str, str]:
    """This process runs."""
    return {"status": "live"}


@http.get("/health/ready")
async def ready(request: Request) -> dict[str, str]:
    """Calls can leave, replies can arrive and the read model can be read: send traffic here."""
    if not request.app.state.client.is_ready:
        raise Unavailable("Service Bus cannot be reached")
    async with request.app.state.read_model.connect() as database:
        await database.execute(select(MovieView.id).limit(1))
    return {"status": "ready"}


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
