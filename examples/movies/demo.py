"""`python -m movies demo`: starts everything, imports the catalogue, uses it, kills services, sums it up."""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, closing, suppress
from itertools import groupby
from pathlib import Path
from typing import Any

import anyio
import httpx
from anyio.streams.text import TextReceiveStream
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from . import catalogue

CALLERS = 32
JSON = {"content-type": "application/json"}
console = Console(highlight=False)
Film = dict[str, Any]


async def demo(verbose: bool) -> None:
    began = time.perf_counter()
    films, rejected = catalogue.load()
    with tempfile.TemporaryDirectory(prefix="movies-") as directory:
        async with application(directory) as url, httpx.AsyncClient(base_url=url, timeout=60) as http:
            console.print(f"{url} is up after {time.perf_counter() - began:.1f} s")
            story = Story(http, Path(directory) / "movies.sqlite3")
            with story.progress:
                movies = await story.import_and_query([film.model_dump(mode="json") for film in films])
                await story.listen(movies[200:240])
                await story.kill()
            await story.go_wrong(movies[0])
            shares = story.shares()
    show_rejected(rejected, verbose)
    story.show()
    for process, changes in shares:
        console.print(f"The service process {process} has done {changes} changes")
    console.print(story.killed)
    took = time.perf_counter() - began
    console.print(f"{len(films)} films imported, {len(rejected)} rows rejected, all in {took:.1f} s")
    if story.wrong:
        sys.exit("\n".join(["What was to hold and did not:", *story.wrong]))


@asynccontextmanager
async def application(directory: str) -> AsyncIterator[str]:
    """All of it, with two processes of the service, as `serve` runs it; the URL of its API."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    serve = [sys.executable, "-m", "movies", "serve", "--services=2", "--port", port, "--data", directory]
    process = await anyio.open_process(serve, stdin=subprocess.DEVNULL, stderr=None, start_new_session=True)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # this process ends like by Ctrl-C
    try:
        assert process.stdout is not None
        async for said in TextReceiveStream(process.stdout):
            console.print(said.strip(), soft_wrap=True)
            if "Endpoint=sb://" in said:
                break
        else:
            sys.exit("movies: it did not start")
        yield f"http://127.0.0.1:{port}"
    finally:
        with anyio.CancelScope(shield=True):
            with suppress(ProcessLookupError):
                process.terminate()
            await process.wait()


class Story:
    """What callers do. Each call is timed and is to end as the story says; what does not is `wrong`."""

    def __init__(self, http: httpx.AsyncClient, database: Path) -> None:
        self.http, self.database = http, database
        self.milliseconds: dict[str, list[float]] = defaultdict(list)
        self.wrong: list[str] = []
        columns = TextColumn("{task.description:<36}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
        self.progress = Progress(*columns, console=console)

    async def call(self, what: str, method: str, path: str, expect: int = 200, **options: Any) -> Any:
        began = time.perf_counter()
        response = await self.http.request(method, path, **options)
        self.took(what, began)
        if response.status_code != expect:
            self.wrong.append(f"{method} {path}: {response.status_code} {response.text[:200]}, not {expect}")
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
        bar, have = self.progress.add_task("… and seen in the read model", total=total), -1
        with anyio.move_on_after(30) as patience:
            while have != total:
                have = (await self.http.get("/movies", params={"limit": 1, **filters})).json()["total"]
                self.progress.update(bar, completed=have)
                await anyio.sleep(0.1)
        if patience.cancelled_caught:
            self.wrong.append(f"the read model has {have} films of {total}")

    async def import_and_query(self, films: list[Film]) -> list[Film]:
        async def create(film: Film) -> Film:
            return await self.call("create a film", "POST", "/movies", 201, json=film)

        async def read(movie: Film, what: str = "read a film") -> None:
            await self.call(what, "GET", f"/movies/{movie['id']}")

        async def search(movie: Film) -> None:
            word = max(movie["title"].split(), key=len)
            page = await self.call("search the read model", "GET", "/movies", params={"search": word})
            if not page["total"]:
                self.wrong.append(f"a search for {word!r} found nothing")

        async def change(movie: Film) -> None:
            path = f"/movies/{movie['id']}"
            await self.call("change a film", "PUT", path, json=movie | {"genre": "Demo"})

        async def delete(movie: Film) -> None:
            await self.call("delete a film", "DELETE", f"/movies/{movie['id']}", 204)

        movies = await self.step("films created", create, films)
        await self.seen(len(films))
        await self.step("films read from the service", read, movies[:500])
        await self.step("films searched in the read model", search, movies[-300:])
        await self.step("films changed", change, movies[:200])
        await self.seen(200, genre="Demo")
        await self.step("films deleted", delete, movies[-50:])
        await self.seen(len(films) - 50)
        for movie in movies[:100]:
            await read(movie, "read a film, alone")
        return movies

    async def listen(self, movies: list[Film]) -> None:
        """Change films one by one, and take the time until the event of each has come by the live stream."""
        async with self.http.stream("GET", "/movies/events") as stream:
            events = (line.removeprefix("data: ") async for line in stream.aiter_lines() if "data: " in line)
            await anext(events)  # the stream is ready
            for movie in self.progress.track(movies, description=f"{'changes heard of, live':<36}"):
                path = f"/movies/{movie['id']}"
                changed = await self.call("change a film, alone", "PUT", path, json=movie | {"genre": "Live"})
                began = time.perf_counter()
                async for event in events:
                    if (told := json.loads(event))["id"] == movie["id"]:
                        break
                self.took("… until its event has arrived", began)
                if told["version"] != changed["version"]:
                    self.wrong.append(f"{path} was told as {told}")

    async def kill(self) -> None:
        """Kill a service, twice, while all callers write. What was accepted is there in the end, once."""
        accepted: list[str] = []
        enough = anyio.Event()
        bar = self.progress.add_task("films created, services dying", total=None)

        async def write(caller: int) -> None:
            while not enough.is_set():
                film = {"title": f"Written by {caller}, {len(accepted)}", "genre": "Kill"}
                options = {"json": film, "headers": {"Request-Timeout": "30"}}
                await self.call("create a film, services dying", "POST", "/movies", 201, **options)
                accepted.append(film["title"])
                self.progress.update(bar, completed=len(accepted))

        async with anyio.create_task_group() as group:
            for caller in range(CALLERS):
                group.start_soon(write, caller)
            seen: set[str] = (
                set()
            )  # the first kill is of a process that has done the most, the second of another
            for _ in range(2):
                await anyio.sleep(0.5)
                working = [who for who, _ in self.shares() if who not in seen]
                os.kill(int(working[0].rpartition(":")[2]), signal.SIGKILL)
                seen |= {working[0]}
                everybody = len(self.shares())
                while len(self.shares()) == everybody:  # noqa: ASYNC110  # until another one has taken its place
                    await anyio.sleep(0.1)
            enough.set()
        await self.seen(len(accepted), genre="Kill")
        kept = [title for (title,) in self.rows("SELECT title FROM movies WHERE genre = 'Kill'")]
        lost, doubled = len(set(accepted) - set(kept)), len(kept) - len(set(kept))
        self.killed = (
            f"A service was killed twice: {len(accepted)} films accepted, {lost} lost, {doubled} doubled"
        )
        if lost or doubled:
            self.wrong.append(self.killed)

    def shares(self) -> list[tuple[str, int]]:
        """Which process of the service has done how many changes, the busiest first."""
        return self.rows("SELECT served_by, count(*) FROM changes GROUP BY 1 ORDER BY 2 DESC")

    def rows(self, query: str) -> list[Any]:
        """What is in the database of the service."""
        with closing(sqlite3.connect(self.database)) as database:
            return database.execute(query).fetchall()

    async def go_wrong(self, movie: Film) -> None:
        """What is refused, and how."""
        path, late = f"/movies/{movie['id']}", {"Request-Timeout": "0.001"}
        table = Table("what goes wrong on purpose", "status", "what the API says")
        for what, method, where, status, options in (
            ("a change from a stale version", "PUT", path, 409, {"json": movie}),
            ("a film that is not there", "GET", "/movies/999999", 404, {}),
            ("a film with a number as title", "POST", "/movies", 422, {"json": {"title": 1776}}),
            ("JSON that is none", "POST", "/movies", 400, {"content": "{", "headers": JSON}),
            ("a dyingline of one millisecond", "GET", path, 504, {"headers": late}),
        ):
            problem = await self.call("an error", method, where, status, **options)
            table.add_row(what, str(problem["status"]), problem["detail"])
        console.print(table)

    def show(self) -> None:
        table = Table(title=f"{CALLERS} callers at once, over HTTP")
        for column in ("", "calls", "p50 ms", "p99 ms"):
            table.add_column(column, justify="right" if column else "left")
        for what, times in self.milliseconds.items():
            cuts = statistics.quantiles(times, n=100, method="inclusive")
            table.add_row(what, str(len(times)), f"{cuts[49]:.1f}", f"{cuts[98]:.1f}")
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
