"""What queues and topics have in common: messages can be sent to them.

Owns the checks before anything is stored (status, sizes, ids, quota), duplicate detection, and the decision
whether a message enters now or is scheduled. A batch is taken whole or not at all.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Generic, TypeVar

from sbrpc.emulator.broker import errors
from sbrpc.emulator.broker.books import Books
from sbrpc.emulator.broker.duplicates import DuplicateHistory
from sbrpc.emulator.broker.exchange import Exchange, Origin, Usage
from sbrpc.emulator.broker.messages import NEVER, Incoming
from sbrpc.topology import Queue, Topic

__all__ = ["Intake"]

Settings = TypeVar("Settings", Queue, Topic)

_CLOSED = ("Disabled", "SendDisabled")


class Intake(ABC, Generic[Settings]):
    """An entity that messages can be sent to."""

    kind = "Entity"

    def __init__(self, exchange: Exchange, settings: Settings, now: float) -> None:
        self.settings: Settings = settings
        self.name = settings.name
        self.created_at = self.updated_at = self.accessed_at = now
        self.usage = Usage()
        self.books = Books()
        self.timer = NEVER
        self._exchange = exchange
        window = settings.duplicate_detection_window
        self._history = DuplicateHistory(window) if window is not None else None
        self._follow(settings)

    def _follow(self, settings: Settings) -> None:
        self.settings = settings
        self.message_limit = settings.max_message_size_in_kilobytes * 1024
        self._size_limit = settings.max_size_in_megabytes * 1024 * 1024
        self._open = settings.status not in _CLOSED
        if self._history is not None and settings.duplicate_detection_window is not None:
            self._history.window = settings.duplicate_detection_window

    def check_open(self) -> None:
        """Refuse if the entity's status does not let messages in."""
        if not self._open:
            raise errors.entity_disabled(self.name, self.settings.status)

    def accept(self, batch: list[Incoming], now: float, origin: Origin | None = None) -> list[int]:
        """Store all messages or, with a `BrokerError`, none; the sequence numbers they got.

        A duplicate is taken and dropped; the number is that of the first message with its id.
        """
        self._check(batch)
        self.accessed_at = now
        self.books.sends += len(batch)
        history = self._history
        numbers = []
        for incoming in batch:
            if history is not None and incoming.message_id is not None:
                number = history.known(incoming.message_id, now)
                if number is None:
                    number = self._take(incoming, now, origin)
                    history.remember(incoming.message_id, number, now)
            else:
                number = self._take(incoming, now, origin)
            numbers.append(number)
        return numbers

    def _take(self, incoming: Incoming, now: float, origin: Origin | None) -> int:
        if incoming.scheduled_at is not None and incoming.scheduled_at > now:
            return self._schedule(incoming, now, origin)
        return self._enter(incoming, now, origin)

    @abstractmethod
    def _enter(self, incoming: Incoming, now: float, origin: Origin | None) -> int:
        """Let a message in now."""

    @abstractmethod
    def _schedule(self, incoming: Incoming, now: float, origin: Origin | None) -> int:
        """Keep a message until its time."""

    def wipe(self) -> None:
        """Throw everything away that is stored, and forget which ids were seen."""
        if self._history is not None:
            self._history = DuplicateHistory(self._history.window)

    @abstractmethod
    def cancel(self, sequence_numbers: list[int]) -> None:
        """Throw scheduled messages away."""

    def _check(self, batch: list[Incoming]) -> None:
        self.check_open()
        limits = self._exchange.limits
        total = 0
        for incoming in batch:
            size = incoming.content.size
            total += size
            if size > self.message_limit:
                raise errors.message_too_large("message", size, self.message_limit)
            if incoming.header_size > limits.header_size:
                raise errors.message_too_large("message header", incoming.header_size, limits.header_size)
            self._check_session(incoming.session_id)
            for value in (incoming.message_id, incoming.session_id, incoming.partition_key):
                if value.__class__ is str and len(value) > limits.id_length:
                    raise errors.out_of_range(
                        f"A message id, session id or partition key has at most {limits.id_length} "
                        f"characters; '{str(value)[:32]}...' has {len(str(value))}."
                    )
        if self.usage.size + total > self._size_limit:
            raise errors.quota_exceeded(self.kind, self.name)

    def _check_session(self, session_id: str | None) -> None:
        """Refuse a message without a session where it needs one."""
