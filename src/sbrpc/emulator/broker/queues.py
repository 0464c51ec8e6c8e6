"""A queue: an intake in front of a store, and its sub-queues.

Owns how a store and its dead-letter queues are put together; subscriptions use the same `Trio`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from itertools import count

from sbrpc.emulator.broker import errors
from sbrpc.emulator.broker.errors import BrokerError
from sbrpc.emulator.broker.exchange import Exchange, Origin, Usage
from sbrpc.emulator.broker.intake import Intake
from sbrpc.emulator.broker.messages import Incoming
from sbrpc.emulator.broker.onward import REASONS, Onward
from sbrpc.emulator.broker.plain import PlainStore
from sbrpc.emulator.broker.sessions import SessionStore
from sbrpc.emulator.broker.stores import Store
from sbrpc.topology import Queue, Subscription

__all__ = ["DEAD_LETTERS", "TRANSFERS", "QueueEntity", "Trio"]

DEAD_LETTERS = "/$DeadLetterQueue"
TRANSFERS = "/$Transfer/$DeadLetterQueue"

_CLOSED = ("Disabled", "ReceiveDisabled")


class Trio:
    """The three stores of a queue or subscription: messages, dead letters, and what could not be forwarded.

    They share one row of sequence numbers, so that a dead letter can keep its own.
    """

    __slots__ = ("address", "dead_letters", "main", "settings", "transfers")

    def __init__(
        self, exchange: Exchange, address: str, settings: Queue | Subscription, usage: Usage, now: float
    ) -> None:
        self.address = address
        self.settings = settings
        numbers: Iterator[int] = count(1)
        self.dead_letters = PlainStore(exchange, address + DEAD_LETTERS, settings, usage, numbers)
        self.transfers = PlainStore(exchange, address + TRANSFERS, settings, usage, numbers)
        onward = Onward(exchange, address, self.dead_letters, self.transfers)
        kind = SessionStore if settings.requires_session else PlainStore
        self.main: Store = kind(exchange, address, settings, usage, numbers, onward)
        for store in self.stores:
            store.accessed_at = now

    @property
    def stores(self) -> tuple[Store, Store, Store]:
        """The messages, the dead letters, the failed transfers."""
        return self.main, self.dead_letters, self.transfers

    @property
    def accessed_at(self) -> float:
        """When somebody last did something here."""
        return max(store.accessed_at for store in self.stores)

    @property
    def in_use(self) -> bool:
        """Somebody is attached."""
        return any(store.consumers for store in self.stores)

    def check_open(self) -> None:
        """Refuse if the entity's status does not let receivers in."""
        if self.settings.status in _CLOSED:
            raise errors.entity_disabled(self.address, self.settings.status)

    def follow(self, settings: Queue | Subscription, now: float) -> None:
        """Follow new settings."""
        if settings.requires_session != self.settings.requires_session:
            raise errors.argument(f"Whether '{self.address}' requires sessions is fixed at its creation.")
        self.settings = settings
        for store in self.stores:
            store.configure(settings)
        if settings.status in _CLOSED:
            self.evict(errors.entity_disabled(self.address, settings.status), now)
        if settings.forward_to is not None:
            self.main.evict(errors.forwards(self.address), now)
            self.main.forward_all(now)

    def replay(self, sequence_numbers: Collection[int] | None, now: float) -> int:
        """Put dead letters back, without their reasons; one that has no session stays where one is needed."""
        sessions = self.settings.requires_session
        wanted = [
            number
            for number, message in self.dead_letters.messages.items()
            if (sequence_numbers is None or number in sequence_numbers)
            and (message.session_id is not None or not sessions)
        ]
        letters = self.dead_letters.withdraw(wanted)
        for letter in letters:
            incoming = letter.as_incoming()
            incoming.content = letter.content.revised(removed=REASONS)
            incoming.header_size += incoming.content.size - letter.content.size
            self.main.admit(incoming, now)
        return len(letters)

    def evict(self, error: BrokerError, now: float) -> None:
        """Close all consumers."""
        for store in self.stores:
            store.evict(error, now)

    def wipe(self) -> None:
        """Throw everything away that is stored."""
        for store in self.stores:
            store.wipe()

    def clear(self, error: BrokerError, now: float) -> None:
        """The entity is deleted."""
        for store in self.stores:
            store.clear(error, now)


class QueueEntity(Intake[Queue]):
    """A queue with its sub-queues."""

    kind = "Queue"

    def __init__(self, exchange: Exchange, settings: Queue, now: float) -> None:
        super().__init__(exchange, settings, now)
        self.trio = Trio(exchange, settings.name, settings, self.usage, now)
        self.store = self.trio.main
        # A queue has one account for both ends.
        self.store.books = self.books

    @property
    def in_use(self) -> bool:
        """Somebody is attached."""
        return self.trio.in_use

    @property
    def last_used(self) -> float:
        """When somebody last did something here."""
        return max(self.accessed_at, self.trio.accessed_at)

    def follow(self, settings: Queue, now: float) -> None:
        """Follow new settings."""
        self.trio.follow(settings, now)
        self._follow(settings)
        self.updated_at = now

    def wipe(self) -> None:
        super().wipe()
        self.trio.wipe()

    def _check_session(self, session_id: str | None) -> None:
        if session_id is None and self.settings.requires_session:
            raise errors.session_id_missing()

    def _enter(self, incoming: Incoming, now: float, origin: Origin | None) -> int:
        return self.store.admit(incoming, now, origin).sequence_number

    def _schedule(self, incoming: Incoming, now: float, origin: Origin | None) -> int:
        return self.store.schedule(incoming, now, origin).sequence_number

    def cancel(self, sequence_numbers: list[int]) -> None:
        self.store.cancel_scheduled(sequence_numbers)
