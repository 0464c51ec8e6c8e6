"""A store without sessions: one row of messages, and consumers that take turns.

Owns the order of deliveries in queues, subscriptions and sub-queues that know no sessions.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

from sbrpc.emulator.broker import errors
from sbrpc.emulator.broker.consumers import Consumer, SessionChoice
from sbrpc.emulator.broker.errors import BrokerError
from sbrpc.emulator.broker.messages import Message, Mode
from sbrpc.emulator.broker.ready import Ready
from sbrpc.emulator.broker.stores import Store

__all__ = ["PlainStore"]


class PlainStore(Store):
    """Messages for whoever comes."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._ready = Ready()
        # Consumers with credit, in the order in which they came by it or were last served.
        self._row: deque[Consumer] = deque()

    def open(
        self, address: str, mode: Mode, session: SessionChoice, timeout: float | None, now: float
    ) -> Consumer:
        if session is not None:
            raise errors.not_allowed(
                "A sessionful message receiver cannot be created on an entity that does not require sessions."
            )
        consumer = Consumer(self, address, mode, destructive=mode is Mode.RECEIVE_AND_DELETE)
        self._came(consumer, now)
        return consumer

    def close(self, consumer: Consumer, now: float, error: BrokerError | None = None) -> None:
        if consumer.closed:
            return
        if consumer.queued:
            self._row.remove(consumer)
        self._left(consumer, now, error)

    def credit(self, consumer: Consumer, credit: int, now: float) -> None:
        consumer.credit = credit
        consumer.active_at = now
        if consumer.queued != (credit > 0):
            consumer.queued = credit > 0
            if consumer.queued:
                self._row.append(consumer)
            else:
                self._row.remove(consumer)
        if self._row:
            self._hand_out(now)

    def in_session(self, session_id: str) -> Mapping[int, Message]:
        return {
            number: message for number, message in self.messages.items() if message.session_id == session_id
        }

    def _reachable(self, session_id: str | None) -> Mapping[int, Message]:
        return self.messages

    def _lost(self, session_id: str | None, consumer: Consumer | None) -> BrokerError:
        return errors.message_lock_lost()

    def _enqueue(self, message: Message) -> None:
        self._ready.push(message)

    def _flow(self, message: Message, now: float) -> None:
        if self._row:
            self._hand_out(now)

    def _hand_out(self, now: float) -> None:
        row, ready = self._row, self._ready
        while row:
            message = ready.pop()
            if message is None:
                return
            consumer = row.popleft()
            self._had_turn(consumer)
            self._hand_over(consumer, message, now)

    def _had_turn(self, consumer: Consumer) -> None:
        if consumer.credit > 1:
            self._row.append(consumer)
        else:
            consumer.queued = False

    def _left_row(self, message: Message) -> None:
        self._ready.left()

    def _next_consumer(self, message: Message) -> Consumer | None:
        for consumer in self._row:
            if not consumer.destructive:
                self._row.remove(consumer)
                self._had_turn(consumer)
                return consumer
        return None

    # Nothing here is kept per message.

    def _joined(self, message: Message) -> None:
        return

    def _gone(self, message: Message) -> None:
        return

    def _lock_ended(self, message: Message) -> None:
        return

    def _lock_begins(self, message: Message, now: float) -> None:
        message.locked_until = until = now + self._lock_duration
        self._timers.arm(message, until, self._due)
