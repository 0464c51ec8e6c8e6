"""A store with sessions: locks, order, availability and state."""

from __future__ import annotations

import gc
import sys

import pytest

from sbrpc.emulator.broker import NEXT_AVAILABLE, Abandon, DeadLetter, Defer, Limits, Mode
from sbrpc.topology import Queue

from .bench import Bench, message, refused

SESSION_LOST = "com.microsoft:session-lock-lost"


@pytest.fixture
def bench() -> Bench:
    return Bench(Queue("q", requires_session=True, lock_duration=30.0, max_delivery_count=5))


# -- accepting --------------------------------------------------------------------------------------------


def test_a_session_is_locked_for_the_lock_duration(bench: Bench) -> None:
    """Even one that has no messages yet."""
    consumer = bench.open("q", "a")
    assert (consumer.session_id, consumer.locked_until, consumer.pending) == ("a", 30.0, False)


def test_a_session_has_one_consumer_at_a_time(bench: Bench) -> None:
    """The second is told that it may be locked; after the first has closed it is free."""
    first = bench.open("q", "a")
    with refused("com.microsoft:session-cannot-be-locked", "The requested session 'a' cannot be accepted."):
        bench.open("q", "a")
    bench.open("q", "b")
    bench.close(first)
    bench.open("q", "a")


def test_an_entity_with_sessions_needs_a_session(bench: Bench) -> None:
    """A receiver without one is refused, and so is a message."""
    with refused("amqp:not-allowed", "non-sessionful message receiver"):
        bench.open("q")
    with refused("amqp:not-allowed", "The SessionId was not set on a message"):
        bench.send("q")


def test_an_empty_session_id_is_a_session_id(bench: Bench) -> None:
    """Messages with it belong together."""
    bench.send("q", session_id="")
    consumer = bench.open("q", "", credit=1)
    assert bench.numbers() == [1]
    bench.close(consumer)


def test_the_next_available_session_is_the_one_that_waits_longest(bench: Bench) -> None:
    """By its first active message, among those that are free."""
    bench.send("q", *(message(session_id=name) for name in "abcab"))
    bench.open("q", "a")
    assert [bench.open("q", NEXT_AVAILABLE).session_id for _ in range(2)] == ["b", "c"]


def test_availability_follows_the_first_message_that_is_left(bench: Bench) -> None:
    """A session whose old messages are gone stands where its next message puts it."""
    bench.send("q", *(message(session_id=name) for name in "aba"))
    [delivery] = bench.receive("q", 1, "a")
    bench.settle("q", delivery)
    bench.close(delivery.consumer)
    assert bench.open("q", NEXT_AVAILABLE).session_id == "b"
    assert bench.open("q", NEXT_AVAILABLE).session_id == "a"


def test_a_session_without_active_messages_is_not_available(bench: Bench) -> None:
    """Deferred and scheduled messages and stored state do not make it so."""
    bench.schedule("q", 1000.0, session_id="scheduled")
    bench.send("q", session_id="deferred")
    [delivery] = bench.receive("q", 1, "deferred")
    bench.settle("q", delivery, Defer())
    bench.broker.set_state("q", "deferred", b"x", bench.now)
    bench.close(delivery.consumer)
    assert bench.open("q", NEXT_AVAILABLE, timeout=5.0).pending


def test_who_waits_gets_the_session_that_becomes_available(bench: Bench) -> None:
    """In the order of waiting, and messages flow at once if there is credit already."""
    first = bench.open("q", NEXT_AVAILABLE)
    second = bench.open("q", NEXT_AVAILABLE, credit=1)
    assert first.pending
    assert second.pending
    bench.now = 7.0
    bench.send("q", message(session_id="a"), message(session_id="a"), message(session_id="b"))
    effects = bench.broker.take_effects()
    assert [(type(e).__name__, e.consumer.session_id) for e in effects] == [
        ("SessionAccepted", "a"),
        ("SessionAccepted", "b"),
        ("Deliver", "b"),
    ]
    assert (first.pending, first.locked_until) == (False, 37.0)
    bench.credit(first, 5)
    assert bench.numbers() == [1, 2]


def test_who_waits_gets_a_session_that_is_set_free(bench: Bench) -> None:
    """By closing or by the end of its lock."""
    bench.send("q", session_id="a")
    holder = bench.open("q", NEXT_AVAILABLE)
    waiting = bench.open("q", NEXT_AVAILABLE)
    bench.close(holder)
    assert bench.told() == [(waiting, "accepted")]
    late = bench.open("q", NEXT_AVAILABLE)
    bench.advance(30.0)
    assert bench.told() == [(waiting, SESSION_LOST), (late, "accepted")]


def test_waiting_for_a_session_ends_after_the_timeout(bench: Bench) -> None:
    """With the service's condition and text, at the time the client gave."""
    consumer = bench.open("q", NEXT_AVAILABLE, timeout=3.0)
    bench.advance(2.9)
    assert bench.told() == []
    bench.advance(0.1)
    assert bench.told() == [(consumer, "com.microsoft:timeout")]
    bench.send("q", session_id="a")
    assert bench.told() == []


def test_waiting_without_a_timeout_ends_after_the_service_s_own(bench: Bench) -> None:
    """Sixty-five seconds."""
    consumer = bench.open("q", NEXT_AVAILABLE)
    bench.advance(64.9)
    assert bench.told() == []
    bench.advance(0.2)
    assert bench.told() == [(consumer, "com.microsoft:timeout")]


def test_no_time_to_wait_is_a_refusal_at_once(bench: Bench) -> None:
    """If there is no session to be had."""
    with refused("com.microsoft:timeout", "did not complete within the allocated time"):
        bench.open("q", NEXT_AVAILABLE, timeout=0.0)
    bench.send("q", session_id="a")
    assert bench.open("q", NEXT_AVAILABLE, timeout=0.0).session_id == "a"


def test_who_gives_up_waiting_gets_nothing(bench: Bench) -> None:
    """A session that comes afterwards is free for others."""
    consumer = bench.open("q", NEXT_AVAILABLE)
    bench.close(consumer)
    bench.send("q", session_id="a")
    assert bench.told() == []
    assert bench.open("q", NEXT_AVAILABLE).session_id == "a"


# -- messages ---------------------------------------------------------------------------------------------


def test_a_session_is_first_in_first_out(bench: Bench) -> None:
    """Its consumer gets its messages only, in order, the later ones included."""
    bench.send("q", *(message(session_id=name) for name in "abab"))
    bench.open("q", "a", credit=10)
    bench.send("q", message(session_id="a"))
    assert bench.numbers() == [1, 3, 5]


def test_messages_are_locked_as_long_as_the_session(bench: Bench) -> None:
    """A message delivered late in the lock has what is left of it."""
    consumer = bench.open("q", "a", credit=5)
    bench.now = 20.0
    bench.send("q", session_id="a")
    [delivery] = bench.delivered()
    assert delivery.locked_until == consumer.locked_until == 30.0


def test_abandoned_messages_keep_the_order_of_the_session(bench: Bench) -> None:
    """They are delivered again before what comes after them."""
    consumer = bench.open("q", "a", credit=2)
    bench.send("q", *(message(session_id="a") for _ in range(3)))
    first, second = bench.delivered()
    bench.settle("q", first, Abandon(), session_consumer=consumer)
    bench.settle("q", second, Abandon(), session_consumer=consumer)
    bench.credit(consumer, 5)
    assert [(d.message.sequence_number, d.delivery_count) for d in bench.delivered()] == [
        (1, 1),
        (2, 1),
        (3, 0),
    ]


def test_closing_gives_messages_back_without_counting(bench: Bench) -> None:
    """At their old places, free for the next consumer."""
    bench.send("q", *(message(session_id="a") for _ in range(3)))
    bench.close(bench.open("q", "a", credit=2))
    bench.broker.take_effects()
    bench.open("q", NEXT_AVAILABLE, credit=5)
    assert [(d.message.sequence_number, d.delivery_count) for d in bench.delivered()] == [
        (1, 0),
        (2, 0),
        (3, 0),
    ]


def test_the_end_of_a_session_lock_closes_the_consumer_and_counts(bench: Bench) -> None:
    """Its locked messages come back with a higher count; those it had not been given do not."""
    bench.send("q", *(message(session_id="a") for _ in range(3)))
    consumer = bench.open("q", "a", credit=2)
    first, _ = bench.delivered()
    bench.advance(30.0)
    assert bench.told() == [(consumer, SESSION_LOST)]
    with refused(SESSION_LOST, "Accept a new MessageSession"):
        bench.settle("q", first, session_consumer=consumer)
    assert [m.delivery_count for m in bench.peek("q")] == [1, 1, 0]


def test_a_lost_message_lock_is_told_from_a_lost_session_lock(bench: Bench) -> None:
    """While the session is held, a bad token is a lost message lock."""
    bench.send("q", session_id="a")
    consumer = bench.open("q", "a", credit=1)
    [delivery] = bench.delivered()
    bench.settle("q", delivery, session_consumer=consumer)
    with refused("com.microsoft:message-lock-lost"):
        bench.settle("q", delivery, session_consumer=consumer)
    with refused("com.microsoft:message-lock-lost"):
        bench.settle("q", delivery, session_id="a")
    bench.close(consumer)
    with refused(SESSION_LOST):
        bench.settle("q", delivery, session_id="a")
    with refused(SESSION_LOST):
        bench.settle("q", delivery)


def test_messages_wear_out_by_lost_session_locks(bench: Bench) -> None:
    """After as many as the queue allows they are dead letters, and those need no session."""
    bench.send("q", session_id="a")
    for _ in range(5):
        bench.open("q", "a", credit=1)
        bench.advance(30.0)
    assert bench.reasons("q") == ["MaxDeliveryCountExceeded"]
    assert bench.take("q/$DeadLetterQueue") == [1]


def test_a_session_can_lose_its_lock_on_demand(bench: Bench) -> None:
    """As if it had expired."""
    bench.send("q", session_id="a")
    consumer = bench.open("q", "a", credit=1)
    bench.broker.lose_session_lock("q", "a", bench.now)
    assert bench.told()[-1] == (consumer, SESSION_LOST)
    assert bench.peek("q")[0].delivery_count == 1
    with refused(SESSION_LOST):
        bench.broker.lose_session_lock("q", "a", bench.now)


def test_a_renewed_session_lock_lasts_anew(bench: Bench) -> None:
    """And the locks of its messages with it."""
    consumer = bench.open("q", "a", credit=1)
    bench.send("q", session_id="a")
    [delivery] = bench.delivered()
    bench.advance(20.0)
    assert bench.broker.renew_session("q", "a", bench.now) == 50.0
    assert consumer.locked_until == delivery.message.locked_until == 50.0
    bench.advance(29.0)
    bench.settle("q", delivery, session_consumer=consumer)
    bench.advance(1.0)
    assert bench.told() == [(consumer, SESSION_LOST)]
    with refused(SESSION_LOST):
        bench.broker.renew_session("q", "a", bench.now)


def test_a_closed_session_is_not_lost_later(bench: Bench) -> None:
    """The timer of the first lock does not end the second."""
    bench.close(bench.open("q", "a"))
    bench.advance(10.0)
    second = bench.open("q", "a")
    bench.advance(29.0)
    assert bench.told() == []
    bench.advance(1.0)
    assert bench.told() == [(second, SESSION_LOST)]


def test_messages_of_a_held_session_do_not_expire_in_the_hand(bench: Bench) -> None:
    """Those not yet delivered do."""
    bench.send("q", message(session_id="a", time_to_live=10.0), message(session_id="a", time_to_live=10.0))
    consumer = bench.open("q", "a", credit=1)
    [delivery] = bench.delivered()
    bench.advance(20.0)
    assert len(bench.peek("q")) == 1
    bench.settle("q", delivery, session_consumer=consumer)


def test_a_session_message_can_be_delivered_twice(bench: Bench) -> None:
    """To the session's consumer, whose settlement of one ends both."""
    bench.send("q", session_id="a")
    consumer = bench.open("q", "a", credit=2)
    [first] = bench.delivered()
    assert first.lock_token is not None
    assert bench.broker.deliver_again("q", first.lock_token, bench.now)
    assert not bench.broker.deliver_again("q", first.lock_token, bench.now)
    [second] = bench.delivered()
    bench.settle("q", second, session_consumer=consumer)
    with refused("com.microsoft:message-lock-lost"):
        bench.settle("q", first, session_consumer=consumer)


# -- deferral ---------------------------------------------------------------------------------------------


def test_deferred_messages_belong_to_the_lock_of_their_session(bench: Bench) -> None:
    """They can be had while the session is held, by its id, and come back when it is closed."""
    bench.send("q", session_id="a")
    consumer = bench.open("q", "a", credit=1)
    [delivery] = bench.delivered()
    bench.settle("q", delivery, Defer(), session_consumer=consumer)
    with refused("amqp:not-allowed"):
        bench.broker.receive_deferred("q", [1], None, Mode.PEEK_LOCK, bench.now)
    with refused(SESSION_LOST):
        bench.broker.receive_deferred("q", [1], "b", Mode.PEEK_LOCK, bench.now)
    [message] = bench.broker.receive_deferred("q", [1], "a", Mode.PEEK_LOCK, bench.now)
    assert message.locked_until == consumer.locked_until
    bench.close(consumer)
    assert message.lock_token is None
    assert [(m.deferred, m.delivery_count) for m in bench.peek("q")] == [(True, 1)]


def test_a_deferred_message_of_another_session_is_not_found(bench: Bench) -> None:
    """Numbers are looked up within the session."""
    bench.send("q", session_id="a")
    holder = bench.open("q", "a", credit=1)
    bench.settle("q", bench.delivered()[0], Defer(), session_consumer=holder)
    bench.open("q", "b")
    with refused("com.microsoft:message-not-found"):
        bench.broker.receive_deferred("q", [1], "b", Mode.PEEK_LOCK, bench.now)


# -- state and listing ------------------------------------------------------------------------------------


def test_state_stays_with_the_session(bench: Bench) -> None:
    """From one consumer to the next, until it is set to nothing."""
    consumer = bench.open("q", "a")
    assert bench.broker.get_state("q", "a", bench.now) is None
    bench.broker.set_state("q", "a", b"half done", bench.now)
    bench.close(consumer)
    with refused(SESSION_LOST):
        bench.broker.get_state("q", "a", bench.now)
    with refused(SESSION_LOST):
        bench.broker.set_state("q", "a", b"", bench.now)
    bench.open("q", "a")
    assert bench.broker.get_state("q", "a", bench.now) == b"half done"
    bench.broker.set_state("q", "a", None, bench.now)
    assert bench.broker.get_state("q", "a", bench.now) is None


def test_state_has_the_size_of_a_message_at_most() -> None:
    """The entity's limit holds for it, too."""
    bench = Bench(Queue("q", requires_session=True, max_message_size_in_kilobytes=1))
    bench.open("q", "a")
    with refused("amqp:link:message-size-exceeded", "session state"):
        bench.broker.set_state("q", "a", bytes(1025), bench.now)


def test_sessions_with_messages_or_state_are_listed(bench: Bench) -> None:
    """With a time, only those whose state was set after it; in pages."""
    bench.send("q", message(session_id="a"), message(session_id="b"))
    bench.close(bench.open("q", "nothing"))
    bench.now = 10.0
    consumer = bench.open("q", "state")
    bench.broker.set_state("q", "state", b"x", bench.now)
    bench.close(consumer)
    assert bench.broker.list_sessions("q", None, 0, 10, bench.now) == ["a", "b", "state"]
    assert bench.broker.list_sessions("q", None, 1, 1, bench.now) == ["b"]
    assert bench.broker.list_sessions("q", 9.0, 0, 10, bench.now) == ["state"]
    assert bench.broker.list_sessions("q", 10.0, 0, 10, bench.now) == []


def test_sessions_can_be_looked_at(bench: Bench) -> None:
    """Count, lock and state of each."""
    bench.send("q", session_id="a")
    bench.open("q", "a")
    bench.broker.set_state("q", "a", b"xyz", bench.now)
    [info] = bench.broker.session_details("q", 0, 10)
    assert (info.session_id, info.messages, info.locked, info.locked_until, info.state_size) == (
        "a",
        1,
        True,
        30.0,
        3,
    )


def test_a_peek_can_select_a_session(bench: Bench) -> None:
    """By its id, without a lock."""
    bench.send("q", *(message(session_id=name) for name in "aba"))
    assert [m.sequence_number for m in bench.peek("q", "a")] == [1, 3]
    assert bench.peek("q", "c") == []


def test_a_batch_delete_can_select_a_session(bench: Bench) -> None:
    """The others keep their messages."""
    bench.send("q", *(message(session_id=name) for name in "aba"))
    assert bench.broker.delete_batch("q", 10, None, "a", bench.now) == 2
    assert [m.session_id for m in bench.peek("q")] == ["b"]
    assert bench.open("q", NEXT_AVAILABLE).session_id == "b"


def test_session_operations_need_sessions() -> None:
    """A queue without them refuses."""
    bench = Bench(Queue("q"))
    with refused("amqp:not-allowed", "does not require sessions"):
        bench.broker.renew_session("q", "a", bench.now)


# -- speed and memory -------------------------------------------------------------------------------------


def test_a_session_is_forgotten_when_nothing_is_left_of_it(bench: Bench) -> None:
    """A queue with a session per message holds nothing for those that passed, however they were accepted."""
    for number in range(3000):
        bench.send("q", session_id=f"s-{number}")
        chosen = NEXT_AVAILABLE if number % 2 else f"s-{number}"
        [delivery] = bench.receive("q", 1, chosen)
        bench.settle("q", delivery, DeadLetter("x") if number % 5 == 0 else None)
        bench.close(delivery.consumer)
    store = bench.broker._namespace.place("q").store
    assert not store.sessions  # type: ignore[attr-defined]
    assert len(store._available) < 200  # type: ignore[attr-defined]
    assert len(bench.broker._timers) < 2000


def test_waiting_in_vain_leaves_nothing_behind() -> None:
    """A client that polls for sessions for days does not fill the memory."""
    bench = Bench(Queue("q", requires_session=True), limits=Limits(accept_timeout=1.0))
    for _ in range(1000):
        bench.open("q", NEXT_AVAILABLE)
        bench.advance(1.0)
    store = bench.broker._namespace.place("q").store
    assert not store.consumers
    assert not store._waiting  # type: ignore[attr-defined]


def test_accepting_does_not_look_at_all_sessions() -> None:
    """Among ten thousand available sessions, accepting one takes no more steps than among ten."""

    def steps_to_accept(sessions: int) -> int:
        bench = Bench(Queue("q", requires_session=True))
        for number in range(sessions):
            bench.send("q", session_id=str(number))
        steps = 0

        def count(*_: object) -> object:
            nonlocal steps
            steps += 1
            return count

        before = sys.gettrace()
        gc.collect()
        gc.disable()  # what other tests have left behind is not to be counted
        sys.settrace(count)
        try:
            consumer = bench.open("q", NEXT_AVAILABLE)
        finally:
            sys.settrace(before)
            gc.enable()
        assert consumer.session_id == "0"
        return steps

    assert steps_to_accept(10_000) == steps_to_accept(10)
