"""`python -m movies demo`: starts everything, imports the catalogue, uses it, kills services, sums it up."""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import anyio
import httpx
from anyio.streams.text import TextReceiveStream
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from . import catalogue

CALLERS = 32
LEAST = 300  # films, to read, change and delete
Film = dict[str, Any]
console = Console(highlight=False)


async def demo(verbose: bool, most: int | None) -> None:
    began = time.perf_counter()
    try:
        films, rejected = catalogue.load()
    except ValueError as error:
        sys.exit(f"movies: {error}")
    if len(films) < LEAST:
        sys.exit(f"movies: {catalogue.FILE} has {len(films)} films; the demo needs {LEAST}")
    films = films[:most]
    with tempfile.TemporaryDirectory(prefix="movies-") as data:
        patient = httpx.AsyncHTTPTransport(retries=6)  # it may not listen yet, on a namespace of yours
        async with (
            application(data) as url,
            httpx.AsyncClient(base_url=url, timeout=60, transport=patient) as http,
        ):
            console.print(f"{url} is up after {time.perf_counter() - began:.1f} s")
            story = Story(http, Path(data) / "movies.sqlite3")
            await story.tell([film.model_dump(mode="json") for film in films])
            table = Table("row", "title", "why it is not imported", title=f"{len(rejected)} rows rejected")
            for row in rejected if verbose else rejected[:8]:
                table.add_row(str(row.index), row.title, row.reason)
            console.print(table, "" if verbose else "… and more; --verbose lists all\n")
            story.sum_up()
    console.print(
        f"{len(films)} films imported, {len(rejected)} rows rejected, "
        f"all in {time.perf_counter() - began:.1f} s"
    )
    if story.wrong:
        sys.exit("\n".join(["What was to hold and did not:", *story.wrong]))


@asynccontextmanager
async def application(data: str) -> AsyncIterator[str]:
    """All of it as `serve` runs it, with two processes of the service; the URL of its API."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    serve = [sys.executable, "-m", "movies", "serve", "--services=2", "--port", port, "--data", data]
    process = await anyio.open_process(serve, stderr=None, start_new_session=True)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends this process as Ctrl-C does
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
        with anyio.CancelScope(shield=True), suppress(ProcessLookupError):
            process.terminate()
            await process.wait()


class Story:
    """What callers do. Each call is timed, and is to end as the story says; what does not is `wrong`."""

    def __init__(self, http: httpx.AsyncClient, database: Path) -> None:
        self.http, self.database = http, database
        self.times: dict[str, list[float]] = defaultdict(list)
        self.wrong: list[str] = []
        columns = TextColumn("{task.description:<36}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
        self.progress = Progress(*columns, console=console)

    async def tell(self, films: list[Film]) -> None:
        with self.progress:
            movies = await self.all("create a film", films, "POST", "/movies", 201)
            await self.seen(len(films))
            await self.all("read a film", movies[:500], "GET")
            found = await self.all("search the read model", movies[-300:], "GET", "/movies?search={title}")
            self.wrong += ["a search found nothing" for page in found if not page["total"]]
            await self.all("change a film", movies[:200], "PUT", genre="Demo")
            await self.seen(200, genre="Demo")
            await self.all("delete a film", movies[-50:], "DELETE", expect=204)
            await self.seen(len(films) - 50)
            await self.all("read a film, alone", movies[:100], "GET", callers=1)
            await self.listen(movies[200:240])
            await self.kill()
        await self.go_wrong(movies[0])

    async def call(self, what: str, method: str, path: str, expect: int = 200, **options: Any) -> Any:
        began = time.perf_counter()
        response = await self.http.request(method, path, **options)
        self.times[what].append(time.perf_counter() - began)
        if response.status_code != expect:
            self.wrong.append(f"{method} {path}: {response.status_code} {response.text[:200]}, not {expect}")
        return response.json() if response.content else None

    async def all(
        self,
        what: str,
        films: Sequence[Film],
        method: str,
        path: str = "/movies/{id}",
        expect: int = 200,
        callers: int = CALLERS,
        **changes: str,
    ) -> list[Film]:
        """The same for each film, with so many callers at once; what came of each."""
        results: list[Film] = []
        left = self.progress.track(films, description=what)

        async def caller() -> None:
            for film in left:
                body = {"json": film | changes} if method in ("POST", "PUT") else {}
                where = path.format(id=film.get("id"), title=quote(film["title"]))
                results.append(await self.call(what, method, where, expect, **body))

        async with anyio.create_task_group() as group:
            for _ in range(callers):
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

    async def listen(self, movies: list[Film]) -> None:
        """Change films one by one, and take the time until the live stream tells of each."""
        async with self.http.stream("GET", "/movies/events") as stream:
            events = (line.removeprefix("data: ") async for line in stream.aiter_lines() if "data: " in line)
            await anext(events)  # it is ready
            for movie in self.progress.track(movies, description="change a film, and hear of it"):
                changes = {"json": movie | {"genre": "Live"}}
                changed = await self.call("change a film, alone", "PUT", f"/movies/{movie['id']}", **changes)
                began = time.perf_counter()
                while (told := json.loads(await anext(events)))["id"] != movie["id"]:
                    pass
                self.times["… until its event has arrived"].append(time.perf_counter() - began)
                if told["movie"] != changed:
                    self.wrong.append(f"{changed} was told as {told}")

    async def kill(self) -> None:
        """Kill both services, one by one, while all callers write. What was accepted is there, once."""
        what, enough = "create a film, services dying", anyio.Event()
        accepted: list[str] = []
        bar = self.progress.add_task(what, total=None)

        async def write(caller: int) -> None:
            while not enough.is_set():
                film = {"title": f"Written by {caller}, {len(accepted)}", "genre": "Kill"}
                patient = {"Request-Timeout": "30"}
                await self.call(what, "POST", "/movies", 201, json=film, headers=patient)
                accepted.append(film["title"])
                self.progress.update(bar, completed=len(accepted))

        async with anyio.create_task_group() as group:
            for caller in range(CALLERS):
                group.start_soon(write, caller)
            for process in [*self.shares()]:
                await anyio.sleep(0.5)
                os.kill(int(process.rpartition(":")[2]), signal.SIGKILL)
                known = len(self.shares())
                while len(self.shares()) == known:  # noqa: ASYNC110  # until another one has taken its place
                    await anyio.sleep(0.1)
            enough.set()
        await self.seen(len(accepted), genre="Kill")
        kept = [title for (title,) in self.rows("SELECT title FROM movies WHERE genre = 'Kill'")]
        lost, doubled = len(set(accepted) - set(kept)), len(kept) - len(set(kept))
        self.killed = (
            f"Both services were killed: {len(accepted)} films accepted, {lost} lost, {doubled} doubled"
        )
        if lost or doubled:
            self.wrong.append(self.killed)

    async def go_wrong(self, movie: Film) -> None:
        path, late = f"/movies/{movie['id']}", {"Request-Timeout": "0.001"}
        table = Table("what goes wrong on purpose", "status", "what the API says")
        for what, method, where, status, options in (
            ("a change from a stale version", "PUT", path, 409, {"json": movie}),
            ("a film that is not there", "GET", "/movies/999999", 404, {}),
            ("a film with a number as title", "POST", "/movies", 422, {"json": {"title": 1776}}),
            ("a body that is no film", "POST", "/movies", 422, {"json": ["Crash"]}),
            ("a deadline of one millisecond", "GET", path, 504, {"headers": late}),
        ):
            problem = await self.call("an error", method, where, status, **options)
            table.add_row(what, str(problem["status"]), problem["detail"])
        console.print(table)

    def sum_up(self) -> None:
        table = Table("", "calls", "p50 ms", "p99 ms", title=f"{CALLERS} callers at once, over HTTP")
        for what, times in self.times.items():
            cuts = statistics.quantiles(times, n=100, method="inclusive")
            table.add_row(what, str(len(times)), f"{cuts[49] * 1000:.1f}", f"{cuts[98] * 1000:.1f}")
        console.print(table)
        for process, changes in self.shares().items():
            console.print(f"The service process {process} has done {changes} changes")
        console.print(self.killed)

    def shares(self) -> dict[str, int]:
        """Which process of the service has done how many changes."""
        return dict(self.rows("SELECT done_by, count(*) FROM sbrpc_calls GROUP BY 1"))

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """What is in the database of the service."""
        with closing(sqlite3.connect(self.database)) as database:
            return database.execute(query).fetchall()
