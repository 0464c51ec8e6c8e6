"""The movies over HTTP: what a user of the API gets."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import anyio
import httpx
import pytest
from azure.servicebus import ServiceBusMessage
from azure.servicebus.aio import ServiceBusClient

from movies.contract import TOPIC, Movie, MovieEvent, MovieUpdated
from sbrpc import EventBus, connect

from .movies_site import (
    Site,
    caller,
    create,
    eventually,
    listed,
    serving,
    told,
    told_as,
)


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    """All processes of the example, shared by the tests that leave them as they are."""
    with serving() as site:
        yield site


@pytest.fixture
def http(site: Site) -> Iterator[httpx.Client]:
    """A caller of the HTTP API."""
    with caller(site) as http:
        yield http


def problem(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The problem details of a response that must be exactly this failure."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    body = dict(response.json())
    assert (body["status"], body["code"]) == (status, code)
    assert body["title"]
    assert body["detail"]
    return body


def test_it_is_live_and_ready(http: httpx.Client) -> None:
    """Both health checks answer 200 once the API is up."""
    assert http.get("/health/live").json() == {"status": "live"}
    assert eventually(lambda: http.get("/health/ready").json() == {"status": "ready"})


def test_it_describes_itself_to_other_programs(http: httpx.Client) -> None:
    """Its calls and events as AsyncAPI, and the same as a page that loads nothing from elsewhere."""
    document = http.get("/asyncapi.json").json()
    assert document["asyncapi"] == "3.1.0"
    assert {"movies.get_movie", "movies.delete_movie", "movie-events.publish"} <= {*document["operations"]}
    page = http.get("/asyncapi")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "movies.update_movie" in page.text
    assert "src=" not in page.text


def test_a_film_is_created_read_changed_and_deleted(http: httpx.Client) -> None:
    """The four calls through the service see each other's effects at once, and the version counts changes."""
    facts = {"released": "2005-05-06", "genre": "Drama", "imdb_rating": 8.0, "worldwide_gross": 98_410_061}
    response = http.post("/movies", json={"title": "Crash", **facts})
    assert response.status_code == 201
    movie = response.json()
    assert movie["title"] == "Crash"
    assert movie["version"] == 1
    assert movie == movie | facts
    address = response.headers["location"]
    assert address == f"/movies/{movie['id']}"
    assert http.get(address).json() == movie
    changed = http.put(address, json=movie | {"director": "Paul Haggis"})
    assert changed.status_code == 200
    assert changed.json() == movie | {"director": "Paul Haggis", "version": 2}
    assert http.get(address).json() == changed.json()
    deleted = http.delete(address)
    assert (deleted.status_code, deleted.content) == (204, b"")
    problem(http.get(address), 404, "NOT_FOUND")


def test_each_response_says_who_answered_and_how_long_it_took(http: httpx.Client) -> None:
    """Both good and bad answers carry the process and the milliseconds."""
    for response in (http.get("/movies"), http.get("/movies/999999999"), http.get("/nowhere")):
        assert response.headers["served-by"].startswith("movies-api ")
        assert response.headers["server-timing"].startswith("total;dur=")


def test_a_change_from_a_stale_version_is_a_conflict(http: httpx.Client) -> None:
    """Of two changes made from the same version, the second is refused and told the current version."""
    movie = create(http)
    assert http.put(f"/movies/{movie['id']}", json=movie | {"title": "first"}).status_code == 200
    refused = http.put(f"/movies/{movie['id']}", json=movie | {"title": "second"})
    assert problem(refused, 409, "ABORTED")["errors"] == [{"current_version": 2}]
    assert http.get(f"/movies/{movie['id']}").json()["title"] == "first"


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_a_film_that_is_not_there_is_404(http: httpx.Client, method: str) -> None:
    """Each method on an id that does not exist says so."""
    body = {"json": {"title": "Crash", "version": 1}} if method == "PUT" else {}
    detail = problem(http.request(method, "/movies/999999999", **body), 404, "NOT_FOUND")["detail"]
    assert "999999999" in detail


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "body.title"),
        ({"title": None}, "body.title"),
        ({"title": 1776}, "body.title"),
        ({"title": " "}, "body.title"),
        ({"title": "x" * 301}, "body.title"),
        ({"title": "Crash", "released": "soon"}, "body.released"),
        ({"title": "Crash", "imdb_rating": 11}, "body.imdb_rating"),
        ({"title": "Crash", "imdb_votes": -1}, "body.imdb_votes"),
        ({"title": "Crash", "worldwide_gross": 2**63}, "body.worldwide_gross"),
    ],
)
def test_a_wrong_field_is_named(http: httpx.Client, body: dict[str, Any], field: str) -> None:
    """A body that does not fit is 422, and each wrong field stands in the problem details."""
    details = problem(http.post("/movies", json=body), 422, "INVALID_ARGUMENT")
    assert [error["field"] for error in details["errors"]] == [field]


def test_a_change_without_a_version_is_refused(http: httpx.Client) -> None:
    """Who does not say which version the change was made from cannot overwrite what others did."""
    details = problem(http.put("/movies/1", json={"title": "Crash"}), 422, "INVALID_ARGUMENT")
    assert details["errors"][0]["field"] == "body.version"


def test_a_body_that_is_no_json_is_400(http: httpx.Client) -> None:
    """Malformed JSON is told apart from wrong values."""
    headers = {"content-type": "application/json"}
    problem(http.post("/movies", content="{", headers=headers), 400, "INVALID_ARGUMENT")


@pytest.mark.parametrize("path", ["/movies/crash", "/movies/0", f"/movies/{2**63}"])
def test_an_id_that_cannot_be_is_422(http: httpx.Client, path: str) -> None:
    """An id is a positive number that fits the database."""
    problem(http.get(path), 422, "INVALID_ARGUMENT")


def test_unknown_addresses_and_methods_are_problems_too(http: httpx.Client) -> None:
    """404 and 405 of the web framework look like all other errors."""
    problem(http.get("/nowhere"), 404, "NOT_FOUND")
    assert problem(http.patch("/movies/1"), 405, "METHOD_NOT_ALLOWED")


def test_a_deadline_that_passes_is_504(http: httpx.Client) -> None:
    """The caller's own deadline decides how long the call waits."""
    movie = create(http)
    response = http.get(f"/movies/{movie['id']}", headers={"Request-Timeout": "0.0001"})
    problem(response, 504, "DEADLINE_EXCEEDED")


@pytest.mark.parametrize("seconds", ["0", "-1", "soon", "nan", "inf", "301"])
def test_a_deadline_that_makes_no_sense_is_422(http: httpx.Client, seconds: str) -> None:
    """The header takes seconds above 0, at most 300."""
    details = problem(http.get("/movies/1", headers={"Request-Timeout": seconds}), 422, "INVALID_ARGUMENT")
    assert details["errors"][0]["field"] == "header.request-timeout"


def test_the_read_model_follows_each_change(http: httpx.Client) -> None:
    """A created film can be found, a changed one is found as it is now, a deleted one is gone."""
    movie = create(http, title="Follow me")
    assert eventually(lambda: listed(http, search="follow ME")) == [movie]
    changed = http.put(f"/movies/{movie['id']}", json=movie | {"title": "Follow you"}).json()
    assert eventually(lambda: listed(http, search="follow you")) == [changed]
    assert http.delete(f"/movies/{movie['id']}").status_code == 204
    eventually(lambda: listed(http, search="follow you") == [])


def test_changes_are_told_live(site: Site, http: httpx.Client) -> None:
    """Each of a film's changes reaches everybody who listens, with the film as it is then; what was before
    is not told."""
    create(http, title="Before")
    eventually(lambda: listed(http, search="Before"))
    with told(site.url) as one, told(site.url) as other:
        movie = create(http, title="Live")

        def heard() -> list[dict[str, Any]]:
            # What came before may be told still, by a look that was under way.
            return [next(change for change in each if change["id"] == movie["id"]) for each in (one, other)]

        assert heard() == [told_as(movie)] * 2
        changed = http.put(f"/movies/{movie['id']}", json=movie | {"title": "Live again"}).json()
        assert heard() == [told_as(changed)] * 2
        http.delete(f"/movies/{movie['id']}").raise_for_status()
        assert heard() == [{"id": movie["id"], "version": 3, "movie": None}] * 2


def test_films_are_searched_filtered_sorted_and_paged(http: httpx.Client) -> None:
    """Search looks at title and director; filters narrow; pages of one order join without gap or overlap."""
    for n in range(5):
        genre, director = ("Drama", "Ann Onym%us") if n % 2 else ("Comedy", "Bob")
        create(
            http, title=f"Paged {n}", genre=genre, director=director, released=f"200{n}-01-01", rating="PG"
        )

    def titles(**query: Any) -> list[str]:
        return [movie["title"] for movie in listed(http, **query)]

    assert eventually(lambda: len(titles(search="paged")) == 5)
    assert titles(search="onym%") == ["Paged 1", "Paged 3"]
    assert titles(search="paged", genre="Drama") == ["Paged 1", "Paged 3"]
    assert titles(search="paged", year=2004) == ["Paged 4"]
    assert titles(search="paged", rating="PG-13") == []
    order = {"search": "paged", "sort": "released", "descending": True, "limit": 2}
    pages = [titles(**order, offset=offset) for offset in (0, 2, 4, 6)]
    assert pages == [["Paged 4", "Paged 3"], ["Paged 2", "Paged 1"], ["Paged 0"], []]
    assert http.get("/movies", params=order).json()["total"] == 5


@pytest.mark.parametrize(
    "query", [{"limit": 0}, {"limit": 201}, {"offset": -1}, {"sort": "gross"}, {"year": 0}]
)
def test_a_list_that_makes_no_sense_is_422(http: httpx.Client, query: dict[str, Any]) -> None:
    """Pages have 1 to 200 films, and only some columns sort."""
    problem(http.get("/movies", params=query), 422, "INVALID_ARGUMENT")


async def publish(connection_string: str, key: str, *events: MovieEvent) -> None:
    """Announce something as the service would, in order."""
    async with (
        connect(connection_string) as connection,
        EventBus(connection, topic=TOPIC, source="/tests") as bus,
    ):
        for event in events:
            await bus.publish(event, key=key)


def test_stale_and_repeated_events_change_nothing(site: Site, http: httpx.Client) -> None:
    """An event that is older than the read model, or comes again, leaves it as it is, even after a delete."""
    movie = create(http, title="Guarded")
    changed = http.put(f"/movies/{movie['id']}", json=movie | {"title": "Guarded twice"}).json()
    gone = create(http, title="Guarded and gone")
    assert http.delete(f"/movies/{gone['id']}").status_code == 204
    eventually(lambda: listed(http, search="Guarded") == [changed])
    old = [MovieUpdated(movie=Movie(**facts)) for facts in (movie, changed, gone) for _ in range(2)]
    last = Movie(**changed | {"id": 2**40, "title": "The event behind them all"})
    anyio.run(publish, site.connection_string, "one", *old, MovieUpdated(movie=last))
    assert eventually(lambda: listed(http, search=last.title))
    assert listed(http, search="Guarded") == [changed]


async def request(connection_string: str, *messages: ServiceBusMessage) -> None:
    """Put requests on the service's queue with nothing but the SDK."""
    async with (
        ServiceBusClient.from_connection_string(connection_string) as connection,
        connection.get_queue_sender("movies") as sender,
    ):
        for message in messages:
            await sender.send_messages(message)


def test_a_request_that_comes_again_works_once(site: Site, http: httpx.Client) -> None:
    """A call that is delivered several times makes one film; the bare SDK is enough to send it."""

    def creation(title: str, call_id: str) -> ServiceBusMessage:
        body = json.dumps({"title": title})
        return ServiceBusMessage(
            body, subject="create_movie", message_id=call_id, content_type="application/json"
        )

    repeated = [creation("Only once", "one and the same call") for _ in range(5)]
    anyio.run(request, site.connection_string, *repeated, creation("The last one", "another call"))
    assert eventually(lambda: listed(http, search="The last one"))
    assert len(listed(http, search="Only once")) == 1
