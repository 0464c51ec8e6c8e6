"""Texts of the management API's XML, there and back."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sbrpc.emulator.http import values


@pytest.mark.parametrize(
    ("seconds", "written"),
    [
        (0.0, "PT0S"),
        (30.0, "PT30S"),
        (60.0, "PT1M"),
        (90061.5, "P1DT1H1M1.5S"),
        (14 * 86400.0, "P14D"),
        (0.000001, "PT0.000001S"),
        (None, "P10675199DT2H48M5.4775807S"),
    ],
)
def test_durations_are_written_as_dotnet_does(seconds: float | None, written: str) -> None:
    """Durations have no empty parts, and the longest one stands for never."""
    assert values.format_duration(seconds) == written
    assert values.optional_duration(written) == seconds


@given(st.integers(0, 10_000_000_000_000))
def test_durations_survive_the_way_there_and_back(micros: int) -> None:
    """Microseconds are neither lost nor invented."""
    seconds = micros / 1_000_000
    assert values.optional_duration(values.format_duration(seconds)) == pytest.approx(seconds, abs=1e-6)


def test_what_clients_make_of_never_is_never() -> None:
    """The Python client sends back a little less than the longest duration; it still means never."""
    assert values.optional_duration("P10675199DT2H48M5.477580S") is None
    with pytest.raises(ValueError, match="too long"):
        values.required_duration("P10675199DT2H48M5.4775807S")


@pytest.mark.parametrize("text", ["", "P", "PT", "5", "PT5", "-PT5S", "P1W", "PT1S2"])
def test_other_texts_are_no_durations(text: str) -> None:
    """What is no duration is refused with the text in the message."""
    with pytest.raises(ValueError, match="is not an ISO 8601 duration"):
        values.optional_duration(text)


def test_booleans_and_numbers_are_strict() -> None:
    """Only XML Schema's booleans and whole numbers pass."""
    assert [values.boolean(text) for text in ("true", "False", "1", " 0 ")] == [True, False, True, False]
    assert values.number(" -12 ") == -12
    for refused in ("yes", ""):
        with pytest.raises(ValueError, match="neither true nor false"):
            values.boolean(refused)
    for refused in ("1.5", "", "x", "9" * 20, "\uff11"):
        with pytest.raises(ValueError, match="not a whole number"):
            values.number(refused)


@pytest.mark.parametrize(
    ("given_", "path"),
    [
        ("sb://localhost:5300/a/b", "a/b"),
        ("https://host/a%20b/", "a b"),
        ("plain", "plain"),
        ("", None),
        ("sb://host/", None),
    ],
)
def test_entity_paths_lose_scheme_and_host(given_: str, path: str | None) -> None:
    """Forwarding targets come as whole URIs and are kept as paths."""
    assert values.path(given_) == path


def test_times_are_utc() -> None:
    """Times end with Z and keep microseconds."""
    assert values.format_time(1.5) == "1970-01-01T00:00:01.500000Z"


@pytest.mark.parametrize(
    "value",
    [
        "text",
        True,
        5,
        -(2**40),
        1.25,
        datetime(2024, 5, 31, 12, 0, 0, 250000, timezone.utc),
        timedelta(seconds=90),
    ],
)
def test_typed_values_survive_the_way_there_and_back(value: object) -> None:
    """Values of filter properties keep type and value."""
    kind, written = values.encode_typed(value)
    found = values.decode_typed(f"d6p1:{kind}", written)
    assert (type(found), found) == (type(value), value)


@pytest.mark.parametrize(
    ("kind", "text", "problem"),
    [
        ("int", "five", "whole number"),
        ("long", str(2**63), "64 bits"),
        ("boolean", "maybe", "neither true nor false"),
        ("dateTime", "yesterday", "not a time"),
        ("hexBinary", "00", "not supported"),
    ],
)
def test_wrong_typed_values_are_refused(kind: str, text: str, problem: str) -> None:
    """A text that does not fit its type, or a type that is not known, is refused."""
    with pytest.raises(ValueError, match=problem):
        values.decode_typed(kind, text)


def test_times_of_other_zones_and_precisions_are_understood() -> None:
    """.NET writes seven digits, and other clients write zones or none."""
    wanted = datetime(2024, 5, 31, 12, 0, 0, 123456, timezone.utc)
    for text in (
        "2024-05-31T12:00:00.1234567Z",
        "2024-05-31T14:00:00.123456+02:00",
        "2024-05-31T12:00:00.123456",
    ):
        assert values.decode_typed("dateTime", text) == wanted


def test_nothing_unwritable_gets_into_the_xml() -> None:
    """Characters that XML cannot contain are replaced, markup is escaped."""
    assert values.text("a<b>&\x00\ud800") == "a&lt;b&gt;&amp;\ufffd\ufffd"
    assert values.attribute('"\x01') == '"&quot;\ufffd"'
