"""Dead letters and forwarding: where messages go, and what happens when the way is closed."""

from __future__ import annotations

import pytest

from sbrpc.emulator.broker import DeadLetter, Release
from sbrpc.topology import Queue, Subscription, Topic

from .bench import Bench, message, refused


def chain(length: int) -> Bench:
    """Queues q1 to q<length>, each forwarding to the next."""
    return Bench(
        *(Queue(f"q{n}", forward_to=f"q{n + 1}" if n < length else None) for n in range(1, length + 1))
    )


def test_a_message_is_forwarded_at_once() -> None:
    """It is found at the end of the chain only, with the number it had at its beginning."""
    bench = chain(3)
    bench.send("q3")
    bench.send("q1", message({"a": 1}, message_id="m", time_to_live=60.0))
    assert bench.peek("q1") == bench.peek("q2") == []
    forwarded = bench.peek("q3")[1]
    assert (forwarded.sequence_number, forwarded.enqueued_sequence_number) == (2, 1)
    assert (forwarded.message_id, forwarded.time_to_live) == ("m", 60.0)
    assert forwarded.content.user() == {"a": 1}


def test_a_scheduled_message_is_forwarded_when_it_appears() -> None:
    """It waits where it was sent."""
    bench = chain(2)
    bench.schedule("q1", 10.0)
    assert len(bench.peek("q1")) == 1
    bench.advance(10.0)
    assert bench.peek("q1") == []
    assert len(bench.peek("q2")) == 1


def test_four_hops_are_allowed() -> None:
    """The fifth queue is reached, the sixth is not."""
    bench = chain(5)
    bench.send("q1")
    assert len(bench.peek("q5")) == 1
    bench = chain(6)
    bench.send("q1")
    assert bench.peek("q6") == []
    assert bench.reasons("q5") == ["MaxTransferHopCountExceeded"]


def test_queues_that_forward_in_a_circle_end_in_the_dead_letters() -> None:
    """The hops are used up, and nothing else happens."""
    bench = Bench(Queue("a", forward_to="b"), Queue("b", forward_to="a"))
    bench.send("a")
    assert bench.reasons("a") == ["MaxTransferHopCountExceeded"]
    assert bench.peek("a") == bench.peek("b") == []


@pytest.mark.parametrize(
    ("target", "condition"),
    [
        (Queue("to", status="SendDisabled"), "com.microsoft:entity-disabled"),
        (Queue("to", requires_session=True), "amqp:not-allowed"),
        (Queue("to", max_message_size_in_kilobytes=0), "amqp:link:message-size-exceeded"),
    ],
    ids=["disabled", "sessions", "size"],
)
def test_what_cannot_be_forwarded_is_kept_with_the_reason(target: Queue, condition: str) -> None:
    """In the transfer dead-letter queue of the queue it was in; the sender has been told of success."""
    bench = Bench(target, Queue("from", forward_to="to"))
    bench.send("from")
    [kept] = bench.peek("from/$Transfer/$DeadLetterQueue")
    assert kept.content.user()["DeadLetterReason"] == condition
    assert bench.broker.runtime("from").transfer_dead_letter == 1
    assert bench.take("from/$Transfer/$DeadLetterQueue") == [1]


def test_what_was_to_go_to_a_deleted_queue_is_kept() -> None:
    """A destination that is no more is like one that refuses."""
    bench = chain(2)
    bench.broker.delete_queue("q2", bench.now)
    bench.send("q1")
    [kept] = bench.peek("q1/$transfer/$deadletterqueue")
    assert kept.content.user()["DeadLetterReason"] == "amqp:not-found"


def test_dead_letters_can_be_forwarded() -> None:
    """With their reason and the name of the queue they died in."""
    bench = Bench(Queue("graveyard"), Queue("q", forward_dead_lettered_messages_to="graveyard"))
    bench.send("q")
    bench.settle("q", bench.receive("q")[0], DeadLetter("broken", "badly"))
    assert bench.dead("q") == []
    [letter] = bench.peek("graveyard")
    assert letter.dead_letter_source == "q"
    assert letter.content.user()["DeadLetterReason"] == "broken"
    assert letter.enqueued_sequence_number == 1


def test_a_forwarded_dead_letter_keeps_its_source() -> None:
    """However far it goes."""
    bench = Bench(
        Queue("end"),
        Queue("graveyard", forward_to="end"),
        Queue("q", forward_dead_lettered_messages_to="graveyard", dead_lettering_on_message_expiration=True),
    )
    bench.send("q", time_to_live=5.0)
    bench.advance(5.0)
    assert [m.dead_letter_source for m in bench.peek("end")] == ["q"]


def test_a_forwarding_queue_has_no_receivers() -> None:
    """Its dead letters have."""
    bench = chain(2)
    with refused("amqp:not-allowed", "auto-forwarding"):
        bench.broker.check_receive("q1")
    with refused("amqp:not-allowed", "auto-forwarding"):
        bench.open("q1")
    bench.open("q1/$DeadLetterQueue")


def test_a_subscription_can_forward_to_a_queue() -> None:
    """The queue gets what the subscription would have kept, numbered by the topic."""
    bench = Bench(
        Queue("q"),
        Topic("t", subscriptions=(Subscription("s", forward_to="q"),)),
    )
    bench.send("t", message(), message())
    assert bench.peek("t/Subscriptions/s") == []
    assert [m.enqueued_sequence_number for m in bench.peek("q")] == [1, 2]


def test_a_queue_can_forward_to_a_topic() -> None:
    """And from there to all subscriptions."""
    bench = Bench(
        Topic("t", subscriptions=(Subscription("a"), Subscription("b"))), Queue("q", forward_to="t")
    )
    bench.send("q")
    assert len(bench.peek("t/Subscriptions/a")) == len(bench.peek("t/Subscriptions/b")) == 1


def test_switching_forwarding_on_sends_what_waits() -> None:
    """Receivers are closed, waiting messages leave, locked ones follow when they come back."""
    bench = Bench(Queue("q"), Queue("to"))
    bench.send("q", message(), message())
    [delivery] = bench.receive("q")
    consumer = bench.open("q")
    bench.broker.update_queue(Queue("q", forward_to="to"), bench.now)
    assert bench.told() == [(consumer, "amqp:not-allowed")]
    assert [m.enqueued_sequence_number for m in bench.peek("to")] == [2]
    bench.settle("q", delivery, Release())
    assert [m.enqueued_sequence_number for m in bench.peek("to")] == [2, 1]
    assert bench.peek("q") == []
