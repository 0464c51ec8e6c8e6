"""`python -m movies demo`: starts everything, imports the catalogue while services die, uses the films."""

import json
import os
import signal
import sqlite3
import sys
import tempfile
from collections import Counter
from contextlib import closing
from statistics import quantiles
from time import perf_counter
from typing import Any
from urllib.parse import quote

import anyio
import httpx
from rich.console import Console
from rich.progress import track

from sbrpc.testing import application, free_port

from . import catalogue

APPS = ["movies.service:app", "movies.service:app", "movies.events:app", "movies.api:app"]
CALLERS = 32
Film = dict[str, Any]
console = Console(highlight=False, markup=False, soft_wrap=True)


async def tell(most: int | None) -> None:
    began = perf_counter()
    try:
        films, rejected = catalogue.load()
    except ValueError as error:
        sys.exit(f"movies: {error}")
    for row in rejected:
        console.print(f"row {row.index} is not imported, {row.title}: {row.reason}", style="dim")
    if len(films := films[:most]) < 150:
        sys.exit(f"movies: {catalogue.FILE} gives {len(films)} films; it takes 150 to tell the story")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends this process as Ctrl-C does
    with tempfile.TemporaryDirectory(prefix="movies-") as folder:
        port, database = free_port(), f"{folder}/movies.sqlite3"
        env = {"MOVIES_PORT": str(port), "MOVIES_DATABASE": f"sqlite+aiosqlite:///{database}"}
        env["MOVIES_READ_MODEL"] = f"sqlite+aiosqlite:///{folder}/movies-read-model.sqlite3"
        emulator, quiet = "SERVICEBUS_CONNECTION_STRING" not in os.environ, ["--log-level=warning"]
        async with (
            application(*APPS, emulator=emulator, options=quiet, env=env, tell=console.print),
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=90) as http,
        ):
            console.print(f"{http.base_url} is up after {perf_counter() - began:.1f} s")
            story = Story(http, database)
            await story.tell([film.model_dump(mode="json") for film in films])
    console.print(
        f"{len(films)} films imported, {len(rejected)} rows rejected, {perf_counter() - began:.0f} s"
    )
    if story.wrong:
        sys.exit("\n".join(["What was to hold and did not:", *story.wrong]))


class Story:
    """What callers do. Whatever does not end as it shall is noted as `wrong`."""

    def __init__(self, http: httpx.AsyncClient, database: str) -> None:
        self.http, self.database = http, database
        self.wrong: list[str] = []

    async def tell(self, films: list[Film]) -> None:
        movies = await self.create(films)
        await self.seen(len(films))
        await self.each("read a film", "GET", movies[:500])
        found = await self.each("search the read model", "GET", movies[-300:], "/movies?search={title}")
        self.check(all(page["total"] for page in found), "a search found nothing")
        await self.listen(movies[:40])
        changed = await self.each("change a film", "PUT", movies[40:240], genre="Demo")
        await self.seen(len(changed), genre="Demo")
        await self.each("delete a film", "DELETE", movies[-50:])
        await self.seen(len(films) - 50)
        await self.go_wrong(movies[0])
        for process, changes in self.rows("SELECT done_by, count(*) FROM sbrpc_calls GROUP BY 1"):
            console.print(f"The service process {process} has done {changes} changes")

    def check(self, holds: bool, otherwise: str) -> None:
        if not holds:
            self.wrong.append(otherwise)

    async def call(self, method: str, path: str, status: int = 0, wait: float = 60, **options: Any) -> Any:
        answer = await self.http.request(method, path, headers={"Request-Timeout": str(wait)}, **options)
        expected = answer.status_code == status if status else answer.is_success
        self.check(expected, f"{method} {path}: {answer.status_code} {answer.text[:200]}")
        return answer.json() if answer.content else None

    async def each(
        self, what: str, method: str, films: list[Film], path: str = "/movies/{id}", **changes: str
    ) -> list[Any]:
        """The same for each film, with many callers at once; what came of each."""
        results, times = [], []
        left = track(films, what, console=console, transient=True)

        async def caller() -> None:
            for film in left:
                body = {"json": film | changes} if method in ("POST", "PUT") else {}
                where = path.format(id=film.get("id"), title=quote(film["title"]))
                began = perf_counter()
                results.append(await self.call(method, where, **body))
                times.append(perf_counter() - began)

        async with anyio.create_task_group() as group:
            for _ in range(CALLERS):
                group.start_soon(caller)
        report(f"{what}, {CALLERS} callers", times)
        return results

    async def create(self, films: list[Film]) -> list[Film]:
        """Import the films. When a third of them is there, a process of the service is killed, and another
        when two thirds are. In the end each film is there, once."""
        killed: set[str] = set()

        async def kill() -> None:
            for enough in (len(films) // 3, len(films) * 2 // 3):
                alive: set[str] = set()
                while not alive:
                    await anyio.sleep(0.05)
                    done = self.rows("SELECT done_by FROM sbrpc_calls")
                    alive = {process for (process,) in done} - killed if len(done) >= enough else set()
                process = alive.pop()
                os.kill(int(process.rpartition(":")[2]), signal.SIGKILL)
                killed.add(process)

        async with anyio.create_task_group() as group:
            group.start_soon(kill)
            movies = await self.each("create a film", "POST", films, "/movies")
            group.cancel_scope.cancel()
        given = Counter(film["title"] for film in films)
        kept = Counter(title for (title,) in self.rows("SELECT title FROM movies"))
        lost, doubled = (given - kept).total(), (kept - given).total()
        said = f"{len(killed)} services were killed meanwhile: {lost} films lost, {doubled} doubled"
        self.check(len(killed) == 2 and not lost + doubled, said)
        console.print(said)
        return movies

    async def seen(self, total: int, **filters: str) -> None:
        """Wait until the read model has so many films that pass the filters."""
        began, have = perf_counter(), -1
        while have != total and perf_counter() < began + 60:
            await anyio.sleep(0.02)  # to leave the processor to what is waited for
            have = (await self.call("GET", "/movies", params={"limit": 1, **filters}))["total"]
        console.print(
            f"… and seen {(perf_counter() - began) * 1000:.0f} ms later in the read model, {have} films"
        )
        self.check(have == total, f"the read model has {have} films of {total}")

    async def listen(self, movies: list[Film]) -> None:
        """Change films one by one, and take the time until the live stream tells of each."""
        lags = []
        async with self.http.stream("GET", "/movies/events") as stream:
            events = (line.removeprefix("data: ") async for line in stream.aiter_lines() if "data: " in line)
            await anext(events)  # it is ready
            for movie in movies:
                changed = await self.call("PUT", f"/movies/{movie['id']}", json=movie | {"genre": "Live"})
                began = perf_counter()
                while (told := json.loads(await anext(events)))["id"] != movie["id"]:
                    pass
                lags.append(perf_counter() - began)
                self.check(told["movie"] == changed, f"{changed} was told as {told}")
        report("after a change, until its event arrives", lags)

    async def go_wrong(self, movie: Film) -> None:
        path = f"/movies/{movie['id']}"
        for what, method, where, status, options in (
            ("a change from a stale version", "PUT", path, 409, {"json": movie}),
            ("a film that is not there", "GET", "/movies/999999", 404, {}),
            ("a film with a number as title", "POST", "/movies", 422, {"json": {"title": 1776}}),
            ("a body that is no film", "POST", "/movies", 422, {"json": ["Crash"]}),
            ("a deadline of one millisecond", "GET", path, 504, {"wait": 0.001}),
        ):
            problem = await self.call(method, where, status, **options)
            console.print(f"{what:<40}{problem['status']:>6} {problem['detail']}")

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """What is in the database of the service."""
        with closing(sqlite3.connect(self.database)) as database:
            return database.execute(query).fetchall()


def report(what: str, times: list[float]) -> None:
    cuts = [cut * 1000 for cut in quantiles(times, n=100, method="inclusive")]
    console.print(f"{what:<40}{len(times):>6} times, p50 {cuts[49]:7.1f} ms, p99 {cuts[98]:7.1f} ms")
