"""The HTTP API. Writes and single reads go through the movies service, lists come from the read model.

It knows the contract and the read model's table; it has no business rule of its own.
"""

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Literal

from fastapi import Depends, FastAPI, Query, Request, Response
from fastapi.sse import EventSourceResponse, ServerSentEvent
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel
from sqlalchemy import extract, func, or_, select

from sbrpc import EventBus, RpcClient
from sbrpc.sql import Watch, engine_for, migrated
from sbrpc.web import Web, calls_to, describe_calls, describe_problems, report_health, report_origin

from . import contract
from .contract import ChangedMovie, Count, Movie, MovieId, MoviePage, MovieRef, Movies, NewMovie
from .database import MIGRATIONS, READ_MODEL_URL, film
from .events import VIEWS, MovieView, positions

http = FastAPI(title="Movies")
describe_problems(http)
describe_calls(http, Movies, EventBus("", topic=contract.TOPIC, source="/movies"), *contract.EVENTS)
headers = {"Cache-Control": "no-cache", "X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY"}
report_origin(http, "movies-api", headers)

# The movies service, with the deadline that the caller asks for in the header `Request-Timeout`.
Service = Annotated[Movies, Depends(calls_to(Movies))]


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
        async with request.app.state.read_model.connect() as database:
            found = await database.execute(select(MovieView).where(MovieView.id.in_(map(int, versions))))
        films = {str(row.id): film(row) for row in found}
        for id, version in versions.items():
            movie = films.get(id)
            change = Change(id=id, version=movie.version if movie else version, movie=movie)
            yield ServerSentEvent(data=change)


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
    wanted = {MovieView.genre: genre, MovieView.rating: rating, extract("year", MovieView.released): year}
    filters = [column == value for column, value in wanted.items() if value is not None]
    if search:
        texts = (MovieView.title, MovieView.director)
        filters.append(or_(*(text.icontains(search, autoescape=True) for text in texts)))
    found, order = select(MovieView).where(*filters), getattr(MovieView, sort)
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

# Last, since it takes every path that no route above has taken.
http.mount("/", StaticFiles(directory=Path(__file__).with_name("static"), html=True))


def app(connection: str) -> list[object]:
    """What `sbrpc run movies.api:app` runs: what the routes need first, and HTTP last."""
    http.state.read_model = engine = engine_for(READ_MODEL_URL)
    http.state.watch = Watch(engine, positions, VIEWS)
    http.state.client = RpcClient(connection, reply_queue=contract.REPLY_QUEUE)
    host, port = os.environ.get("MOVIES_HOST", "127.0.0.1"), int(os.environ.get("MOVIES_PORT", "8000"))
    web = Web(http, host=host, port=port)
    database = migrated(engine, MIGRATIONS, database="read model")
    return [database, http.state.client, Movies, http.state.watch, web]
