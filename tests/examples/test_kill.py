"""The movies programs are killed at random moments while films are written: nothing is lost or done twice."""

from __future__ import annotations

import os
import random
import sqlite3
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from .movies_site import Site, eventually, serving

pytestmark = pytest.mark.applications

# The emulator is not among them: it holds the queues in memory, in place of a service that is kept up.
ROLES = ("service", "events", "api")
KILLS = 50 if os.environ.get("SBRPC_TEST_LONG") else 4
WRITERS = 16  # so many that each kill meets some calls between their commit and their reply

Facts = dict[str, Any]


class Writers:
    """Callers of the API who write until told to stop, and keep what they were promised.

    Each writes films of its own, so it knows the states that each can be in: one, once the answer is there,
    and two while it is not known whether the last change was done.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.enough = threading.Event()
        self.acknowledged: Counter[str] = Counter()
        self.unknown: Counter[str] = Counter()
        self.titles: set[str] = set()
        self.states: dict[int, list[Facts | None]] = {}
        self.wrong: list[str] = []

    def write(self, writer: int) -> None:
        """Create films, change each and delete every third."""
        n = 0
        patient = {"Request-Timeout": "30"}
        with httpx.Client(base_url=self.url, timeout=60, headers=patient, verify=False) as http:
            while not self.enough.is_set():
                title = f"Film {writer}.{(n := n + 1)}"
                self.titles.add(title)
                created = self.ask(http, "POST", "/movies", 201, {"title": title})
                if created is None:
                    continue
                movie = created.json()
                changed = movie | {"genre": "Changed", "version": 2}
                self.step(http, "PUT", movie, changed, 200, movie | {"genre": "Changed"})
                if n % 3 == 0 and self.states[movie["id"]] == [changed]:
                    self.step(http, "DELETE", changed, None, 204)

    def step(
        self,
        http: httpx.Client,
        method: str,
        before: Facts,
        after: Facts | None,
        status: int,
        body: Facts | None = None,
    ) -> None:
        """Change a film, which may turn out to be done, or not to be known."""
        id = before["id"]
        self.states[id] = [before, after]
        if self.ask(http, method, f"/movies/{id}", status, body) is not None:
            self.states[id] = [after]

    def ask(
        self, http: httpx.Client, method: str, path: str, status: int, body: Facts | None
    ) -> httpx.Response | None:
        """The response that says it is done; none where nobody knows, as the API died or ran out of time."""
        try:
            response = http.request(method, path, json=body)
        except httpx.TransportError:
            self.unknown[method] += 1
            self.enough.wait(0.1)  # until the API is back
            return None
        if response.status_code == status:
            self.acknowledged[method] += 1
            return response
        self.unknown[method] += 1
        if response.status_code < 500:  # refused, though each writer's films are its own
            self.wrong.append(f"{method} {path}: {response.status_code} {response.text}")
        return None

    def go_on(self) -> None:
        """Wait until more is done than now."""
        before = self.acknowledged.total()
        eventually(lambda: self.acknowledged.total() > before + 2 * WRITERS, within=90)

    def __enter__(self) -> Writers:
        self.pool = ThreadPoolExecutor(WRITERS)
        self.running = [self.pool.submit(self.write, writer) for writer in range(WRITERS)]
        return self

    def __exit__(self, *_: object) -> None:
        self.enough.set()
        self.pool.shutdown()
        for ended in self.running:
            ended.result()


def rows(database: Path, statement: str) -> list[Facts]:
    """What a query of a database file gives."""
    with closing(sqlite3.connect(database, timeout=30)) as connection:
        connection.row_factory = sqlite3.Row
        return [dict(row) for row in connection.execute(statement)]


def kill_at_random(site: Site, chance: random.Random, writers: Writers) -> Counter[str]:
    """Kill each role, and then any, at moments in which writing goes on or something starts again."""
    killed: Counter[str] = Counter()
    for n in range(KILLS):
        role = ROLES[n] if n < len(ROLES) else chance.choice(ROLES)
        if chance.random() < 0.75:
            writers.go_on()
        # The moment is what is random here; nothing waits for time to pass.
        writers.enough.wait(chance.uniform(0, 1))
        site.kill(role)
        killed[role] += 1
    writers.go_on()
    return killed


def test_kills_at_random_moments_lose_nothing_and_double_nothing(tmp_path: Path) -> None:
    """After `kill -9` of service, event handler and API under writes, the database has every change that was
    acknowledged and no film twice, and the read model is equal to it row by row.

    `SBRPC_TEST_LONG=1` makes it 50 kills; `SBRPC_TEST_SEED` repeats the choice of a run.
    """
    seed = int(os.environ.get("SBRPC_TEST_SEED") or random.SystemRandom().randrange(2**32))
    print(f"SBRPC_TEST_SEED={seed}")
    with serving(tmp_path) as site:
        with Writers(site.url) as writers:
            killed = kill_at_random(site, random.Random(seed), writers)
        written, viewed = tmp_path / "movies.sqlite3", tmp_path / "movies-read-model.sqlite3"

        def equal() -> bool:
            movies = rows(written, "SELECT * FROM movies ORDER BY id")
            views = rows(viewed, "SELECT * FROM movie_views ORDER BY id")
            return movies == views and not rows(written, "SELECT id FROM sbrpc_outbox")

        eventually(equal, within=120)
    films = {row["id"]: row for row in rows(written, "SELECT * FROM movies")}
    print(
        f"killed {dict(killed)}, acknowledged {dict(writers.acknowledged)}, unknown {dict(writers.unknown)}"
    )
    print(f"{len(films)} films, equal in both databases")
    assert writers.wrong == []
    for id, states in writers.states.items():
        assert films.get(id) in states, f"film {id} is none of what it can be"
    titles = Counter(row["title"] for row in films.values())
    assert [title for title, times in titles.items() if times > 1] == []
    assert titles.keys() <= writers.titles
