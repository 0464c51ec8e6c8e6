"""The same application the previous way: its programs call each other over HTTP, and each waits for the next.

    api ──HTTP──▶ service ──▶ its database
     │               │
     └────HTTP────▶ views ──▶ the read model

No queue, no events: a program that is not there fails the requests that need it. The contract, the statements
and the HTTP API are those of the other application. `sbrpc run movies.sync:api` is the first, at MOVIES_PORT;
the others are where MOVIES_SERVICE_URL and MOVIES_VIEWS_URL say.
"""

import os
from functools import partial
from itertools import cycle
from types import SimpleNamespace
from typing import Any

import anyio
import httpx
import tenacity
from fastapi import FastAPI, Request, Response
from sqlalchemy import delete, insert
from sqlalchemy.ext.asyncio import async_sessionmaker

import movies.api
import movies.service
from movies.contract import Movie, MovieDeleted, MovieEvent, MovieId, Movies
from movies.database import MIGRATIONS, READ_MODEL_URL, SERVICE_URL
from movies.events import MovieView
from sbrpc.contract import Contract, MethodSpec
from sbrpc.errors import DeadlineExceeded, Unavailable
from sbrpc.sql import engine_for, migrated
from sbrpc.web import Problem, Web, describe_problems

# With retries, a call is tried until its deadline, as long as that cannot do a thing twice.
STOP = tenacity.stop_never if os.environ.get("MOVIES_SYNC_RETRY") == "1" else tenacity.stop_after_attempt(1)
WAIT = tenacity.wait_exponential_jitter(initial=0.05, max=1, jitter=0.1)


class Peer:
    """The processes of another program, called in turns over httpx's pool of 100 connections."""

    def __init__(self, urls: str) -> None:
        self._urls = cycle(urls.split(","))
        self._http = httpx.AsyncClient(timeout=None, headers={"Content-Type": "application/json"})

    def of(self, contract: type[Contract], timeout: float) -> Any:
        """The methods of a contract, as a client of sbrpc has them."""
        methods = contract.contract_methods.items()
        return SimpleNamespace(**{name: partial(self._call, spec, timeout) for name, spec in methods})

    async def _call(self, spec: MethodSpec, timeout: float, request: Any) -> Any:
        body = spec.request.encode(request)
        return spec.response.decode(await self.ask("POST", f"/{spec}", body, timeout, spec.idempotent))

    async def ask(
        self, method: str, path: str, body: bytes = b"", timeout: float = 30, idempotent: bool = True
    ) -> bytes:
        """The answer, within so many seconds; an error that the other side answers with is raised here."""
        harmless = (httpx.TransportError, Unavailable) if idempotent else httpx.ConnectError
        again = tenacity.retry_if_exception_type(harmless)
        tries = tenacity.AsyncRetrying(stop=STOP, wait=WAIT, retry=again, reraise=True)
        try:
            with anyio.fail_after(timeout):
                async for attempt in tries:
                    with attempt:
                        response = await self._http.request(method, next(self._urls) + path, content=body)
                        if response.is_error:
                            raise Problem.model_validate_json(response.content).error()
                return response.content
        except httpx.TransportError as error:
            raise Unavailable(f"{method} {path}: {error or type(error).__name__}") from error
        except TimeoutError as error:
            raise DeadlineExceeded(f"{method} {path} took longer than {timeout:g} s") from error


SERVICE = Peer(os.environ.get("MOVIES_SERVICE_URL", "http://127.0.0.1:8001"))  # several: with commas between
VIEWS = Peer(os.environ.get("MOVIES_VIEWS_URL", "http://127.0.0.1:8002"))


async def shown(_: object, event: MovieEvent) -> None:
    """Show a change before it is committed: what cannot be shown is not done. A process that dies between the
    two leaves a read model that is ahead; the other way round would leave one that is behind."""
    body = "null" if isinstance(event, MovieDeleted) else event.movie.model_dump_json()
    await VIEWS.ask("PUT", f"/movies/{event.movie.id}", body.encode())


def web(http: FastAPI) -> Web:
    describe_problems(http)
    return Web(http, port=int(os.environ["MOVIES_PORT"]))


def api() -> list[object]:
    """The HTTP API: passes everything on, and waits."""
    http = FastAPI()

    @http.get("/movies")
    async def list_movies(request: Request) -> Response:
        return Response(await VIEWS.ask("GET", f"/movies?{request.url.query}"), media_type="application/json")

    movies.api.http.state.client = SERVICE
    http.mount("/", movies.api.http)
    return [web(http)]


def service() -> list[object]:
    """The movies service: owns the films, and shows each change before it answers."""
    http, engine = FastAPI(), engine_for(SERVICE_URL)
    sessions = async_sessionmaker(engine, expire_on_commit=False)
    movies.service.outbox = SimpleNamespace(add=shown)  # what is announced there is shown here

    @http.post("/movies.{name}")
    async def answer(name: str, request: Request) -> Response:
        spec, work = Movies.contract_methods[name], getattr(movies.service, name)
        async with sessions.begin() as session:
            result = await work(session, spec.request.decode(await request.body()))
        return Response(spec.response.encode(result))

    return [migrated(engine, MIGRATIONS, database="service"), web(http)]


def views() -> list[object]:
    """The read model: shows what it is told, and lists it."""
    http = FastAPI()
    http.state.read_model = engine = engine_for(READ_MODEL_URL)
    http.get("/movies")(movies.api.list_movies)

    @http.put("/movies/{id}", status_code=204)
    async def show(id: MovieId, movie: Movie | None = None) -> None:
        """Show a film as it is now, or none where it is gone."""
        async with engine.begin() as database:
            await database.execute(delete(MovieView).where(MovieView.id == id))
            if movie:
                await database.execute(insert(MovieView).values(movie.model_dump()))

    return [migrated(engine, MIGRATIONS, database="read model"), web(http)]
