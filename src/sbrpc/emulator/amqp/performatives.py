"""The composite types of AMQP: performatives, SASL frames, terminus, errors and delivery states.

This module owns their field lists, in a table per class: what may stand in each field and how it is
encoded. Every field is always encoded, nulls included, because some clients index into the lists. It knows
no connection state: whether a performative is legal is not its business.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .codec import encode, encode_fields
from .composites import (
    ANY,
    BINARY,
    BOOLEAN,
    MAP,
    STRING,
    SYMBOL,
    SYMBOLS,
    UBYTE,
    UINT,
    ULONG,
    USHORT,
    Composite,
    must,
    one_of,
)
from .types import Symbol

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
    # roles
    "RECEIVER",
    "SENDER",
    "by_code",
]

SENDER = False
RECEIVER = True

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
    KINDS = (must(SYMBOL), STRING, MAP)


ERROR = one_of(Error)


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
    KINDS = (must(UINT), must(ULONG))


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
STATE = one_of(Accepted, Rejected, Released, Modified, Received)


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
    KINDS = (must(STRING), STRING, UINT, USHORT, UINT, SYMBOLS, SYMBOLS, SYMBOLS, SYMBOLS, MAP)


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
    KINDS = (USHORT, must(UINT), must(UINT), must(UINT), UINT, SYMBOLS, SYMBOLS, MAP)


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
        must(STRING),
        must(UINT),
        must(BOOLEAN),
        UBYTE,
        UBYTE,
        one_of(Source),
        one_of(Target, Coordinator),
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
    KINDS = (UINT, must(UINT), must(UINT), must(UINT), UINT, UINT, UINT, UINT, BOOLEAN, BOOLEAN, MAP)


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
        must(UINT),
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
    KINDS = (must(BOOLEAN), must(UINT), UINT, BOOLEAN, STATE, BOOLEAN)


@dataclass(frozen=True, slots=True)
class Detach(Composite):
    """Detach a link, or close it for good."""

    handle: int
    closed: bool | None = None
    error: Error | None = None

    CODE = 0x16
    NAME = "amqp:detach:list"
    KINDS = (must(UINT), BOOLEAN, ERROR)


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
    KINDS = (must(SYMBOLS),)


@dataclass(frozen=True, slots=True)
class SaslInit(Composite):
    """What the client chose."""

    mechanism: str
    initial_response: bytes | None = None
    hostname: str | None = None

    CODE = 0x41
    NAME = "amqp:sasl-init:list"
    KINDS = (must(SYMBOL), BINARY, STRING)


@dataclass(frozen=True, slots=True)
class SaslOutcome(Composite):
    """Whether it may go on: 0 yes, 1 wrong credentials."""

    code: int
    additional_data: bytes | None = None

    CODE = 0x44
    NAME = "amqp:sasl-outcome:list"
    KINDS = (must(UBYTE), BINARY)


_ALL: tuple[type[Composite], ...] = (
    *(Open, Begin, Attach, Flow, Transfer, Disposition, Detach, End, Close),
    *(SaslMechanisms, SaslInit, SaslOutcome),
    *(Error, Source, Target, Coordinator, Accepted, Rejected, Released, Modified, Received),
)
_KINDS: dict[int, type[Composite]] = {kind.CODE: kind for kind in _ALL}


def by_code(code: int) -> type[Composite] | None:
    """The class with that descriptor code."""
    return _KINDS.get(code)
