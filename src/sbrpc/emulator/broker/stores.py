"""What lies in one queue, subscription or sub-queue, and what can happen to a message there.

Owns a message's whole life between arrival and departure: locks and their expiry, settlement, delivery
counts, time to live, schedules, deferral, dead-lettering and forwarding. In which order messages are handed
out, and to whom, is left to the two kinds of store (`plain` and `sessions`). Knows no addresses but its
own.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping
from uuid import UUID

from sbrpc.emulator.broker import errors
from sbrpc.emulator.broker.books import Books
from sbrpc.emulator.broker.consumers import Consumer, SessionChoice
from sbrpc.emulator.broker.effects import ConsumerClosed, ConsumerRefused, Deliver
from sbrpc.emulator.broker.errors import BrokerError
from sbrpc.emulator.broker.exchange import Exchange, Origin, Usage
from sbrpc.emulator.broker.messages import (
    NEVER,
    Abandon,
    Complete,
    DeadLetter,
    Defer,
    Incoming,
    Message,
    MessageState,
    Mode,
    Outcome,
)
from sbrpc.emulator.broker.onward import Onward
from sbrpc.emulator.broker.order import SequenceOrder
from sbrpc.topology import Queue, Subscription

__all__ = ["Store"]

_ACTIVE, _DEFERRED, _SCHEDULED, _LOCKED, _GONE = (
    MessageState.ACTIVE,
    MessageState.DEFERRED,
    MessageState.SCHEDULED,
    MessageState.LOCKED,
    MessageState.GONE,
)

_EXPIRED = ("TTLExpiredException", "The message expired and was dead lettered.")


class Store(ABC):
    """The messages of one (sub-)queue. A sub-queue has no way `onward`: nothing expires there."""

    def __init__(
        self,
        exchange: Exchange,
        address: str,
        settings: Queue | Subscription,
        usage: Usage,
        numbers: Iterator[int],
        onward: Onward | None = None,
    ) -> None:
        self.address = address
        self.settings = settings
        self.books = Books()
        self.accessed_at = 0.0
        self.messages: dict[int, Message] = {}
        # In order of arrival, so that they are told of an end in order.
        self.consumers: dict[Consumer, None] = {}
        self.onward = onward
        self.scheduled = 0
        self.deferred = 0
        self._exchange = exchange
        self._timers = exchange.timers
        self._usage = usage
        self._numbers = numbers
        self._locks: dict[UUID, Message] = {}
        self._order = SequenceOrder(self.messages)
        # What sub-queues do not have.
        self._default_ttl: float | None = None
        self._max_deliveries: float = NEVER
        self._forward_to: str | None = None
        self.configure(settings)

    def configure(self, settings: Queue | Subscription) -> None:
        """Follow new settings; they hold for what happens from now on."""
        self.settings = settings
        self._lock_duration = settings.lock_duration
        if self.onward is not None:
            self.onward.dead_letters_to = settings.forward_dead_lettered_messages_to
            self._default_ttl = settings.default_message_time_to_live
            self._max_deliveries = settings.max_delivery_count
            self._forward_to = settings.forward_to

    @property
    def _way_on(self) -> Onward:
        assert self.onward is not None, "what is in a sub-queue stays there"
        return self.onward

    @property
    def active(self) -> int:
        """Messages that are neither deferred nor scheduled, locked ones among them."""
        return len(self.messages) - self.deferred - self.scheduled

    # -- what the kinds of store decide ------------------------------------------------------------------

    @abstractmethod
    def open(
        self, address: str, mode: Mode, session: SessionChoice, timeout: float | None, now: float
    ) -> Consumer:
        """Let somebody in who wants messages."""

    @abstractmethod
    def close(self, consumer: Consumer, now: float, error: BrokerError | None = None) -> None:
        """Let a consumer go; with an error it is told."""

    @abstractmethod
    def credit(self, consumer: Consumer, credit: int, now: float) -> None:
        """Set how many more messages a consumer may get."""

    @abstractmethod
    def in_session(self, session_id: str) -> Mapping[int, Message]:
        """The session's messages by sequence number."""

    @abstractmethod
    def _reachable(self, session_id: str | None) -> Mapping[int, Message]:
        """The messages that a receiver with this session, or with none, may ask for by number."""

    @abstractmethod
    def _lost(self, session_id: str | None, consumer: Consumer | None) -> BrokerError:
        """The error for a lock token that is the key to nothing."""

    @abstractmethod
    def _enqueue(self, message: Message) -> None:
        """Give an active message its place among those to be handed out."""

    @abstractmethod
    def _flow(self, message: Message, now: float) -> None:
        """Hand out what can be, after `_enqueue`."""

    @abstractmethod
    def _left_row(self, message: Message) -> None:
        """An active message goes away without having been handed out."""

    @abstractmethod
    def _next_consumer(self, message: Message) -> Consumer | None:
        """Who would get the message now."""

    @abstractmethod
    def _lock_begins(self, message: Message, now: float) -> None:
        """Set when the lock of a message, new or renewed, ends by itself."""

    @abstractmethod
    def _lock_ended(self, message: Message) -> None:
        """A message is not locked any more."""

    @abstractmethod
    def _joined(self, message: Message) -> None:
        """A message is in the store now."""

    @abstractmethod
    def _gone(self, message: Message) -> None:
        """A message is no longer in the store."""

    # -- arrival -----------------------------------------------------------------------------------------

    def admit(self, incoming: Incoming, now: float, origin: Origin | None = None) -> Message:
        """Take a message in; it is active at once, unless it has to go elsewhere."""
        message = self._message(incoming, now, origin)
        if self._forward_to is not None:
            self._way_on.forward(message, self._forward_to, now)
        elif message.expires_at <= now:
            if self.settings.dead_lettering_on_message_expiration:
                self._way_on.dead_letter(message, now, *_EXPIRED)
        else:
            self._insert(message)
            message.become(_ACTIVE)
            self._enqueue(message)
            self._flow(message, now)
            # Most messages are handed out at once: only one that is left waiting needs a timer.
            if message.expires_at != NEVER and message.state is _ACTIVE:
                self._timers.arm(message, message.expires_at, self._due)
        return message

    def schedule(self, incoming: Incoming, now: float, origin: Origin | None = None) -> Message:
        """Take a message in that becomes active at its time."""
        message = self._message(incoming, now, origin)
        message.become(_SCHEDULED)
        self.scheduled += 1
        self._insert(message)
        assert incoming.scheduled_at is not None
        if message.time_to_live is not None:
            message.expires_at = incoming.scheduled_at + message.time_to_live
        self._timers.arm(message, incoming.scheduled_at, self._due)
        return message

    def adopt(self, message: Message, now: float, source: str) -> None:
        """Take in a dead letter: it keeps number, time and count, and never expires."""
        letter = Message(
            message.sequence_number,
            message.enqueued_sequence_number,
            message.enqueued_at,
            message.content,
            message.message_id,
            message.session_id,
            message.time_to_live,
            NEVER,
            message.scheduled_at,
            message.partition_key,
            message.header_size,
            message.hops,
            message.delivery_count,
            source,
        )
        self._insert(letter)
        letter.become(_ACTIVE)
        self._enqueue(letter)
        self._flow(letter, now)

    def reject(self, incoming: Incoming, now: float, origin: Origin | None, reason: str, text: str) -> None:
        """Take in a message that has to go to the dead letters at once."""
        self._way_on.dead_letter(self._message(incoming, now, origin), now, reason, text)

    def _message(self, incoming: Incoming, now: float, origin: Origin | None) -> Message:
        ttl, default = incoming.time_to_live, self._default_ttl
        if default is not None and (ttl is None or ttl > default):
            ttl = default
        message = Message(
            next(self._numbers),
            0,
            now,
            incoming.content,
            incoming.message_id,
            incoming.session_id,
            ttl,
            NEVER if ttl is None else now + ttl,
            incoming.scheduled_at,
            incoming.partition_key,
            incoming.header_size,
        )
        if origin is not None:
            message.hops = origin.hops
            message.enqueued_sequence_number = origin.sequence_number
            message.dead_letter_source = origin.dead_letter_source
        return message

    def _insert(self, message: Message) -> None:
        self.messages[message.sequence_number] = message
        self._usage.size += message.content.size
        self._joined(message)

    def _activate(self, message: Message) -> None:
        message.become(_ACTIVE)
        self._enqueue(message)
        if message.expires_at != NEVER:
            self._timers.arm(message, message.expires_at, self._due)

    # -- departure ---------------------------------------------------------------------------------------

    def _remove(self, message: Message) -> None:
        """The one way out of the store, whatever the state."""
        state = message.state
        message.become(_GONE)
        del self.messages[message.sequence_number]
        self._usage.size -= message.content.size
        if message.timer != NEVER:
            self._timers.disarm(message)
        if state is _LOCKED:
            self._forget_lock(message)
        elif state is _ACTIVE:
            self._left_row(message)
        elif state is _SCHEDULED:
            self.scheduled -= 1
        if message.deferred:
            self.deferred -= 1
        self._gone(message)

    def clear(self, error: BrokerError, now: float) -> None:
        """The entity is deleted: everybody is told and everything thrown away."""
        self.evict(error, now)
        self.wipe()

    def wipe(self) -> None:
        """Throw everything away, whatever its state; consumers stay."""
        for message in list(self.messages.values()):
            self._remove(message)

    def evict(self, error: BrokerError, now: float) -> None:
        """Close all consumers and tell them why."""
        # Those that wait go first, or they would get what the others leave.
        for consumer in sorted(self.consumers, key=lambda consumer: not consumer.pending):
            self.close(consumer, now, error)

    # -- consumers ---------------------------------------------------------------------------------------

    def _came(self, consumer: Consumer, now: float) -> None:
        self.consumers[consumer] = None
        self.accessed_at = consumer.active_at = now
        if not consumer.pending:
            self._watch(consumer, now)

    def _left(self, consumer: Consumer, now: float, error: BrokerError | None) -> None:
        self.consumers.pop(consumer, None)
        self.accessed_at = now
        consumer.closed = True
        consumer.credit = 0
        self._timers.disarm(consumer)
        if error is not None:
            effect = ConsumerRefused if consumer.pending else ConsumerClosed
            self._exchange.effects.append(effect(consumer, error))

    def _watch(self, consumer: Consumer, now: float) -> None:
        """Close the consumer once nothing has moved on it for too long, if there is such a limit."""
        limit = self._exchange.limits.idle_timeout
        if limit is None:
            return
        if consumer.active_at + limit <= now:
            self.close(consumer, now, errors.link_idle(limit))
        else:
            self._timers.arm(consumer, consumer.active_at + limit, self._watch)

    # -- locks -------------------------------------------------------------------------------------------

    def _hand_over(self, consumer: Consumer, message: Message, now: float) -> None:
        if consumer.destructive:
            # It has been taken out of the row, so it leaves as if it had been locked for no time.
            message.become(_LOCKED)
            self._remove(message)
        else:
            self._lock(message, now)
        self._delivered(consumer, message, now)

    def _delivered(self, consumer: Consumer, message: Message, now: float) -> None:
        consumer.credit -= 1
        consumer.active_at = self.accessed_at = now
        self.books.receives += 1
        self._exchange.effects.append(
            Deliver(consumer, message, message.lock_token, message.locked_until, message.delivery_count)
        )

    def _lock(self, message: Message, now: float) -> None:
        message.become(_LOCKED)
        message.lock_token = token = self._exchange.new_token()
        self._locks[token] = message
        self._lock_begins(message, now)

    def _forget_lock(self, message: Message) -> None:
        if message.lock_token is not None:
            del self._locks[message.lock_token]
            message.lock_token = None
            if message.other_tokens:
                for token in message.other_tokens:
                    del self._locks[token]
                message.other_tokens = ()
        self._lock_ended(message)

    def locked(self, token: UUID, session_id: str | None = None, consumer: Consumer | None = None) -> Message:
        """The message a token is the key to."""
        message = self._locks.get(token)
        if message is None:
            raise self._lost(session_id, consumer)
        return message

    def _unlock(self, message: Message, now: float, *, failed: bool) -> bool:
        """Take a message back whose holder is done with it; true when it waits in its old place again."""
        if failed:
            message.delivery_count += 1
        if message.expires_at <= now and not message.deferred:
            self._expire(message, now)
            return False
        if message.delivery_count >= self._max_deliveries:
            text = f"Message could not be consumed after {message.delivery_count} delivery attempts."
            self._dead_letter(message, now, "MaxDeliveryCountExceeded", text)
            return False
        if message.deferred:
            self._forget_lock(message)
            message.become(_DEFERRED)
            return False
        if self._forward_to is not None:
            # Forwarding was switched on while the message was out.
            self._forward(message, self._forward_to, now)
            return False
        self._forget_lock(message)
        self._activate(message)
        return True

    def expire_lock(self, message: Message, now: float) -> None:
        """The holder was too slow. Sub-queues do not count that."""
        if self._unlock(message, now, failed=self.onward is not None):
            self._flow(message, now)

    def renew(self, token: UUID, now: float) -> float:
        """Let a message's lock run anew; the time when it ends."""
        message = self.locked(token)
        self._lock_begins(message, now)
        return message.locked_until

    def deliver_again(self, token: UUID, now: float) -> bool:
        """Hand a locked message out once more, as a broker does that forgot it had; true if somebody got it.

        Both tokens are good until one of them is used.
        """
        message = self.locked(token)
        consumer = self._next_consumer(message)
        if consumer is None or message.lock_token is None:
            return False
        message.other_tokens += (message.lock_token,)
        message.lock_token = again = self._exchange.new_token()
        self._locks[again] = message
        self._lock_begins(message, now)
        self._delivered(consumer, message, now)
        return True

    # -- settlement --------------------------------------------------------------------------------------

    def settle(
        self,
        token: UUID,
        outcome: Outcome,
        now: float,
        session_id: str | None = None,
        consumer: Consumer | None = None,
    ) -> None:
        """Do what the holder of a message decided."""
        message = self._locks.get(token)
        if message is None:
            raise self._lost(session_id, consumer)
        kind = type(outcome)
        if kind is Complete:
            self._remove(message)
        elif isinstance(outcome, DeadLetter):
            if self.onward is None:
                raise errors.not_allowed("A message cannot be dead-lettered from a dead-letter queue.")
            self._dead_letter(message, now, outcome.reason, outcome.description, outcome.properties)
        elif isinstance(outcome, Defer):
            self._revise(message, outcome.properties)
            if not message.deferred:
                message.deferred = True
                self.deferred += 1
            # Deferring counts as a failed delivery every time, as the SDKs' own tests have it.
            self._unlock(message, now, failed=True)
        else:
            if isinstance(outcome, Abandon):
                self._revise(message, outcome.properties)
            if self._unlock(message, now, failed=kind is Abandon):
                self._flow(message, now)

    def _revise(self, message: Message, properties: Mapping[str, object] | None) -> None:
        if not properties:
            return
        content = message.content.revised(user=properties)
        grown = content.size - message.content.size
        limit = self._exchange.limits.header_size
        if message.header_size + grown > limit:
            raise errors.message_too_large("message header", message.header_size + grown, limit)
        message.header_size += grown
        message.content = content
        self._usage.size += grown

    # -- the ways to other stores ------------------------------------------------------------------------

    def _expire(self, message: Message, now: float) -> None:
        if self.settings.dead_lettering_on_message_expiration:
            self._dead_letter(message, now, *_EXPIRED)
        else:
            self._remove(message)

    def _dead_letter(
        self,
        message: Message,
        now: float,
        reason: str | None,
        description: str | None,
        properties: Mapping[str, object] | None = None,
    ) -> None:
        self._remove(message)
        self._way_on.dead_letter(message, now, reason, description, properties)

    def _forward(self, message: Message, to: str, now: float) -> None:
        self._remove(message)
        self._way_on.forward(message, to, now)

    def forward_all(self, now: float) -> None:
        """Send on what waits here, after forwarding was switched on."""
        if self._forward_to is not None:
            waiting = [message for message in self.messages.values() if message.state is _ACTIVE]
            for message in waiting:
                self._forward(message, self._forward_to, now)

    # -- deferred and scheduled --------------------------------------------------------------------------

    def receive_deferred(
        self, sequence_numbers: list[int], session_id: str | None, mode: Mode, now: float
    ) -> list[Message]:
        """Deferred messages by number, locked or taken. Those that cannot be had are left out."""
        reachable = self._reachable(session_id)
        self.accessed_at = now
        found = []
        for number in sequence_numbers:
            message = reachable.get(number)
            if message is None or message.state is not _DEFERRED:
                continue
            if message.expires_at <= now:
                # A deferred message does not expire by itself, but when it is asked for (azure-docs,
                # "Message deferral").
                self._expire(message, now)
                continue
            if mode is Mode.RECEIVE_AND_DELETE:
                self._remove(message)
            else:
                self._lock(message, now)
            found.append(message)
        if not found:
            raise errors.message_not_found(sequence_numbers)
        self.books.receives += len(found)
        return found

    def cancel_scheduled(self, sequence_numbers: list[int]) -> None:
        """Throw scheduled messages away: all of them, or none if one is not there."""
        messages = []
        for number in dict.fromkeys(sequence_numbers):
            message = self.messages.get(number)
            if message is None or message.state is not _SCHEDULED:
                raise errors.message_not_found([number])
            messages.append(message)
        for message in messages:
            self._remove(message)

    def _come_up(self, message: Message, now: float) -> None:
        # The number says the order in which messages became available, so it is new.
        self._remove(message)
        incoming = message.as_incoming()
        incoming.scheduled_at = message.scheduled_at
        self.admit(incoming, now, _origin_of(message))

    # -- time --------------------------------------------------------------------------------------------

    def _due(self, message: Message, now: float) -> None:
        """A message's timer: it may be early, for a time that has since moved."""
        state = message.state
        if state is _LOCKED:
            if message.locked_until <= now:
                self.expire_lock(message, now)
            else:
                self._timers.arm(message, message.locked_until, self._due)
        elif state is _SCHEDULED:
            self._come_up(message, now)
        elif state is _ACTIVE:
            if message.expires_at <= now:
                self._expire(message, now)
            elif message.expires_at != NEVER:
                self._timers.arm(message, message.expires_at, self._due)

    # -- looking in, clearing out ------------------------------------------------------------------------

    def peek(self, first: int, count: int, session_id: str | None, now: float) -> list[Message]:
        """Up to `count` messages from a sequence number on, whatever their state."""
        self.accessed_at = now
        found = self.look(first, count, session_id)
        self.books.peeks += len(found)
        return found

    def look(self, first: int, count: int, session_id: str | None) -> list[Message]:
        """What a peek would show, without leaving a trace."""
        if session_id is None:
            return self._order.following(first, count)
        numbers = sorted(number for number in self.in_session(session_id) if number >= first)
        return [self.messages[number] for number in numbers[:count]]

    def delete(self, count: float, before: float, session_id: str | None) -> int:
        """Throw away up to `count` active messages enqueued before a time, the oldest first."""
        of = self.messages if session_id is None else self.in_session(session_id)
        doomed = [m for m in of.values() if m.state is _ACTIVE and m.enqueued_at < before]
        doomed.sort(key=lambda message: message.sequence_number)
        if count < len(doomed):
            del doomed[int(count) :]
        for message in doomed:
            self._remove(message)
        return len(doomed)

    def withdraw(self, sequence_numbers: Collection[int]) -> list[Message]:
        """Take active messages with these numbers out, the oldest first."""
        found = (self.messages.get(number) for number in sorted(set(sequence_numbers)))
        taken = [message for message in found if message is not None and message.state is _ACTIVE]
        for message in taken:
            self._remove(message)
        return taken


def _origin_of(message: Message) -> Origin | None:
    if not message.hops and not message.enqueued_sequence_number:
        return None
    return Origin(message.hops, message.enqueued_sequence_number, message.dead_letter_source)
