"""What is shown of values and bodies, whatever clients put into them."""

from __future__ import annotations

import json
import math
from datetime import datetime, timedelta, timezone
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sbrpc.emulator.amqp import sections
from sbrpc.emulator.amqp.types import Long, Symbol
from sbrpc.emulator.broker import Broker
from sbrpc.emulator.content import parse_message
from sbrpc.emulator.http import views
from sbrpc.topology import Queue


def shown(payload: bytes) -> dict[str, object]:
    """The body as it is shown of a message that was stored."""
    broker = Broker()
    broker.create_queue(Queue("q"), 0.0)
    broker.send("q", [parse_message(payload)], 0.0)
    (message,) = broker.look("q", 0, 1, None, 0.0)
    view = views.message(message)
    json.dumps(view, allow_nan=False)
    body: dict[str, object] = view["body"]
    return body


@pytest.mark.parametrize(
    ("payload", "kind", "text"),
    [
        (sections.encode_data("größer".encode()), "text", "größer"),
        (sections.encode_data(b"a") + sections.encode_data(b"b"), "text", "ab"),
        (sections.encode_data(b"\xff\x00"), "binary", "ff 00"),
        (sections.encode_value({"a": 1}), "value", "{'a': 1}"),
        (sections.encode_value("text"), "value", "text"),
        (b"\x00\x53\x76\x45", "sequence", ""),
        (b"", "none", ""),
        (sections.encode_application_properties({"only": "properties"}), "none", ""),
    ],
)
def test_bodies(payload: bytes, kind: str, text: str) -> None:
    """Text is shown as text, bytes as digits, values as values."""
    body = shown(payload)
    assert (body["kind"], body["text"]) == (kind, text)


def test_long_bodies_are_cut_between_characters() -> None:
    """Only the beginning of a long body is shown, with the size of all of it."""
    body = shown(sections.encode_data("ä".encode() * 20000))
    assert (body["kind"], body["size"], set(str(body["text"]))) == ("text", 40000, {"ä"})
    assert len(str(body["text"])) <= 16384
    body = shown(sections.encode_data(b"x" + "ä".encode() * 20000))
    assert (body["kind"], body["size"]) == ("text", 40001)
    body = shown(sections.encode_data(b"\xff" * 50000))
    assert (body["kind"], body["size"], len(str(body["text"]))) == ("binary", 50000, 1024 * 3 - 1)


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (None, None),
        (True, True),
        (Long(5), 5),
        (1.5, 1.5),
        (math.inf, "inf"),
        (Symbol("s"), "s"),
        (b"\xff", "\ufffd"),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (datetime(2024, 1, 1, tzinfo=timezone.utc), "2024-01-01T00:00:00+00:00"),
        (timedelta(seconds=5), 5.0),
        ({Symbol("a"): [1, b"x"]}, {"a": [1, "x"]}),
        (object, "<class 'object'>"),
    ],
)
def test_values_as_json_can_say_them(value: object, plain: object) -> None:
    """Types that JSON has no word for become their nearest."""
    assert views.plain(value) == plain
    assert type(views.plain(value)) is type(plain)


@given(st.binary(max_size=200))
def test_no_stored_body_breaks_the_view(body: bytes) -> None:
    """Whatever a client sends as a body, it can be shown."""
    shown(sections.encode_data(body))
