"""The sections of an encoded message: found without decoding, decoded on demand, never re-encoded unasked.

This module owns where header, annotations, properties and body of a message stand in its bytes. It knows
which fields they have and nothing of what they mean to anybody.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .codec import decode_at, encode, skip
from .composites import ANY, BINARY, BOOLEAN, STRING, SYMBOL, TIMESTAMP, UBYTE, UINT, Composite
from .frames import read_fields
from .types import DecodeError, ULong

__all__ = [
    "BATCH_FORMAT",
    "Header",
    "Properties",
    "Sections",
    "encode_annotations",
    "encode_application_properties",
    "encode_data",
    "encode_value",
    "explode_batch",
    "split",
]

BATCH_FORMAT = 0x80013700
"""The message-format of a delivery whose data sections are one whole message each."""

_HEADER, _DELIVERY, _ANNOTATIONS, _PROPERTIES, _APPLICATION = 0x70, 0x71, 0x72, 0x73, 0x74
_DATA, _SEQUENCE, _VALUE, _FOOTER = 0x75, 0x76, 0x77, 0x78


@dataclass(frozen=True, slots=True)
class Header(Composite):
    """How a message is to be delivered. `ttl` in milliseconds."""

    durable: bool | None = None
    priority: int | None = None
    ttl: int | None = None
    first_acquirer: bool | None = None
    delivery_count: int | None = None

    CODE = _HEADER
    NAME = "amqp:header:list"
    KINDS = (BOOLEAN, UBYTE, UINT, BOOLEAN, UINT)


@dataclass(frozen=True, slots=True)
class Properties(Composite):
    """The standard properties of a message. The ids are str, bytes, uuid.UUID or ULong."""

    message_id: Any = None
    user_id: bytes | None = None
    to: str | None = None
    subject: str | None = None
    reply_to: str | None = None
    correlation_id: Any = None
    content_type: str | None = None
    content_encoding: str | None = None
    absolute_expiry_time: int | None = None
    creation_time: int | None = None
    group_id: str | None = None
    group_sequence: int | None = None
    reply_to_group_id: str | None = None

    CODE = _PROPERTIES
    NAME = "amqp:properties:list"
    KINDS = (
        *(ANY, BINARY, STRING, STRING, STRING, ANY, SYMBOL, SYMBOL),
        *(TIMESTAMP, TIMESTAMP, STRING, UINT, STRING),
    )


class Sections:
    """Where the sections of `payload` stand: the positions of their values, behind the descriptors; -1 none.

    The `bare` position and `application_start`, `application_end` include the descriptor, so that
    `payload[bare:]` is the immutable part of the message, and application properties can be exchanged in it.
    """

    __slots__ = (
        "payload",
        "header_at",
        "header_end",
        "delivery_annotations_at",
        "annotations_at",
        "bare",
        "properties_at",
        "application_properties_at",
        "application_start",
        "application_end",
        "body",
        "body_code",
    )

    def __init__(self, payload: bytes) -> None:
        self.payload = payload
        self.header_at = -1
        self.header_end = -1
        self.delivery_annotations_at = -1
        self.annotations_at = -1
        self.bare = -1
        self.properties_at = -1
        self.application_properties_at = -1
        self.application_start = -1
        """Where application properties stand, or would stand if there were any."""
        self.application_end = -1
        self.body = -1
        """Where the first section of the body (or the footer) begins."""
        self.body_code = 0
        """0x75 data, 0x76 sequence, 0x77 value; 0 for a message without body."""

    def header(self) -> Header:
        """The header; that of a message without one is empty."""
        return Header() if self.header_at < 0 else Header.of(read_fields(self.payload, self.header_at)[0])

    def delivery_annotations(self) -> dict[Any, Any]:
        """What is for this delivery only; empty where there is none."""
        return _map(self.payload, self.delivery_annotations_at)

    def annotations(self) -> dict[Any, Any]:
        """What brokers note about a message; empty where there is none."""
        return _map(self.payload, self.annotations_at)

    def properties(self) -> Properties:
        """The properties; those of a message without any are empty."""
        return Properties.of(self.property_fields())

    def property_fields(self) -> list[Any]:
        """The fields of the properties as far as they were sent: quicker than `properties`, and unchecked."""
        return [] if self.properties_at < 0 else read_fields(self.payload, self.properties_at)[0]

    def application_properties(self) -> dict[Any, Any]:
        """What the sender's program has added; empty where there is none."""
        return _map(self.payload, self.application_properties_at)

    def bare_with(self, properties: Properties | None, application: Mapping[str, Any] | None) -> bytes:
        """The bare message with other properties or application properties; None leaves them as they are."""
        payload, bare, start, end = self.payload, self.bare, self.application_start, self.application_end
        head = payload[bare:start] if properties is None else properties.encode()
        middle = payload[start:end] if application is None else encode_application_properties(application)
        return head + middle + payload[end:]

    def value(self) -> Any:
        """The body of a message that has an amqp-value section; DecodeError if it has none."""
        if self.body_code != _VALUE:
            raise DecodeError("the body of the message is no amqp-value section")
        return decode_at(self.payload, _section(self.payload, self.body)[1])[0]

    def data(self) -> bytes:
        """The body of a message that has data sections, joined; DecodeError if it has none."""
        if self.body_code != _DATA:
            raise DecodeError("the body of the message is no data section")
        return b"".join(_data_sections(self.payload, self.body))


def _map(payload: bytes, position: int) -> dict[Any, Any]:
    if position < 0:
        return {}
    value = decode_at(payload, position)[0]
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise DecodeError(f"the section at byte {position} is no map")
    return value


def _section(payload: bytes, position: int) -> tuple[int, int]:
    """The code of the section at `position`, and where its value begins."""
    if payload[position : position + 2] == b"\x00\x53" and position + 3 < len(payload):
        code = payload[position + 2]
        if code >= _HEADER:
            return code, position + 3
    if payload[position] == 0:
        descriptor, value_at = decode_at(payload, position + 1)
        if isinstance(descriptor, ULong) and _HEADER <= descriptor <= _FOOTER and value_at < len(payload):
            return int(descriptor), value_at
    raise DecodeError(f"at byte {position} of the message no section begins")


def split(payload: bytes) -> Sections:
    """Find the sections of an encoded message; DecodeError when they are not those of a message."""
    sections = Sections(payload)
    position, end = 0, len(payload)
    previous = 0
    while position < end:
        # What every client sends is read here; whatever else is allowed, in `_section`.
        if (
            payload.startswith(b"\x00\x53", position)
            and end - position > 3
            and payload[position + 2] >= _HEADER
        ):
            code, value_at = payload[position + 2], position + 3
        else:
            code, value_at = _section(payload, position)
        if code <= previous or code > _FOOTER:
            raise DecodeError(
                f"section 0x{code:02x} at byte {position} comes behind section 0x{previous:02x}"
            )
        if code >= _PROPERTIES and sections.bare < 0:
            sections.bare = position
        if code >= _DATA:
            # The body and the footer stay as they are: only their outlines are checked.
            sections.body_code = code if code != _FOOTER else 0
            if code != _DATA or skip(payload, value_at) != end or payload[value_at] not in (0xA0, 0xB0):
                _check_body(payload, position)
            break
        if code == _PROPERTIES:
            sections.properties_at = value_at
        elif code == _APPLICATION:
            sections.application_properties_at = value_at
            sections.application_start = position
        elif code == _ANNOTATIONS:
            sections.annotations_at = value_at
        elif code == _HEADER:
            sections.header_at = value_at
        else:
            sections.delivery_annotations_at = value_at
        constructor = payload[value_at]
        if (constructor == 0xC0 or constructor == 0xC1) and value_at + 1 < end:
            position = value_at + 2 + payload[value_at + 1]
            if position > end:
                raise DecodeError(f"the value at byte {value_at} is cut off")
        else:
            position = skip(payload, value_at)
        if code == _HEADER:
            sections.header_end = position
        previous = code
    sections.body = sections.application_end = position
    if sections.bare < 0:
        sections.bare = position
    if sections.application_start < 0:
        sections.application_start = position
    return sections


def _check_body(payload: bytes, position: int) -> None:
    """Data sections, or sequence sections, or one value; then perhaps a footer, and nothing else."""
    previous, end = 0, len(payload)
    while position < end:
        code, value_at = _section(payload, position)
        repeated = code == previous and code in (_DATA, _SEQUENCE)
        if not repeated and (
            code > _FOOTER or code < _DATA or (previous and code != _FOOTER) or previous == _FOOTER
        ):
            raise DecodeError(
                f"section 0x{code:02x} at byte {position} comes behind section 0x{previous:02x}"
            )
        if code == _DATA and payload[value_at] not in (0xA0, 0xB0):
            raise DecodeError(f"the data section at byte {position} holds no binary")
        position = skip(payload, value_at)
        previous = code


def _data_sections(payload: bytes, position: int) -> list[bytes]:
    contents = []
    while position < len(payload):
        code, value_at = _section(payload, position)
        position = skip(payload, value_at)
        if code == _DATA:
            contents.append(payload[value_at + (2 if payload[value_at] == 0xA0 else 5) : position])
    return contents


def explode_batch(payload: bytes) -> list[bytes]:
    """The encoded messages in a batch: one per data section, perhaps none."""
    sections = split(payload)
    if sections.body_code not in (_DATA, 0):
        raise DecodeError(f"a batch consists of data sections, not of section 0x{sections.body_code:02x}")
    return _data_sections(payload, sections.body)


def encode_annotations(annotations: Mapping[Any, Any]) -> bytes:
    """A message-annotations section. Keys are to be Symbol."""
    return b"\x00\x53\x72" + encode(dict(annotations))


def encode_application_properties(properties: Mapping[str, Any]) -> bytes:
    """An application-properties section; nothing for no properties."""
    return b"\x00\x53\x74" + encode(dict(properties)) if properties else b""


def encode_value(value: Any) -> bytes:
    """An amqp-value section."""
    return b"\x00\x53\x77" + encode(value)


def encode_data(data: bytes) -> bytes:
    """A data section."""
    return b"\x00\x53\x75" + encode(data)
