"""Event models: definition, versions, envelopes."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

import pytest

from sbrpc.errors import ContractError, DecodeError
from sbrpc.event import Event, EventInfo, envelope, key_of

NOW = datetime(2026, 3, 1, tzinfo=timezone.utc)


class MovieEvent(Event, key="movie_id"):
    movie_id: int


class CreatedV1(MovieEvent, type="movies.created.v1"):
    name: str


class CreatedV2(MovieEvent, type="movies.created.v2"):
    title: str


class CreatedV3(MovieEvent, type="movies.created.v3"):
    title: str
    year: int | None = None


@CreatedV2.upcast_from("movies.created.v1")
def _v1_to_v2(old: dict[str, Any]) -> dict[str, Any]:
    return {"movie_id": old["movie_id"], "title": old["name"]}


@CreatedV3.upcast_from(CreatedV2)
def _v2_to_v3(old: CreatedV2) -> CreatedV3:
    return CreatedV3(movie_id=old.movie_id, title=old.title, year=1979 if old.title == "Alien" else None)


def info(**changes: Any) -> EventInfo:
    facts: dict[str, Any] = {
        "id": "cause-1",
        "source": "/s",
        "type": "t",
        "time": NOW,
        "subject": None,
        "key": "7",
        "correlation_id": None,
        "causation_id": None,
        "traceparent": None,
        "tracestate": None,
        "delivery_count": 0,
        "attempt": 0,
        "sequence_number": 1,
        "enqueued_at": NOW,
        "fencing_token": 1,
    }
    return EventInfo(**{**facts, **changes})


def wrap(event: Event, **arguments: Any) -> Any:
    return envelope(event, **{"id": "e-1", "source": "/movies", "time": NOW, **arguments})


def test_event_is_a_frozen_model() -> None:
    """An event validates its fields and cannot change after that."""
    event = CreatedV3(movie_id=1, title="Alien")
    with pytest.raises(ValueError, match="frozen"):
        event.title = "Aliens"  # type: ignore[misc]


def test_type_is_not_inherited_but_key_is() -> None:
    """A subclass without a type is a base again; the ordering key is handed on."""

    class Special(CreatedV3):
        pass

    assert Special.accepted_types() == ()
    assert key_of(Special(movie_id=7, title="x"), None) == "7"


@pytest.mark.parametrize("bad", ["", "  ", " a", 5])
def test_unusable_type_is_refused_at_definition(bad: Any) -> None:
    """A type that nobody could subscribe to is an error where it is written."""
    with pytest.raises(ContractError, match="not the name of an event type"):
        type("Bad", (Event,), {"__module__": __name__}, type=bad)


def test_a_property_can_be_the_key() -> None:
    """What keeps order may be made of fields, and stays out of the body."""

    class Laned(Event, type="laned", key="lane"):
        number: int

        @property
        def lane(self) -> str:
            return f"lane-{self.number % 8}"

    assert key_of(Laned(number=11), None) == "lane-3"
    assert Laned(number=11).model_dump() == {"number": 11}


def test_key_must_be_a_field() -> None:
    """A key that is no field is refused at definition, with the fields there are."""
    with pytest.raises(ContractError, match="it has movie_id"):

        class Bad(MovieEvent, key="id"):
            pass


def test_own_type_decodes() -> None:
    """The body of the class' own type becomes an instance."""
    assert CreatedV2.decode("movies.created.v2", b'{"movie_id":1,"title":"Alien"}') == CreatedV2(
        movie_id=1, title="Alien"
    )


def test_old_versions_are_upcast_through_the_chain() -> None:
    """The oldest version arrives as the newest, through every step between."""
    assert CreatedV3.accepted_types() == ("movies.created.v3", "movies.created.v2", "movies.created.v1")
    event = CreatedV3.decode("movies.created.v1", b'{"movie_id":1,"name":"Alien"}')
    assert event == CreatedV3(movie_id=1, title="Alien", year=1979)


def test_wrong_fields_are_all_named() -> None:
    """A body that does not fit raises an error with one entry per field."""
    with pytest.raises(DecodeError) as caught:
        CreatedV3.decode("movies.created.v3", b'{"movie_id":"x","year":"y"}')
    assert [detail["field"] for detail in caught.value.details] == ["movie_id", "title", "year"]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b"\xff"])
@pytest.mark.parametrize("version", ["v1", "v3"])
def test_body_that_is_no_object_is_a_decode_error(body: bytes, version: str) -> None:
    """Whatever the body is, the only error is DecodeError."""
    with pytest.raises(DecodeError):
        CreatedV3.decode(f"movies.created.{version}", body)


def test_failing_upcast_is_a_decode_error() -> None:
    """An upcast that trips over an old body says so, with what it tripped over."""
    with pytest.raises(DecodeError, match="KeyError: 'name'"):
        CreatedV3.decode("movies.created.v1", b'{"movie_id":1}')


def test_unknown_type_does_not_decode() -> None:
    """Decoding a type the class is not made from is an error, not a guess."""
    with pytest.raises(DecodeError, match="not made from"):
        CreatedV2.decode("movies.created.v3", b"{}")


@pytest.mark.parametrize(
    ("old", "match"),
    [
        ("movies.created.v2", "already made from"),
        (CreatedV1, "already made from"),
        ("movies.created.v3", "already made from"),
        (MovieEvent, "is not an event type"),
        ("", "is not an event type"),
    ],
)
def test_upcasts_are_checked_at_definition(old: Any, match: str) -> None:
    """A second way to make a class from the same version, or from none, is refused."""
    with pytest.raises(ContractError, match=match):
        CreatedV3.upcast_from(old)


def test_upcast_needs_a_type_to_arrive_at() -> None:
    """Nothing is upcast to a base without a type."""
    with pytest.raises(ContractError, match="has no type"):
        MovieEvent.upcast_from("x")


def test_envelope_carries_type_key_and_body() -> None:
    """The wire form has the class' type, the key as partition key and the fields as JSON."""
    event = wrap(CreatedV3(movie_id=7, title="Alien"))
    assert (event.type, event.source, event.id, event.time) == ("movies.created.v3", "/movies", "e-1", NOW)
    assert event.data == b'{"movie_id":7,"title":"Alien","year":null}'
    assert dict(event.extensions) == {"partitionkey": "7"}


def test_given_key_wins() -> None:
    """A key given at publishing replaces the one of the class."""
    assert wrap(CreatedV3(movie_id=7, title="A"), key="k").extensions["partitionkey"] == "k"


def test_cause_is_inherited() -> None:
    """A follow-up names its cause, the first of the chain, and the trace."""
    first = wrap(CreatedV3(movie_id=7, title="A"), cause=info(traceparent="00-a-b-01"))
    assert first.extensions["causationid"] == first.extensions["correlationid"] == "cause-1"
    assert first.extensions["traceparent"] == "00-a-b-01"
    second = wrap(CreatedV3(movie_id=7, title="A"), cause=info(id="cause-2", correlation_id="cause-1"))
    assert (second.extensions["causationid"], second.extensions["correlationid"]) == ("cause-2", "cause-1")


def test_given_extensions_win() -> None:
    """What a publisher says replaces what is derived."""
    event = wrap(CreatedV3(movie_id=7, title="A"), cause=info(), extensions={"correlationid": "mine"})
    assert event.extensions["correlationid"] == "mine"


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"id": ""}, "id has 1 to 128"),
        ({"id": "x" * 129}, "id has 1 to 128"),
        ({"key": ""}, "key has 1 to 128"),
        ({"key": "x" * 129}, "key has 1 to 128"),
        ({"time": datetime(2026, 1, 1)}, "needs a time zone"),
        ({"extensions": {"Bad": 1}}, "cannot be an extension"),
    ],
)
def test_what_the_wire_cannot_carry_is_refused(arguments: dict[str, Any], match: str) -> None:
    """Limits are checked before anything is sent."""
    with pytest.raises(ValueError, match=match):
        wrap(CreatedV3(movie_id=7, title="A"), **arguments)


def test_event_without_type_is_not_published() -> None:
    """A base class cannot go on the wire, and the error says how to give it a type."""
    with pytest.raises(ContractError, match="type="):
        wrap(MovieEvent(movie_id=1))


def test_key_field_must_have_a_value() -> None:
    """An event whose key field is None has no place in any order."""

    class Loose(Event, type="loose", key="owner"):
        owner: str | None = None

    with pytest.raises(ValueError, match="must not be None"):
        key_of(Loose(), None)
