"""The movies as processes: how all of them begin and end."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from .movies_site import (
    EXAMPLES,
    MARK,
    answers,
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

pytestmark = pytest.mark.applications


def test_a_site_ends_in_order_and_goes_on_where_it_was(tmp_path: Path) -> None:
    """A later run finds what an earlier one wrote, and what is changed through one API process is told by
    another. SIGTERM, and SIGINT while somebody listens, leave no process and no traceback behind."""
    with serving(tmp_path) as site, caller(site) as http:
        assert sorted(family(site.mark).values()) == ["all", "api", "events", "service"]
        kept = create(http)
        eventually(lambda: listed(http) == [kept])
        assert site.stop() == 0
        assert family(site.mark) == {}
        assert "Traceback" not in site.said
    with serving(tmp_path) as site, caller(site) as http:
        assert listed(http) == [kept]
        assert http.get(f"/movies/{kept['id']}").json() == kept
        port = free_port()
        env = {
            "SERVICEBUS_CONNECTION_STRING": site.connection_string,
            "MOVIES_READ_MODEL": f"sqlite+aiosqlite:///{tmp_path / 'movies-read-model.sqlite3'}",
            "MOVIES_PORT": str(port),
        }
        url = f"http://127.0.0.1:{port}"
        with command("sbrpc", "run", "movies.api:app", **env) as process:
            try:
                eventually(lambda: answers(f"{url}/health/ready"))
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


def test_an_api_that_cannot_work_ends_and_says_why(tmp_path: Path) -> None:
    """One line and an exit code: for a reply queue that is missing, a database that cannot be opened, or a
    port that is taken."""
    database = f"sqlite+aiosqlite:///{tmp_path / 'views.sqlite3'}"
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        command("sbrpc", "emulator", "--port", "0", "--http-port", "0") as emulator,
    ):
        assert emulator.stdout is not None
        while not (line := emulator.stdout.readline()).startswith("Endpoint=sb://"):
            assert line
        env = {"SERVICEBUS_CONNECTION_STRING": line.strip()}
        nowhere = f"sqlite+aiosqlite:///{tmp_path / 'nowhere' / 'views.sqlite3'}"
        in_use = taken.getsockname()[1]
        for url, port, code, reason in (
            (database, str(free_port()), 6, "'gateway.replies'"),
            (nowhere, str(free_port()), 1, "unable to open database file"),
            (database, str(in_use), 2, f"sbrpc: cannot listen on 127.0.0.1, port {in_use}: "),
        ):
            api = command("sbrpc", "run", "movies.api:app", MOVIES_READ_MODEL=url, MOVIES_PORT=port, **env)
            said, _ = api.communicate(timeout=60)
            assert api.returncode == code, said
            assert reason in said
            assert "Traceback" not in said
        emulator.terminate()


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


def test_the_demo_tells_its_story_and_ends_well() -> None:
    """It imports the catalogue, names rejected rows with their reasons, shows latencies and how the work was
    shared, kills services without a loss, and exits 0. `SBRPC_TEST_LONG=1` makes it all of the catalogue."""
    films = 3169 if os.environ.get("SBRPC_TEST_LONG") else 150
    process = command("movies", "demo", "--films", str(films), COLUMNS="150")
    said, _ = process.communicate(timeout=400)
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
    catalogue.write_text("[]")
    ended = subprocess.run(
        [sys.executable, "-m", "movies", "demo"], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert ended.returncode == 1
    assert ended.stderr == f"movies: {catalogue} gives 0 films; it takes 150 to tell the story\n"
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
