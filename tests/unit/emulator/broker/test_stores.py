"""A message's life in a store: locks, settlement, delivery counts, time to live, schedules, deferral."""

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

LOCK_LOST = "com.microsoft:message-lock-lost"


def queue(**settings: object) -> Bench:
    return Bench(Queue("q", **settings))  # type: ignore[arg-type]


# -- locks ------------------------------------------------------------------------------------------------


def test_a_delivered_message_is_locked_for_the_lock_duration() -> None:
    """The delivery says until when, and nobody else gets the message meanwhile."""
    bench = queue(lock_duration=30.0)
    bench.send("q")
    [delivery] = bench.receive("q")
    assert delivery.locked_until == 30.0
    assert delivery.message.state is MessageState.LOCKED
    assert bench.receive("q") == []


def test_every_lock_has_a_token_of_its_own() -> None:
    """The old token is not good for the new lock."""
    bench = queue()
    bench.send("q")
    [first] = bench.receive("q")
    bench.settle("q", first, Release())
    [second] = bench.receive("q")
    assert first.lock_token != second.lock_token
    with refused(LOCK_LOST, "The lock supplied is invalid. Either the lock expired"):
        bench.settle("q", first)
    bench.settle("q", second)


def test_a_lock_that_expires_brings_the_message_back_with_a_higher_count() -> None:
    """At the very end of the lock, and the token is no good from then on."""
    bench = queue(lock_duration=30.0)
    bench.send("q")
    [first] = bench.receive("q")
    bench.advance(29.9)
    assert bench.receive("q") == []
    bench.advance(0.1)
    with refused(LOCK_LOST):
        bench.settle("q", first)
    [second] = bench.receive("q")
    assert (first.delivery_count, second.delivery_count) == (0, 1)


def test_an_expired_lock_is_lost_even_if_no_timer_has_run() -> None:
    """Each operation first lets happen what is due by its time."""
    bench = queue(lock_duration=30.0)
    bench.send("q")
    [delivery] = bench.receive("q")
    bench.now = 30.0
    with refused(LOCK_LOST):
        bench.settle("q", delivery)


def test_a_renewed_lock_lasts_anew() -> None:
    """As often as it is renewed, counted from the renewal."""
    bench = queue(lock_duration=30.0)
    bench.send("q")
    [delivery] = bench.receive("q")
    assert delivery.lock_token is not None
    for _ in range(5):
        bench.advance(20.0)
        assert bench.broker.renew_lock("q", delivery.lock_token, bench.now) == bench.now + 30.0
    bench.advance(29.0)
    bench.settle("q", delivery)
    with refused(LOCK_LOST):
        bench.broker.renew_lock("q", delivery.lock_token, bench.now)


def test_locks_outlive_the_consumer_that_closed() -> None:
    """The token still settles, over whatever link."""
    bench = queue(lock_duration=30.0)
    bench.send("q")
    [delivery] = bench.receive("q")
    bench.settle("q", delivery)
    assert bench.peek("q") == []


def test_a_lock_can_be_made_to_be_lost() -> None:
    """As if it had expired: count and redelivery included."""
    bench = queue()
    bench.send("q")
    [delivery] = bench.receive("q")
    assert delivery.lock_token is not None
    bench.broker.lose_message_lock("q", delivery.lock_token, bench.now)
    with refused(LOCK_LOST):
        bench.settle("q", delivery)
    assert bench.receive("q")[0].delivery_count == 1
    with refused(LOCK_LOST):
        bench.broker.lose_message_lock("q", delivery.lock_token, bench.now)


@pytest.mark.parametrize("winner", [0, 1])
def test_a_message_can_be_delivered_twice(winner: int) -> None:
    """Both deliveries have a good token until one of them is used."""
    bench = queue()
    bench.send("q")
    consumer = bench.open("q", credit=2)
    [first] = bench.delivered()
    assert first.lock_token is not None
    assert bench.broker.deliver_again("q", first.lock_token, bench.now)
    [second] = bench.delivered()
    assert second.message is first.message
    assert second.delivery_count == 0
    assert consumer.credit == 0
    both = [first, second]
    bench.settle("q", both[winner])
    with refused(LOCK_LOST):
        bench.settle("q", both[1 - winner])


def test_a_second_delivery_needs_somebody_with_credit() -> None:
    """Without one nothing happens and the lock is as it was."""
    bench = queue()
    bench.send("q")
    [delivery] = bench.receive("q")
    assert delivery.lock_token is not None
    bench.open("q", mode=Mode.RECEIVE_AND_DELETE, credit=1)
    assert not bench.broker.deliver_again("q", delivery.lock_token, bench.now)
    bench.settle("q", delivery)


def test_after_a_second_delivery_an_expired_lock_ends_both() -> None:
    """The message comes back once, and neither token is good."""
    bench = queue(lock_duration=30.0)
    bench.send("q")
    consumer = bench.open("q", credit=2)
    [first] = bench.delivered()
    assert first.lock_token is not None
    bench.broker.deliver_again("q", first.lock_token, bench.now)
    [second] = bench.delivered()
    bench.close(consumer)
    bench.advance(30.0)
    for delivery in (first, second):
        with refused(LOCK_LOST):
            bench.settle("q", delivery)
    assert [m.delivery_count for m in bench.peek("q")] == [1]


# -- settlement -------------------------------------------------------------------------------------------


def test_a_completed_message_is_gone() -> None:
    """And its token with it."""
    bench = queue()
    bench.send("q")
    [delivery] = bench.receive("q")
    bench.settle("q", delivery)
    assert bench.peek("q") == []
    with refused(LOCK_LOST):
        bench.settle("q", delivery)


def test_an_abandoned_message_returns_to_its_place_with_a_higher_count() -> None:
    """Ahead of everything that came after it."""
    bench = queue()
    bench.send("q", message(), message(), message())
    first, second = bench.receive("q", 2)
    bench.settle("q", second, Abandon())
    bench.settle("q", first, Abandon())
    assert [(d.message.sequence_number, d.delivery_count) for d in bench.receive("q", 3)] == [
        (1, 1),
        (2, 1),
        (3, 0),
    ]


def test_abandoning_can_change_application_properties() -> None:
    """They are merged into those of the message."""
    bench = queue()
    bench.send("q", message({"kept": 1, "changed": 2}))
    [delivery] = bench.receive("q")
    bench.settle("q", delivery, Abandon({"changed": 3, "new": 4}))
    assert bench.peek("q")[0].content.user() == {"kept": 1, "changed": 3, "new": 4}


def test_properties_that_do_not_fit_are_refused_and_the_lock_stays() -> None:
    """The header has 64 KB, whoever writes into it."""
    bench = queue()
    bench.send("q", message(header_size=60_000))
    [delivery] = bench.receive("q")
    for outcome in (Abandon({"p": "x" * 6000}), Defer({"p": "x" * 6000})):
        with refused("amqp:link:message-size-exceeded", "header"):
            bench.settle("q", delivery, outcome)
    bench.settle("q", delivery)


def test_a_released_message_returns_as_if_nothing_had_been() -> None:
    """At its old place and with its old count."""
    bench = queue()
    bench.send("q", message(), message())
    [first] = bench.receive("q")
    bench.settle("q", first, Release())
    assert [(d.message.sequence_number, d.delivery_count) for d in bench.receive("q", 2)] == [(1, 0), (2, 0)]


def test_a_dead_lettered_message_says_why() -> None:
    """It keeps id, number, time and count, tells its source, and carries reason and description."""
    bench = queue()
    bench.send("q", message({"mine": 1}, message_id="m"))
    [delivery] = bench.receive("q")
    bench.settle("q", delivery, Abandon())
    bench.now = 5.0
    [delivery] = bench.receive("q")
    bench.settle("q", delivery, DeadLetter("broken", "it does not parse", {"extra": 2}))
    [letter] = bench.dead("q")
    assert letter.content.user() == {
        "mine": 1,
        "extra": 2,
        "DeadLetterReason": "broken",
        "DeadLetterErrorDescription": "it does not parse",
    }
    assert (letter.message_id, letter.sequence_number, letter.enqueued_at, letter.delivery_count) == (
        "m",
        1,
        0.0,
        1,
    )
    assert letter.dead_letter_source == "q"
    assert bench.peek("q") == []


def test_a_reason_may_be_missing() -> None:
    """Then no property tells one."""
    bench = queue()
    bench.send("q")
    bench.settle("q", bench.receive("q")[0], DeadLetter())
    assert bench.dead("q")[0].content.user() == {}


# -- delivery counts --------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["abandon", "expire"])
def test_a_message_that_fails_too_often_goes_to_the_dead_letters(how: str) -> None:
    """After exactly the number of deliveries that the queue allows."""
    bench = queue(max_delivery_count=3, lock_duration=30.0)
    bench.send("q")
    for attempt in range(3):
        [delivery] = bench.receive("q")
        assert delivery.delivery_count == attempt
        if how == "abandon":
            bench.settle("q", delivery, Abandon())
        else:
            bench.advance(30.0)
    [letter] = bench.dead("q")
    assert letter.content.user() == {
        "DeadLetterReason": "MaxDeliveryCountExceeded",
        "DeadLetterErrorDescription": "Message could not be consumed after 3 delivery attempts.",
    }
    assert letter.delivery_count == 3


def test_releasing_never_wears_a_message_out() -> None:
    """However often it happens."""
    bench = queue(max_delivery_count=2)
    bench.send("q")
    for _ in range(10):
        bench.settle("q", bench.receive("q")[0], Release())
    assert bench.peek("q")[0].delivery_count == 0


def test_dead_letters_do_not_wear_out() -> None:
    """There is no limit of deliveries, and an expired lock does not count."""
    bench = queue(max_delivery_count=1, lock_duration=30.0)
    bench.send("q")
    bench.settle("q", bench.receive("q")[0], DeadLetter("x"))
    for _ in range(3):
        bench.receive("q/$DeadLetterQueue")
        bench.advance(30.0)
    assert bench.dead("q")[0].delivery_count == 0
    for _ in range(3):
        bench.settle("q/$DeadLetterQueue", bench.receive("q/$DeadLetterQueue")[0], Abandon())
    assert bench.dead("q")[0].delivery_count == 3


def test_a_dead_letter_cannot_be_dead_lettered() -> None:
    """It stays locked and can be settled otherwise."""
    bench = queue()
    bench.send("q")
    bench.settle("q", bench.receive("q")[0], DeadLetter("x"))
    [delivery] = bench.receive("q/$deadletterqueue")
    with refused("amqp:not-allowed"):
        bench.settle("q/$deadletterqueue", delivery, DeadLetter("y"))
    bench.settle("q/$deadletterqueue", delivery)
    assert bench.dead("q") == []


def test_dead_letters_come_in_the_order_of_their_numbers() -> None:
    """Whoever died first."""
    bench = queue()
    bench.send("q", message(), message(), message())
    deliveries = bench.receive("q", 3)
    for index in (2, 0, 1):
        bench.settle("q", deliveries[index], DeadLetter("x"))
    assert bench.take("q/$DeadLetterQueue", 3) == [1, 2, 3]


# -- time to live -----------------------------------------------------------------------------------------


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


# -- schedules --------------------------------------------------------------------------------------------


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


# -- deferral ---------------------------------------------------------------------------------------------


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


# -- looking in, clearing out -----------------------------------------------------------------------------


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


# -- speed and memory -------------------------------------------------------------------------------------


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
