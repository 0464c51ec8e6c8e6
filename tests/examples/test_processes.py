"""The movies as processes: what a dying one costs, which is nothing, and how all of them begin and end."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from .movies_site import (
    EXAMPLES,
    MARK,
    caller,
    command,
    create,
    eventually,
    family,
    free_port,
    listed,
    serving,
    told,
    told_as,
)


def answers(url: str) -> bool:
    """Whether an API is ready there."""
    try:
        return httpx.get(f"{url}/health/ready").status_code == 200
    except httpx.TransportError:
        return False


class Load:
    """Callers that create, change and read films until they are told to stop."""

    def __init__(self, url: str, callers: int = 8) -> None:
        self.url, self.callers = url, callers
        self.enough = threading.Event()
        self.titles: list[str] = []
        self.failed: list[str] = []

    def one(self, caller: int) -> None:
        with httpx.Client(base_url=self.url, timeout=60, headers={"Request-Timeout": "30"}) as http:
            n = 0
            while not self.enough.is_set():
                title = f"Load {caller}.{(n := n + 1)}"
                created = http.post("/movies", json={"title": title})
                if created.status_code != 201:
                    self.failed.append(f"POST: {created.status_code} {created.text}")
                    continue
                self.titles.append(title)
                movie = created.json()
                changed = http.put(f"/movies/{movie['id']}", json=movie | {"genre": "Load"})
                read = http.get(f"/movies/{movie['id']}")
                if (changed.status_code, read.status_code) != (200, 200) or read.json()["version"] != 2:
                    self.failed.append(f"{changed.status_code} {changed.text} {read.status_code} {read.text}")

    def goes_on(self) -> None:
        """Wait until some more films were created."""
        before = len(self.titles)
        eventually(lambda: len(self.titles) > before + 2 * self.callers, within=60)

    def __enter__(self) -> Load:
        self.pool = ThreadPoolExecutor(self.callers)
        self.running = [self.pool.submit(self.one, caller) for caller in range(self.callers)]
        return self

    def __exit__(self, *_: object) -> None:
        self.enough.set()
        self.pool.shutdown()
        for ended in self.running:
            ended.result()


def all_titles(http: httpx.Client, search: str) -> list[str]:
    """The titles of all films the read model finds, however many pages they have."""
    found: list[str] = []
    while page := listed(http, search=search, limit=200, offset=len(found)):
        found += [movie["title"] for movie in page]
    return sorted(found)


def test_every_api_process_tells_all_changes_and_ends_while_somebody_listens(tmp_path: Path) -> None:
    """What was changed through one process is told by another; SIGINT does not wait for the listeners, and
    leaves no process and no traceback behind."""
    with serving(tmp_path) as site, caller(site) as http:
        port = free_port()
        env = {
            "SERVICEBUS_CONNECTION_STRING": site.connection_string,
            "MOVIES_READ_MODEL": f"sqlite+aiosqlite:///{tmp_path / 'movies-read-model.sqlite3'}",
            "MOVIES_PORT": str(port),
        }
        url = f"http://127.0.0.1:{port}"
        with command("sbrpc", "run", "movies.api:app", **env) as process:
            try:
                eventually(lambda: answers(url))
                with told(url) as second, told(site.url) as first:
                    movie = create(http)
                    assert next(first) == next(second) == told_as(movie)
                    process.send_signal(signal.SIGINT)
                    assert list(second) == []  # it ends, instead of breaking off
                    process.wait(60)
                    assert site.stop(signal.SIGINT) == 0
                    assert family(site.mark) == {}
                    assert list(first) == []
            finally:
                process.kill()
        assert "Traceback" not in site.said


def test_a_killed_service_costs_no_call_and_does_nothing_twice() -> None:
    """The service dies under load and comes back: each call gets its answer within its deadline, each film
    exists once, and the read model ends up with all of them."""
    with serving() as site, caller(site) as http:
        with Load(site.url) as load:
            load.goes_on()
            for _ in range(2):
                dead = site.kill("service")
                site.role("service", other_than=dead)
                load.goes_on()
        assert load.failed == []
        eventually(lambda: all_titles(http, "Load") == sorted(load.titles))
        eventually(lambda: http.get("/movies?genre=Load").json()["total"] == len(load.titles))
        assert "ended with -9; starting another movies.service:app" in site.said


def test_a_killed_event_handler_costs_no_event() -> None:
    """The event handler dies under load and comes back: the read model ends up complete."""
    with serving() as site, caller(site) as http:
        with Load(site.url, callers=4) as load:
            load.goes_on()
            site.role("events", other_than=site.kill("events"))
            load.goes_on()
        assert load.failed == []
        eventually(lambda: http.get("/movies?genre=Load").json()["total"] == len(load.titles), within=90)
        assert all_titles(http, "Load") == sorted(load.titles)


def test_the_api_comes_back_where_it_was_and_nobody_survives_a_killed_supervisor() -> None:
    """It is started again at the same address, and everybody finds it there. The processes notice when the
    one that started them is gone, even without a chance to tell them."""
    with serving() as site, caller(site) as http:
        movie = create(http)
        site.kill("api")

        def read() -> bool:
            try:
                return http.get(f"/movies/{movie['id']}").json() == movie
            except httpx.TransportError:
                return False

        assert eventually(read)
        site.kill("all")
        eventually(lambda: family(site.mark) == {})


def test_an_api_that_cannot_work_ends_and_says_why(tmp_path: Path) -> None:
    """A reply queue that is missing, or a database that cannot be opened, is one line and an exit code."""
    database = f"sqlite+aiosqlite:///{tmp_path / 'views.sqlite3'}"
    with command("sbrpc", "emulator", "--port", "0", "--http-port", "0") as emulator:
        assert emulator.stdout is not None
        while not (line := emulator.stdout.readline()).startswith("Endpoint=sb://"):
            assert line
        env = {"SERVICEBUS_CONNECTION_STRING": line.strip()}
        for url, code, reason in (
            (database, 6, "'gateway.replies'"),
            (
                f"sqlite+aiosqlite:///{tmp_path / 'nowhere' / 'views.sqlite3'}",
                1,
                "unable to open database file",
            ),
        ):
            port = str(free_port())
            api = command("sbrpc", "run", "movies.api:app", MOVIES_READ_MODEL=url, MOVIES_PORT=port, **env)
            said, _ = api.communicate(timeout=60)
            assert api.returncode == code, said
            assert reason in said
            assert "Traceback" not in said
        emulator.terminate()


def test_two_services_share_the_work(tmp_path: Path) -> None:
    """An app that is named twice has two processes, and both have done some of many changes."""
    with serving(tmp_path, services=2) as site:
        assert sorted(family(site.mark).values()).count("service") == 2

        def both() -> bool:
            with Load(site.url) as load:
                load.goes_on()
            with closing(sqlite3.connect(tmp_path / "movies.sqlite3")) as database:
                return len(database.execute("SELECT DISTINCT done_by FROM sbrpc_calls").fetchall()) == 2

        assert eventually(both)


def test_one_command_serves_all_of_it() -> None:
    """`python -m movies serve` prints the connection string once all are ready, answers at its port, and ends
    with a signal. Nothing is left of it."""
    port = free_port()
    with command("movies", "serve", "--port", str(port), **{MARK: "one command"}) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith(f"The movies will be at http://127.0.0.1:{port}, ")
        while not (line := process.stdout.readline()).startswith("Endpoint=sb://"):
            assert line
        created = httpx.post(f"http://127.0.0.1:{port}/movies", json={"title": "Crash"}, timeout=60)
        assert created.status_code == 201
        process.terminate()
        assert process.wait(60) == 0
    assert family("one command") == {}


def test_a_taken_port_is_said() -> None:
    """The message names it, and everything ends."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        process = command("movies", "serve", "--port", str(port), **{MARK: "taken port"})
        said, _ = process.communicate(timeout=60)
    assert process.returncode == 2
    assert f"sbrpc: cannot listen on 127.0.0.1, port {port}: " in said
    assert "Traceback" not in said
    assert family("taken port") == {}


def test_databases_are_kept_where_the_user_wants_them(tmp_path: Path) -> None:
    """A later run finds what an earlier one wrote. SIGTERM leaves no process and no traceback behind."""
    with serving(tmp_path) as site, caller(site) as http:
        assert sorted(family(site.mark).values()) == ["all", "api", "events", "service"]
        movie = create(http)
        eventually(lambda: listed(http) == [movie])
        assert site.stop() == 0
        assert family(site.mark) == {}
        assert "Traceback" not in site.said
    with serving(tmp_path) as site, caller(site) as http:
        assert listed(http) == [movie]
        assert http.get(f"/movies/{movie['id']}").json() == movie


def test_the_demo_tells_its_story_and_ends_well() -> None:
    """It imports the catalogue, names rejected rows with their reasons, shows latencies and how the work was
    shared, kills services without a loss, and exits 0. `SBRPC_TEST_LONG=1` makes it all of the catalogue."""
    films = 3169 if os.environ.get("SBRPC_TEST_LONG") else 300
    process = command("movies", "demo", "--films", str(films), COLUMNS="150")
    said, _ = process.communicate(timeout=240)
    assert process.returncode == 0, said
    assert f"{films} films imported, 32 rows rejected" in said
    assert "title: Input should be a valid string, not 1776" in said
    assert 'is in the future of a catalogue that ends in 2011, not "2039-12-15"' in said
    assert "after a change, until its event arrives" in said
    assert "2 services were killed meanwhile: 0 films lost, 0 doubled" in said
    assert len(re.findall(r"The service process \S+ has done \d+ changes", said)) >= 3


def test_a_demo_without_films_says_so(tmp_path: Path) -> None:
    """Before it starts anything, and without a traceback."""
    shutil.copytree(EXAMPLES / "movies", tmp_path / "movies")
    catalogue = tmp_path / "movies" / "data" / "movies.json"
    for text, problem in (
        ("[]", "gives 0 films; it takes 300"),
        ("", "is not a list of films in JSON: Invalid JSON: "),
        ("{}", "is not a list of films in JSON: Input should be "),
    ):
        catalogue.write_text(text)
        ended = subprocess.run(
            [sys.executable, "-m", "movies", "demo"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert ended.returncode == 1
        assert ended.stderr.startswith(f"movies: {catalogue} ")
        assert problem in ended.stderr
        assert not ended.stdout


@pytest.mark.parametrize("module", ["httpx", "rich"])
def test_what_is_not_installed_is_named(module: str) -> None:
    """Without the extra, the message says what to install instead of showing a traceback."""
    without = f"import runpy, sys; sys.modules[{module!r}] = None; sys.argv[1:] = ['demo']"
    run = f"{without}; runpy.run_module('movies', run_name='__main__')"
    ended = subprocess.run(
        [sys.executable, "-c", run], cwd=EXAMPLES, capture_output=True, text=True, timeout=60
    )
    assert ended.returncode == 1
    assert ended.stderr == f"{module} is not installed; the example needs: pip install 'sbrpc[examples]'\n"


def test_an_interrupted_demo_leaves_nothing_behind() -> None:
    """Ctrl-C in the middle of the import ends all processes, and the exit code says so."""
    with command("movies", "demo", **{MARK: "interrupted demo"}) as process:
        assert process.stdout is not None
        while "is up after" not in process.stdout.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "Traceback" not in said
    assert family("interrupted demo") == {}
