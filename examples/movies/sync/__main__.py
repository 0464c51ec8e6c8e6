"""The commands: `python -m movies.sync api | service | views --port N`, run in `examples`."""

from __future__ import annotations

import argparse
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Annotated

import uvicorn
from fastapi import FastAPI, Header, Request
from sqlalchemy import delete, insert
from sqlalchemy.ext.asyncio import AsyncSession

import movies.api
from movies.contract import ChangedMovie, Movie, MovieEvent, MovieId, MoviePage, MovieRef, NewMovie
from movies.database import READ_MODEL_URL, SERVICE_URL, opened
from movies.events import MovieView, ReadModel
from movies.service import Base, change, create, find, remove
from sbrpc.web import describe_problems

from . import Peer

service = Peer(os.environ.get("MOVIES_SERVICE_URL", "http://127.0.0.1:8001"))  # several: with commas between
views = Peer(os.environ.get("MOVIES_VIEWS_URL", "http://127.0.0.1:8002"))


@asynccontextmanager
async def database(app: FastAPI) -> AsyncIterator[None]:
    async with opened(SERVICE_URL, Base.metadata) as app.state.database:
        yield


@asynccontextmanager
async def read_model(app: FastAPI) -> AsyncIterator[None]:
    async with opened(READ_MODEL_URL, ReadModel.metadata) as app.state.read_model:
        yield


api_app, service_app, views_app = FastAPI(), FastAPI(lifespan=database), FastAPI(lifespan=read_model)
apps = {"api": api_app, "service": service_app, "views": views_app}
for app in apps.values():
    describe_problems(app)

# -- the HTTP API: passes everything on, and waits

Timeout = Annotated[float, Header(alias="Request-Timeout", gt=0, le=300)]


@api_app.post("/movies", status_code=201)
async def create_movie(body: NewMovie, timeout: Timeout = 10) -> Movie:
    return Movie.model_validate_json(await service.ask("POST", "/movies", body, timeout, idempotent=False))


@api_app.get("/movies/{id}")
async def get_movie(id: MovieId, timeout: Timeout = 10) -> Movie:
    return Movie.model_validate_json(await service.ask("GET", f"/movies/{id}", None, timeout))


@api_app.put("/movies/{id}")
async def update_movie(id: MovieId, body: ChangedMovie, timeout: Timeout = 10) -> Movie:
    movie = Movie(id=id, **body.model_dump())
    return Movie.model_validate_json(await service.ask("PUT", "/movies", movie, timeout, idempotent=False))


@api_app.delete("/movies/{id}", status_code=204)
async def delete_movie(id: MovieId, timeout: Timeout = 10) -> None:
    await service.ask("DELETE", f"/movies/{id}", None, timeout, idempotent=False)


@api_app.get("/movies")
async def list_movies(request: Request, timeout: Timeout = 10) -> MoviePage:
    page = await views.ask("GET", f"/movies?{request.url.query}", None, timeout)
    return MoviePage.model_validate_json(page)


# -- the movies service: owns the films, and shows each change before it answers


async def shown(work: Callable[[AsyncSession], Awaitable[MovieEvent]], gone: bool = False) -> Movie:
    """Do the work, and show it before the commit: what cannot be shown is not done. A process that dies
    between the two leaves a read model that is ahead; the other way round would leave one that is behind."""
    async with AsyncSession(service_app.state.database) as session, session.begin():
        movie = (await work(session)).movie
        await views.ask("PUT", f"/movies/{movie.id}", None if gone else movie)
    return movie


@service_app.get("/movies/{id}")
async def find_movie(id: MovieId) -> Movie:
    async with AsyncSession(service_app.state.database) as session:
        return await find(session, id)


@service_app.post("/movies", status_code=201)
async def add_movie(body: NewMovie) -> Movie:
    return await shown(lambda session: create(session, body))


@service_app.put("/movies")
async def change_movie(body: Movie) -> Movie:
    return await shown(lambda session: change(session, body))


@service_app.delete("/movies/{id}", status_code=204)
async def remove_movie(id: MovieId) -> None:
    await shown(lambda session: remove(session, MovieRef(id=id)), gone=True)


# -- the read model: shows what it is told, and lists it

views_app.get("/movies")(movies.api.list_movies)


@views_app.put("/movies/{id}", status_code=204)
async def show(id: MovieId, movie: Movie | None = None) -> None:
    """Show a film as it is now, or none where it is gone."""
    async with views_app.state.read_model.begin() as database:
        await database.execute(delete(MovieView).where(MovieView.id == id))
        if movie:
            await database.execute(insert(MovieView).values(movie.model_dump()))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m movies.sync", description=__doc__)
    parser.add_argument("program", choices=apps)
    parser.add_argument("--port", type=int, required=True)
    options = parser.parse_args()
    # httpx keeps idle connections for 5 seconds: if they end here first, requests on their way are lost.
    uvicorn.run(apps[options.program], port=options.port, log_level="warning", timeout_keep_alive=30)
