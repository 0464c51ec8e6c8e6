"""`python -m movies demo`: starts everything, imports the catalogue, uses it, and says how it went."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import anyio
import httpx
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from sbrpc import RpcClient, connect

from . import catalogue
from .contract import REPLY_QUEUE, Movies, NewMovie
from .processes import running

CALLERS = 32
JSON = {"content-type": "application/json"}
console = Console(highlight=False)


async def demo(verbose: bool) -> None:
    began = time.perf_counter()
    films, rejected = catalogue.load()
    console.print("Starting the Service Bus, the movies service, the event handler and the HTTP API …")
    with tempfile.TemporaryDirectory(prefix="movies-") as directory:
        async with running(Path(directory), 0) as (connection_string, url):
            console.print(connection_string, soft_wrap=True)
            console.print(f"{url} is up after {time.perf_counter() - began:.1f} s")
            async with (
                connect(connection_string) as connection,
                RpcClient(connection, reply_queue=REPLY_QUEUE) as client,
                httpx.AsyncClient(base_url=url, timeout=60) as http,
            ):
                story = Story(client.of(Movies), http)
                await story.tell(films)
    show_rejected(rejected, verbose)
    show_times(story.milliseconds)
    took = time.perf_counter() - began
    console.print(f"{len(films)} films imported, {len(rejected)} rows rejected, all in {took:.1f} s")


class Story:
    """What callers do, of the service and of the HTTP API. Each call is timed, and ends as the story says."""

    def __init__(self, service: Movies, http: httpx.AsyncClient) -> None:
        self.service, self.http = service, http
        self.milliseconds: dict[str, list[float]] = defaultdict(list)
        columns = TextColumn("{task.description:<36}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
        self.progress = Progress(*columns, console=console)

    async def call(self, what: str, method: str, path: str, expect: int = 200, **options: Any) -> Any:
        began = time.perf_counter()
        response = await self.http.request(method, path, **options)
        self.took(what, began)
        if response.status_code != expect:
            told = f"{response.status_code} {response.text[:200]}"
            raise RuntimeError(f"{method} {path} was to end with {expect} and ended with {told}")
        return response.json() if response.content else None

    def took(self, what: str, began: float) -> None:
        self.milliseconds[what].append((time.perf_counter() - began) * 1000)

    async def step(self, what: str, work: Callable[[Any], Awaitable[Any]], items: Sequence[Any]) -> list[Any]:
        """Do the work for each item, with all callers at once; the results as they came."""
        bar = self.progress.add_task(what, total=len(items))
        left = iter(self.progress.track(items, task_id=bar))
        results: list[Any] = []

        async def caller() -> None:
            results.extend([await work(item) for item in left])

        async with anyio.create_task_group() as group:
            for _ in range(CALLERS):
                group.start_soon(caller)
        return results

    async def seen(self, total: int, **filters: str) -> None:
        """Wait until the read model has so many films that pass the filters."""
        bar, have, patience = self.progress.add_task("… and seen in the read model", total=total), -1, 0
        while have != total:
            page = (await self.http.get("/movies", params={"limit": 1, **filters})).json()
            have, patience = page["total"], 0 if page["total"] != have else patience + 1
            if patience > 150:  # half a minute without a film
                raise RuntimeError(f"the read model stopped at {have} of {total} films")
            self.progress.update(bar, completed=have)
            await anyio.sleep(0.2)

    async def tell(self, films: list[NewMovie]) -> None:
        """Import, query, change, delete, and what goes wrong on purpose."""
        call = self.call

        async def create(film: NewMovie) -> dict[str, Any]:
            began = time.perf_counter()
            movie = await self.service.create_movie(film, timeout=60)
            self.took("create a film, without HTTP", began)
            return movie.model_dump(mode="json")

        async def read(movie: dict[str, Any], what: str = "read a film") -> None:
            await call(what, "GET", f"/movies/{movie['id']}")

        async def change(movie: dict[str, Any], what: str = "change a film") -> None:
            await call(what, "PUT", f"/movies/{movie['id']}", json=movie | {"genre": "Demo"})

        async def delete(movie: dict[str, Any]) -> None:
            await call("delete a film", "DELETE", f"/movies/{movie['id']}", 204)

        async def search(movie: dict[str, Any]) -> None:
            word = max(movie["title"].split(), key=len)
            page = await call("search the read model", "GET", "/movies", params={"search": word})
            assert page["total"], f"a search for {word!r} found nothing"

        with self.progress:
            async with anyio.create_task_group() as group:
                group.start_soon(self.seen, len(films))
                movies = await self.step("films created", create, films)
            await self.step("films read from the service", read, movies[:500])
            await self.step("films searched in the read model", search, movies[-300:])
            async with anyio.create_task_group() as group:
                group.start_soon(partial(self.seen, 200, genre="Demo"))
                await self.step("films changed", change, movies[:200])
            async with anyio.create_task_group() as group:
                group.start_soon(self.seen, len(films) - 50)
                await self.step("films deleted", delete, movies[-50:])
        for movie in movies[200:250]:  # what the distance costs when nobody else is in the queue
            await read(movie, "read a film, alone")
            await change(movie, "change a film, alone")

        first = f"/movies/{movies[0]['id']}"
        table = Table("what goes wrong on purpose", "status", "what the API says")
        for what, method, path, status, options in (
            ("a change from a stale version", "PUT", first, 409, {"json": movies[0]}),
            ("a film that is not there", "GET", "/movies/999999", 404, {}),
            ("a film with a number as title", "POST", "/movies", 422, {"json": {"title": 1776}}),
            ("JSON that is none", "POST", "/movies", 400, {"content": "{", "headers": JSON}),
            ("a deadline of one millisecond", "GET", first, 504, {"headers": {"Request-Timeout": "0.001"}}),
        ):
            problem = await call("an error", method, path, status, **options)
            table.add_row(what, str(problem["status"]), problem["detail"])
        console.print(table)


def show_rejected(rejected: list[catalogue.Rejected], verbose: bool) -> None:
    """The rejected rows: all, or some of each kind of reason."""
    table = Table("row", "title", "why it is not imported", title=f"{len(rejected)} rows rejected")

    def kind_of(row: catalogue.Rejected) -> str:
        return row.reason.partition(":")[0]

    for _, kind in groupby(sorted(rejected, key=kind_of), key=kind_of):
        rows = list(kind)
        for row in rows if verbose else rows[:3]:
            table.add_row(str(row.index), row.title, row.reason)
        if not verbose and len(rows) > 3:
            table.add_row("…", f"and {len(rows) - 3} more", "--verbose lists all")
    console.print(table)


def show_times(milliseconds: dict[str, list[float]]) -> None:
    table = Table(title=f"{CALLERS} callers at once, over HTTP")
    for column in ("", "calls", "p50 ms", "p99 ms"):
        table.add_column(column, justify="right" if column else "left")
    for what, times in milliseconds.items():
        cuts = statistics.quantiles(times, n=100, method="inclusive")
        table.add_row(what, str(len(times)), f"{cuts[49]:.1f}", f"{cuts[98]:.1f}")
    console.print(table)
