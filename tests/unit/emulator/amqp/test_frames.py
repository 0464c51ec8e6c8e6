"""Frames and the fast paths around them."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sbrpc.emulator.amqp.codec import decode, encode, encode_fields
from sbrpc.emulator.amqp.frames import (
    disposition,
    flow,
    frame,
    performative_at,
    read_fields,
    read_header,
    serial_less,
    transfer_layout,
)
from sbrpc.emulator.amqp.performatives import ACCEPTED, Disposition, Error, Flow, Open, Rejected, Transfer
from sbrpc.emulator.amqp.types import DecodeError, Symbol, UInt, ULong, UShort

from .peer import read_frames

uints = st.integers(0, 2**32 - 1)
values = st.one_of(
    st.none(), st.booleans(), uints.map(UInt), st.binary(max_size=300), st.text(max_size=5), uints.map(ULong)
)


@given(st.lists(values, max_size=20), st.binary(max_size=5))
def test_fields_are_read_as_the_codec_reads_them(items: list[Any], rest: bytes) -> None:
    """The fast path gives what decode gives, and where the list ends."""
    encoded = encode_fields([encode(item) for item in items])
    fields, end = read_fields(b"xyz" + encoded + rest, 3)
    assert fields == decode(encoded) == items
    assert end == 3 + len(encoded)


@given(st.binary(max_size=60))
def test_any_bytes_are_fields_or_a_decode_error(data: bytes) -> None:
    """Random bytes give a list or DecodeError."""
    for constructor in (b"\xc0", b"\xd0", b""):
        with suppress(DecodeError):
            read_fields(constructor + data, 0)


@pytest.mark.parametrize(
    "encoded", ["", "40", "c000", "c0050170", "c0030140" + "40", "d000000004000000ff", "c00402a00500"]
)
def test_malformed_fields_are_refused(encoded: str) -> None:
    """Wrong sizes and counts raise DecodeError."""
    with pytest.raises(DecodeError):
        read_fields(bytes.fromhex(encoded), 0)


def test_uints_are_plain_and_accepted_is_the_constant() -> None:
    """Hot values come without wrappers: uints as int, the state accepted as the one object."""
    fields, _ = read_fields(encode_fields([encode(UInt(70000)), ACCEPTED.encode(), encode(UShort(1))]), 0)
    assert type(fields[0]) is int
    assert fields[1] is ACCEPTED
    assert type(fields[2]) is UShort


@pytest.mark.parametrize("descriptor", [ULong(0x10), Symbol("amqp:open:list")])
def test_descriptors_of_any_form_are_understood(descriptor: Any) -> None:
    """A performative may be named by a long ulong or by a symbol."""
    body = b"\x00" + encode(descriptor) + b"\x45"
    assert performative_at(body) == (Open.CODE, len(body) - 1)
    assert performative_at(b"\x00\x80" + (0x10).to_bytes(8, "big") + b"\x45") == (Open.CODE, 10)


@pytest.mark.parametrize("body", [b"\x45", b"\x00", b"\x00\x53", b"\x00\xa3\x01x\x45", b"\x00\x40\x45"])
def test_what_is_no_performative_is_refused(body: bytes) -> None:
    """A body without a descriptor that means something raises DecodeError."""
    with pytest.raises(DecodeError):
        performative_at(body)


def test_a_frame_has_its_size_and_channel() -> None:
    """The header carries size, data offset, type and channel."""
    assert read_header(frame(7, b"abc", 1), 0) == (11, 2, 1, 7)


@given(st.booleans(), uints, uints, st.sampled_from([ACCEPTED, Rejected(Error("a", "d" * 300))]))
def test_dispositions_are_those_of_the_performative(role: bool, first: int, last: int, state: Any) -> None:
    """The fast encoder says what the slow one says; a last equal to first is null."""
    (seen,) = read_frames(disposition(3, role, first, last, state.encode()))
    assert seen == Disposition(role, first, None if first == last else last, True, state, False)


@given(
    st.tuples(uints, uints, uints, uints), st.none() | st.tuples(uints, uints, uints, uints), st.booleans()
)
def test_flows_are_those_of_the_performative(
    session: tuple[int, int, int, int], link: tuple[int, int, int, int] | None, drain: bool
) -> None:
    """The fast encoder says what the slow one says."""
    (seen,) = read_frames(flow(3, session, link, drain))
    assert seen == (Flow(*session) if link is None else Flow(*session, *link, drain, False))


@given(
    uints, uints, st.binary(max_size=32), st.sampled_from([0, 1, 0x80013700]), st.booleans(), st.booleans()
)
def test_transfers_are_those_of_the_performative(
    handle: int, delivery_id: int, tag: bytes, message_format: int, settled: bool, more: bool
) -> None:
    """The prepared layout says what the slow encoder says, and knows its own size."""
    head, size = transfer_layout(3, handle, len(tag), message_format, settled, more)
    encoded = head(7, delivery_id, tag)
    assert len(encoded) == size
    (seen,) = read_frames(encoded + b"payload")
    assert seen == (Transfer(handle, delivery_id, tag, message_format, settled, more), b"payload")


def test_tags_are_limited() -> None:
    """A tag that AMQP does not allow is the caller's mistake."""
    with pytest.raises(ValueError, match="at most 32"):
        transfer_layout(0, 0, 33, 0, False, False)


def test_serial_numbers_wrap() -> None:
    """Just behind the largest number comes zero."""
    assert serial_less(0xFFFFFFFF, 0)
    assert not serial_less(0, 0xFFFFFFFF)
    assert not serial_less(5, 5)
