"""A message's life in a store: time to live, schedules, deferral, and what is seen of it."""

from __future__ import annotations

import pytest

from sbrpc.emulator.broker import (
    Abandon,
    BrokerError,
    Complete,
    DeadLetter,
    Defer,
    MessageState,
    Mode,
    Release,
)
from sbrpc.topology import Queue

from .bench import Bench, message, refused


def queue(**settings: object) -> Bench:
    return Bench(Queue("q", **settings))  # type: ignore[arg-type]


# -- time to live --------------------------------------------------------------------------------------


def test_an_expired_message_is_dropped() -> None:
    """At its time, with nobody looking."""
    bench = queue()
    bench.send("q", message(time_to_live=10.0), message())
    bench.advance(9.9)
    assert len(bench.peek("q")) == 2
    bench.advance(0.1)
    assert [m.sequence_number for m in bench.peek("q")] == [2]
    assert bench.dead("q") == []
    assert bench.broker.runtime("q").size == 100


def test_an_expired_message_is_dead_lettered_where_the_queue_says_so() -> None:
    """With the service's reason."""
    bench = queue(dead_lettering_on_message_expiration=True)
    bench.send("q", time_to_live=10.0)
    bench.advance(10.0)
    assert bench.dead("q")[0].content.user() == {
        "DeadLetterReason": "TTLExpiredException",
        "DeadLetterErrorDescription": "The message expired and was dead lettered.",
    }


def test_the_queue_caps_the_time_to_live() -> None:
    """The shorter of the message's and the queue's holds."""
    bench = queue(default_message_time_to_live=60.0)
    bench.send("q", message(), message(time_to_live=10.0), message(time_to_live=1000.0))
    assert [m.expires_at for m in bench.peek("q")] == [60.0, 10.0, 60.0]
    assert [m.time_to_live for m in bench.peek("q")] == [60.0, 10.0, 60.0]


def test_a_message_does_not_expire_while_it_is_locked() -> None:
    """It can be completed long after its time, but not come back."""
    bench = queue(dead_lettering_on_message_expiration=True, lock_duration=30.0)
    bench.send("q", message(time_to_live=10.0), message(time_to_live=10.0))
    first, second = bench.receive("q", 2)
    bench.advance(20.0)
    assert bench.dead("q") == []
    bench.settle("q", first)
    bench.settle("q", second, Release())
    assert bench.reasons("q") == ["TTLExpiredException"]
    assert bench.peek("q") == []


def test_a_message_whose_lock_ends_early_expires_at_its_time() -> None:
    """The timer of the lock does not hide that of the time to live."""
    bench = queue(lock_duration=30.0)
    bench.send("q", time_to_live=100.0)
    bench.settle("q", bench.receive("q")[0], Release())
    bench.advance(99.0)
    assert len(bench.peek("q")) == 1
    bench.advance(1.0)
    assert bench.peek("q") == []


def test_dead_letters_do_not_expire() -> None:
    """Whatever the message or the queue say."""
    bench = queue(default_message_time_to_live=10.0)
    bench.send("q", time_to_live=5.0)
    bench.settle("q", bench.receive("q")[0], DeadLetter("x"))
    bench.advance(1e6)
    assert len(bench.dead("q")) == 1


def test_a_message_without_time_is_never_delivered() -> None:
    """Zero seconds are over at once."""
    bench = queue()
    bench.open("q", credit=1)
    bench.send("q", time_to_live=0.0)
    assert bench.delivered() == []
    assert bench.peek("q") == []


# -- schedules -----------------------------------------------------------------------------------------


def test_a_scheduled_message_appears_at_its_time_under_a_new_number() -> None:
    """Until then it can be peeked and not be received; its time of enqueueing is its appearance."""
    bench = queue()
    number = bench.schedule("q", 10.0)
    bench.send("q")
    assert [(m.sequence_number, m.state) for m in bench.peek("q")] == [
        (number, MessageState.SCHEDULED),
        (2, MessageState.ACTIVE),
    ]
    assert bench.take("q", 9) == [2]
    bench.advance(10.0)
    [appeared] = bench.peek("q")
    assert (appeared.sequence_number, appeared.enqueued_at, appeared.scheduled_at) == (3, 10.0, 10.0)


def test_a_scheduled_message_goes_to_a_waiting_consumer() -> None:
    """The moment it appears."""
    bench = queue()
    bench.open("q", credit=1)
    bench.schedule("q", 10.0)
    assert bench.delivered() == []
    bench.advance(10.0)
    assert bench.numbers() == [2]


def test_the_time_to_live_of_a_scheduled_message_begins_when_it_appears() -> None:
    """Not when it was sent."""
    bench = queue()
    bench.schedule("q", 10.0, time_to_live=5.0)
    assert bench.peek("q")[0].expires_at == 15.0
    bench.advance(14.0)
    assert len(bench.peek("q")) == 1
    bench.advance(1.0)
    assert bench.peek("q") == []


def test_a_schedule_in_the_past_is_now() -> None:
    """The message is active at once."""
    bench = queue()
    bench.now = 100.0
    bench.schedule("q", -5.0)
    assert bench.peek("q")[0].state is MessageState.ACTIVE


def test_a_plain_send_may_carry_a_schedule() -> None:
    """A scheduled time on the message is enough."""
    bench = queue()
    bench.send("q", scheduled_at=10.0)
    assert bench.peek("q")[0].state is MessageState.SCHEDULED


def test_a_cancelled_message_never_appears() -> None:
    """Cancelling takes all numbers or, if one is not scheduled, none."""
    bench = queue()
    numbers = [bench.schedule("q", 10.0) for _ in range(3)]
    with refused("com.microsoft:message-not-found", "99"):
        bench.broker.cancel_scheduled("q", [numbers[0], 99], bench.now)
    bench.broker.cancel_scheduled("q", numbers[:2], bench.now)
    bench.advance(20.0)
    assert len(bench.peek("q")) == 1
    with refused("com.microsoft:message-not-found"):
        bench.broker.cancel_scheduled("q", numbers[2:], bench.now)


def test_scheduling_needs_a_time() -> None:
    """The operation refuses a message that does not say when."""
    bench = queue()
    with refused("com.microsoft:argument-error", "when"):
        bench.broker.schedule("q", [message()], 0.0)


# -- deferral ------------------------------------------------------------------------------------------


def deferred(bench: Bench, **fields: object) -> int:
    """Send a message and defer it; its number."""
    bench.send("q", **fields)
    [delivery] = bench.receive("q")
    bench.settle("q", delivery, Defer())
    return delivery.message.sequence_number


def test_a_deferred_message_comes_only_to_who_asks_for_its_number() -> None:
    """It is not delivered, can be peeked, and deferring it has counted once."""
    bench = queue()
    number = deferred(bench)
    assert bench.receive("q") == []
    assert [(m.state, m.delivery_count) for m in bench.peek("q")] == [(MessageState.DEFERRED, 1)]
    [message] = bench.broker.receive_deferred("q", [number], None, Mode.PEEK_LOCK, bench.now)
    assert message.locked_until == 60.0
    assert message.shown_state is MessageState.DEFERRED
    assert message.lock_token is not None
    bench.broker.settle("q", message.lock_token, Complete(), bench.now)
    assert bench.peek("q") == []
    assert bench.broker.runtime("q").deferred == 0


def test_a_deferred_message_can_be_received_and_deleted() -> None:
    """It is gone at once."""
    bench = queue()
    number = deferred(bench)
    [message] = bench.broker.receive_deferred("q", [number], None, "receive_and_delete", bench.now)
    assert message.lock_token is None
    assert bench.peek("q") == []


@pytest.mark.parametrize(
    ("outcome", "count"), [(Abandon(), 2), (Defer(), 2), (Release(), 1), (None, 2)], ids=str
)
def test_a_deferred_message_that_is_not_completed_stays_deferred(
    outcome: Abandon | Defer | Release | None, count: int
) -> None:
    """Abandoning, deferring again and an expired lock count, releasing does not."""
    bench = queue()
    number = deferred(bench)
    [message] = bench.broker.receive_deferred("q", [number], None, Mode.PEEK_LOCK, bench.now)
    assert message.lock_token is not None
    if outcome is None:
        bench.advance(60.0)
    else:
        bench.broker.settle("q", message.lock_token, outcome, bench.now)
    assert [(m.state, m.delivery_count) for m in bench.peek("q")] == [(MessageState.DEFERRED, count)]
    assert bench.broker.runtime("q").deferred == 1


def test_a_deferred_message_can_be_dead_lettered() -> None:
    """From its lock, like any other."""
    bench = queue()
    number = deferred(bench)
    [message] = bench.broker.receive_deferred("q", [number], None, Mode.PEEK_LOCK, bench.now)
    assert message.lock_token is not None
    bench.broker.settle("q", message.lock_token, DeadLetter("late"), bench.now)
    assert bench.reasons("q") == ["late"]


def test_a_deferred_message_expires_when_it_is_asked_for() -> None:
    """However long it waits it stays; asked for after its time it is dead-lettered, not handed out."""
    bench = queue(dead_lettering_on_message_expiration=True)
    number = deferred(bench, time_to_live=10.0)
    bench.advance(1000.0)
    assert len(bench.peek("q")) == 1
    with pytest.raises(BrokerError, match="message-not-found"):
        bench.broker.receive_deferred("q", [number], None, Mode.PEEK_LOCK, bench.now)
    assert bench.reasons("q") == ["TTLExpiredException"]


def test_a_deferred_message_does_not_expire_when_it_comes_back() -> None:
    """What was in time when it was asked for is deferred again, whatever the time has become."""
    bench = queue()
    number = deferred(bench, time_to_live=10.0)
    [message] = bench.broker.receive_deferred("q", [number], None, Mode.PEEK_LOCK, bench.now)
    assert message.lock_token is not None
    bench.advance(30.0)
    bench.broker.settle("q", message.lock_token, Abandon(), bench.now)
    assert len(bench.peek("q")) == 1


def test_deferring_counts_towards_the_limit() -> None:
    """With one delivery allowed, deferring is the last thing that happens to a message."""
    bench = queue(max_delivery_count=1)
    deferred(bench)
    assert bench.reasons("q") == ["MaxDeliveryCountExceeded"]


def test_numbers_that_cannot_be_had_are_left_out_unless_all_are() -> None:
    """An unknown, an active and a locked message cannot be had."""
    bench = queue()
    number = deferred(bench)
    bench.send("q")
    found = bench.broker.receive_deferred("q", [number, 2, 77], None, Mode.PEEK_LOCK, bench.now)
    assert [m.sequence_number for m in found] == [number]
    with refused("com.microsoft:message-not-found", "1, 2, 77"):
        bench.broker.receive_deferred("q", [number, 2, 77], None, Mode.PEEK_LOCK, bench.now)


# -- looking in, clearing out --------------------------------------------------------------------------


def test_a_peek_shows_all_states_in_the_order_of_numbers() -> None:
    """Active, locked, deferred and scheduled alike, from a number on, and changes nothing."""
    bench = queue()
    deferred(bench)
    bench.schedule("q", 10.0)
    bench.send("q", message(), message())
    bench.receive("q")
    states = [(m.sequence_number, m.state) for m in bench.peek("q")]
    assert states == [
        (1, MessageState.DEFERRED),
        (2, MessageState.SCHEDULED),
        (3, MessageState.LOCKED),
        (4, MessageState.ACTIVE),
    ]
    assert [m.sequence_number for m in bench.broker.peek("q", 2, 2, None, bench.now)] == [2, 3]
    assert bench.broker.books()["q"].peeks == 6


def test_a_batch_delete_takes_active_messages_the_oldest_first() -> None:
    """Up to the count, enqueued before the time, and nothing that is locked, deferred or scheduled."""
    bench = queue()
    deferred(bench)
    bench.schedule("q", 100.0)
    bench.send("q", message(), message(), message())
    bench.receive("q")
    bench.now = 10.0
    bench.send("q")
    assert bench.broker.delete_batch("q", 1, 10.0, None, bench.now) == 1
    assert [m.sequence_number for m in bench.peek("q")] == [1, 2, 3, 5, 6]
    assert bench.broker.delete_batch("q", 100, 10.0, None, bench.now) == 1
    assert bench.broker.delete_batch("q", 100, None, None, bench.now) == 1
    assert [m.sequence_number for m in bench.peek("q")] == [1, 2, 3]


def test_one_batch_deletes_as_many_as_the_service_does() -> None:
    """Five hundred; a purge has no limit."""
    bench = queue()
    bench.send("q", *(message() for _ in range(1200)))
    assert bench.broker.delete_batch("q", 10_000, None, None, bench.now) == 500
    assert bench.broker.purge("q", bench.now) == 700


def test_one_peek_shows_as_many_as_the_service_does() -> None:
    """Two hundred and fifty."""
    bench = queue()
    bench.send("q", *(message() for _ in range(300)))
    assert len(bench.broker.peek("q", 0, 1000, None, bench.now)) == 250


# -- speed and memory ----------------------------------------------------------------------------------


def test_nothing_grows_with_the_messages_that_passed() -> None:
    """After fifty thousand messages the store is as empty as before, and the heap of timers is small."""
    bench = queue(default_message_time_to_live=3600.0)
    consumer = bench.open("q")
    for _ in range(50_000):
        bench.now += 0.0001
        bench.credit(consumer, 1)
        bench.send("q")
        [delivery] = bench.delivered()
        bench.settle("q", delivery)
    store = consumer.store
    assert not store.messages
    assert not store._locks
    assert len(bench.broker._timers) < 2000
    assert bench.broker.runtime("q").size == 0
