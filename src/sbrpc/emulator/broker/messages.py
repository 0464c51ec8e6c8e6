"""What lies in a queue: messages, what they say, their states, and what a receiver can decide about one.

Owns the vocabulary the broker's modules share and the table of a message's legal states. Knows no queue:
who moves a message from state to state, and when, is decided elsewhere. Times are seconds since 1970, sizes
bytes.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import Final, Protocol
from uuid import UUID

__all__ = [
    "Abandon",
    "Complete",
    "Content",
    "DeadLetter",
    "Defer",
    "Incoming",
    "Message",
    "MessageState",
    "Mode",
    "NEVER",
    "Outcome",
    "Release",
]

NEVER: Final = math.inf
"""The time of things that do not happen."""


class Content(Protocol):
    """What a message says. The broker asks it for properties and never looks at bytes."""

    @property
    def size(self) -> int:
        """Bytes of the whole message."""

    def system(self, name: str) -> object:
        """A standard property such as `message_id`, `subject` or `reply_to`, or `None` if not set."""

    def user(self) -> Mapping[str, object]:
        """The application properties."""

    def revised(
        self,
        *,
        system: Mapping[str, object] | None = None,
        user: Mapping[str, object] | None = None,
        removed: Collection[str] = (),
    ) -> Content:
        """A copy with some properties set and some application properties removed."""


class Mode(str, Enum):
    """How a consumer gets messages: locked until it decides, or gone once delivered."""

    PEEK_LOCK = "peek_lock"
    RECEIVE_AND_DELETE = "receive_and_delete"


class MessageState(IntEnum):
    """Where a message is in its life."""

    ACTIVE = 0
    """It can be delivered."""
    DEFERRED = 1
    """It was set aside and comes only to who asks for its sequence number."""
    SCHEDULED = 2
    """It waits for its time."""
    LOCKED = 3
    """Somebody has it and has not decided yet."""
    ARRIVING = 4
    """It is on its way to its place; nobody sees it in this state."""
    GONE = 5
    """It is no longer in the entity."""


_NEXT: Final = {
    MessageState.ARRIVING: frozenset({MessageState.ACTIVE, MessageState.SCHEDULED, MessageState.GONE}),
    MessageState.SCHEDULED: frozenset({MessageState.ACTIVE, MessageState.GONE}),
    MessageState.ACTIVE: frozenset({MessageState.LOCKED, MessageState.GONE}),
    MessageState.LOCKED: frozenset({MessageState.ACTIVE, MessageState.DEFERRED, MessageState.GONE}),
    MessageState.DEFERRED: frozenset({MessageState.LOCKED, MessageState.GONE}),
    MessageState.GONE: frozenset[MessageState](),
}


@dataclass(slots=True)
class Incoming:
    """A message on its way in, with what the broker needs to know without asking the content."""

    content: Content
    message_id: object | None = None
    session_id: str | None = None
    time_to_live: float | None = None
    """Seconds."""
    scheduled_at: float | None = None
    partition_key: str | None = None
    header_size: int = 0
    """Bytes of the properties, where the sender's gateway has counted them."""


@dataclass(slots=True, eq=False)
class Message:
    """A message in an entity. One object is in one place: a copy elsewhere is another object."""

    sequence_number: int
    enqueued_sequence_number: int
    """The number it had where it was first sent, if that was another entity; else 0."""
    enqueued_at: float
    content: Content
    message_id: object | None
    session_id: str | None
    time_to_live: float | None
    expires_at: float
    scheduled_at: float | None
    partition_key: str | None
    header_size: int = 0
    hops: int = 0
    """How often it has been forwarded."""
    delivery_count: int = 0
    """How often it was handed out and came back undone."""
    dead_letter_source: str | None = None
    state: MessageState = MessageState.ARRIVING
    deferred: bool = False
    """It has been deferred, and stays so while somebody holds it locked."""
    lock_token: UUID | None = None
    other_tokens: tuple[UUID, ...] = ()
    """Earlier tokens that are still good, after the message was delivered again without losing its lock."""
    locked_until: float = 0.0
    timer: float = NEVER
    """When the timers look at it next; theirs alone."""

    def become(self, state: MessageState) -> None:
        """Change the state; nothing else does."""
        if state not in _NEXT[self.state]:
            raise RuntimeError(f"message {self.sequence_number} cannot go from {self.state!r} to {state!r}")
        self.state = state

    @property
    def shown_state(self) -> MessageState:
        """The state as a peek tells it: active, deferred or scheduled; a lock does not show."""
        if self.deferred:
            return MessageState.DEFERRED
        return MessageState.SCHEDULED if self.state is MessageState.SCHEDULED else MessageState.ACTIVE

    def as_incoming(self) -> Incoming:
        """The message on its way into another entity."""
        return Incoming(
            self.content,
            self.message_id,
            self.session_id,
            self.time_to_live,
            None,
            self.partition_key,
            self.header_size,
        )


@dataclass(frozen=True, slots=True)
class Complete:
    """The message is done with."""


@dataclass(frozen=True, slots=True)
class Abandon:
    """Try again; the properties are merged into the application properties."""

    properties: Mapping[str, object] | None = None


@dataclass(frozen=True, slots=True)
class Defer:
    """Set the message aside."""

    properties: Mapping[str, object] | None = None


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """Put the message into the dead-letter queue and say why."""

    reason: str | None = None
    description: str | None = None
    properties: Mapping[str, object] | None = None


@dataclass(frozen=True, slots=True)
class Release:
    """The message was never looked at: back to its place, and this delivery does not count."""


Outcome = Complete | Abandon | Defer | DeadLetter | Release
