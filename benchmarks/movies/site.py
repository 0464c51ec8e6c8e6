"""Both applications as processes, with databases of their own.

Owns which processes make up which application, killing one and starting it again. Knows nothing of load.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import anyio
import anyio.to_thread

from benchmarks.movies.databases import databases
from benchmarks.processes import ROOT, Child, NotReady, Stage
from sbrpc.testing import free_port

__all__ = ["FILMS", "VARIANTS", "Site", "running"]

VARIANTS = {
    "async": "Service Bus",
    "sync": "HTTP",
    "retry": "HTTP, with retries",
}
FILMS = 40  # that are there before anything is measured

_EXAMPLES = ROOT / "examples"
_PATIENCE = 60.0  # seconds that an application has to come up


class Site:
    """One running application. `url` is that of its HTTP API."""

    def __init__(
        self, variant: str, services: int, urls: Mapping[str, str], slow: Path, stage: Stage
    ) -> None:
        self.variant = variant
        self.services = services
        self.films: list[dict[str, Any]] = []
        self._stage = stage
        self.databases = urls
        self._slow = slow
        self._env = {
            **urls,
            "MOVIES_SLOW": str(self._slow),
            "PYTHONPATH": os.pathsep.join(str(path) for path in (ROOT / "src", ROOT, _EXAMPLES)),
        }
        self._ports = {name: free_port() for name in ("api", "views", *self._names())}
        self._children: dict[str, list[Child]] = {}
        self.slow(0)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._ports['api']}"

    def slow(self, factor: float) -> None:
        """From now on, statements of the service take so many times as long; with 0, no longer than ever."""
        new = self._slow.with_suffix(".new")
        new.write_text(str(factor))
        new.replace(self._slow)

    # -- processes ----------------------------------------------------------------------------------------

    def _names(self) -> list[str]:
        return [f"service {number}" for number in range(self.services)]

    @property
    def reader(self) -> str:
        """The process that keeps the read model."""
        return "events" if self.variant == "async" else "views"

    def launch(self) -> None:
        """Start all of it."""
        if self.variant == "async":
            config = str(_EXAMPLES / "movies" / "Config.json")
            self._start("emulator", "emulator", "--config", config, "--port", "0", "--http-port", "0")
            self._env["SERVICEBUS_CONNECTION_STRING"] = self._children["emulator"][0].ready("Endpoint=sb://")
        else:
            self._env["MOVIES_VIEWS_URL"] = f"http://127.0.0.1:{self._ports['views']}"
            self._env["MOVIES_SERVICE_URL"] = ",".join(
                f"http://127.0.0.1:{self._ports[name]}" for name in self._names()
            )
            self._env["MOVIES_SYNC_RETRY"] = str(int(self.variant == "retry"))
        for name in (*self._names(), self.reader, "api"):
            self.start(name)

    def start(self, name: str) -> None:
        """Start one process, for the first time or again."""
        program = name.split()[0]
        app = f"movies.{program}:app" if self.variant == "async" else f"movies.sync:{program}"
        self._start(name, "run", "--log-level=warning", app)

    def _start(self, name: str, *arguments: str) -> None:
        """A command of sbrpc, at the port that is kept for this process."""
        launcher = ["-m", "benchmarks.movies.slow"] if name.startswith("service") else ["-m"]
        command = [sys.executable, *launcher, "sbrpc", *arguments]
        env = {**self._env, "MOVIES_PORT": str(self._ports.get(name, 0))}
        child = self._stage.start(f"{self.variant} {name}", command, env=env, cwd=_EXAMPLES)
        self._children.setdefault(name, []).append(child)

    def kill(self, name: str) -> None:
        """End a process the hard way."""
        os.killpg(self._children[name][-1].pid, signal.SIGKILL)

    def kill_all(self) -> None:
        """End everything at once; what was to be looked at has been looked at."""
        for children in self._children.values():
            for child in children:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(child.pid, signal.SIGKILL)

    def check(self) -> None:
        """`NotReady` with what it said, if a process has ended by itself."""
        for name, children in self._children.items():
            if (code := children[-1].process.poll()) not in (None, -signal.SIGKILL):
                raise NotReady(f"{self.variant} {name} ended with {code}\n{children[-1].log()}")

    def cpu_seconds(self) -> dict[str, float]:
        """Processor time used so far by each kind of process."""
        used: Counter[str] = Counter()
        for name, children in self._children.items():
            kind = "read model" if name == self.reader else name.split()[0]
            used[kind] += sum(child.cpu_seconds() for child in children if child.process.poll() is None)
        return dict(used)

    # -- coming up ----------------------------------------------------------------------------------------

    async def ready(self, http: aiohttp.ClientSession) -> None:
        """Wait until every process has done its part, and the first films are there and listed."""
        for number in range(FILMS):
            film = {"title": f"Film {number}", "genre": "First"}
            self.films.append(await self._until(http, "POST", "/movies", 201, film))
        listed = 0
        try:
            with anyio.fail_after(_PATIENCE):
                while listed < FILMS:
                    listed = (await self._until(http, "GET", "/movies?limit=1", 200))["total"]
                while len(self._worked()) < self.services:
                    async with anyio.create_task_group() as group:
                        for film in self.films[: 4 * self.services]:
                            group.start_soon(self._until, http, "GET", f"/movies/{film['id']}", 200)
        except TimeoutError:
            raise NotReady(
                f"{self.variant}: {listed} of {FILMS} films are listed and {len(self._worked())} of "
                f"{self.services} services have worked after {_PATIENCE:g} s"
            ) from None

    def _worked(self) -> list[Path]:
        """What each process of the service leaves behind once it has worked."""
        return [*self._slow.parent.glob(f"{self._slow.name}.*[0-9]")]

    async def _until(
        self, http: aiohttp.ClientSession, method: str, path: str, status: int, body: object = None
    ) -> Any:
        """What the API answers as soon as it answers with this status; `NotReady` says what came instead."""
        last = "nothing"
        ends = time.monotonic() + _PATIENCE
        while time.monotonic() < ends:
            self.check()
            with contextlib.suppress(aiohttp.ClientError):
                async with http.request(method, self.url + path, json=body) as response:
                    if response.status == status:
                        return await response.json()
                    last = f"{response.status} {await response.text()}"
            await anyio.sleep(0.1)
        raise NotReady(f"{self.variant}: {method} {path} gave {last} for {_PATIENCE:g} s")


@contextlib.asynccontextmanager
async def running(variant: str, server: str | None, services: int = 1) -> AsyncIterator[Site]:
    """An application that is up, with its first films; gone afterwards, with its databases.

    They are SQLite's, or in the PostgreSQL that `server` is a URL of.
    """
    with tempfile.TemporaryDirectory(prefix="movies-validation-", ignore_cleanup_errors=True) as temporary:
        directory = Path(temporary)
        async with databases(server, directory) as urls:
            with Stage() as stage:
                site = Site(variant, services, urls, directory / "slow", stage)
                try:
                    await anyio.to_thread.run_sync(site.launch)
                    async with aiohttp.ClientSession() as http:
                        await site.ready(http)
                    site.slow(1)
                    yield site
                    site.check()
                finally:
                    site.kill_all()
