"""The movies as processes that die: what it costs, which is nothing. One site serves all of these tests."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from .movies_site import Site, caller, create, eventually, family, listed, serving

pytestmark = pytest.mark.applications


class Load:
    """Callers that create, change and read films until they are told to stop."""

    def __init__(self, url: str, name: str, callers: int = 8) -> None:
        self.url, self.name, self.callers = url, name, callers
        self.enough = threading.Event()
        self.titles: list[str] = []
        self.failed: list[str] = []

    def one(self, caller: int) -> None:
        patient = {"Request-Timeout": "30"}
        with httpx.Client(base_url=self.url, timeout=60, headers=patient, verify=False) as http:
            n = 0
            while not self.enough.is_set():
                title = f"{self.name} {caller}.{(n := n + 1)}"
                created = http.post("/movies", json={"title": title})
                if created.status_code != 201:
                    self.failed.append(f"POST: {created.status_code} {created.text}")
                    continue
                self.titles.append(title)
                movie = created.json()
                changed = http.put(f"/movies/{movie['id']}", json=movie | {"genre": self.name})
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


@pytest.fixture(scope="module")
def databases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("movies")


@pytest.fixture(scope="module")
def site(databases: Path) -> Iterator[Site]:
    """All programs, and a second process of the service."""
    with serving(databases, services=2) as site:
        yield site


@pytest.fixture
def http(site: Site) -> Iterator[httpx.Client]:
    with caller(site) as http:
        yield http


def test_two_services_share_the_work(site: Site, databases: Path) -> None:
    """An app that is named twice has two processes, and both have done some of many changes."""
    assert sorted(family(site.mark).values()).count("service") == 2

    def both() -> bool:
        with Load(site.url, "Shared") as load:
            load.goes_on()
        with closing(sqlite3.connect(databases / "movies.sqlite3")) as database:
            return len(database.execute("SELECT DISTINCT done_by FROM sbrpc_calls").fetchall()) == 2

    assert eventually(both)


def test_a_killed_service_costs_no_call_and_does_nothing_twice(site: Site, http: httpx.Client) -> None:
    """The services die under load and come back: each call gets its answer within its deadline, each film
    exists once, and the read model ends up with all of them."""
    with Load(site.url, "Service") as load:
        load.goes_on()
        dead = {site.kill("service") for _ in range(2)}
        eventually(lambda: list(family(site.mark).values()).count("service") == 2)
        assert dead.isdisjoint(family(site.mark))
        load.goes_on()
    assert load.failed == []
    eventually(lambda: http.get("/movies?genre=Service").json()["total"] == len(load.titles))
    assert all_titles(http, "Service") == sorted(load.titles)
    assert "ended with -9; starting another movies.service:app" in site.said


def test_a_killed_event_handler_costs_no_event(site: Site, http: httpx.Client) -> None:
    """The event handler dies under load and comes back: the read model ends up complete."""
    with Load(site.url, "Event", callers=4) as load:
        load.goes_on()
        site.role("events", other_than=site.kill("events"))
        load.goes_on()
    assert load.failed == []
    eventually(lambda: http.get("/movies?genre=Event").json()["total"] == len(load.titles), within=90)
    assert all_titles(http, "Event") == sorted(load.titles)


def test_the_api_comes_back_where_it_was(site: Site, http: httpx.Client) -> None:
    """It is started again at the same address, and everybody finds it there."""
    movie = create(http)
    site.kill("api")

    def read() -> bool:
        try:
            return http.get(f"/movies/{movie['id']}").json() == movie
        except httpx.TransportError:
            return False

    assert eventually(read)


def test_nobody_survives_a_killed_supervisor(site: Site) -> None:
    """The processes notice when the one that started them is gone, even without a chance to tell them."""
    site.kill("all")
    eventually(lambda: family(site.mark) == {})
