"""What the broker wants done after a call: messages to hand out, and consumers whose fate is decided.

Owns the effect types. The broker collects them in order and `Broker.take_effects` hands them over; it never
calls back. They are to be carried out before the broker is called again, since messages are live objects.
"""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from sbrpc.emulator.broker.consumers import Consumer
from sbrpc.emulator.broker.errors import BrokerError
from sbrpc.emulator.broker.messages import Message

__all__ = ["ConsumerClosed", "ConsumerRefused", "Deliver", "Effect", "SessionAccepted"]


@dataclass(slots=True, eq=False)
class Deliver:
    """Hand a message to a consumer. Its credit has been taken already.

    Token and delivery count are those of this very delivery: when much time passes in one step, the message
    may have been delivered again before the effect is carried out.
    """

    consumer: Consumer
    message: Message
    lock_token: UUID | None
    """`None` when the consumer receives and deletes: the message is gone from the broker."""
    locked_until: float
    delivery_count: int


@dataclass(slots=True, eq=False)
class SessionAccepted:
    """A consumer that waited for the next available session has got one."""

    consumer: Consumer


@dataclass(slots=True, eq=False)
class ConsumerRefused:
    """A consumer that waited for a session gets none."""

    consumer: Consumer
    error: BrokerError


@dataclass(slots=True, eq=False)
class ConsumerClosed:
    """A consumer is no more: its session lock is lost, its entity deleted or disabled, or it was idle."""

    consumer: Consumer
    error: BrokerError


Effect = Deliver | SessionAccepted | ConsumerRefused | ConsumerClosed
