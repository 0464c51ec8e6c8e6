"""What is checked before a message is stored."""

from __future__ import annotations

import pytest

from sbrpc.emulator.broker import Limits
from sbrpc.topology import Queue, Subscription, Topic

from .bench import Bench, message, refused


@pytest.mark.parametrize("status", ["Disabled", "SendDisabled"])
def test_an_entity_that_is_disabled_for_sending_refuses(status: str) -> None:
    """Both at attach and at send, for queues and topics."""
    bench = Bench(Queue("q", status=status), Topic("t", status=status))
    for name in ("q", "t"):
        with refused("com.microsoft:entity-disabled", name):
            bench.broker.check_send(name)
        with refused("com.microsoft:entity-disabled"):
            bench.send(name)


def test_an_entity_that_is_disabled_for_receiving_still_takes_messages() -> None:
    """They wait until somebody may have them."""
    bench = Bench(Queue("q", status="ReceiveDisabled"))
    bench.send("q")
    assert bench.broker.runtime("q").active == 1


def test_a_message_that_is_too_large_is_refused() -> None:
    """The limit is the entity's, to the byte, and is told at attach."""
    bench = Bench(Queue("q", max_message_size_in_kilobytes=1))
    assert bench.broker.check_send("q") == 1024
    bench.send("q", size=1024)
    with refused("amqp:link:message-size-exceeded", "1025 bytes.*1024 bytes"):
        bench.send("q", size=1025)


def test_a_header_that_is_too_large_is_refused() -> None:
    """All properties together have 64 KB."""
    bench = Bench(Queue("q"))
    bench.send("q", header_size=65536)
    with refused("amqp:link:message-size-exceeded", "header"):
        bench.send("q", header_size=65537)


def test_an_id_that_is_too_long_is_refused() -> None:
    """Message id, session id and partition key have 128 characters at most."""
    bench = Bench(Queue("q"))
    for name in ("message_id", "session_id", "partition_key"):
        bench.send("q", **{name: "x" * 128})
        with refused("com.microsoft:argument-out-of-range", "128"):
            bench.send("q", **{name: "x" * 129})


def test_a_full_entity_refuses() -> None:
    """The quota counts what is stored, dead letters included, and a message more than fits is refused."""
    bench = Bench(Queue("q", max_size_in_megabytes=1))
    for _ in range(10):
        bench.send("q", size=100_000)
    with refused("amqp:resource-limit-exceeded", "Queue: 'q'"):
        bench.send("q", size=100_000)
    bench.take("q")
    bench.send("q", size=100_000)


def test_a_batch_is_taken_whole_or_not_at_all() -> None:
    """One bad message keeps all others out."""
    bench = Bench(Queue("q", max_message_size_in_kilobytes=1), Queue("s", requires_session=True))
    with refused("amqp:link:message-size-exceeded"):
        bench.send("q", message(), message(size=2000))
    with refused("amqp:not-allowed", "SessionId was not set"):
        bench.send("s", message(session_id="a"), message())
    assert bench.peek("q") == bench.peek("s") == []


def test_an_empty_batch_is_legal() -> None:
    """It stores nothing and costs nothing."""
    bench = Bench(Queue("q"))
    bench.broker.send("q", [], 0.0)
    assert bench.broker.books()["q"].credits == 0


def test_a_duplicate_within_the_window_is_taken_and_dropped() -> None:
    """The sender sees success, the queue one message; after the window the id is new again."""
    bench = Bench(Queue("q", duplicate_detection_window=30.0))
    bench.send("q", message_id="a")
    bench.advance(29.0)
    bench.send("q", message(message_id="a"), message(message_id="b"), message(message_id="b"), message())
    assert [m.message_id for m in bench.peek("q")] == ["a", "b", None]
    bench.advance(1.0)
    bench.send("q", message_id="a")
    assert len(bench.peek("q")) == 4
    assert bench.broker.books()["q"].sends == 6


def test_a_duplicate_is_one_even_if_the_first_is_gone() -> None:
    """What counts is that the id was seen."""
    bench = Bench(Queue("q", duplicate_detection_window=30.0))
    bench.send("q", message_id="a")
    bench.take("q")
    bench.send("q", message_id="a")
    assert bench.peek("q") == []


def test_a_scheduled_duplicate_has_the_number_of_the_first() -> None:
    """Scheduling twice with one id schedules once."""
    bench = Bench(Queue("q", duplicate_detection_window=30.0))
    first = bench.schedule("q", 10.0, message_id="a")
    assert bench.schedule("q", 20.0, message_id="a") == first
    bench.advance(25.0)
    assert len(bench.peek("q")) == 1


def test_a_topic_detects_duplicates_before_the_fan_out() -> None:
    """No subscription gets a second copy."""
    bench = Bench(Topic("t", duplicate_detection_window=30.0, subscriptions=(Subscription("s"),)))
    bench.send("t", message(message_id="a"), message(message_id="a"))
    assert len(bench.peek("t/Subscriptions/s")) == 1


def test_without_duplicate_detection_ids_may_repeat() -> None:
    """Both messages are stored."""
    bench = Bench(Queue("q"))
    bench.send("q", message(message_id="a"), message(message_id="a"))
    assert len(bench.peek("q")) == 2


def test_limits_can_be_set() -> None:
    """The broker's limits are an argument."""
    bench = Bench(Queue("q"), limits=Limits(id_length=4))
    with refused("com.microsoft:argument-out-of-range"):
        bench.send("q", message_id="12345")
