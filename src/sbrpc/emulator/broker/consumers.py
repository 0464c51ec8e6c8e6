"""A consumer: somebody who wants messages of one entity, as the broker sees it.

Owns the consumer's data only. Who gets the next message is decided by the store it belongs to.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final, Literal, Protocol

from sbrpc.emulator.broker.errors import BrokerError
from sbrpc.emulator.broker.messages import NEVER, Mode

__all__ = ["NEXT_AVAILABLE", "Consumer", "SessionChoice", "Source"]


class _NextAvailable(Enum):
    NEXT_AVAILABLE = "next available"


NEXT_AVAILABLE: Final = _NextAvailable.NEXT_AVAILABLE
"""Asks for whichever unlocked session has had a message waiting longest."""

SessionChoice = str | Literal[_NextAvailable.NEXT_AVAILABLE] | None


class Source(Protocol):
    """The store that a consumer gets its messages from, as far as the broker asks by way of the consumer."""

    def credit(self, consumer: Consumer, credit: int, now: float) -> None:
        """Set how many more messages a consumer may get."""

    def close(self, consumer: Consumer, now: float, error: BrokerError | None = None) -> None:
        """Let a consumer go; with an error it is told."""


@dataclass(slots=True, eq=False)
class Consumer:
    """What the broker keeps of one receiver; `key` is the caller's to fill in."""

    store: Source = field(repr=False)
    address: str
    mode: Mode
    session_id: str | None = None
    """The session it holds; for one that waits, `None` until it gets one."""
    locked_until: float = 0.0
    """When its session lock ends."""
    pending: bool = False
    """It waits for a session."""
    credit: int = 0
    """How many more messages it may get."""
    closed: bool = False
    key: Any = None
    destructive: bool = False
    queued: bool = False
    """It stands in the row of those with credit."""
    timeout: float = 0.0
    active_at: float = 0.0
    timer: float = NEVER
    """When the timers look at it next; theirs alone."""
