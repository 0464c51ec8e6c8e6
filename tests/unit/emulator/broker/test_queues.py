"""A queue and its sub-queues as a whole."""

from __future__ import annotations

import pytest

from sbrpc.emulator.broker import NEXT_AVAILABLE, DeadLetter, Mode
from sbrpc.topology import Queue

from .bench import Bench, message, refused


def test_dead_letters_of_a_queue_with_sessions_need_none() -> None:
    """The sub-queue is a plain one, and the messages keep their session ids."""
    bench = Bench(Queue("q", requires_session=True))
    bench.send("q", session_id="a")
    bench.settle("q", bench.receive("q", 1, "a")[0], DeadLetter("x"))
    with refused("amqp:not-allowed"):
        bench.open("q/$DeadLetterQueue", NEXT_AVAILABLE)
    [delivery] = bench.receive("q/$DeadLetterQueue")
    assert delivery.message.session_id == "a"


@pytest.mark.parametrize("status", ["Disabled", "ReceiveDisabled"])
def test_disabling_a_queue_closes_its_receivers(status: str) -> None:
    """Those that hold a session and those that wait for one alike; enabling lets them in again."""
    bench = Bench(Queue("q", requires_session=True))
    holder, waiting = bench.open("q", "a"), bench.open("q", NEXT_AVAILABLE)
    reader = bench.open("q/$DeadLetterQueue")
    bench.send("q", session_id="a")
    assert bench.told() == []
    bench.broker.update_queue(Queue("q", requires_session=True, status=status), bench.now)
    disabled = "com.microsoft:entity-disabled"
    # Who waits is told first, so that nobody is given the session that the holder leaves.
    assert bench.told() == [(waiting, disabled), (holder, disabled), (reader, disabled)]
    for address in ("q", "q/$DeadLetterQueue"):
        with refused(disabled, status):
            bench.broker.check_receive(address)
    bench.broker.update_queue(Queue("q", requires_session=True), bench.now)
    assert bench.open("q", NEXT_AVAILABLE).session_id == "a"


def test_settings_hold_from_now_on() -> None:
    """Locks that run and messages that are there are not touched."""
    bench = Bench(Queue("q"))
    bench.send("q", message(), message())
    [first] = bench.receive("q")
    bench.broker.update_queue(
        Queue("q", lock_duration=10.0, default_message_time_to_live=50.0, max_delivery_count=1), bench.now
    )
    [second] = bench.receive("q")
    bench.send("q")
    assert (first.locked_until, second.locked_until) == (60.0, 10.0)
    assert bench.peek("q")[2].expires_at == 50.0
    bench.advance(10.0)
    assert bench.reasons("q") == ["MaxDeliveryCountExceeded"]


def test_what_is_fixed_at_creation_cannot_be_changed() -> None:
    """Sessions and duplicate detection; the window's length can."""
    bench = Bench(Queue("q", duplicate_detection_window=30.0))
    with refused("com.microsoft:argument-error", "requires sessions"):
        bench.broker.update_queue(
            Queue("q", requires_session=True, duplicate_detection_window=30.0), bench.now
        )
    with refused("com.microsoft:argument-error", "detects duplicates"):
        bench.broker.update_queue(Queue("q"), bench.now)
    bench.send("q", message_id="a")
    bench.broker.update_queue(Queue("q", duplicate_detection_window=5.0), bench.now)
    bench.advance(6.0)
    bench.send("q", message_id="a")
    assert len(bench.peek("q")) == 2


def test_deleting_a_queue_closes_its_receivers_and_forgets_everything() -> None:
    """They are told that it is not there; its name is free again, and no timer is left."""
    bench = Bench(Queue("q"))
    bench.send("q", message(time_to_live=100.0), message())
    bench.schedule("q", 50.0)
    consumer = bench.open("q", credit=1)
    [delivery] = bench.delivered()
    bench.broker.delete_queue("Q", bench.now)
    assert bench.told() == [(consumer, "amqp:not-found")]
    for operation in (
        lambda: bench.settle("q", delivery),
        lambda: bench.send("q"),
        lambda: bench.peek("q/$DeadLetterQueue"),
        lambda: bench.broker.delete_queue("q", bench.now),
    ):
        with refused("amqp:not-found", "The messaging entity 'q.*' could not be found."):
            operation()
    assert bench.broker.next_timer() is None
    bench.close(consumer)
    bench.broker.create_queue(Queue("q"), bench.now)
    assert bench.peek("q") == []


def test_a_new_queue_counts_from_one() -> None:
    """Sequence numbers are the queue's own and have no gaps."""
    bench = Bench(Queue("a"), Queue("b"))
    for _ in range(3):
        bench.send("a")
    bench.send("b")
    assert bench.take("a", 3) == [1, 2, 3]
    assert bench.take("b", 3) == [1]


def test_one_account_holds_both_ends_of_a_queue() -> None:
    """Sends and receives are on it; what happens to dead letters has an account of its own."""
    bench = Bench(Queue("q"))
    bench.send("q", message(), message())
    bench.take("q")
    bench.settle("q", bench.receive("q")[0], DeadLetter("x"))
    bench.dead("q")
    books = bench.broker.books()
    assert (books["q"].sends, books["q"].receives, books["q"].credits) == (2, 2, 4)
    assert books["q/$DeadLetterQueue"].peeks == 1
    assert "q/$Transfer/$DeadLetterQueue" not in books


def test_receiving_from_a_sub_queue_may_delete() -> None:
    """Emptying the dead letters needs no settlement."""
    bench = Bench(Queue("q"))
    bench.send("q")
    bench.settle("q", bench.receive("q")[0], DeadLetter("x"))
    bench.open("q/$deadletterqueue", mode=Mode.RECEIVE_AND_DELETE, credit=1)
    assert bench.dead("q") == []
