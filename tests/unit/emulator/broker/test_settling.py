"""Who has a message, and what becomes of it: locks, settlement, delivery counts."""

from __future__ import annotations

import pytest

from sbrpc.emulator.broker import Abandon, DeadLetter, Defer, MessageState, Mode, Release
from sbrpc.topology import Queue

from .bench import Bench, message, refused

LOCK_LOST = "com.microsoft:message-lock-lost"


def queue(**settings: object) -> Bench:
    return Bench(Queue("q", **settings))  # type: ignore[arg-type]


# -- locks ---------------------------------------------------------------------------------------------


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


# -- settlement ----------------------------------------------------------------------------------------


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


# -- delivery counts -----------------------------------------------------------------------------------


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
