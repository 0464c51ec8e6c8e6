"""A store without sessions: who gets what, in which order."""

from __future__ import annotations

import pytest

from sbrpc.emulator.broker import NEXT_AVAILABLE, Abandon, Limits, Mode
from sbrpc.topology import Queue

from .bench import Bench, message, refused


@pytest.fixture
def bench() -> Bench:
    return Bench(Queue("q"))


def test_messages_are_delivered_first_in_first_out(bench: Bench) -> None:
    """Those that wait as well as those that come later."""
    bench.send("q", message(), message())
    bench.open("q", credit=10)
    bench.send("q", message())
    assert bench.numbers() == [1, 2, 3]


def test_nothing_is_delivered_beyond_the_credit(bench: Bench) -> None:
    """Credit is an absolute number: setting it again does not add."""
    bench.send("q", *(message() for _ in range(5)))
    consumer = bench.open("q")
    assert bench.numbers() == []
    bench.credit(consumer, 2)
    assert bench.numbers() == [1, 2]
    assert consumer.credit == 0
    bench.credit(consumer, 1)
    bench.credit(consumer, 1)
    assert bench.numbers() == [3, 4]


def test_credit_can_be_withdrawn(bench: Bench) -> None:
    """A consumer with credit zero gets nothing, even if it had some a moment ago."""
    consumer = bench.open("q", credit=5)
    bench.credit(consumer, 0)
    bench.send("q")
    assert bench.numbers() == []
    bench.credit(consumer, -3)
    assert consumer.credit == 0


def test_consumers_take_turns(bench: Bench) -> None:
    """Whoever was served goes to the back of the row."""
    consumers = [bench.open("q", credit=credit) for credit in (3, 1, 2)]
    bench.send("q", *(message() for _ in range(6)))
    assert [consumers.index(d.consumer) for d in bench.delivered()] == [0, 1, 2, 0, 2, 0]


def test_receive_and_delete_leaves_nothing_behind(bench: Bench) -> None:
    """The message is gone once it is handed out, without a lock."""
    bench.send("q")
    bench.open("q", mode=Mode.RECEIVE_AND_DELETE, credit=1)
    [delivery] = bench.delivered()
    assert delivery.lock_token is None
    assert bench.peek("q") == []
    assert bench.broker.next_timer() is None


def test_a_closed_consumer_gets_nothing(bench: Bench) -> None:
    """Closing twice is the same as once, and credit for it is forgotten."""
    consumer = bench.open("q", credit=5)
    bench.close(consumer)
    bench.close(consumer)
    bench.credit(consumer, 5)
    bench.send("q")
    assert bench.broker.take_effects() == []
    assert bench.broker.runtime("q").consumers == 0


def test_an_abandoned_message_goes_to_the_next_in_the_row(bench: Bench) -> None:
    """Not necessarily to the one that abandoned it."""
    first, second = bench.open("q", credit=2), bench.open("q", credit=2)
    bench.send("q")
    [delivery] = bench.delivered()
    assert delivery.consumer is first
    bench.settle("q", delivery, Abandon())
    assert [d.consumer for d in bench.delivered()] == [second]


@pytest.mark.parametrize("session", ["a", NEXT_AVAILABLE])
def test_a_queue_without_sessions_has_no_session_receivers(bench: Bench, session: str) -> None:
    """Asking for one is refused."""
    with refused("amqp:not-allowed", "A sessionful message receiver cannot be created"):
        bench.open("q", session)


def test_messages_may_have_a_session_id_where_it_means_nothing(bench: Bench) -> None:
    """A peek can still select by it."""
    bench.send("q", message(session_id="a"), message(session_id="b"), message(session_id="a"))
    assert [m.sequence_number for m in bench.peek("q", "a")] == [1, 3]
    assert bench.take("q", 3) == [1, 2, 3]


def test_opening_and_closing_leaves_nothing_behind(bench: Bench) -> None:
    """A receiver that polls an empty queue for days does not fill the memory."""
    for _ in range(1000):
        bench.close(bench.open("q", credit=1))
    place = bench.broker._namespace.place("q")
    assert not place.store.consumers
    assert not place.store._row  # type: ignore[attr-defined]


def test_a_consumer_on_which_nothing_moves_is_closed_if_there_is_such_a_limit() -> None:
    """Deliveries and credit are movement."""
    bench = Bench(Queue("q"), limits=Limits(idle_timeout=600.0))
    consumer = bench.open("q", credit=5, mode=Mode.RECEIVE_AND_DELETE)
    bench.advance(500.0)
    bench.send("q")
    bench.advance(599.0)
    assert [effect.consumer for effect in bench.delivered()] == [consumer]
    bench.advance(1.0)
    assert bench.told() == [(consumer, "amqp:link:detach-forced")]
    assert consumer.closed


def test_consumers_may_be_idle_for_ever_by_default(bench: Bench) -> None:
    """Nobody is closed for being idle."""
    bench.open("q", credit=1)
    bench.advance(1e6)
    assert bench.told() == []
