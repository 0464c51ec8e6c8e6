"""Service Bus queues as naively as they can be written: lists, and a look at everything for every question.

The broker is compared with it step by step. It shares no code and no structure with the broker, and is slow.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

LOCK_LOST = "com.microsoft:message-lock-lost"
SESSION_LOST = "com.microsoft:session-lock-lost"
TIMEOUT = "com.microsoft:timeout"


class Refused(Exception):
    """An operation is refused with a condition."""


@dataclass(eq=False)
class Msg:
    number: int
    at: float
    ttl: float | None
    due: float | None
    message_id: str | None
    session: str | None
    state: str = "active"
    count: int = 0
    deferred: bool = False
    until: float = 0.0
    holds: list[Hold] = field(default_factory=list)
    reason: str | None = None
    in_sub_queue: bool = False

    @property
    def expires(self) -> float:
        if self.ttl is None or self.in_sub_queue:
            return float("inf")
        return (self.due if self.state == "scheduled" and self.due else self.at) + self.ttl


@dataclass(eq=False)
class Hold:
    """One delivery under a lock; the test notes the broker's token for it."""

    queue: Queue
    message: Msg
    token: Any = None


@dataclass(eq=False)
class Receiver:
    queue: Queue
    deletes: bool
    session: str | None = None
    credit: int = 0
    turn: int = 0
    deadline: float | None = None
    until: float = 0.0
    closed: bool = False
    real: Any = None


class Queue:
    """A queue or, with `parent`, its dead letters."""

    def __init__(
        self,
        world: World,
        name: str,
        *,
        sessions: bool = False,
        lock: float = 10.0,
        deliveries: int = 3,
        letters: bool = True,
        window: float | None = None,
        parent: Queue | None = None,
    ) -> None:
        self.world, self.name, self.sessions, self.parent = world, name, sessions, parent
        self.lock, self.deliveries, self.letters, self.window = lock, deliveries, letters, window
        self.messages: list[Msg] = []
        self.receivers: list[Receiver] = []
        self.states: dict[str, tuple[bytes, float]] = {}
        self.seen: list[tuple[float, str, int]] = []
        self.last = 0
        world.queues.append(self)
        if parent is None:
            self.dead = Queue(world, name + "/$DeadLetterQueue", lock=lock, parent=self)

    # -- who gets what --------------------------------------------------------------------------------------

    def owner(self, session: str | None) -> Receiver | None:
        return next((r for r in self.receivers if r.session == session and r.deadline is None), None)

    def active(self, session: str | None = None) -> list[Msg]:
        found = [m for m in self.messages if m.state == "active"]
        if session is not None:
            found = [m for m in found if m.session == session]
        return sorted(found, key=lambda m: m.number)

    def serve(self, now: float) -> None:
        """Give away whatever can be given away, one thing after the other."""
        while self.serve_one(now):
            pass

    def serve_one(self, now: float) -> bool:
        if not self.sessions:
            hungry = sorted((r for r in self.receivers if r.credit > 0), key=lambda r: r.turn)
            if not hungry or not self.active():
                return False
            self.deliver(hungry[0], self.active()[0], now)
            return True
        waiting = [r for r in self.receivers if r.deadline is not None]
        for m in self.active():
            owner = self.owner(m.session)
            if owner is None and waiting:
                receiver = waiting[0]
                receiver.deadline = None
                receiver.session = m.session
                receiver.until = now + self.lock
                self.world.effects.append(("accepted", receiver, m.session))
                return True
            if owner is not None and owner.credit > 0:
                self.deliver(owner, m, now)
                return True
        return False

    def deliver(self, receiver: Receiver, m: Msg, now: float) -> None:
        receiver.credit -= 1
        receiver.turn = self.world.tick()
        if receiver.deletes:
            self.messages.remove(m)
            m.state = "gone"
            self.world.effects.append(("deliver", receiver, m.number, m.count, None))
        else:
            self.world.effects.append(("deliver", receiver, m.number, m.count, self.take(m, now)))

    def take(self, m: Msg, now: float) -> Hold:
        m.state = "locked"
        owner = self.owner(m.session) if self.sessions else None
        m.until = owner.until if owner is not None else now + self.lock
        m.holds.append(Hold(self, m))
        return m.holds[-1]

    # -- in and out -----------------------------------------------------------------------------------------

    def send(
        self, now: float, session: str | None, ttl: float | None, due: float | None, message_id: str | None
    ) -> int:
        if self.sessions and session is None:
            raise Refused("amqp:not-allowed")
        if self.window is not None and message_id is not None:
            for at, known, number in self.seen:
                if known == message_id and at > now - self.window:
                    return number
        m = self.put(now, session, ttl, due, message_id, "scheduled" if due and due > now else "active")
        if message_id is not None:
            self.seen.append((now, message_id, m.number))
        return m.number

    def put(
        self,
        now: float,
        session: str | None,
        ttl: float | None,
        due: float | None,
        message_id: str | None,
        state: str,
    ) -> Msg:
        self.last += 1
        m = Msg(self.last, now, ttl, due, message_id, session, state)
        self.messages.append(m)
        if state == "active" and m.expires <= now:
            self.expire(m, now)
        self.serve(now)
        return m

    def expire(self, m: Msg, now: float) -> None:
        if self.letters:
            self.bury(m, "TTLExpiredException", now)
        else:
            self.messages.remove(m)
            m.state = "gone"

    def bury(self, m: Msg, reason: str | None, now: float) -> None:
        self.messages.remove(m)
        m.state = "gone"
        letter = Msg(m.number, m.at, m.ttl, m.due, m.message_id, m.session)
        letter.count, letter.reason, letter.in_sub_queue = m.count, reason, True
        self.dead.messages.append(letter)
        self.dead.serve(now)

    # -- what holders do ------------------------------------------------------------------------------------

    def give_back(self, m: Msg, now: float, counts: bool) -> None:
        m.holds.clear()
        m.count += counts
        if m.expires <= now and not m.deferred:
            self.expire(m, now)
        elif self.parent is None and m.count >= self.deliveries:
            self.bury(m, "MaxDeliveryCountExceeded", now)
        else:
            m.state = "deferred" if m.deferred else "active"

    def settle(self, hold: Hold, what: str, now: float, receiver: Receiver | None) -> None:
        m = hold.message
        if m.state != "locked" or hold not in m.holds:
            if not self.sessions:
                raise Refused(LOCK_LOST)
            alive = receiver is not None and not receiver.closed and receiver.deadline is None
            raise Refused(LOCK_LOST if alive else SESSION_LOST)
        if what == "complete":
            self.messages.remove(m)
            m.state = "gone"
        elif what == "dead-letter":
            if self.parent is not None:
                raise Refused("amqp:not-allowed")
            self.bury(m, "told", now)
        elif what == "defer":
            m.deferred = True
            self.give_back(m, now, True)
        else:
            self.give_back(m, now, what == "abandon")
        self.serve(now)

    def lose(self, hold: Hold, now: float) -> None:
        if hold.message.state != "locked" or hold not in hold.message.holds:
            raise Refused(SESSION_LOST if self.sessions else LOCK_LOST)
        self.give_back(hold.message, now, self.parent is None)
        self.serve(now)

    def again(self, hold: Hold, now: float) -> bool:
        m = hold.message
        if m.state != "locked" or hold not in m.holds:
            raise Refused(SESSION_LOST if self.sessions else LOCK_LOST)
        if self.sessions:
            owner = self.owner(m.session)
            receivers = [owner] if owner is not None else []
        else:
            receivers = self.receivers
        hungry = sorted((r for r in receivers if r.credit > 0 and not r.deletes), key=lambda r: r.turn)
        if not hungry:
            return False
        self.deliver(hungry[0], m, now)
        return True

    def renew(self, hold: Hold, now: float) -> float:
        if hold.message.state != "locked" or hold not in hold.message.holds:
            raise Refused(SESSION_LOST if self.sessions else LOCK_LOST)
        if not self.sessions:
            hold.message.until = now + self.lock
        return hold.message.until

    def receive_deferred(
        self, numbers: list[int], session: str | None, deletes: bool, now: float
    ) -> list[tuple[int, Hold | None]]:
        if self.sessions:
            if session is None:
                raise Refused("amqp:not-allowed")
            if self.owner(session) is None:
                raise Refused(SESSION_LOST)
        found: list[tuple[int, Hold | None]] = []
        for number in numbers:
            for m in list(self.messages):
                if m.number != number or m.state != "deferred" or (self.sessions and m.session != session):
                    continue
                if m.expires <= now:
                    self.expire(m, now)
                elif deletes:
                    self.messages.remove(m)
                    m.state = "gone"
                    found.append((number, None))
                else:
                    found.append((number, self.take(m, now)))
        if not found:
            raise Refused("com.microsoft:message-not-found")
        return found

    def cancel(self, number: int) -> None:
        for m in self.messages:
            if m.number == number and m.state == "scheduled":
                self.messages.remove(m)
                m.state = "gone"
                return
        raise Refused("com.microsoft:message-not-found")

    def delete(self, count: int, before: float, session: str | None) -> int:
        doomed = [m for m in self.active(session) if m.at < before][:count]
        for m in doomed:
            self.messages.remove(m)
            m.state = "gone"
        return len(doomed)

    # -- receivers ------------------------------------------------------------------------------------------

    def open(
        self, receiver: Receiver, session: str | None, next_one: bool, timeout: float, now: float
    ) -> None:
        if self.sessions != (session is not None or next_one):
            raise Refused("amqp:not-allowed")
        if session is not None:
            if self.owner(session) is not None:
                raise Refused("com.microsoft:session-cannot-be-locked")
            receiver.session, receiver.until = session, now + self.lock
        elif next_one:
            free = [m for m in self.active() if self.owner(m.session) is None]
            if free:
                receiver.session, receiver.until = free[0].session, now + self.lock
            elif timeout <= 0:
                raise Refused(TIMEOUT)
            else:
                receiver.deadline = now + timeout
        self.receivers.append(receiver)

    def close(self, receiver: Receiver, now: float, counts: bool = False) -> None:
        if receiver.closed:
            return
        receiver.closed = True
        receiver.credit = 0
        if receiver.session is not None:
            held = [m for m in self.messages if m.session == receiver.session and m.state == "locked"]
            for m in sorted(held, key=lambda m: m.number):
                self.give_back(m, now, counts)
        self.receivers.remove(receiver)
        self.serve(now)

    def credit(self, receiver: Receiver, credit: int, now: float) -> None:
        if receiver.closed:
            return
        if credit > 0 and receiver.credit <= 0:
            receiver.turn = self.world.tick()
        receiver.credit = credit
        self.serve(now)

    # -- sessions -------------------------------------------------------------------------------------------

    def held(self, session: str) -> Receiver:
        owner = self.owner(session)
        if owner is None:
            raise Refused(SESSION_LOST)
        return owner

    def renew_session(self, session: str, now: float) -> float:
        owner = self.held(session)
        owner.until = now + self.lock
        for m in self.messages:
            if m.session == session and m.state == "locked":
                m.until = owner.until
        return owner.until

    def lose_session(self, session: str, now: float) -> None:
        receiver = self.held(session)
        self.world.effects.append(("closed", receiver, SESSION_LOST))
        self.close(receiver, now, counts=True)

    def set_state(self, session: str, state: bytes | None, now: float) -> None:
        self.held(session)
        if state is None:
            self.states.pop(session, None)
        else:
            self.states[session] = (state, now)

    def get_state(self, session: str) -> bytes | None:
        self.held(session)
        return self.states[session][0] if session in self.states else None

    def list_sessions(self, since: float | None) -> set[str]:
        if since is not None:
            return {session for session, (_, at) in self.states.items() if at > since}
        busy = {m.session for m in self.messages if m.state in ("active", "locked") and m.session is not None}
        return busy | set(self.states)

    # -- time -----------------------------------------------------------------------------------------------

    def events(self) -> list[tuple[float, Callable[[float], None]]]:
        found: list[tuple[float, Callable[[float], None]]] = []
        for m in self.messages:
            if m.state == "locked" and not self.sessions:
                found.append((m.until, lambda when, m=m: self.lock_over(m, when)))
            elif m.state == "scheduled" and m.due is not None:
                found.append((m.due, lambda when, m=m: self.come_up(m, when)))
            elif m.state == "active" and m.expires < float("inf"):
                found.append((m.expires, lambda when, m=m: self.expire(m, when)))
        for r in self.receivers:
            if r.deadline is not None:
                found.append((r.deadline, lambda when, r=r: self.waited(r, when)))
            elif r.session is not None:
                found.append((r.until, lambda when, r=r: self.lose_session(r.session, when)))
        return found

    def lock_over(self, m: Msg, now: float) -> None:
        self.give_back(m, now, self.parent is None)
        self.serve(now)

    def come_up(self, m: Msg, now: float) -> None:
        self.messages.remove(m)
        m.state = "gone"
        self.put(now, m.session, m.ttl, m.due, m.message_id, "active")

    def waited(self, receiver: Receiver, now: float) -> None:
        self.world.effects.append(("refused", receiver, TIMEOUT))
        self.close(receiver, now)


class World:
    """All queues, and the order of time."""

    def __init__(self) -> None:
        self.queues: list[Queue] = []
        self.effects: list[tuple[Any, ...]] = []
        self._ticks = 0

    def tick(self) -> int:
        self._ticks += 1
        return self._ticks

    def next_event(self) -> float | None:
        events = [when for queue in self.queues for when, _ in queue.events()]
        return min(events, default=None)

    def run_until(self, now: float) -> None:
        while True:
            events = [event for queue in self.queues for event in queue.events()]
            if not events:
                return
            when, act = min(events, key=lambda event: event[0])
            if when > now:
                return
            act(when)

    def take_effects(self) -> list[tuple[Any, ...]]:
        effects, self.effects = self.effects, []
        return effects
