"""Sections of encoded messages."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sbrpc.emulator.amqp.codec import encode
from sbrpc.emulator.amqp.sections import (
    Header,
    Properties,
    encode_annotations,
    encode_application_properties,
    encode_data,
    encode_value,
    explode_batch,
    split,
)
from sbrpc.emulator.amqp.types import DecodeError, Int, Symbol, Timestamp, UInt

HEADER = Header(durable=True, ttl=5000).encode()
DELIVERY = b"\x00\x53\x71" + encode({Symbol("d"): 1})
ANNOTATIONS = encode_annotations({Symbol("x-opt-partition-key"): "p"})
PROPERTIES = Properties(message_id="id", group_id="g", creation_time=Timestamp(7)).encode()
APPLICATION = encode_application_properties({"a": Int(1)})
DATA = encode_data(b"body")
VALUE = encode_value([None, "v"])
SEQUENCE = b"\x00\x53\x76" + encode([1])
FOOTER = b"\x00\x53\x78" + encode({Symbol("f"): 1})

present = st.booleans()


@given(
    present,
    present,
    present,
    present,
    present,
    st.sampled_from([b"", DATA, DATA * 3, VALUE, SEQUENCE * 2]),
    present,
)
def test_sections_are_found_in_any_combination(
    header: bool,
    delivery: bool,
    annotations: bool,
    properties: bool,
    application: bool,
    body: bytes,
    footer: bool,
) -> None:
    """Whatever sections a message has, each is found; the bare message follows the annotations."""
    mutable = HEADER * header + DELIVERY * delivery + ANNOTATIONS * annotations
    rest = body + FOOTER * footer
    bare = PROPERTIES * properties + APPLICATION * application + rest
    found = split(mutable + bare)
    assert found.header() == (Header(durable=True, ttl=5000) if header else Header())
    assert found.delivery_annotations() == ({"d": 1} if delivery else {})
    assert found.annotations() == ({"x-opt-partition-key": "p"} if annotations else {})
    assert found.properties().message_id == ("id" if properties else None)
    assert found.property_fields() == (["id", *[None] * 8, 7, "g", None, None] if properties else [])
    assert found.application_properties() == ({"a": 1} if application else {})
    assert found.payload[found.bare :] == bare
    assert found.payload[found.body :] == rest
    assert found.body_code == (body[2] if body else 0)
    assert found.bare_with(None, None) == bare
    assert found.bare_with(None, {"b": True}) == (
        PROPERTIES * properties + encode_application_properties({"b": True}) + rest
    )
    assert found.bare_with(Properties(subject="s"), {}) == Properties(subject="s").encode() + rest


def test_bodies_are_decoded_on_demand() -> None:
    """A value is decoded, data sections are joined, and asking for the wrong one is an error."""
    assert split(PROPERTIES + VALUE).value() == [None, "v"]
    assert split(DATA + encode_data(b"x" * 300) + FOOTER).data() == b"body" + b"x" * 300
    with pytest.raises(DecodeError):
        split(DATA).value()
    with pytest.raises(DecodeError):
        split(VALUE).data()


def test_long_descriptors_are_understood() -> None:
    """A section may be named by a ulong of eight bytes."""
    value = b"\x00\x80" + (0x77).to_bytes(8, "big") + encode("v")
    assert split(PROPERTIES + value).value() == "v"
    assert explode_batch(b"\x00\x80" + (0x75).to_bytes(8, "big") + encode(b"one")) == [b"one"]


def test_empty_message_has_no_sections() -> None:
    """No bytes are a message without anything."""
    found = split(b"")
    assert found.bare == found.body == 0
    assert found.body_code == 0


@pytest.mark.parametrize(
    "payload",
    [
        PROPERTIES + HEADER,
        HEADER + HEADER,
        DATA + VALUE,
        VALUE + VALUE,
        DATA + SEQUENCE,
        FOOTER + DATA,
        FOOTER + FOOTER,
        DATA + PROPERTIES,
        b"\x00\x53\x79\x45",
        b"\x00\x53\x6f\x45",
        b"\x00\x53\x75",
        b"\x00\x53\x75\xa1\x01x",
        b"\x00\xa3\x01x\x45",
        b"hello",
        PROPERTIES[:-1],
        DATA[:-1],
    ],
)
def test_what_is_no_message_is_refused(payload: bytes) -> None:
    """Sections out of order, unknown, twice or cut off raise DecodeError."""
    with pytest.raises(DecodeError):
        split(payload)


def test_sections_of_the_wrong_type_are_refused_when_asked_for() -> None:
    """Annotations that are a list and properties that are a map raise DecodeError."""
    found = split(
        b"\x00\x53\x70" + encode({}) + b"\x00\x53\x72" + encode([1]) + b"\x00\x53\x73" + encode("x")
    )
    for ask in (found.header, found.annotations, found.properties):
        with pytest.raises(DecodeError):
            ask()
    assert split(b"\x00\x53\x74\x40").application_properties() == {}


def test_batches_are_exploded() -> None:
    """Each data section of a batch is one message; sections before them are only about the batch."""
    one, two = PROPERTIES + DATA, encode_data(b"y" * 300)
    batch = ANNOTATIONS + PROPERTIES + encode_data(one) + encode_data(two)
    assert explode_batch(batch) == [one, two]
    assert explode_batch(b"") == explode_batch(PROPERTIES) == []
    with pytest.raises(DecodeError):
        explode_batch(VALUE)


@given(st.binary(max_size=100))
def test_any_bytes_are_a_message_or_a_decode_error(data: bytes) -> None:
    """Random bytes, and random sections, split or raise DecodeError."""
    for payload in (data, b"\x00\x53" + data, b"\x00\x53\x73" + data, b"\x00\x53\x75" + data):
        with suppress(DecodeError):
            split(payload)
        with suppress(DecodeError):
            explode_batch(payload)


def test_a_delivered_message_begins_with_known_bytes() -> None:
    """The header has a delivery count even when it is 0, and sequence numbers take eight bytes."""
    header = Header(durable=True, delivery_count=0).encode()
    assert header.hex() == "005370c00605" + "4140404043"
    annotations = encode_annotations({Symbol("x-opt-sequence-number"): 1, Symbol("t"): Timestamp(2)})
    assert annotations[:4].hex() == "005372c1"
    assert b"x-opt-sequence-number\x81\x00\x00\x00\x00\x00\x00\x00\x01" in annotations
    assert annotations.endswith(b"\x83" + (2).to_bytes(8, "big"))
    assert Header(delivery_count=UInt(3)).encode().endswith(b"\x52\x03")
