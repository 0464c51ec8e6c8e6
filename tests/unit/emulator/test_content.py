"""`sbrpc.emulator.content`: AMQP messages as the broker's content."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sbrpc.emulator import content
from sbrpc.emulator.amqp import codec, sections
from sbrpc.emulator.amqp.types import Int, Symbol, Timestamp, UInt
from sbrpc.emulator.broker import Incoming, Message, MessageState

TOKEN = UUID("00112233-4455-6677-8899-aabbccddeeff")


def encoded(
    body: bytes = b"hello",
    *,
    header: sections.Header | None = None,
    annotations: dict[Any, Any] | None = None,
    properties: sections.Properties | None = None,
    user: dict[str, Any] | None = None,
) -> bytes:
    """A message as a client encodes it."""
    parts = [header.encode()] if header is not None else []
    if annotations is not None:
        parts.append(sections.encode_annotations({Symbol(key): value for key, value in annotations.items()}))
    if properties is not None:
        parts.append(properties.encode())
    if user is not None:
        parts.append(sections.encode_application_properties(user))
    return b"".join([*parts, sections.encode_data(body)])


def stored(incoming: Incoming, **changes: Any) -> Message:
    """A message as the broker keeps it."""
    values: dict[str, Any] = {
        "sequence_number": 7,
        "enqueued_sequence_number": 3,
        "enqueued_at": 1_700_000_000.5,
        "content": incoming.content,
        "message_id": incoming.message_id,
        "session_id": incoming.session_id,
        "time_to_live": incoming.time_to_live,
        "expires_at": float("inf"),
        "scheduled_at": None,
        "partition_key": None,
    }
    return Message(**{**values, **changes})


def test_what_the_broker_needs_is_read_on_the_way_in() -> None:
    """Ids, session, time to live, schedule and partition key come from their sections."""
    incoming = content.parse_message(
        encoded(
            header=sections.Header(ttl=UInt(1500)),
            annotations={
                "x-opt-scheduled-enqueue-time": Timestamp(1_700_000_100_000),
                "x-opt-partition-key": "pk",
            },
            properties=sections.Properties(message_id="m1", group_id="s1", subject="label"),
        )
    )
    assert incoming.message_id == "m1"
    assert incoming.session_id == "s1"
    assert incoming.time_to_live == 1.5
    assert incoming.scheduled_at == 1_700_000_100.0
    assert incoming.partition_key == "pk"
    assert incoming.content.system("subject") == "label"
    assert incoming.content.system("partition_key") == "pk"


def test_a_message_without_properties_has_none() -> None:
    """Nothing is invented on the way in."""
    incoming = content.parse_message(encoded())
    assert incoming.message_id is None
    assert incoming.session_id is None
    assert incoming.time_to_live is None
    assert incoming.content.user() == {}
    assert incoming.content.system("to") is None


def test_absolute_expiry_counts_where_no_header_says_otherwise() -> None:
    """The difference of expiry and creation time is the time to live of a message without header."""
    properties = sections.Properties(
        absolute_expiry_time=Timestamp(5000), creation_time=Timestamp(2000), message_id="m"
    )
    assert content.parse_message(encoded(properties=properties)).time_to_live == 3.0


@pytest.mark.parametrize("payload", [b"\x00", b"garbage", b"\x00\x53\x75\xa0\xff", b"\x00\x53\x73\xa1\x01a"])
def test_what_is_no_message_is_refused(payload: bytes) -> None:
    """Bytes that are not an AMQP message raise ValueError and nothing else."""
    with pytest.raises(ValueError):
        content.parse_message(payload)


@given(st.binary(max_size=200))
def test_random_bytes_raise_value_errors_only(payload: bytes) -> None:
    """Whatever a sender sends, parsing ends in a message or a ValueError."""
    try:
        incoming = content.parse_message(payload)
        incoming.content.user()
        incoming.content.system("subject")
    except ValueError:
        pass


def test_delivery_keeps_the_bare_message_byte_for_byte() -> None:
    """Properties, application properties and body leave exactly as they came."""
    properties = sections.Properties(message_id="m1", content_type="application/json")
    payload = encoded(b"body", properties=properties, user={"n": Int(5)})
    incoming = content.parse_message(payload)
    delivered = content.encode_delivery(stored(incoming), 2, TOKEN, 1_700_000_060.25)
    parts = sections.split(delivered)
    assert delivered[parts.bare :] == payload
    assert parts.header().delivery_count == 2
    assert parts.delivery_annotations() == {"x-opt-lock-token": TOKEN}
    assert parts.annotations() == {
        "x-opt-sequence-number": 7,
        "x-opt-enqueued-time": 1_700_000_000_500,
        "x-opt-enqueue-sequence-number": 3,
        "x-opt-locked-until": 1_700_000_060_250,
    }


def test_the_first_delivery_has_the_recorded_bytes() -> None:
    """Header and annotations have the constructors that the JavaScript and Python clients need."""
    incoming = content.parse_message(encoded(properties=sections.Properties(message_id="m")))
    delivered = content.encode_delivery(stored(incoming), 0, TOKEN, 1_700_000_060.0)
    assert delivered.startswith(bytes.fromhex("005370c00605 4140404043 005371c1"))
    assert codec.encode(Symbol("x-opt-lock-token")) + b"\x98" + TOKEN.bytes in delivered
    assert codec.encode(Symbol("x-opt-sequence-number")) + b"\x81" + (7).to_bytes(8, "big") in delivered


def test_foreign_annotations_travel_and_claimed_ones_do_not() -> None:
    """An annotation the broker does not own is preserved; one it owns cannot be forged."""
    annotations = {"x-custom": "kept", "x-opt-sequence-number": 999, "x-opt-partition-key": "pk"}
    incoming = content.parse_message(
        encoded(annotations=annotations, properties=sections.Properties(message_id="m"))
    )
    sent = sections.split(content.encode_delivery(stored(incoming), 0, None, 0.0)).annotations()
    assert sent["x-custom"] == "kept"
    assert sent["x-opt-partition-key"] == "pk"
    assert sent["x-opt-sequence-number"] == 7
    assert "x-opt-locked-until" not in sent


def test_a_message_without_id_gets_one_on_the_way_out() -> None:
    """Clients that cannot do without a message id find one; the body is untouched."""
    incoming = content.parse_message(encoded(b"x", user={"a": True}))
    parts = sections.split(content.encode_delivery(stored(incoming), 0, None, 0.0))
    assert parts.properties().message_id == UUID(int=3).hex
    assert parts.application_properties() == {"a": True}
    assert parts.data() == b"x"


def test_a_peeked_message_shows_its_state_and_no_lock() -> None:
    """Peek says deferred or scheduled by number."""
    incoming = content.parse_message(encoded(properties=sections.Properties(message_id="m")))
    message = stored(incoming, state=MessageState.SCHEDULED)
    annotations = sections.split(content.encode_peeked(message)).annotations()
    assert annotations["x-opt-message-state"] == 2
    assert "x-opt-locked-until" not in annotations


def test_a_revision_changes_properties_and_keeps_types_and_body() -> None:
    """System and application properties are set and removed; numeric types and the body survive."""
    properties = sections.Properties(message_id="m", subject="old", group_id="s")
    original = content.parse_message(
        encoded(b"body", properties=properties, user={"Keep": Int(5), "Gone": 1, "other": 2})
    ).content
    revised = original.revised(
        system={"subject": "new", "session_id": None, "partition_key": "pk"},
        user={"added": "x"},
        removed=["gone"],
    )
    assert revised.system("subject") == "new"
    assert revised.system("session_id") is None
    assert revised.system("message_id") == "m"
    assert revised.system("partition_key") == "pk"
    assert revised.user() == {"Keep": 5, "other": 2, "added": "x"}
    assert type(revised.user()["Keep"]) is Int
    assert isinstance(revised, content.AmqpContent)
    assert sections.split(revised.bare).data() == b"body"


def test_timestamps_are_datetimes_for_rules_and_timestamps_on_the_wire() -> None:
    """A rule sees a time as a datetime; what it sets goes out as an AMQP timestamp."""
    moment = datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=timezone.utc)
    millis = Timestamp(int(moment.timestamp() * 1000))
    original = content.parse_message(encoded(user={"at": millis})).content
    assert original.user()["at"] == moment
    revised = original.revised(user={"copy": original.user()["at"]})
    assert isinstance(revised, content.AmqpContent)
    assert sections.split(revised.bare).application_properties() == {"at": millis, "copy": millis}


def test_a_batch_is_taken_apart() -> None:
    """Each data section of a batch is one message; an empty batch has none."""
    inner = [encoded(body, properties=sections.Properties(message_id=body.decode())) for body in (b"a", b"b")]
    batch = b"".join(sections.encode_data(message) for message in inner)
    assert [item.message_id for item in content.parse_batch(batch)] == ["a", "b"]
    assert content.parse_batch(b"") == []
