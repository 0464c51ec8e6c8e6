"""A broker on a bench: with a clock that is set by hand, lock tokens that can be read, and short words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any
from uuid import UUID

import pytest

from sbrpc import topology
from sbrpc.emulator.broker import (
    Broker,
    BrokerError,
    Complete,
    Consumer,
    ConsumerClosed,
    ConsumerRefused,
    Deliver,
    Incoming,
    Limits,
    Message,
    Mode,
    Outcome,
    SessionAccepted,
)

from .content import message

__all__ = ["Bench", "message", "refused"]


class Bench:
    """A broker and what came out of it."""

    def __init__(self, *entities: topology.Queue | topology.Topic, limits: Limits | None = None) -> None:
        numbers = count(1)
        self.broker = Broker(new_token=lambda: UUID(int=next(numbers)), limits=limits)
        self.now = 0.0
        self.broker.create(entities, self.now)

    # -- time -----------------------------------------------------------------------------------------------

    def advance(self, seconds: float) -> None:
        """Let time pass, from one wake-up to the next."""
        target = self.now + seconds
        while (due := self.broker.next_timer()) is not None and due <= target:
            self.now = max(self.now, due)
            self.broker.handle_timer(self.now)
        self.now = target
        self.broker.handle_timer(self.now)

    # -- in -------------------------------------------------------------------------------------------------

    def send(self, address: str, *messages: Incoming, **fields: Any) -> None:
        """Send the given messages, or one with the given fields."""
        self.broker.send(address, list(messages) or [message(**fields)], self.now)

    def schedule(self, address: str, delay: float, **fields: Any) -> int:
        """Send a message that is to appear after `delay` seconds."""
        return self.broker.schedule(address, [message(scheduled_at=self.now + delay, **fields)], self.now)[0]

    # -- out ------------------------------------------------------------------------------------------------

    def open(self, address: str, session: Any = None, *, credit: int = 0, **options: Any) -> Consumer:
        """A consumer, with credit if told."""
        consumer = self.broker.open_consumer(address, session=session, now=self.now, **options)
        if credit:
            self.broker.set_credit(consumer, credit, self.now)
        return consumer

    def credit(self, consumer: Consumer, credit: int) -> None:
        self.broker.set_credit(consumer, credit, self.now)

    def close(self, consumer: Consumer) -> None:
        self.broker.close_consumer(consumer, self.now)

    def delivered(self) -> list[Deliver]:
        """What has been handed out since the last look; other effects are dropped."""
        return [effect for effect in self.broker.take_effects() if isinstance(effect, Deliver)]

    def numbers(self) -> list[int]:
        """The sequence numbers of what has been handed out."""
        return [effect.message.sequence_number for effect in self.delivered()]

    def told(self) -> list[tuple[Consumer, str]]:
        """What consumers have been told: accepted, or the condition with which they ended."""
        found = []
        for effect in self.broker.take_effects():
            if isinstance(effect, SessionAccepted):
                found.append((effect.consumer, "accepted"))
            elif isinstance(effect, ConsumerRefused | ConsumerClosed):
                found.append((effect.consumer, effect.error.condition))
        return found

    def receive(self, address: str, count: int = 1, session: Any = None) -> list[Deliver]:
        """Get messages through a consumer that is closed again, if it holds no session."""
        self.broker.take_effects()
        consumer = self.open(address, session, credit=count)
        found = self.delivered()
        if session is None:
            self.close(consumer)
        return found

    def settle(self, address: str, delivery: Deliver, outcome: Outcome | None = None, **how: Any) -> None:
        """Settle a delivery, by default as complete."""
        assert delivery.lock_token is not None
        self.broker.settle(address, delivery.lock_token, outcome or Complete(), self.now, **how)

    def take(self, address: str, count: int = 1) -> list[int]:
        """Receive and delete; the sequence numbers."""
        self.broker.take_effects()
        consumer = self.open(address, mode=Mode.RECEIVE_AND_DELETE, credit=count)
        found = self.numbers()
        self.close(consumer)
        return found

    # -- looking in -----------------------------------------------------------------------------------------

    def peek(self, address: str, session: str | None = None) -> list[Message]:
        return self.broker.peek(address, 0, 250, session, self.now)

    def dead(self, address: str) -> list[Message]:
        """The dead letters."""
        return self.peek(address + "/$DeadLetterQueue")

    def reasons(self, address: str) -> list[object]:
        """Why the dead letters are dead."""
        return [letter.content.user().get("DeadLetterReason") for letter in self.dead(address)]


@contextmanager
def refused(condition: str, match: str | None = None) -> Iterator[None]:
    """What is done inside is refused with this condition."""
    with pytest.raises(BrokerError, match=match) as info:
        yield
    assert info.value.condition == condition
