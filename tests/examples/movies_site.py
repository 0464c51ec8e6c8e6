"""The movies example as its users run it: processes, and a browser's view of them."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from anyio.from_thread import BlockingPortal, start_blocking_portal

from sbrpc.testing import Application, application, free_port

EXAMPLES = Path(__file__).parents[2] / "examples"
MARK = "MOVIES_TEST_FAMILY"


def from_here() -> dict[str, str]:
    """The way to modules, for processes that run elsewhere."""
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    return {"PYTHONPATH": os.pathsep.join(str(Path(path).absolute()) for path in paths if path)}


def command(module: str, *arguments: str, **env: str) -> subprocess.Popen[str]:
    """Start `python -m` with these arguments, marked so that all its descendants can be found."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("SERVICEBUS_")}
    return subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        cwd=EXAMPLES,
        env=inherited | from_here() | {MARK: uuid.uuid4().hex} | env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def family(mark: str) -> dict[int, str]:
    """The processes that carry this mark: their ids, and the role each has."""
    found = {}
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            marked = f"{MARK}={mark}".encode() in (directory / "environ").read_bytes().split(b"\0")
            words = (directory / "cmdline").read_bytes().decode().split("\0")
        except OSError:  # it ended, or is somebody else's
            continue
        apps = re.findall(r"movies\.(\w+):app", " ".join(words))
        if marked and "movies" in words:
            found[int(directory.name)] = words[words.index("movies") + 1]
        elif marked and apps:  # a worker of `sbrpc run`, or what keeps the workers
            found[int(directory.name)] = apps[0] if len(apps) == 1 else "all"
    return found


def eventually(holds: Callable[[], Any], within: float = 60.0) -> Any:
    """What `holds` returns as soon as that is true, which must be within so many seconds."""
    end = time.monotonic() + within
    while not (result := holds()):
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)
    return result


def answers(url: str) -> bool:
    """Whether what is asked for there is to be had. Made to be asked often: it reads no certificates."""
    try:
        return httpx.get(url, verify=False).status_code == 200
    except httpx.TransportError:
        return False


@dataclass
class Site:
    """All programs of the example, as `sbrpc run` runs them."""

    running: Application
    portal: BlockingPortal
    mark: str
    url: str

    @property
    def connection_string(self) -> str:
        return self.running.connection_string

    @property
    def said(self) -> str:
        """What the programs have printed and logged."""
        return "\n".join(self.running.said)

    def role(self, name: str, other_than: int = 0) -> int:
        """The process that has this role, once there is one, and another one than that if need be."""

        def holder() -> int:
            here = family(self.mark).items()
            return next((process for process, role in here if role == name and process != other_than), 0)

        return int(eventually(holder))

    def kill(self, name: str) -> int:
        """End the process of this role the hard way; its id."""
        process = self.role(name)
        os.kill(process, signal.SIGKILL)
        return process

    def stop(self, with_signal: signal.Signals = signal.SIGTERM) -> int:
        """Interrupt all of it and wait until it is gone; its exit code."""
        return self.portal.call(self.running.stop, with_signal)


@contextmanager
def serving(databases: Path | None = None, services: int = 1, **env: str) -> Iterator[Site]:
    """All programs, the API on a free port, up and ready. Whatever is left at the end is killed."""
    port, mark = free_port(), uuid.uuid4().hex
    apps = [*["movies.service:app"] * services, "movies.events:app", "movies.api:app"]
    with tempfile.TemporaryDirectory(prefix="movies-") as temporary, start_blocking_portal() as portal:
        folder = databases or Path(temporary)
        ours = {
            MARK: mark,
            "MOVIES_PORT": str(port),
            "MOVIES_DATABASE": f"sqlite+aiosqlite:///{folder / 'movies.sqlite3'}",
            "MOVIES_READ_MODEL": f"sqlite+aiosqlite:///{folder / 'movies-read-model.sqlite3'}",
        }
        all_of_it = application(
            *apps, options=["--log-level=warning"], cwd=EXAMPLES, env=from_here() | ours | env
        )
        try:
            with portal.wrap_async_context_manager(all_of_it) as running:
                yield Site(running, portal, mark, f"http://127.0.0.1:{port}")
        finally:
            for left in family(mark):
                os.kill(left, signal.SIGKILL)


@contextmanager
def caller(site: Site) -> Iterator[httpx.Client]:
    """A client of the site's HTTP API."""
    with httpx.Client(base_url=site.url, timeout=60, verify=False) as http:
        yield http


def create(http: httpx.Client, **facts: Any) -> dict[str, Any]:
    """A new film, as the API returns it."""
    response = http.post("/movies", json={"title": "Crash"} | facts)
    assert response.status_code == 201, response.text
    return dict(response.json())


def listed(http: httpx.Client, **query: Any) -> list[dict[str, Any]]:
    """The films that the read model finds."""
    response = http.get("/movies", params=query)
    assert response.status_code == 200, response.text
    return list(response.json()["movies"])


@contextmanager
def told(url: str) -> Iterator[Iterator[dict[str, Any]]]:
    """The changes that an API tells from now on."""
    with httpx.stream("GET", f"{url}/movies/events", timeout=60, verify=False) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        lines = response.iter_lines()
        assert [next(lines) for _ in range(4)] == ["event: ready", "data: {}", "retry: 1000", ""]
        yield (json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: "))


def told_as(movie: dict[str, Any]) -> dict[str, Any]:
    return {"id": movie["id"], "version": movie["version"], "movie": movie}
