"""The movies example as its users run it: processes, and a browser's view of them."""

from __future__ import annotations

import json
import os
import queue
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

EXAMPLES = Path(__file__).parents[2] / "examples"
MARK = "MOVIES_TEST_FAMILY"


def command(*arguments: str, **env: str) -> subprocess.Popen[str]:
    """Start `python -m movies` with these arguments, marked so that all its descendants can be found."""
    paths = [
        str(Path(path).absolute()) for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path
    ]
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("SERVICEBUS_")}
    return subprocess.Popen(
        [sys.executable, "-m", "movies", *arguments],
        cwd=EXAMPLES,
        env=inherited | {"PYTHONPATH": os.pathsep.join(paths), MARK: uuid.uuid4().hex} | env,
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
        elif marked and len(apps) == 1:  # a worker of `sbrpc run`
            found[int(directory.name)] = apps[0]
    return found


def eventually(holds: Callable[[], Any], within: float = 30.0) -> Any:
    """What `holds` returns as soon as that is true, which must be within so many seconds."""
    end = time.monotonic() + within
    while not (result := holds()):
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)
    return result


def free_port() -> int:
    """A port nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@dataclass
class Site:
    """A running `python -m movies serve`."""

    process: subprocess.Popen[str]
    mark: str
    url: str
    connection_string: str = ""
    said: list[str] = field(default_factory=list)

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
        """Interrupt `serve` and wait until it is gone; its exit code."""
        self.process.send_signal(with_signal)
        return self.process.wait(40)


@contextmanager
def serving(*arguments: str, **env: str) -> Iterator[Site]:
    """`python -m movies serve` on a free port, up and ready. Whatever is left at the end is killed."""
    port = free_port()
    mark = uuid.uuid4().hex
    process = command("serve", "--port", str(port), *arguments, **{MARK: mark}, **env)
    site = Site(process, mark, f"http://127.0.0.1:{port}")
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            site.said.append(line)
            lines.put(line)
        lines.put("")

    reader = threading.Thread(target=read)
    reader.start()
    try:
        while not site.connection_string:
            line = lines.get(timeout=60)
            assert line, f"it ended: {''.join(site.said)}"
            if line.startswith("Endpoint=sb://"):
                site.connection_string = line.strip()
        yield site
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(40)
            except subprocess.TimeoutExpired:
                process.kill()
        for left in family(mark):
            os.kill(left, signal.SIGKILL)
        process.wait()
        reader.join()
        assert process.stdout is not None
        process.stdout.close()


@contextmanager
def caller(site: Site) -> Iterator[httpx.Client]:
    """A client of the site's HTTP API."""
    with httpx.Client(base_url=site.url, timeout=60) as http:
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
    with httpx.stream("GET", f"{url}/movies/events", timeout=60) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        lines = response.iter_lines()
        assert [next(lines) for _ in range(4)] == ["event: ready", "data: {}", "retry: 1000", ""]
        yield (json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: "))


def told_as(movie: dict[str, Any]) -> dict[str, Any]:
    return {"id": movie["id"], "version": movie["version"], "movie": movie}
