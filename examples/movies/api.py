"""The HTTP API. Writes and single reads go through the movies service, lists come from the read model.

It knows the contract and the read model's table; it has no business rule of its own.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import uvicorn
from fastapi import Depends, FastAPI, Header, Query, Request, Response
from fastapi.responses import HTMLResponse, StreamingResponse
from fastapi.staticfiles import StaticFiles
from sqlalchemy import extract, func, or_, select
from starlette.middleware.base import RequestResponseEndpoint

from sbrpc import RpcClient, connect
from sbrpc.errors import Unavailable
from sbrpc.export import asyncapi_document, asyncapi_page, system_of

from . import deployment, problems
from .changes import watching
from .contract import REPLY_QUEUE, ChangedMovie, Count, Movie, MovieId, MoviePage, MovieRef, Movies, NewMovie
from .database import READ_MODEL_URL, film, opened
from .events import MovieView, ReadModel


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with (
        connect() as connection,
        RpcClient(connection, reply_queue=REPLY_QUEUE) as client,
        opened(READ_MODEL_URL, ReadModel.metadata) as engine,
        watching(engine) as changes,
    ):
        app.state.client, app.state.read_model, app.state.changes = client, engine, changes
        client.of(Movies)  # so that the link to the service opens now, not with the first call
        yield


app = FastAPI(title="Movies", lifespan=lifespan)
problems.install(app)


async def service(
    request: Request,
    request_timeout: Annotated[
        float, Header(gt=0, le=300, description="Seconds the caller waits; then 504.")
    ] = 10,
) -> Movies:
    """The movies service, with the deadline this caller asks for."""
    client: RpcClient = request.app.state.client
    return client.of(Movies, timeout=request_timeout)


Service = Annotated[Movies, Depends(service)]


class EventStream(StreamingResponse):
    media_type = "text/event-stream"


@app.post("/movies", status_code=201)
async def create_movie(body: NewMovie, movies: Service, response: Response) -> Movie:
    movie = await movies.create_movie(body)
    response.headers["Location"] = f"/movies/{movie.id}"
    return movie


@app.get("/movies/events", response_class=EventStream)
async def movie_events(request: Request) -> EventStream:
    """Each change as the read model learns of it, as server-sent events; the data is a `Change`."""
    return EventStream(request.app.state.changes.follow(), headers={"Cache-Control": "no-store"})


@app.get("/movies/{id}")
async def get_movie(id: MovieId, movies: Service) -> Movie:
    return await movies.get_movie(MovieRef(id=id))


@app.put("/movies/{id}")
async def update_movie(id: MovieId, body: ChangedMovie, movies: Service) -> Movie:
    return await movies.update_movie(Movie(id=id, **body.model_dump()))


@app.delete("/movies/{id}", status_code=204)
async def delete_movie(id: MovieId, movies: Service) -> None:
    await movies.delete_movie(MovieRef(id=id))


@app.get("/movies")
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


@app.get("/asyncapi.json")
async def asyncapi() -> dict[str, Any]:
    """The service and its events as AsyncAPI, for tools."""
    return asyncapi_document(system_of({"movies": deployment.service}), title="Movies", version=app.version)


@app.get("/asyncapi", response_class=HTMLResponse)
async def asyncapi_as_page() -> str:
    """The same for people."""
    return asyncapi_page(await asyncapi())


@app.get("/health/live")
async def live() -> dict[str, str]:
    """This process runs."""
    return {"status": "live"}


@app.get("/health/ready")
async def ready(request: Request) -> dict[str, str]:
    """Calls can leave, replies can arrive and the read model can be read: send traffic here."""
    if not request.app.state.client.is_ready:
        raise Unavailable("Service Bus cannot be reached")
    async with request.app.state.read_model.connect() as database:
        await database.execute(select(MovieView.id).limit(1))
    return {"status": "ready"}


@app.middleware("http")
async def trace(request: Request, call_next: RequestResponseEndpoint) -> Response:
    """Say in each response which process answered, and how many milliseconds it took."""
    began = time.perf_counter()
    response = await call_next(request)
    response.headers["Served-By"] = f"movies-api {socket.gethostname()}:{os.getpid()}"
    response.headers["Server-Timing"] = f"total;dur={(time.perf_counter() - began) * 1000:.1f}"
    return response


class Page(StaticFiles):
    """The page. It may load nothing from elsewhere, and run no script that is not a file."""

    def file_response(self, *args: Any, **options: Any) -> Response:
        response = super().file_response(*args, **options)
        response.headers["Content-Security-Policy"] = (
            "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
            "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Cache-Control"] = "no-cache"
        return response


# Last, since it takes every path that no route above has taken.
app.mount("/", Page(directory=Path(__file__).with_name("static"), html=True))


class Server(uvicorn.Server):
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            host, port = self.servers[0].sockets[0].getsockname()
            print(f"http://{host}:{port}", flush=True)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        app.state.changes.close()  # uvicorn would wait for these streams, which have no end
        await super().shutdown(sockets)


async def serve(port: int) -> None:
    """Answer HTTP requests until SIGTERM or SIGINT; prints the URL once it does."""
    await Server(uvicorn.Config(app, port=port, log_level="warning")).serve()
