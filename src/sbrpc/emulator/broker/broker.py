"""The broker's front: every operation on a namespace, by address.

Owns the order of time and passes each operation to the entity it belongs to. Time is data: `now` comes in
with each call and must not go back; what is due by then happens first, in its order and at its time. What
is to be done outside (messages to hand out, consumers to tell) comes out of `take_effects`. Addresses are
`queue`, `topic` or `topic/Subscriptions/name`, in any case, the first and last also with a sub-queue behind
them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from itertools import islice
from uuid import UUID, uuid4

from sbrpc.emulator.broker import errors
from sbrpc.emulator.broker.books import Books
from sbrpc.emulator.broker.consumers import Consumer, SessionChoice
from sbrpc.emulator.broker.effects import Effect
from sbrpc.emulator.broker.exchange import Exchange, Limits
from sbrpc.emulator.broker.messages import NEVER, Incoming, Message, Mode, Outcome
from sbrpc.emulator.broker.namespace import Namespace
from sbrpc.emulator.broker.runtime import Runtime, SessionInfo
from sbrpc.emulator.broker.sessions import SessionStore
from sbrpc.emulator.broker.topics import TopicEntity
from sbrpc.topology import Queue, Rule, Subscription, Topic

__all__ = ["Broker"]


class Broker:
    """One Service Bus namespace. Every method may raise `BrokerError`; one that does has changed nothing.

    `new_token` makes lock tokens and has to make each only once.
    """

    def __init__(self, *, new_token: Callable[[], UUID] = uuid4, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self._exchange = Exchange(new_token, self.limits)
        self._namespace = Namespace(self._exchange)
        self._timers = self._exchange.timers
        self._heap = self._timers.heap

    # -- time and effects --------------------------------------------------------------------------------

    def take_effects(self) -> list[Effect]:
        """What is to be done outside, in order; each effect is handed over once."""
        effects, self._exchange.effects = self._exchange.effects, []
        return effects

    def next_timer(self) -> float | None:
        """When `handle_timer` should be called next, if nothing else happens before."""
        return self._timers.next()

    def handle_timer(self, now: float) -> None:
        """Let everything happen that is due at `now`, in the order of its time."""
        while (due := self._timers.pop_due(now)) is not None:
            due.handler(due.item, due.when)

    # -- sending -----------------------------------------------------------------------------------------

    def check_exists(self, address: str) -> None:
        """Raise unless the address leads somewhere."""
        if address.lower() not in self._namespace.intakes:
            self._namespace.place(address)

    def check_send(self, address: str) -> int:
        """Raise unless messages can be sent to the address; the largest message it takes, in bytes."""
        intake = self._namespace.intake(address)
        intake.check_open()
        return intake.message_limit

    def send(self, address: str, messages: list[Incoming], now: float) -> None:
        """Store messages, all or none."""
        if self._heap and self._heap[0][0] <= now:
            self.handle_timer(now)
        self._namespace.intake(address).accept(messages, now)

    def schedule(self, address: str, messages: list[Incoming], now: float) -> list[int]:
        """Store messages for later, all or none; the numbers by which they can be cancelled."""
        self.handle_timer(now)
        if any(message.scheduled_at is None for message in messages):
            raise errors.argument("A message to be scheduled does not say when.")
        return self._namespace.intake(address).accept(messages, now)

    def cancel_scheduled(self, address: str, sequence_numbers: list[int], now: float) -> None:
        """Throw scheduled messages away, all or none."""
        self.handle_timer(now)
        self._namespace.intake(address).cancel(sequence_numbers)

    # -- consumers ---------------------------------------------------------------------------------------

    def check_receive(self, address: str) -> None:
        """Raise unless messages can be received from the address."""
        place = self._namespace.place(address)
        place.trio.check_open()
        if place.store.onward is not None and place.trio.settings.forward_to is not None:
            raise errors.forwards(address)

    def open_consumer(
        self,
        address: str,
        *,
        mode: Mode | str = Mode.PEEK_LOCK,
        session: SessionChoice = None,
        timeout: float | None = None,
        now: float,
    ) -> Consumer:
        """Let somebody in who wants messages; they flow once there is credit.

        A session that is asked for by id is locked at once or refused. For `NEXT_AVAILABLE` the consumer may
        be `pending`: then `SessionAccepted` or, after `timeout` seconds, `ConsumerRefused` follows.
        """
        self.handle_timer(now)
        self.check_receive(address)
        return self._namespace.place(address).store.open(address, Mode(mode), session, timeout, now)

    def set_credit(self, consumer: Consumer, credit: int, now: float) -> None:
        """Say how many more messages the consumer may get, all in all; what is there is delivered."""
        if self._heap and self._heap[0][0] <= now:
            self.handle_timer(now)
        if not consumer.closed:
            consumer.store.credit(consumer, max(0, credit), now)

    def close_consumer(self, consumer: Consumer, now: float) -> None:
        """Let a consumer go. Its session is free at once; messages it has locked otherwise stay locked."""
        self.handle_timer(now)
        consumer.store.close(consumer, now)

    # -- settlement and locks ----------------------------------------------------------------------------

    def settle(
        self,
        address: str,
        token: UUID,
        outcome: Outcome,
        now: float,
        *,
        session_consumer: Consumer | None = None,
        session_id: str | None = None,
    ) -> None:
        """Do what the holder of a message decided.

        The last two arguments only tell a lost session lock from a lost message lock.
        """
        if self._heap and self._heap[0][0] <= now:
            self.handle_timer(now)
        self._namespace.place(address).store.settle(token, outcome, now, session_id, session_consumer)

    def renew_lock(self, address: str, token: UUID, now: float) -> float:
        """Let a message's lock run anew; the time when it ends."""
        self.handle_timer(now)
        return self._namespace.place(address).store.renew(token, now)

    def lose_message_lock(self, address: str, token: UUID, now: float) -> None:
        """As if the lock of a message expired now."""
        self.handle_timer(now)
        store = self._namespace.place(address).store
        store.expire_lock(store.locked(token), now)

    def deliver_again(self, address: str, token: UUID, now: float) -> bool:
        """Deliver a locked message a second time, if somebody has credit for it; both tokens are good."""
        self.handle_timer(now)
        return self._namespace.place(address).store.deliver_again(token, now)

    def receive_deferred(
        self, address: str, sequence_numbers: list[int], session_id: str | None, mode: Mode | str, now: float
    ) -> list[Message]:
        """Deferred messages by number, locked or gone. Those that cannot be had are left out."""
        self.handle_timer(now)
        store = self._namespace.place(address).store
        return store.receive_deferred(sequence_numbers, session_id, Mode(mode), now)

    # -- sessions ----------------------------------------------------------------------------------------

    def renew_session(self, address: str, session_id: str, now: float) -> float:
        """Let a session lock run anew; the time when it ends."""
        self.handle_timer(now)
        return self._sessions(address).renew_session(session_id, now)

    def lose_session_lock(self, address: str, session_id: str, now: float) -> None:
        """As if the lock of a session expired now."""
        self.handle_timer(now)
        self._sessions(address).lose(session_id, now)

    def get_state(self, address: str, session_id: str, now: float) -> bytes | None:
        """What is stored with a session, which has to be locked."""
        self.handle_timer(now)
        return self._sessions(address).get_state(session_id)

    def set_state(self, address: str, session_id: str, state: bytes | None, now: float) -> None:
        """Store something with a session, which has to be locked; `None` stores nothing."""
        self.handle_timer(now)
        limit = self._namespace.place(address).intake.message_limit
        if state is not None and len(state) > limit:
            raise errors.message_too_large("session state", len(state), limit)
        self._sessions(address).set_state(session_id, state, now)

    def list_sessions(self, address: str, since: float | None, skip: int, top: int, now: float) -> list[str]:
        """Ids of sessions with messages or state; with `since`, of those whose state was set after it."""
        self.handle_timer(now)
        listed = self._sessions(address).listed(since)
        return [session.session_id for session in islice(listed, skip, skip + top)]

    def session_details(self, address: str, skip: int, top: int) -> list[SessionInfo]:
        """All sessions that are remembered, for people who look in."""
        sessions = islice(self._sessions(address).sessions.values(), skip, skip + top)
        return [
            SessionInfo(
                session.session_id,
                len(session.messages),
                session.consumer is not None,
                session.locked_until,
                None if session.state is None else len(session.state),
            )
            for session in sessions
        ]

    def _sessions(self, address: str) -> SessionStore:
        store = self._namespace.place(address).store
        if not isinstance(store, SessionStore):
            raise errors.not_allowed(f"'{address}' does not require sessions.")
        return store

    # -- looking in, clearing out ------------------------------------------------------------------------

    def peek(
        self, address: str, from_sequence: int, count: int, session_id: str | None, now: float
    ) -> list[Message]:
        """Messages in any state in the order of their numbers, at most as many as the limits say."""
        self.handle_timer(now)
        store = self._namespace.place(address).store
        return store.peek(from_sequence, min(count, self.limits.peek_batch), session_id, now)

    def look(
        self, address: str, from_sequence: int, count: int, session_id: str | None, now: float
    ) -> list[Message]:
        """What a peek would show, for people who look in: it costs nothing and keeps nothing alive."""
        self.handle_timer(now)
        store = self._namespace.place(address).store
        return store.look(from_sequence, min(count, self.limits.peek_batch), session_id)

    def delete_batch(
        self, address: str, count: int, before: float | None, session_id: str | None, now: float
    ) -> int:
        """Throw away active messages enqueued before a time, the oldest first; how many there were."""
        self.handle_timer(now)
        store = self._namespace.place(address).store
        count = min(count, self.limits.delete_batch)
        return store.delete(count, NEVER if before is None else before, session_id)

    def purge(self, address: str, now: float) -> int:
        """Throw all active messages away; how many there were."""
        self.handle_timer(now)
        return self._namespace.place(address).store.delete(NEVER, NEVER, None)

    def wipe(self, now: float) -> None:
        """Throw everything away that is stored anywhere: messages in any state, session states, ids seen.

        Entities, consumers and session locks stay as they are.
        """
        self.handle_timer(now)
        for intake in self._namespace.intakes.values():
            intake.wipe()

    def replay(self, address: str, sequence_numbers: Collection[int] | None, now: float) -> int:
        """Put dead letters, those with these numbers or all, back as new messages; how many there were."""
        self.handle_timer(now)
        return self._namespace.place(address).trio.replay(sequence_numbers, now)

    # -- entities ----------------------------------------------------------------------------------------

    def create(self, entities: Iterable[Queue | Topic], now: float) -> None:
        """Create entities that may forward to each other, in whatever order; all or none."""
        self.handle_timer(now)
        self._namespace.create(entities, now)

    def create_queue(self, queue: Queue, now: float) -> None:
        """Create a queue; the entities it forwards to have to exist."""
        self.create((queue,), now)

    def create_topic(self, topic: Topic, now: float) -> None:
        """Create a topic with its subscriptions and their rules."""
        self.create((topic,), now)

    def create_subscription(self, topic: str, subscription: Subscription, now: float) -> None:
        """Add a subscription; without rules it gets one that lets everything through."""
        self.handle_timer(now)
        self._namespace.create_subscription(topic, subscription, now)

    def add_rule(self, topic: str, subscription: str, rule: Rule, now: float) -> None:
        """Add a rule to a subscription."""
        self._namespace.subscription(topic, subscription).add_rule(rule, now)

    def update_rule(self, topic: str, subscription: str, rule: Rule, now: float) -> None:
        """Replace a rule by one of the same name."""
        self._namespace.subscription(topic, subscription).replace_rule(rule, now)

    def remove_rule(self, topic: str, subscription: str, name: str, now: float) -> None:
        """Remove a rule from a subscription."""
        self._namespace.subscription(topic, subscription).remove_rule(name)

    def update_queue(self, queue: Queue, now: float) -> None:
        """Give a queue new settings. Sessions and duplicate detection cannot be switched on or off."""
        self.handle_timer(now)
        self._namespace.update_queue(queue, now)

    def update_topic(self, topic: Topic, now: float) -> None:
        """Give a topic new settings; its subscriptions are not touched."""
        self.handle_timer(now)
        self._namespace.update_topic(topic, now)

    def update_subscription(self, topic: str, subscription: Subscription, now: float) -> None:
        """Give a subscription new settings; its rules are not touched."""
        self.handle_timer(now)
        self._namespace.update_subscription(topic, subscription, now)

    def delete_queue(self, name: str, now: float) -> None:
        """Delete a queue with all that is in it; its consumers are closed."""
        self.handle_timer(now)
        self._namespace.delete(self._namespace.queue(name).name, now)

    def delete_topic(self, name: str, now: float) -> None:
        """Delete a topic with its subscriptions; their consumers are closed."""
        self.handle_timer(now)
        self._namespace.delete(self._namespace.topic(name).name, now)

    def delete_subscription(self, topic: str, name: str, now: float) -> None:
        """Delete a subscription with all that is in it; its consumers are closed."""
        self.handle_timer(now)
        self._namespace.delete_subscription(topic, name, now)

    def get_queue(self, name: str) -> Queue:
        """A queue's settings."""
        return self._namespace.queue(name).settings

    def get_topic(self, name: str) -> Topic:
        """A topic's settings, with its subscriptions and rules as they are now."""
        return self._namespace.topic(name).described

    def get_subscription(self, topic: str, name: str) -> Subscription:
        """A subscription's settings, with its rules as they are now."""
        return self._namespace.subscription(topic, name).settings

    def get_rule(self, topic: str, subscription: str, name: str) -> Rule:
        """A rule of a subscription."""
        return self._namespace.subscription(topic, subscription).rule(name).rule

    def rule_created_at(self, topic: str, subscription: str, name: str) -> float:
        """When a rule was made."""
        return self._namespace.subscription(topic, subscription).rule(name).created_at

    def queues(self) -> list[Queue]:
        """All queues, in the order of their creation."""
        found = self._namespace.intakes.values()
        return [entity.settings for entity in found if not isinstance(entity, TopicEntity)]

    def topics(self) -> list[Topic]:
        """All topics, in the order of their creation."""
        found = self._namespace.intakes.values()
        return [entity.described for entity in found if isinstance(entity, TopicEntity)]

    def subscriptions(self, topic: str) -> list[Subscription]:
        """All subscriptions of a topic, in the order of their creation."""
        return [entity.settings for entity in self._namespace.topic(topic).subscriptions.values()]

    def rules(self, topic: str, subscription: str) -> list[Rule]:
        """All rules of a subscription, in the order of their creation."""
        return list(self._namespace.subscription(topic, subscription).settings.rules)

    def runtime(self, address: str) -> Runtime:
        """Counts, sizes and times of a queue, topic, subscription or sub-queue."""
        return self._namespace.runtime(address)

    # -- books -------------------------------------------------------------------------------------------

    def books(self) -> dict[str, Books]:
        """The accounts of all entities by address; of sub-queues where there is something in them."""
        return self._namespace.books()

    def book_management(self, address: str, operations: int = 1) -> None:
        """Put management operations on an entity's account."""
        lowered = address.lower()
        place = self._namespace.places.get(lowered)
        if place is not None:
            place.store.books.management += operations
        else:
            self._namespace.intake(address).books.management += operations

    def reset_books(self) -> None:
        """Begin all accounts anew."""
        self._namespace.reset_books()
