"""The broker does, step by step, what the naive model of `model.py` does.

Runs for a few seconds by default. `SBRPC_MODEL_STEPS=10000` makes it run that many steps in all:

    SBRPC_MODEL_STEPS=10000 python -m pytest tests/unit/emulator/broker/test_model.py
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any
from uuid import UUID

import hypothesis.strategies as st
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from sbrpc import topology
from sbrpc.emulator.broker import (
    NEXT_AVAILABLE,
    Abandon,
    Broker,
    BrokerError,
    Complete,
    ConsumerClosed,
    ConsumerRefused,
    DeadLetter,
    Defer,
    Deliver,
    MessageState,
    Mode,
    Release,
    SessionAccepted,
)

from . import model
from .content import message

STEPS_PER_RUN = 50
STEPS = int(os.environ.get("SBRPC_MODEL_STEPS", "1000"))

OUTCOMES = {
    "complete": Complete(),
    "abandon": Abandon(),
    "defer": Defer(),
    "dead-letter": DeadLetter("told"),
    "release": Release(),
}
STATES = {
    MessageState.ACTIVE: "active",
    MessageState.LOCKED: "locked",
    MessageState.DEFERRED: "deferred",
    MessageState.SCHEDULED: "scheduled",
}
# Odd fractions, so that no two things ever fall due at the same instant: their order would mean nothing.
PLAIN_LOCK, SESSION_LOCK, WINDOW, FRACTION = 10.0137, 13.0211, 40.00391, 0.000173

pick = st.integers(0, 50)
rarely = st.sampled_from([False, False, False, False, True])
sessions = st.sampled_from(["a", "b", "c", ""])


class Refusal(str):
    """The condition with which a call was refused."""


class BrokerAgainstModel(RuleBasedStateMachine):
    """Both get the same calls at the same times and have to show the same effects, errors and contents."""

    def __init__(self) -> None:
        super().__init__()
        tokens = iter(range(1, 1_000_000))
        self.broker = Broker(new_token=lambda: UUID(int=next(tokens)))
        self.broker.create_queue(
            topology.Queue(
                "plain",
                lock_duration=PLAIN_LOCK,
                max_delivery_count=3,
                dead_lettering_on_message_expiration=True,
                duplicate_detection_window=WINDOW,
            ),
            0.0,
        )
        self.broker.create_queue(
            topology.Queue(
                "ordered", requires_session=True, lock_duration=SESSION_LOCK, max_delivery_count=2
            ),
            0.0,
        )
        self.world = model.World()
        self.plain = model.Queue(self.world, "plain", lock=PLAIN_LOCK, deliveries=3, window=WINDOW)
        self.ordered = model.Queue(
            self.world, "ordered", sessions=True, lock=SESSION_LOCK, deliveries=2, letters=False
        )
        self.now = 1.0
        self.unique = 0
        self.holds: list[tuple[model.Hold, model.Receiver | None]] = []
        self.receivers: list[model.Receiver] = []

    # -- both at once ---------------------------------------------------------------------------------------

    def both(self, real: Callable[[], Any], ideal: Callable[[], Any]) -> tuple[Any, Any] | None:
        """Do the same on both sides, one time unit later; `None` when both refuse alike."""
        self.now += 1.0
        got = self.outcome(real)
        self.world.run_until(self.now)
        expected = self.outcome(ideal)
        self.compare_effects()
        if isinstance(expected, Refusal):
            assert got == expected
            return None
        assert not isinstance(got, Refusal)
        return got, expected

    @staticmethod
    def outcome(call: Callable[[], Any]) -> Any:
        try:
            return call()
        except BrokerError as error:
            return Refusal(error.condition)
        except model.Refused as error:
            return Refusal(str(error))

    def compare_effects(self) -> None:
        real, ideal = self.broker.take_effects(), self.world.take_effects()
        assert [self.told(effect) for effect in real] == [
            (*(part.real if isinstance(part, model.Receiver) else part for part in effect[:4]),)
            for effect in ideal
        ]
        for effect, expected in zip(real, ideal, strict=True):
            if isinstance(effect, Deliver):
                receiver, hold = expected[1], expected[4]
                assert (effect.lock_token is None) == (hold is None)
                if hold is not None:
                    hold.token = effect.lock_token
                    self.holds.append((hold, receiver))

    @staticmethod
    def told(effect: Any) -> tuple[Any, ...]:
        if isinstance(effect, Deliver):
            return "deliver", effect.consumer, effect.message.sequence_number, effect.delivery_count
        if isinstance(effect, SessionAccepted):
            return "accepted", effect.consumer, effect.consumer.session_id
        kind = {ConsumerRefused: "refused", ConsumerClosed: "closed"}[type(effect)]
        return kind, effect.consumer, effect.error.condition

    def fraction(self) -> float:
        self.unique += 1
        return self.unique * FRACTION

    # -- messages in ----------------------------------------------------------------------------------------

    def send(
        self,
        queue: model.Queue,
        session: str | None,
        ttl: int | None = None,
        delay: int | None = None,
        message_id: str | None = None,
    ) -> None:
        life = None if ttl is None else ttl + self.fraction() if ttl else 0.0
        due = None if delay is None else self.now + 1 + delay + self.fraction()
        incoming = message(message_id=message_id, session_id=session, time_to_live=life, scheduled_at=due)

        def real() -> int | None:
            if due is None:
                self.broker.send(queue.name, [incoming], self.now)
                return None
            return self.broker.schedule(queue.name, [incoming], self.now)[0]

        done = self.both(real, lambda: queue.send(self.now, session, life, due, message_id))
        if done is not None and done[0] is not None:
            assert done[0] == done[1]

    @rule(ttl=st.sampled_from([None, None, 8, 30]))
    def send_plainly(self, ttl: int | None) -> None:
        self.send(self.plain, None, ttl)

    @rule(session=sessions, ttl=st.sampled_from([None, None, 8, 30]))
    def send_to_session(self, session: str, ttl: int | None) -> None:
        self.send(self.ordered, session, ttl)

    @rule(
        ordered=st.booleans(),
        session=st.one_of(st.none(), sessions, sessions, sessions),
        ttl=st.one_of(st.none(), st.sampled_from([0, 3, 8, 30])),
        delay=st.one_of(st.none(), st.sampled_from([-5, 2, 9, 25])),
        message_id=st.one_of(st.none(), st.sampled_from("xyz")),
    )
    def send_specially(
        self, ordered: bool, session: str | None, ttl: int | None, delay: int | None, message_id: str | None
    ) -> None:
        self.send(self.ordered if ordered else self.plain, session, ttl, delay, message_id)

    # -- receivers ------------------------------------------------------------------------------------------

    def open(
        self,
        where: model.Queue,
        deletes: bool,
        session: str | None,
        next_one: bool,
        limit: float,
        credit: int,
    ) -> None:
        receiver = model.Receiver(where, deletes)
        done = self.both(
            lambda: self.broker.open_consumer(
                where.name,
                mode=Mode.RECEIVE_AND_DELETE if deletes else Mode.PEEK_LOCK,
                session=NEXT_AVAILABLE if next_one else session,
                timeout=limit,
                now=self.now,
            ),
            lambda: where.open(receiver, session, next_one, limit, self.now),
        )
        if done is None:
            return
        receiver.real = done[0]
        self.receivers.append(receiver)
        assert receiver.real.pending == (receiver.deadline is not None)
        assert receiver.real.session_id == receiver.session
        self.set_credit(receiver, credit)

    @initialize()
    def begin(self) -> None:
        """So that most runs have something under way from the start."""
        for _ in range(2):
            self.open(self.plain, False, None, False, 0, 1)
            self.open(self.ordered, False, None, True, 30.0 + self.fraction(), 2)
        for _ in range(2):
            self.send(self.plain, None)
            self.send(self.ordered, "a")

    @rule(queue=pick, deletes=rarely)
    def open_plain(self, queue: int, deletes: bool) -> None:
        self.open(
            [self.plain, self.plain, self.plain.dead, self.ordered.dead][queue % 4],
            deletes,
            None,
            False,
            0,
            1,
        )

    @rule(
        deletes=rarely,
        session=st.one_of(st.none(), sessions),
        timeout=st.sampled_from([0, 5, 20, 60]),
        wrongly=rarely,
    )
    def open_session(self, deletes: bool, session: str | None, timeout: int, wrongly: bool) -> None:
        limit = timeout + self.fraction() if timeout else 0.0
        where = self.plain if wrongly and timeout else self.ordered
        self.open(where, deletes, session, session is None and not (wrongly and deletes), limit, 2)

    def set_credit(self, receiver: model.Receiver, credit: int) -> None:
        # Of several messages locked at one instant, it would mean nothing which lock ends first.
        if not receiver.queue.sessions:
            credit = min(credit, 1)
        self.both(
            lambda: self.broker.set_credit(receiver.real, credit, self.now),
            lambda: receiver.queue.credit(receiver, credit, self.now),
        )
        assert receiver.real.credit == receiver.credit

    @precondition(lambda self: self.open_receivers())
    @rule(receiver=pick, credit=st.integers(0, 3))
    def give_credit(self, receiver: int, credit: int) -> None:
        receivers = self.open_receivers()
        self.set_credit(receivers[receiver % len(receivers)], credit)

    @precondition(lambda self: self.open_receivers())
    @rule()
    def give_everybody_credit(self) -> None:
        for receiver in self.open_receivers():
            self.set_credit(receiver, 2)

    @precondition(lambda self: self.receivers)
    @rule(receiver=pick, gone=rarely)
    def close(self, receiver: int, gone: bool) -> None:
        receivers = self.receivers if gone else self.open_receivers() or self.receivers
        chosen = receivers[receiver % len(receivers)]
        self.both(
            lambda: self.broker.close_consumer(chosen.real, self.now),
            lambda: chosen.queue.close(chosen, self.now),
        )

    def open_receivers(self) -> list[model.Receiver]:
        return [receiver for receiver in self.receivers if not receiver.closed]

    # -- locks ----------------------------------------------------------------------------------------------

    def live(self) -> list[tuple[model.Hold, model.Receiver | None]]:
        return [entry for entry in self.holds if entry[0] in entry[0].message.holds]

    def chosen_hold(self, index: int, any_one: bool) -> tuple[model.Hold, model.Receiver | None]:
        holds = self.holds if any_one else self.live() or self.holds
        return holds[index % len(holds)]

    @precondition(lambda self: self.live())
    @rule(index=pick, outcome=st.sampled_from(sorted(OUTCOMES)))
    def settle(self, index: int, outcome: str) -> None:
        self.settle_hold(index, False, outcome)

    @precondition(lambda self: self.live())
    @rule(index=pick)
    def abandon(self, index: int) -> None:
        self.settle_hold(index, False, "abandon")

    @precondition(lambda self: self.live())
    @rule(index=pick, waiting=st.sampled_from([0, 0, 4, 30]), outcome=st.sampled_from(sorted(OUTCOMES)))
    def defer_and_return(self, index: int, waiting: int, outcome: str) -> None:
        """Defer a message, get it back by its number, and decide again."""
        message = self.chosen_hold(index, False)[0].message
        self.settle_hold(index, False, "defer")
        if waiting:
            self.advance_by(waiting, True)
        if message.state == "deferred":
            self.take_deferred(message, False, message.session)
        if message.holds:
            self.settle_hold(len(self.live()) - 1, False, outcome)

    @precondition(lambda self: self.holds)
    @rule(index=pick, outcome=st.sampled_from(sorted(OUTCOMES)))
    def settle_whatever(self, index: int, outcome: str) -> None:
        self.settle_hold(index, True, outcome)

    def settle_hold(self, index: int, any_one: bool, outcome: str) -> None:
        hold, receiver = self.chosen_hold(index, any_one)
        self.both(
            lambda: self.broker.settle(
                hold.queue.name,
                hold.token,
                OUTCOMES[outcome],
                self.now,
                session_consumer=None if receiver is None else receiver.real,
            ),
            lambda: hold.queue.settle(hold, outcome, self.now, receiver),
        )

    @precondition(lambda self: self.holds)
    @rule(index=pick, any_one=rarely, what=st.sampled_from(["renew", "lose", "again"]))
    def touch_lock(self, index: int, any_one: bool, what: str) -> None:
        hold, _ = self.chosen_hold(index, any_one)
        name, token, queue = hold.queue.name, hold.token, hold.queue
        calls: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
            "renew": (
                lambda: self.broker.renew_lock(name, token, self.now),
                lambda: queue.renew(hold, self.now),
            ),
            "lose": (
                lambda: self.broker.lose_message_lock(name, token, self.now),
                lambda: queue.lose(hold, self.now),
            ),
            "again": (
                lambda: self.broker.deliver_again(name, token, self.now),
                lambda: queue.again(hold, self.now),
            ),
        }
        done = self.both(*calls[what])
        assert done is None or done[0] == done[1]

    def deferred(self) -> list[model.Msg]:
        return [m for queue in self.world.queues for m in queue.messages if m.state == "deferred"]

    @precondition(lambda self: self.deferred())
    @rule(index=pick, deletes=rarely, session=st.one_of(st.none(), sessions))
    def receive_deferred(self, index: int, deletes: bool, session: str | None) -> None:
        deferred = self.deferred()
        chosen = deferred[index % len(deferred)]
        self.take_deferred(chosen, deletes, chosen.session if index % 4 else session)

    def take_deferred(self, chosen: model.Msg, deletes: bool, session: str | None) -> None:
        where = next(queue for queue in self.world.queues if chosen in queue.messages)
        # One at a time where each has a lock of its own, for the same reason as with credit.
        numbers = [chosen.number, *([m.number for m in where.messages] if where.sessions else ())]
        mode = Mode.RECEIVE_AND_DELETE if deletes else Mode.PEEK_LOCK
        done = self.both(
            lambda: self.broker.receive_deferred(where.name, numbers, session, mode, self.now),
            lambda: where.receive_deferred(numbers, session, deletes, self.now),
        )
        if done is None:
            return
        assert [m.sequence_number for m in done[0]] == [number for number, _ in done[1]]
        for real, (_, hold) in zip(*done, strict=True):
            assert (real.lock_token is None) == (hold is None)
            if hold is not None:
                hold.token = real.lock_token
                self.holds.append((hold, where.owner(session) if where.sessions else None))

    # -- sessions -------------------------------------------------------------------------------------------

    @rule(
        session=sessions,
        anyway=rarely,
        what=st.sampled_from(["renew", "renew", "lose", "get", "set", "clear"]),
    )
    def touch_session(self, session: str, anyway: bool, what: str) -> None:
        where = self.ordered
        held = [r.session for r in where.receivers if r.session is not None]
        if held and session not in held and not anyway:
            session = held[0]
        calls: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
            "renew": (
                lambda: self.broker.renew_session("ordered", session, self.now),
                lambda: where.renew_session(session, self.now),
            ),
            "lose": (
                lambda: self.broker.lose_session_lock("ordered", session, self.now),
                lambda: where.lose_session(session, self.now),
            ),
            "get": (
                lambda: self.broker.get_state("ordered", session, self.now),
                lambda: where.get_state(session),
            ),
            "set": (
                lambda: self.broker.set_state("ordered", session, b"s", self.now),
                lambda: where.set_state(session, b"s", self.now),
            ),
            "clear": (
                lambda: self.broker.set_state("ordered", session, None, self.now),
                lambda: where.set_state(session, None, self.now),
            ),
        }
        done = self.both(*calls[what])
        assert done is None or done[0] == done[1]

    # -- the rest -------------------------------------------------------------------------------------------

    @rule(
        what=st.sampled_from(["cancel", "list", "delete"]),
        queue=pick,
        count=st.integers(0, 3),
        ago=st.integers(-1, 20),
        session=st.one_of(st.none(), sessions),
    )
    def odd_jobs(self, what: str, queue: int, count: int, ago: int, session: str | None) -> None:
        where = self.world.queues[queue % len(self.world.queues)]
        if what == "cancel":
            where = self.ordered if queue % 2 else self.plain
            scheduled = [m.number for m in where.messages if m.state == "scheduled"] or [count]
            self.both(
                lambda: self.broker.cancel_scheduled(where.name, scheduled[:1], self.now),
                lambda: where.cancel(scheduled[0]),
            )
            return
        since = self.now + 0.5 - ago
        calls: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
            "delete": (
                lambda: self.broker.delete_batch(where.name, count, since, session, self.now),
                lambda: where.delete(count, since, session),
            ),
            "list": (
                lambda: set(self.broker.list_sessions("ordered", since if count else None, 0, 99, self.now)),
                lambda: self.ordered.list_sessions(since if count else None),
            ),
        }
        done = self.both(*calls[what])
        assert done is not None
        assert done[0] == done[1]

    @rule(seconds=st.sampled_from([1, 4, 11, 30]), stepwise=st.booleans())
    def advance(self, seconds: int, stepwise: bool) -> None:
        self.advance_by(seconds, stepwise)

    def advance_by(self, seconds: int, stepwise: bool) -> None:
        target = self.now + seconds

        def real() -> None:
            # As an emulator does it: from one wake-up to the next. Or all at once, as after a long sleep.
            while stepwise and (due := self.broker.next_timer()) is not None and due <= target:
                self.broker.handle_timer(due)
            self.broker.handle_timer(target)

        self.now = target - 1.0
        self.both(real, lambda: None)

    @invariant()
    def same_contents(self) -> None:
        for queue in self.world.queues:
            real = self.broker.peek(queue.name, 0, 250, None, self.now)
            ideal = sorted(queue.messages, key=lambda m: m.number)
            assert [
                (
                    m.sequence_number,
                    STATES[m.state],
                    m.delivery_count,
                    m.deferred,
                    m.session_id,
                    m.enqueued_at,
                )
                for m in real
            ] == [(m.number, m.state, m.count, m.deferred, m.session, m.at) for m in ideal]
            assert [m.content.user().get("DeadLetterReason") for m in real] == [m.reason for m in ideal]
            runtime = self.broker.runtime(queue.name)
            assert runtime.scheduled == sum(m.state == "scheduled" for m in ideal)
            assert runtime.deferred == sum(m.deferred for m in ideal)
            assert runtime.active == len(ideal) - runtime.scheduled - runtime.deferred
            assert runtime.consumers == len(queue.receivers)
        whole = [m for name in ("plain", "plain/$deadletterqueue") for m in self.all(name)]
        assert self.broker.runtime("plain").size == sum(m.content.size for m in whole)

    def all(self, name: str) -> list[Any]:
        return self.broker.peek(name, 0, 250, None, self.now)

    @invariant()
    def wakes_in_time(self) -> None:
        expected = self.world.next_event()
        if expected is not None:
            due = self.broker.next_timer()
            assert due is not None
            assert due <= expected


BrokerAgainstModel.TestCase.settings = settings(
    max_examples=max(1, STEPS // STEPS_PER_RUN),
    stateful_step_count=STEPS_PER_RUN,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestBrokerAgainstModel = BrokerAgainstModel.TestCase
