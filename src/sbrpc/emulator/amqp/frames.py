"""Frames: the header, the field list of a performative, and the performatives that come by the thousand.

This module owns the bytes around performatives and the fast paths for transfer, disposition and flow. It
knows no state: what a frame means to whom is the engine's business.
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from struct import error as StructError
from typing import Any

from .codec import decode_at
from .composites import descriptor_of
from .performatives import ACCEPTED
from .types import DecodeError, Timestamp

__all__ = [
    "AMQP_FRAME",
    "EMPTY_FRAME",
    "HEADER_SIZE",
    "MASK",
    "SASL_FRAME",
    "disposition",
    "flow",
    "frame",
    "performative_at",
    "read_fields",
    "read_header",
    "serial_less",
    "transfer_layout",
]

AMQP_FRAME = 0
SASL_FRAME = 1
HEADER_SIZE = 8
EMPTY_FRAME = b"\x00\x00\x00\x08\x02\x00\x00\x00"

MASK = 0xFFFFFFFF
"""Delivery ids, transfer ids and delivery counts are serial numbers of 32 bits: they wrap."""

_HEADER = Struct(">IBBH")
_U32 = Struct(">I")
_u32_at = _U32.unpack_from
_pack_u32 = _U32.pack
_i64_at = Struct(">q").unpack_from

read_header: Callable[[bytes, int], tuple[Any, ...]] = _HEADER.unpack_from
"""(size, data offset in words, type, channel) of the frame at a position that has at least 8 bytes."""


def serial_less(left: int, right: int) -> bool:
    """Whether serial number `left` comes before `right`, in the arithmetic of RFC 1982."""
    return left != right and ((right - left) & MASK) < 0x80000000


def frame(channel: int, body: bytes, kind: int = AMQP_FRAME) -> bytes:
    """A whole frame."""
    return _HEADER.pack(len(body) + HEADER_SIZE, 2, kind, channel) + body


def performative_at(body: bytes) -> tuple[int, int]:
    """The code of the performative that a frame body begins with, and where its list begins."""
    if body[:2] == b"\x00\x53" and len(body) > 3:
        return body[2], 3
    if body[:1] != b"\x00":
        raise DecodeError("the frame does not begin with a performative")
    descriptor, position = decode_at(body, 1)
    code = descriptor_of(descriptor)
    if code is None:
        raise DecodeError(f"{descriptor!r} is no performative")
    return code, position


def read_fields(body: bytes, position: int) -> tuple[list[Any], int]:
    """The values of the list at `position`, and where the list ends.

    Uints come as plain `int` and are the only values that do; the state `accepted` comes as ACCEPTED.
    """
    try:
        code = body[position]
        if code == 0xC0:
            end = position + 2 + body[position + 1]
            count = body[position + 2]
            position += 3
        elif code == 0xD0:
            end = position + 5 + _u32_at(body, position + 1)[0]
            count = _u32_at(body, position + 5)[0]
            position += 9
        elif code == 0x45:
            return [], position + 1
        else:
            raise DecodeError(f"the fields of a performative are a list, not 0x{code:02x}")
        if end > len(body) or count > end - position:
            raise DecodeError(f"a performative claims {count} fields in {len(body) - position} bytes")
        fields: list[Any] = []
        append = fields.append
        for _ in range(count):
            code = body[position]
            if code == 0x40:
                append(None)
                position += 1
            elif code == 0x42:
                append(False)
                position += 1
            elif code == 0x70:
                append(_u32_at(body, position + 1)[0])
                position += 5
            elif code == 0x52:
                append(body[position + 1])
                position += 2
            elif code == 0x43:
                append(0)
                position += 1
            elif code == 0x41:
                append(True)
                position += 1
            elif code == 0xA0:
                start = position + 2
                position = start + body[position + 1]
                append(body[start:position])
            elif code == 0 and body[position : position + 4] == b"\x00\x53\x24\x45":
                append(ACCEPTED)
                position += 4
            elif code == 0xA1:
                start = position + 2
                position = start + body[position + 1]
                append(str(body[start:position], "utf-8"))
            elif code == 0x83:
                append(Timestamp(_i64_at(body, position + 1)[0]))
                position += 9
            else:
                value, position = decode_at(body, position, 1)
                append(value)
        if position != end:
            raise DecodeError(
                f"the fields of a performative end at byte {position}, their list at byte {end}"
            )
    except (IndexError, StructError):
        raise DecodeError("the performative is cut off") from None
    except UnicodeDecodeError as error:
        raise DecodeError(f"a string in a performative is malformed: {error}") from None
    return fields, end


# ---------------------------------------------------------------------------------------------------------
# Encoding. All uints in their 4-byte form, so that the layout is constant.


def disposition(channel: int, receiver: bool, first: int, last: int, state: bytes) -> bytes:
    """A disposition frame that settles first..last with an encoded outcome (or with null)."""
    body = b"%b\x70%b%b\x41%b\x42" % (
        b"\x41" if receiver else b"\x42",
        _pack_u32(first),
        b"\x40" if first == last else b"\x70" + _pack_u32(last),
        state,
    )
    if len(body) < 255:
        return (
            _HEADER.pack(len(body) + 14, 2, 0, channel)
            + b"\x00\x53\x15\xc0"
            + bytes((len(body) + 1, 6))
            + body
        )
    return frame(channel, b"\x00\x53\x15\xd0" + _pack_u32(len(body) + 4) + b"\x00\x00\x00\x06" + body)


_LINK_FLOW = Struct(">IBBH6s cI cI cI cI cI cI cI cI 3s".replace(" ", ""))
_SESSION_FLOW = Struct(">IBBH6s cI cI cI cI 7s".replace(" ", ""))


def flow(
    channel: int,
    session: tuple[int, int, int, int],
    link: tuple[int, int, int, int] | None = None,
    drain: bool = False,
) -> bytes:
    """A flow frame of a session: (next incoming id, incoming window, next outgoing id, outgoing window),
    with that of a link if given: (handle, delivery count, credit, available).
    """
    u, (a, b, c, d) = b"\x70", session
    if link is None:
        head = b"\x00\x53\x13\xc0\x1c\x0b"
        return _SESSION_FLOW.pack(41, 2, 0, channel, head, u, a, u, b, u, c, u, d, b"\x40" * 7)
    e, f, g, h = link
    head = b"\x00\x53\x13\xc0\x2c\x0b"
    tail = b"\x41\x42\x40" if drain else b"\x42\x42\x40"
    return _LINK_FLOW.pack(57, 2, 0, channel, head, u, a, u, b, u, c, u, d, u, e, u, f, u, g, u, h, tail)


def transfer_layout(
    channel: int, handle: int, tag_size: int, message_format: int, settled: bool, more: bool
) -> tuple[Callable[[int, int, bytes], bytes], int]:
    """How the transfer frames of one link begin: a function (payload size, delivery id, tag) -> bytes, and
    the number of those bytes. The payload follows them.
    """
    if tag_size > 32:
        raise ValueError(f"a delivery tag has at most 32 bytes, not {tag_size}")
    middle = b"\x43" if message_format == 0 else b"\x70" + _pack_u32(message_format)
    tail = middle + (b"\x41" if settled else b"\x42") + (b"\x41" if more else b"\x42") + b"\x40" * 5
    fields_size = 5 + 5 + 2 + tag_size + len(tail)
    prefix = b"\x02\x00%b\x00\x53\x14\xc0%b\x70%b\x70" % (
        channel.to_bytes(2, "big"),
        bytes((fields_size + 1, 11)),
        _pack_u32(handle),
    )
    tag_head = bytes((0xA0, tag_size))
    layout = Struct(f">I{len(prefix)}sI2s{tag_size}s{len(tail)}s")
    pack, overhead = layout.pack, layout.size

    def head(payload_size: int, delivery_id: int, tag: bytes) -> bytes:
        return pack(payload_size + overhead, prefix, delivery_id, tag_head, tag, tail)

    return head, overhead
