"""AMQP messages as the broker's opaque content: taken apart as needed, put together for delivery.

Owns the mapping between the sections of an AMQP message and what the broker wants to know of it. The bare
message (properties to footer) stays byte for byte as it was sent; only header and annotations are written
anew, because Service Bus owns them. Properties are decoded when somebody asks. Knows no link, no queue
and no clock.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Mapping
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from functools import lru_cache
from typing import Any
from uuid import UUID

from sbrpc.emulator.amqp import codec, sections
from sbrpc.emulator.amqp.frames import read_fields
from sbrpc.emulator.amqp.types import Described, Long, Symbol, Timestamp, UInt
from sbrpc.emulator.broker import Incoming, Message, MessageState

__all__ = [
    "AmqpContent",
    "encode_deferred",
    "encode_delivery",
    "encode_peeked",
    "parse_batch",
    "parse_message",
    "plain_properties",
]

# The broker's names of standard properties, and the AMQP fields they are.
_FIELDS = {
    "message_id": "message_id",
    "to": "to",
    "subject": "subject",
    "reply_to": "reply_to",
    "correlation_id": "correlation_id",
    "content_type": "content_type",
    "session_id": "group_id",
    "reply_to_session_id": "reply_to_group_id",
}
# Positions of the fields that every message is asked for (AMQP 1.0 part 3, 3.2.4).
_MESSAGE_ID, _EXPIRES, _CREATED, _GROUP_ID = 0, 8, 9, 10

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
# How .NET writes a TimeSpan: a described long of 100 ns ticks.
_TIME_SPAN = Symbol("com.microsoft:timespan")
_PARTITION_KEY = Symbol("x-opt-partition-key")
_SCHEDULED = Symbol("x-opt-scheduled-enqueue-time")
# Annotations the broker writes itself; whatever a client claims about them is dropped.
_OWNED = frozenset(
    {
        "x-opt-sequence-number",
        "x-opt-enqueued-time",
        "x-opt-locked-until",
        "x-opt-message-state",
        "x-opt-enqueue-sequence-number",
        "x-opt-deadletter-source",
        "x-opt-lock-token",
    }
)


class AmqpContent:
    """One message as its sender encoded it; the bare message keeps its bytes."""

    __slots__ = ("_extra", "_user", "annotations", "bare", "durable", "priority", "size")

    def __init__(
        self,
        bare: bytes,
        annotations: dict[Any, Any] | None = None,
        durable: bool = True,
        priority: int | None = None,
        size: int | None = None,
    ) -> None:
        self.bare = bare
        self.annotations = annotations
        self.durable = durable
        self.priority = priority
        self.size = len(bare) if size is None else size
        self._user: dict[str, object] | None = None
        self._extra: tuple[int, bytes] | None = None

    # -- what the broker asks ---------------------------------------------------------------------------

    def system(self, name: str) -> object:
        """A standard property by the broker's name for it; `None` where the sender set none."""
        if name == "partition_key":
            value = (self.annotations or {}).get(_PARTITION_KEY)
        elif (field := _FIELDS.get(name)) is not None:
            value = getattr(sections.split(self.bare).properties(), field)
        else:
            value = None
        return str(value) if isinstance(value, Symbol) else value

    def user(self) -> Mapping[str, object]:
        """The application properties, with the numeric types they came with; timestamps as datetimes."""
        if self._user is None:
            raw = plain_properties(sections.split(self.bare).application_properties())
            self._user = {name: _from_amqp(value) for name, value in raw.items()}
        return self._user

    def revised(
        self,
        *,
        system: Mapping[str, object] | None = None,
        user: Mapping[str, object] | None = None,
        removed: Collection[str] = (),
    ) -> AmqpContent:
        """A copy with some properties set or removed; body and footer keep their bytes."""
        parts = sections.split(self.bare)
        changes: dict[str, Any] = {}
        annotations = dict(self.annotations or {})
        for name, value in (system or {}).items():
            if name == "partition_key":
                annotations[_PARTITION_KEY] = value
            elif (field := _FIELDS.get(name)) is not None:
                changes[field] = Symbol(value) if field == "content_type" and value is not None else value
        gone = {name.lower() for name in removed}
        properties = plain_properties(parts.application_properties())
        properties.update((name, _to_amqp(value)) for name, value in (user or {}).items())
        bare = parts.bare_with(
            replace(parts.properties(), **changes) if changes else None,
            {name: value for name, value in properties.items() if name.lower() not in gone},
        )
        return AmqpContent(
            bare, annotations=annotations or None, durable=self.durable, priority=self.priority
        )

    # -- for the way out --------------------------------------------------------------------------------

    def extra_annotations(self) -> tuple[int, bytes]:
        """The sender's own annotations as (number of map items, encoded items)."""
        if self._extra is None:
            kept = {key: value for key, value in (self.annotations or {}).items() if str(key) not in _OWNED}
            parts = [codec.encode(item) for pair in kept.items() for item in pair]
            self._extra = (len(parts), b"".join(parts))
        return self._extra


def _from_amqp(value: Any) -> object:
    if type(value) is Timestamp:
        return _EPOCH + timedelta(milliseconds=value)
    if isinstance(value, Described) and value.descriptor == _TIME_SPAN:
        return timedelta(microseconds=value.value / 10)
    return value


def _to_amqp(value: object) -> object:
    if isinstance(value, datetime):
        return Timestamp((value - _EPOCH) // timedelta(milliseconds=1))
    if isinstance(value, timedelta):
        return Described(_TIME_SPAN, Long(value // timedelta(microseconds=1) * 10))
    return value


def plain_properties(value: Any) -> dict[str, Any]:
    """A map with symbol or string keys as a plain dict with string keys."""
    return {str(key): item for key, item in value.items()} if isinstance(value, Mapping) else {}


def parse_message(payload: bytes) -> Incoming:
    """What a sender's transfer says; raises `ValueError` when it is not an AMQP message."""
    parts = sections.split(payload)
    bare_at = parts.bare
    durable, priority, ttl = True, None, None
    if parts.header_at >= 0:
        durable, priority, ttl = _header_facts(payload[parts.header_at : parts.header_end])
    annotations = scheduled_at = partition_key = None
    if parts.annotations_at >= 0:
        annotations = parts.annotations()
        scheduled = annotations.get(_SCHEDULED)
        scheduled_at = scheduled / 1000 if isinstance(scheduled, int) else None
        key = annotations.get(_PARTITION_KEY)
        partition_key = str(key) if key is not None else None
    fields = parts.property_fields()
    count = len(fields)
    session = fields[_GROUP_ID] if count > _GROUP_ID else None
    if ttl is None and count > _CREATED:
        ttl = _expiry(fields[_EXPIRES], fields[_CREATED])
    return Incoming(
        AmqpContent(payload[bare_at:] if bare_at else payload, annotations, durable, priority, len(payload)),
        fields[_MESSAGE_ID] if count else None,
        str(session) if session is not None else None,
        ttl,
        scheduled_at,
        partition_key,
        parts.body - bare_at,
    )


@lru_cache(maxsize=1024)
def _header_facts(encoded: bytes) -> tuple[bool, int | None, float | None]:
    """Durability, priority and time to live (seconds) in a header; a sender's headers are mostly alike."""
    header = sections.Header.of(read_fields(encoded, 0)[0])
    return header.durable is not False, header.priority, None if header.ttl is None else header.ttl / 1000


def _expiry(expires: Any, created: Any) -> float | None:
    # AMQP 3.2.4: absolute-expiry-time and creation-time; senders that set no header.ttl may use them.
    if isinstance(expires, int) and isinstance(created, int) and expires > created:
        return (expires - created) / 1000
    return None


def parse_batch(payload: bytes) -> list[Incoming]:
    """The messages of one batch transfer; each data section holds one whole message."""
    return [parse_message(part) for part in sections.explode_batch(payload)]


# -- delivery ---------------------------------------------------------------------------------------------

_SEQUENCE = codec.encode(Symbol("x-opt-sequence-number")) + b"\x81"
_ENQUEUED = codec.encode(Symbol("x-opt-enqueued-time")) + b"\x83"
_ENQUEUE_SEQUENCE = codec.encode(Symbol("x-opt-enqueue-sequence-number")) + b"\x81"
_LOCKED_UNTIL = codec.encode(Symbol("x-opt-locked-until")) + b"\x83"
_STATE = codec.encode(Symbol("x-opt-message-state")) + b"\x71"
_DEAD_LETTER_SOURCE = codec.encode(Symbol("x-opt-deadletter-source"))
_LOCK_TOKEN_KEY = codec.encode(Symbol("x-opt-lock-token"))
# A section of delivery annotations with the lock token as its one item, up to the token's bytes.
_LOCK_TOKEN = b"\x00\x53\x71\xc1" + bytes((1 + len(_LOCK_TOKEN_KEY) + 17, 2)) + _LOCK_TOKEN_KEY + b"\x98"
_Q = struct.Struct(">q").pack
_I = struct.Struct(">I").pack


@lru_cache(maxsize=4096)
def _header(durable: bool, priority: int | None, ttl_ms: int | None, delivery_count: int) -> bytes:
    parts = (
        (b"\x41" if durable else b"\x42")
        + (b"\x40" if priority is None else b"\x50" + bytes((priority,)))
        + (b"\x40" if ttl_ms is None else b"\x70" + _I(ttl_ms))
        + b"\x40"
        # Some clients read the count without a default, so it is there even when it is 0.
        + (b"\x43" if not delivery_count else codec.encode(UInt(delivery_count)))
    )
    return b"\x00\x53\x70\xc0" + bytes((len(parts) + 1, 5)) + parts


def encode_delivery(
    message: Message, delivery_count: int, lock_token: UUID | None, locked_until: float
) -> bytes:
    """A message as a receiver gets it; without a lock token it is one that is gone from the broker."""
    return _encode(message, delivery_count, lock_token=lock_token, locked_until=locked_until)


def encode_deferred(message: Message) -> bytes:
    """A deferred message as who asks for its number gets it: locked, unless it is gone, and marked."""
    return _encode(
        message,
        message.delivery_count,
        lock_token=message.lock_token,
        locked_until=message.locked_until,
        state=int(MessageState.DEFERRED),
    )


def encode_peeked(message: Message) -> bytes:
    """A message as peek shows it: with its state and without a lock."""
    return _encode(message, message.delivery_count, state=int(message.shown_state))


def _encode(
    message: Message,
    delivery_count: int,
    *,
    lock_token: UUID | None = None,
    locked_until: float = 0.0,
    state: int | None = None,
) -> bytes:
    content: Any = message.content
    ttl = message.time_to_live
    header = _header(
        content.durable,
        content.priority,
        None if ttl is None else min(int(ttl * 1000), 0xFFFFFFFF),
        delivery_count,
    )
    count, extra = content.extra_annotations() if content.annotations else (0, b"")
    items = (
        _SEQUENCE
        + _Q(message.sequence_number)
        + _ENQUEUED
        + _Q(int(message.enqueued_at * 1000))
        + _ENQUEUE_SEQUENCE
        + _Q(message.enqueued_sequence_number)
    )
    count += 6
    if lock_token is not None:
        # Clients take the token from the delivery tag; a deferred message has none, and old ones look here.
        header += _LOCK_TOKEN + lock_token.bytes
        items += _LOCKED_UNTIL + _Q(int(locked_until * 1000))
        count += 2
    if state is not None:
        items += _STATE + _I(state)
        count += 2
    if message.dead_letter_source is not None:
        items += _DEAD_LETTER_SOURCE + codec.encode(message.dead_letter_source)
        count += 2
    items += extra
    if len(items) < 255 and count < 256:
        annotations = b"\x00\x53\x72\xc1" + bytes((len(items) + 1, count)) + items
    else:
        annotations = b"\x00\x53\x72\xd1" + _I(len(items) + 4) + _I(count) + items
    return header + annotations + _with_message_id(content, message)


def _with_message_id(content: Any, message: Message) -> bytes:
    # The JavaScript client cannot receive a message without an id, so one is made from the sequence number.
    if message.message_id is not None:
        bare: bytes = content.bare
        return bare
    invented = UUID(int=message.enqueued_sequence_number or message.sequence_number).hex
    revised: bytes = content.revised(system={"message_id": invented}).bare
    return revised
