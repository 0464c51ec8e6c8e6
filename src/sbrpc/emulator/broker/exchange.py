"""What all entities of one broker share: timers, effects, limits, lock tokens, and the way to another entity.

Owns the wiring and nothing else; the rules of Service Bus are in the entities.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from sbrpc.emulator.broker import errors
from sbrpc.emulator.broker.effects import Effect
from sbrpc.emulator.broker.messages import Incoming
from sbrpc.emulator.broker.timers import Timers

__all__ = ["Exchange", "Limits", "Origin", "Target", "Usage"]


@dataclass(frozen=True, slots=True)
class Limits:
    """What no client can exceed; defaults are the service's quotas."""

    header_size: int = 64 * 1024
    """Bytes of all properties of a message."""
    id_length: int = 128
    """Characters of a message id, session id or partition key."""
    hops: int = 4
    """How often a message can be forwarded."""
    peek_batch: int = 250
    delete_batch: int = 500
    accept_timeout: float = 65.0
    """Seconds to wait for the next available session where the client does not say."""
    idle_timeout: float | None = None
    """Seconds after which a consumer on which nothing moves is closed; the service does so after 600."""


@dataclass(slots=True)
class Usage:
    """Bytes stored in a queue, or in a topic with its subscriptions."""

    size: int = 0


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a message was before it was forwarded."""

    hops: int
    sequence_number: int
    dead_letter_source: str | None = None


class Target(Protocol):
    """An entity that messages can be sent to."""

    def accept(self, batch: list[Incoming], now: float, origin: Origin | None = None) -> list[int]:
        """Store all messages or, with a `BrokerError`, none."""


class Exchange:
    """The wiring between the entities of one broker."""

    __slots__ = ("effects", "limits", "new_token", "targets", "timers")

    def __init__(self, new_token: Callable[[], UUID], limits: Limits) -> None:
        self.new_token = new_token
        self.limits = limits
        self.timers = Timers()
        self.effects: list[Effect] = []
        self.targets: dict[str, Target] = {}
        """Queues and topics by their name in lower case."""

    def forward(self, incoming: Incoming, to: str, now: float, origin: Origin) -> None:
        """Send a message on to another entity."""
        target = self.targets.get(to.lower())
        if target is None:
            raise errors.not_found(to)
        target.accept([incoming], now, origin)
