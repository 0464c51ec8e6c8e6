"""The composite types of AMQP: performatives, SASL frames, terminus, errors and delivery states.

This module owns their field lists, in a table per class: what may stand in each field and how it is
encoded. Every field is always encoded, nulls included, because some clients index into the lists. It knows
no connection state: whether a performative is legal is not its business.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from reprlib import repr as shown
from typing import Any, ClassVar, NamedTuple, TypeVar

from .codec import (
    NULL,
    Array,
    DecodeError,
    Described,
    Symbol,
    Timestamp,
    UByte,
    ULong,
    UShort,
    encode,
    encode_fields,
)
from .codec import encode_uint as _encode_uint

__all__ = [
    # connection, session, link
    "Open",
    "Begin",
    "Attach",
    "Flow",
    "Transfer",
    "Disposition",
    "Detach",
    "End",
    "Close",
    # SASL
    "SaslMechanisms",
    "SaslInit",
    "SaslOutcome",
    # parts of them
    "Composite",
    "Coordinator",
    "Error",
    "Source",
    "Target",
    # delivery states
    "Outcome",
    "Accepted",
    "Modified",
    "Received",
    "Rejected",
    "Released",
    "ACCEPTED",
    "RELEASED",
    # kinds of fields, for composites elsewhere
    "ANY",
    "BINARY",
    "BOOLEAN",
    "STRING",
    "SYMBOL",
    "TIMESTAMP",
    "UBYTE",
    "UINT",
    # roles
    "RECEIVER",
    "SENDER",
    "by_code",
    "descriptor_code",
]

SENDER = False
RECEIVER = True

C = TypeVar("C", bound="Composite")


class Kind(NamedTuple):
    """What may stand in a field: `check` raises DecodeError or returns the value, `encode` makes bytes."""

    check: Callable[[Any], Any]
    encode: Callable[[Any], bytes]
    mandatory: bool = False


class Composite:
    """A described list. Subclasses are frozen dataclasses whose fields stand in the order of `KINDS`."""

    __slots__ = ()

    CODE: ClassVar[int]
    NAME: ClassVar[str]
    KINDS: ClassVar[tuple[Kind, ...]]

    def encode(self) -> bytes:
        """The descriptor and all fields."""
        parts = []
        names: tuple[str, ...] = self.__slots__
        for kind, name in zip(self.KINDS, names, strict=True):
            value = getattr(self, name)
            parts.append(NULL if value is None else kind.encode(value))
        return b"\x00\x53" + bytes((self.CODE,)) + encode_fields(parts)

    @classmethod
    def of(cls: type[C], values: list[Any]) -> C:
        """An instance from decoded values; DecodeError says which field is wrong."""
        kinds = cls.KINDS
        if len(values) > len(kinds):
            raise DecodeError(f"{cls.NAME} has {len(kinds)} fields, not {len(values)}")
        checked = []
        for index, kind in enumerate(kinds):
            value = values[index] if index < len(values) else None
            if value is not None:
                try:
                    value = kind.check(value)
                except DecodeError as error:
                    raise DecodeError(f"{cls.NAME}, {cls.__slots__[index]}: {error}") from None
            elif kind.mandatory:
                raise DecodeError(f"{cls.NAME}, {cls.__slots__[index]}: the field is mandatory")
            checked.append(value)
        return cls(*checked)


def descriptor_code(descriptor: Any) -> int | None:
    """The numeric code of a descriptor that is a ulong or one of the standard's symbols, else None."""
    if isinstance(descriptor, ULong):
        return int(descriptor)
    return _CODES.get(descriptor) if isinstance(descriptor, Symbol) else None


# ---------------------------------------------------------------------------------------------------------
# Kinds of fields. Integers are accepted in any integer type that holds the value: some clients are careless.


def _integer(limit: int) -> Callable[[Any], int]:
    def check(value: Any) -> int:
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= limit:
            return int(value)
        raise DecodeError(f"{shown(value)} is no integer between 0 and {limit}")

    return check


def _timestamp(value: Any) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return int(value)
    raise DecodeError(f"{shown(value)} is no timestamp")


def _boolean(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    raise DecodeError(f"{shown(value)} is no boolean")


def _string(value: Any) -> str:
    if isinstance(value, str):
        return value
    raise DecodeError(f"{shown(value)} is no string")


def _binary(value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    raise DecodeError(f"{shown(value)} is no binary")


def _map(value: Any) -> dict[Any, Any]:
    if isinstance(value, dict):
        return value
    raise DecodeError(f"{shown(value)} is no map")


def _anything(value: Any) -> Any:
    return value


def _symbols(value: Any) -> tuple[Symbol, ...]:
    items = [value] if isinstance(value, str) else value
    if not isinstance(items, list) or not all(isinstance(item, str) for item in items):
        raise DecodeError(f"{shown(value)} is neither a symbol nor an array of symbols")
    return tuple(Symbol(item) for item in items)


def _encode_symbols(value: tuple[str, ...]) -> bytes:
    return encode(Array(Symbol, value))


def _encode_composite(value: Composite) -> bytes:
    return value.encode()


def _one_of(*kinds: type[Composite]) -> Kind:
    by_code = {kind.CODE: kind for kind in kinds}
    names = " or ".join(kind.NAME for kind in kinds)

    def check(value: Any) -> Composite:
        if isinstance(value, kinds):
            return value
        if isinstance(value, Described) and isinstance(value.value, list):
            kind = by_code.get(descriptor_code(value.descriptor) or -1)
            if kind is not None:
                return kind.of(value.value)
        raise DecodeError(f"{shown(value)} is no {names}")

    return Kind(check, _encode_composite)


BOOLEAN = Kind(_boolean, encode)
UBYTE = Kind(_integer(0xFF), lambda value: encode(UByte(value)))
USHORT = Kind(_integer(0xFFFF), lambda value: encode(UShort(value)))
UINT = Kind(_integer(0xFFFFFFFF), _encode_uint)
ULONG = Kind(_integer(0xFFFFFFFFFFFFFFFF), lambda value: encode(ULong(value)))
STRING = Kind(_string, lambda value: encode(str(value)))
SYMBOL = Kind(_string, lambda value: encode(Symbol(value)))
SYMBOLS = Kind(_symbols, _encode_symbols)
BINARY = Kind(_binary, encode)
MAP = Kind(_map, encode)
ANY = Kind(_anything, encode)
TIMESTAMP = Kind(_timestamp, lambda value: encode(Timestamp(value)))


def _must(kind: Kind) -> Kind:
    return kind._replace(mandatory=True)


# ---------------------------------------------------------------------------------------------------------
# Errors, terminus


@dataclass(frozen=True, slots=True)
class Error(Composite):
    """Why a link, session, connection or delivery failed. Always three elements on the wire."""

    condition: str
    description: str | None = None
    info: dict[Any, Any] | None = None

    CODE = 0x1D
    NAME = "amqp:error:list"
    KINDS = (_must(SYMBOL), STRING, MAP)


ERROR = _one_of(Error)


@dataclass(frozen=True, slots=True)
class Source(Composite):
    """Where the messages of a link come from."""

    address: str | None = None
    durable: int | None = None
    expiry_policy: str | None = None
    timeout: int | None = None
    dynamic: bool | None = None
    dynamic_node_properties: dict[Any, Any] | None = None
    distribution_mode: str | None = None
    filter: dict[Any, Any] | None = None
    default_outcome: Any = None
    outcomes: tuple[Symbol, ...] | None = None
    capabilities: tuple[Symbol, ...] | None = None

    CODE = 0x28
    NAME = "amqp:source:list"
    KINDS = (STRING, UINT, SYMBOL, UINT, BOOLEAN, MAP, SYMBOL, MAP, ANY, SYMBOLS, SYMBOLS)


@dataclass(frozen=True, slots=True)
class Target(Composite):
    """Where the messages of a link go to."""

    address: str | None = None
    durable: int | None = None
    expiry_policy: str | None = None
    timeout: int | None = None
    dynamic: bool | None = None
    dynamic_node_properties: dict[Any, Any] | None = None
    capabilities: tuple[Symbol, ...] | None = None

    CODE = 0x29
    NAME = "amqp:target:list"
    KINDS = (STRING, UINT, SYMBOL, UINT, BOOLEAN, MAP, SYMBOLS)


@dataclass(frozen=True, slots=True)
class Coordinator(Composite):
    """The target of a link that controls transactions."""

    capabilities: tuple[Symbol, ...] | None = None

    CODE = 0x30
    NAME = "amqp:coordinator:list"
    KINDS = (SYMBOLS,)


# ---------------------------------------------------------------------------------------------------------
# Delivery states


class Outcome(Composite):
    """A terminal delivery state."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Received(Composite):
    """How much of a delivery has arrived: not terminal."""

    section_number: int
    section_offset: int

    CODE = 0x23
    NAME = "amqp:received:list"
    KINDS = (_must(UINT), _must(ULONG))


@dataclass(frozen=True, slots=True)
class Accepted(Outcome):
    """The delivery is done."""

    CODE = 0x24
    NAME = "amqp:accepted:list"
    KINDS = ()

    def encode(self) -> bytes:
        return b"\x00\x53\x24\x45"


@dataclass(frozen=True, slots=True)
class Rejected(Outcome):
    """The delivery is invalid, and why."""

    error: Error | None = None

    CODE = 0x25
    NAME = "amqp:rejected:list"
    KINDS = (ERROR,)

    def encode(self) -> bytes:
        if self.error is None:
            return b"\x00\x53\x25\x45"
        return b"\x00\x53\x25" + encode_fields([self.error.encode()])


@dataclass(frozen=True, slots=True)
class Released(Outcome):
    """The delivery was not and will not be acted upon."""

    CODE = 0x26
    NAME = "amqp:released:list"
    KINDS = ()

    def encode(self) -> bytes:
        return b"\x00\x53\x26\x45"


@dataclass(frozen=True, slots=True)
class Modified(Outcome):
    """The delivery was not acted upon, and is changed before the next attempt."""

    delivery_failed: bool | None = None
    undeliverable_here: bool | None = None
    message_annotations: dict[Any, Any] | None = None

    CODE = 0x27
    NAME = "amqp:modified:list"
    KINDS = (BOOLEAN, BOOLEAN, MAP)

    def encode(self) -> bytes:
        parts = (self.delivery_failed, self.undeliverable_here, self.message_annotations)
        if parts == (None, None, None):
            return b"\x00\x53\x27\x45"
        return b"\x00\x53\x27" + encode_fields([encode(part) for part in parts])


ACCEPTED = Accepted()
RELEASED = Released()
STATE = _one_of(Accepted, Rejected, Released, Modified, Received)


# ---------------------------------------------------------------------------------------------------------
# Performatives


@dataclass(frozen=True, slots=True)
class Open(Composite):
    """Negotiate the parameters of a connection."""

    container_id: str
    hostname: str | None = None
    max_frame_size: int | None = None
    channel_max: int | None = None
    idle_time_out: int | None = None
    outgoing_locales: tuple[Symbol, ...] | None = None
    incoming_locales: tuple[Symbol, ...] | None = None
    offered_capabilities: tuple[Symbol, ...] | None = None
    desired_capabilities: tuple[Symbol, ...] | None = None
    properties: dict[Any, Any] | None = None

    CODE = 0x10
    NAME = "amqp:open:list"
    KINDS = (_must(STRING), STRING, UINT, USHORT, UINT, SYMBOLS, SYMBOLS, SYMBOLS, SYMBOLS, MAP)


@dataclass(frozen=True, slots=True)
class Begin(Composite):
    """Begin a session on a channel."""

    remote_channel: int | None
    next_outgoing_id: int
    incoming_window: int
    outgoing_window: int
    handle_max: int | None = None
    offered_capabilities: tuple[Symbol, ...] | None = None
    desired_capabilities: tuple[Symbol, ...] | None = None
    properties: dict[Any, Any] | None = None

    CODE = 0x11
    NAME = "amqp:begin:list"
    KINDS = (USHORT, _must(UINT), _must(UINT), _must(UINT), UINT, SYMBOLS, SYMBOLS, MAP)


@dataclass(frozen=True, slots=True)
class Attach(Composite):
    """Attach a link to a session."""

    name: str
    handle: int
    role: bool
    snd_settle_mode: int | None = None
    rcv_settle_mode: int | None = None
    source: Source | None = None
    target: Target | Coordinator | None = None
    unsettled: dict[Any, Any] | None = None
    incomplete_unsettled: bool | None = None
    initial_delivery_count: int | None = None
    max_message_size: int | None = None
    offered_capabilities: tuple[Symbol, ...] | None = None
    desired_capabilities: tuple[Symbol, ...] | None = None
    properties: dict[Any, Any] | None = None

    CODE = 0x12
    NAME = "amqp:attach:list"
    KINDS = (
        _must(STRING),
        _must(UINT),
        _must(BOOLEAN),
        UBYTE,
        UBYTE,
        _one_of(Source),
        _one_of(Target, Coordinator),
        MAP,
        BOOLEAN,
        UINT,
        ULONG,
        SYMBOLS,
        SYMBOLS,
        MAP,
    )


@dataclass(frozen=True, slots=True)
class Flow(Composite):
    """Update the windows of a session and, with a handle, the credit of a link."""

    next_incoming_id: int | None
    incoming_window: int
    next_outgoing_id: int
    outgoing_window: int
    handle: int | None = None
    delivery_count: int | None = None
    link_credit: int | None = None
    available: int | None = None
    drain: bool | None = None
    echo: bool | None = None
    properties: dict[Any, Any] | None = None

    CODE = 0x13
    NAME = "amqp:flow:list"
    KINDS = (UINT, _must(UINT), _must(UINT), _must(UINT), UINT, UINT, UINT, UINT, BOOLEAN, BOOLEAN, MAP)


@dataclass(frozen=True, slots=True)
class Transfer(Composite):
    """A message or a part of one; the payload follows the performative in the frame."""

    handle: int
    delivery_id: int | None = None
    delivery_tag: bytes | None = None
    message_format: int | None = None
    settled: bool | None = None
    more: bool | None = None
    rcv_settle_mode: int | None = None
    state: Outcome | Received | None = None
    resume: bool | None = None
    aborted: bool | None = None
    batchable: bool | None = None

    CODE = 0x14
    NAME = "amqp:transfer:list"
    KINDS = (
        _must(UINT),
        UINT,
        BINARY,
        UINT,
        BOOLEAN,
        BOOLEAN,
        UBYTE,
        STATE,
        BOOLEAN,
        BOOLEAN,
        BOOLEAN,
    )


@dataclass(frozen=True, slots=True)
class Disposition(Composite):
    """The state of a range of deliveries."""

    role: bool
    first: int
    last: int | None = None
    settled: bool | None = None
    state: Outcome | Received | None = None
    batchable: bool | None = None

    CODE = 0x15
    NAME = "amqp:disposition:list"
    KINDS = (_must(BOOLEAN), _must(UINT), UINT, BOOLEAN, STATE, BOOLEAN)


@dataclass(frozen=True, slots=True)
class Detach(Composite):
    """Detach a link, or close it for good."""

    handle: int
    closed: bool | None = None
    error: Error | None = None

    CODE = 0x16
    NAME = "amqp:detach:list"
    KINDS = (_must(UINT), BOOLEAN, ERROR)


@dataclass(frozen=True, slots=True)
class End(Composite):
    """End a session."""

    error: Error | None = None

    CODE = 0x17
    NAME = "amqp:end:list"
    KINDS = (ERROR,)


@dataclass(frozen=True, slots=True)
class Close(Composite):
    """Close a connection."""

    error: Error | None = None

    CODE = 0x18
    NAME = "amqp:close:list"
    KINDS = (ERROR,)


# ---------------------------------------------------------------------------------------------------------
# SASL


@dataclass(frozen=True, slots=True)
class SaslMechanisms(Composite):
    """What the server offers."""

    mechanisms: tuple[Symbol, ...]

    CODE = 0x40
    NAME = "amqp:sasl-mechanisms:list"
    KINDS = (_must(SYMBOLS),)


@dataclass(frozen=True, slots=True)
class SaslInit(Composite):
    """What the client chose."""

    mechanism: str
    initial_response: bytes | None = None
    hostname: str | None = None

    CODE = 0x41
    NAME = "amqp:sasl-init:list"
    KINDS = (_must(SYMBOL), BINARY, STRING)


@dataclass(frozen=True, slots=True)
class SaslOutcome(Composite):
    """Whether it may go on: 0 yes, 1 wrong credentials."""

    code: int
    additional_data: bytes | None = None

    CODE = 0x44
    NAME = "amqp:sasl-outcome:list"
    KINDS = (_must(UBYTE), BINARY)


_ALL: tuple[type[Composite], ...] = (
    *(Open, Begin, Attach, Flow, Transfer, Disposition, Detach, End, Close),
    *(SaslMechanisms, SaslInit, SaslOutcome),
    *(Error, Source, Target, Coordinator, Accepted, Rejected, Released, Modified, Received),
)
_CODES: dict[str, int] = {kind.NAME: kind.CODE for kind in _ALL}
_KINDS: dict[int, type[Composite]] = {kind.CODE: kind for kind in _ALL}


def by_code(code: int) -> type[Composite] | None:
    """The class with that descriptor code."""
    return _KINDS.get(code)
