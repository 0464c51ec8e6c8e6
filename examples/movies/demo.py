"""`python -m movies demo`: starts everything, imports the catalogue, uses it, and says how it went."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import anyio
import httpx
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from . import catalogue
from .contract import NewMovie
from .processes import running

CALLERS = 32
JSON = {"content-type": "application/json"}
console = Console(highlight=False)


class Caller:
    """The HTTP API as a caller sees it. Each call is timed, and each must end as the story says."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self.http = http
        self.milliseconds: dict[str, list[float]] = defaultdict(list)

    async def call(self, what: str, method: str, path: str, expect: int = 200, **options: Any) -> Any:
        began = time.perf_counter()
        response = await self.http.request(method, path, **options)
        self.milliseconds[what].append((time.perf_counter() - began) * 1000)
        if response.status_code != expect:
            told = f"{response.status_code} {response.text[:200]}"
            raise RuntimeError(f"{method} {path} was to end with {expect} and ended with {told}")
        return response.json() if response.content else None

    async def caught_up(self, total: int, progress: Callable[[int], object] = int, **filters: str) -> None:
        """Wait until the read model has so many films that pass the filters."""
        have = -1
        with anyio.fail_after(60):
            while have != total:
                page = await self.http.get("/movies", params={"limit": 1, **filters})
                have = page.json()["total"]
                progress(have)
                await anyio.sleep(0.01)


async def together(work: Callable[[Any], Awaitable[object]], items: Iterable[Any]) -> None:
    """Do the work for each item, with all callers at once."""
    left = iter(items)

    async def caller() -> None:
        for item in left:
            await work(item)

    async with anyio.create_task_group() as group:
        for _ in range(CALLERS):
            group.start_soon(caller)


async def demo(verbose: bool) -> None:
    began = time.perf_counter()
    films, rejected = catalogue.load()
    console.print("Starting the Service Bus, the movies service, the event handler and the HTTP API …")
    with tempfile.TemporaryDirectory(prefix="movies-") as directory, tempfile.TemporaryFile("w+") as log:
        try:
            async with (
                running(Path(directory), 0, log=log, say=console.print) as (connection_string, url),
                httpx.AsyncClient(base_url=url, timeout=60) as http,
            ):
                console.print(connection_string, soft_wrap=True)
                console.print(f"{url} is up after {time.perf_counter() - began:.1f} s\n")
                caller = Caller(http)
                await tell(caller, films)
        finally:
            log.seek(0)
            if said := log.readlines()[-60:]:
                console.print("What the processes said:", *said, sep="", markup=False, soft_wrap=True)
    show_rejected(rejected, verbose)
    show_times(caller.milliseconds)
    took = time.perf_counter() - began
    console.print(f"{len(films)} films imported, {len(rejected)} rows rejected, all in {took:.1f} s")


async def tell(caller: Caller, films: list[NewMovie]) -> None:
    """The story: import, query, change, delete, and what goes wrong on purpose."""
    call, movies = caller.call, list[dict[str, Any]]()

    async def create(film: NewMovie) -> None:
        body = film.model_dump(mode="json")
        movies.append(await call("create a film", "POST", "/movies", 201, json=body))

    async def read(movie: dict[str, Any]) -> None:
        await call("read a film", "GET", f"/movies/{movie['id']}")

    async def search(movie: dict[str, Any]) -> None:
        word = max(movie["title"].split(), key=len)
        page = await call("search the read model", "GET", "/movies", params={"search": word})
        assert page["total"], f"a search for {word!r} found nothing"

    async def change(movie: dict[str, Any]) -> None:
        await call("change a film", "PUT", f"/movies/{movie['id']}", json=movie | {"genre": "Demo"})

    async def delete(movie: dict[str, Any]) -> None:
        await call("delete a film", "DELETE", f"/movies/{movie['id']}", 204)

    columns = TextColumn("{task.description:<36}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=console) as progress:

        async def step(what: str, work: Callable[[Any], Awaitable[None]], items: Sequence[Any]) -> None:
            bar = progress.add_task(what, total=len(items))
            await together(work, progress.track(items, task_id=bar))

        async def followed(what: str, total: int, **filters: str) -> None:
            bar = progress.add_task(what, total=total)
            await caller.caught_up(total, lambda have: progress.update(bar, completed=have), **filters)

        async with anyio.create_task_group() as group:
            group.start_soon(partial(followed, "… and seen in the read model", len(films)))
            await step("films created", create, films)
        await step("films read from the service", read, movies[:1000])
        await step("films searched in the read model", search, movies[-500:])
        async with anyio.create_task_group() as group:
            group.start_soon(partial(followed, "… and seen in the read model", 300, genre="Demo"))
            await step("films changed", change, movies[:300])
        await step("films deleted", delete, movies[-50:])
        await caller.caught_up(len(films) - 50)
        for movie in movies[300:350]:  # one caller alone, to see what the distance costs without a queue
            await call("read a film, one caller alone", "GET", f"/movies/{movie['id']}")
            await call("change a film, alone", "PUT", f"/movies/{movie['id']}", json=movie)

    first = f"/movies/{movies[0]['id']}"
    stale = movies[0] | {"title": "Made from version 1, which is no longer the current one"}
    table = Table("what goes wrong on purpose", "status", "what the API says", title_justify="left")
    for what, method, path, status, options in (
        ("a change from a stale version", "PUT", first, 409, {"json": stale}),
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
    table = Table(title=f"through the HTTP API, {CALLERS} callers at once unless alone")
    for column in ("", "calls", "p50 ms", "p99 ms"):
        table.add_column(column, justify="right" if column else "left")
    for what, times in milliseconds.items():
        cuts = statistics.quantiles(times, n=100, method="inclusive")
        table.add_row(what, str(len(times)), f"{cuts[49]:.1f}", f"{cuts[98]:.1f}")
    console.print(table)
