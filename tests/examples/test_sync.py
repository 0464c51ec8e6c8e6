"""The movies example the previous way: the same HTTP API, and what a program that is not there does to it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from .movies_site import EXAMPLES, answers, eventually, free_port

pytestmark = pytest.mark.applications

PROGRAMS = ("views", "service", "api", "patient")


class Site:
    """The three programs and an API that tries again, each on a port of its own."""

    def __init__(self, directory: Path) -> None:
        self.ports = {name: free_port() for name in PROGRAMS}
        self.env = os.environ | {
            "MOVIES_DATABASE": f"sqlite+aiosqlite:///{directory / 'movies.sqlite3'}",
            "MOVIES_READ_MODEL": f"sqlite+aiosqlite:///{directory / 'views.sqlite3'}",
            "MOVIES_SERVICE_URL": self.url("service"),
            "MOVIES_VIEWS_URL": self.url("views"),
        }
        self.running: dict[str, subprocess.Popen[bytes]] = {}

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.ports[name]}"

    def start(self, name: str) -> None:
        """Start a program, and wait until it answers."""
        program, retry = ("api", {"MOVIES_SYNC_RETRY": "1"}) if name == "patient" else (name, {})
        command = [sys.executable, "-m", "sbrpc", "run", "--log-level=warning", f"movies.sync:{program}"]
        env = self.env | {"MOVIES_PORT": str(self.ports[name])} | retry
        self.running[name] = subprocess.Popen(command, cwd=EXAMPLES, env=env, stdin=subprocess.DEVNULL)

        def up() -> bool:
            assert self.running[name].poll() is None, f"{name} ended"
            return answers(f"{self.url(name)}/openapi.json")

        eventually(up)

    def kill(self, name: str) -> None:
        self.running[name].kill()
        self.running.pop(name).wait()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    site = Site(tmp_path_factory.mktemp("movies"))
    try:
        for name in PROGRAMS:
            site.start(name)
        yield site
    finally:
        for name in list(site.running):
            site.kill(name)


def test_the_http_api_is_that_of_the_other_application(site: Site) -> None:
    """Films are created, changed, listed and deleted; errors have the same statuses and codes; what another
    program does not do fails with it, and nothing is half done."""
    with httpx.Client(base_url=site.url("api"), timeout=30) as http:
        movie = http.post("/movies", json={"title": "Crash"}).json()
        path = f"/movies/{movie['id']}"
        assert http.get(path).json() == movie
        changed = movie | {"title": "Crash!", "version": 2}
        assert http.put(path, json=changed | {"version": 1}).json() == changed
        assert http.get("/movies", params={"search": "crash!"}).json()["total"] == 1
        assert http.put(path, json=movie).json()["code"] == "ABORTED"
        assert http.get("/movies/999").json()["code"] == "NOT_FOUND"
        assert http.get(path, headers={"Request-Timeout": "0.0001"}).json()["code"] == "DEADLINE_EXCEEDED"

        site.kill("views")
        assert http.post("/movies", json={"title": "Unseen"}).status_code == 503
        assert http.get("/movies").status_code == 503
        assert http.get(path).status_code == 200
        site.start("views")
        assert [each["title"] for each in http.get("/movies").json()["movies"]] == ["Crash!"]

        assert http.delete(path).status_code == 204
        assert http.get("/movies").json() == {"movies": [], "total": 0}


def test_what_calls_a_service_that_is_not_there_fails_or_waits(site: Site) -> None:
    """Without retries a call fails with the service. With them, what has not been sent is tried again until
    the deadline: a read as well as a write."""
    with (
        httpx.Client(base_url=site.url("api"), timeout=30) as http,
        httpx.Client(base_url=site.url("patient"), timeout=60, headers={"Request-Timeout": "60"}) as patient,
    ):
        site.kill("service")
        assert http.get("/movies/1").json()["code"] == "UNAVAILABLE"
        assert patient.get("/movies/1", headers={"Request-Timeout": "0.3"}).status_code == 504
        with ThreadPoolExecutor(1) as pool:
            late = pool.submit(patient.post, "/movies", json={"title": "Late"})
            site.start("service")
            assert late.result().status_code == 201
        assert [each["title"] for each in http.get("/movies").json()["movies"]] == ["Late"]
