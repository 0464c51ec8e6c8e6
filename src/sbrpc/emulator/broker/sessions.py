"""A store with sessions: messages in order within each session, and one consumer per session at a time.

Owns sessions, their locks and state, and who gets the next available one. A session object exists while
there is something to remember (messages, state or a lock). Finding the next available session costs no look
at all sessions: those that are free and have a message stand in a heap by the number of their first
message.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from sbrpc.emulator.broker import errors
from sbrpc.emulator.broker.consumers import NEXT_AVAILABLE, Consumer, SessionChoice
from sbrpc.emulator.broker.effects import SessionAccepted
from sbrpc.emulator.broker.errors import BrokerError
from sbrpc.emulator.broker.messages import NEVER, Message, Mode
from sbrpc.emulator.broker.ready import Ready
from sbrpc.emulator.broker.stores import Store

__all__ = ["Session", "SessionStore"]

_WORTH_IT = 64


@dataclass(slots=True, eq=False)
class Session:
    """What the broker keeps of one session."""

    session_id: str
    messages: dict[int, Message] = field(default_factory=dict)
    ready: Ready = field(default_factory=Ready)
    locked: dict[int, Message] = field(default_factory=dict)
    consumer: Consumer | None = None
    locked_until: float = 0.0
    state: bytes | None = None
    state_set_at: float = 0.0
    offered: int | None = None
    """The number under which it stands among the available ones."""
    timer: float = NEVER

    @property
    def empty(self) -> bool:
        """There is nothing to remember."""
        return not self.messages and self.consumer is None and self.state is None


class SessionStore(Store):
    """Messages of many sessions."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.sessions: dict[str, Session] = {}
        # Entries whose number is not the session's `offered` are stale.
        self._available: list[tuple[int, Session]] = []
        self._stale = 0
        # Consumers that wait for the next available session, in order. Not a plain dict: that one gets slow
        # when many leave at the front.
        self._waiting: OrderedDict[Consumer, None] = OrderedDict()

    # -- consumers ---------------------------------------------------------------------------------------

    def open(
        self, address: str, mode: Mode, session: SessionChoice, timeout: float | None, now: float
    ) -> Consumer:
        if session is None:
            raise errors.not_allowed(
                "It is not possible for an entity that requires sessions to create a non-sessionful message "
                "receiver."
            )
        consumer = Consumer(self, address, mode, destructive=mode is Mode.RECEIVE_AND_DELETE)
        if session is NEXT_AVAILABLE:
            found = self._take_available()
            if found is None:
                self._wait(consumer, timeout, now)
            else:
                self._bind(consumer, found, now)
        else:
            found = self._session(session)
            if found.consumer is not None:
                raise errors.session_cannot_be_locked(session)
            self._bind(consumer, found, now)
        self._came(consumer, now)
        return consumer

    def close(self, consumer: Consumer, now: float, error: BrokerError | None = None) -> None:
        if consumer.closed:
            return
        if consumer.pending:
            del self._waiting[consumer]
        self._left(consumer, now, error)
        session = self.sessions.get(consumer.session_id or "") if not consumer.pending else None
        if session is not None and session.consumer is consumer:
            self._unbind(session, now, failed=False)

    def credit(self, consumer: Consumer, credit: int, now: float) -> None:
        consumer.credit = credit
        consumer.active_at = now
        if credit > 0 and consumer.session_id is not None and not consumer.closed:
            self._hand_out(self.sessions[consumer.session_id], now)

    def _wait(self, consumer: Consumer, timeout: float | None, now: float) -> None:
        consumer.timeout = self._exchange.limits.accept_timeout if timeout is None else timeout
        if consumer.timeout <= 0:
            raise self._nothing_came(consumer)
        consumer.pending = True
        self._waiting[consumer] = None
        self._timers.arm(consumer, now + consumer.timeout, self._waited_enough)

    def _waited_enough(self, consumer: Consumer, now: float) -> None:
        self.close(consumer, now, self._nothing_came(consumer))

    def _nothing_came(self, consumer: Consumer) -> BrokerError:
        return errors.timed_out(consumer.timeout, f"the next available session of '{self.address}'")

    def _bind(self, consumer: Consumer, session: Session, now: float) -> None:
        session.consumer = consumer
        consumer.session_id = session.session_id
        self._lock_session(session, now)

    def _lock_session(self, session: Session, now: float) -> None:
        assert session.consumer is not None
        session.locked_until = session.consumer.locked_until = now + self._lock_duration
        self._timers.arm(session, session.locked_until, self._session_due)

    def _unbind(self, session: Session, now: float, *, failed: bool) -> None:
        """Free the session; what its consumer had locked goes back to its place, in order."""
        self._timers.disarm(session)
        for number in sorted(session.locked):
            self._unlock(session.locked[number], now, failed=failed)
        # Not before: a session without messages and consumer is forgotten on the way.
        session.consumer = None
        if session.empty:
            self._forget(session)
        else:
            self._offer(session, now)

    def wipe(self) -> None:
        super().wipe()
        for session in list(self.sessions.values()):
            session.state = None
            if session.empty:
                self._forget(session)

    # -- session locks -----------------------------------------------------------------------------------

    def _session_due(self, session: Session, now: float) -> None:
        if session.locked_until <= now:
            self.lose(session.session_id, now)
        else:
            self._timers.arm(session, session.locked_until, self._session_due)

    def lose(self, session_id: str, now: float) -> None:
        """The session lock ends although its consumer is still there."""
        session = self._held(session_id)
        consumer = session.consumer
        assert consumer is not None
        self._left(consumer, now, errors.session_lock_lost())
        self._unbind(session, now, failed=True)

    def renew_session(self, session_id: str, now: float) -> float:
        """Let a session lock run anew; the time when it ends."""
        session = self._held(session_id)
        self._lock_session(session, now)
        for message in session.locked.values():
            message.locked_until = session.locked_until
        return session.locked_until

    def _held(self, session_id: str) -> Session:
        session = self.sessions.get(session_id)
        if session is None or session.consumer is None:
            raise errors.session_lock_lost()
        return session

    # -- state -------------------------------------------------------------------------------------------

    def get_state(self, session_id: str) -> bytes | None:
        """What the session's consumers have stored with it."""
        return self._held(session_id).state

    def set_state(self, session_id: str, state: bytes | None, now: float) -> None:
        """Store something with the session, or with `None` nothing any more."""
        session = self._held(session_id)
        session.state = state
        session.state_set_at = now

    def listed(self, since: float | None) -> Iterator[Session]:
        """Sessions with active messages or state; with `since`, those whose state was set after it."""
        for session in self.sessions.values():
            if since is None:
                if session.state is not None or len(session.ready) or session.locked:
                    yield session
            elif session.state is not None and session.state_set_at > since:
                yield session

    # -- availability ------------------------------------------------------------------------------------

    def _session(self, session_id: str) -> Session:
        session = self.sessions.get(session_id)
        if session is None:
            session = self.sessions[session_id] = Session(session_id)
        return session

    def _forget(self, session: Session) -> None:
        del self.sessions[session.session_id]
        if session.offered is not None:
            session.offered = None
            self._stale += 1
            if self._stale > _WORTH_IT and self._stale * 2 > len(self._available):
                self._available = [entry for entry in self._available if entry[1].offered == entry[0]]
                heapq.heapify(self._available)
                self._stale = 0

    def _offer(self, session: Session, now: float) -> None:
        """Give a free session to who has waited longest, or let it stand among the available ones."""
        head = session.ready.head()
        if head is None:
            return
        if self._waiting:
            consumer, _ = self._waiting.popitem(last=False)
            consumer.pending = False
            self._timers.disarm(consumer)
            self._bind(consumer, session, now)
            self._exchange.effects.append(SessionAccepted(consumer))
            self._watch(consumer, now)
            self._hand_out(session, now)
        elif session.offered is None or head.sequence_number < session.offered:
            if session.offered is not None:
                self._stale += 1
            session.offered = head.sequence_number
            heapq.heappush(self._available, (head.sequence_number, session))

    def _take_available(self) -> Session | None:
        available = self._available
        while available:
            number, session = heapq.heappop(available)
            if session.offered != number:
                self._stale -= 1
                continue
            session.offered = None
            head = session.ready.head() if session.consumer is None else None
            if head is None:
                continue
            if head.sequence_number == number:
                return session
            # Its first message has gone since; it stands further back now.
            session.offered = head.sequence_number
            heapq.heappush(available, (head.sequence_number, session))
        return None

    # -- what the store asks -----------------------------------------------------------------------------

    def in_session(self, session_id: str) -> Mapping[int, Message]:
        session = self.sessions.get(session_id)
        return session.messages if session is not None else {}

    def _reachable(self, session_id: str | None) -> Mapping[int, Message]:
        if session_id is None:
            raise errors.not_allowed(
                "A session id is needed to receive from an entity that requires sessions."
            )
        return self._held(session_id).messages

    def _lost(self, session_id: str | None, consumer: Consumer | None) -> BrokerError:
        if consumer is not None:
            session_id = None if consumer.closed else consumer.session_id
        session = self.sessions.get(session_id) if session_id is not None else None
        if session is None or session.consumer is None:
            return errors.session_lock_lost()
        return errors.message_lock_lost()

    def _joined(self, message: Message) -> None:
        assert message.session_id is not None
        self._session(message.session_id).messages[message.sequence_number] = message

    def _gone(self, message: Message) -> None:
        session = self.sessions[message.session_id or ""]
        del session.messages[message.sequence_number]
        if session.empty:
            self._forget(session)

    def _enqueue(self, message: Message) -> None:
        self.sessions[message.session_id or ""].ready.push(message)

    def _flow(self, message: Message, now: float) -> None:
        session = self.sessions[message.session_id or ""]
        if session.consumer is None:
            self._offer(session, now)
        else:
            self._hand_out(session, now)

    def _hand_out(self, session: Session, now: float) -> None:
        consumer = session.consumer
        while consumer is not None and consumer.credit > 0:
            message = session.ready.pop()
            if message is None:
                return
            self._hand_over(consumer, message, now)

    def _left_row(self, message: Message) -> None:
        self.sessions[message.session_id or ""].ready.left()

    def _next_consumer(self, message: Message) -> Consumer | None:
        consumer = self.sessions[message.session_id or ""].consumer
        if consumer is None or consumer.credit <= 0 or consumer.destructive:
            return None
        return consumer

    def _lock_begins(self, message: Message, now: float) -> None:
        # The lock is the session's, and so is the timer.
        session = self.sessions[message.session_id or ""]
        message.locked_until = session.locked_until
        session.locked[message.sequence_number] = message
        self._timers.disarm(message)

    def _lock_ended(self, message: Message) -> None:
        self.sessions[message.session_id or ""].locked.pop(message.sequence_number, None)
