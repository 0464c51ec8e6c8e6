"""The broker's front: the order of time, and effects."""

from __future__ import annotations

from sbrpc.emulator.broker import Broker, DeadLetter, Deliver
from sbrpc.topology import Queue, Subscription, Topic

from .bench import Bench, message


def test_effects_are_handed_over_once() -> None:
    """And what comes later does not appear in what was handed over."""
    bench = Bench(Queue("q"))
    bench.open("q", credit=5)
    nothing = bench.broker.take_effects()
    bench.send("q")
    assert nothing == []
    assert len(bench.broker.take_effects()) == 1
    assert bench.broker.take_effects() == []


def test_what_is_due_happens_before_an_operation() -> None:
    """A message that has expired is not delivered to a consumer that comes later, timer or not."""
    bench = Bench(Queue("q"))
    bench.send("q", time_to_live=10.0)
    bench.now = 10.0
    bench.open("q", credit=1)
    assert bench.delivered() == []


def test_a_leap_in_time_is_taken_event_by_event() -> None:
    """Locks that expire on the way lead to new locks at the time of their end, told in order."""
    bench = Bench(Queue("q", lock_duration=60.0))
    bench.open("q", credit=10)
    bench.send("q")
    bench.broker.handle_timer(300.0)
    effects = bench.broker.take_effects()
    assert [(e.locked_until, e.delivery_count) for e in effects if isinstance(e, Deliver)] == [
        (60.0, 0),
        (120.0, 1),
        (180.0, 2),
        (240.0, 3),
        (300.0, 4),
        (360.0, 5),
    ]
    assert len({e.lock_token for e in effects if isinstance(e, Deliver)}) == 6


def test_events_of_different_entities_happen_in_the_order_of_time() -> None:
    """One broker has one order."""
    bench = Bench(Queue("a", lock_duration=10.0), Queue("b", lock_duration=5.0))
    for name in ("a", "b"):
        bench.open(name, credit=2)
        bench.send(name)
    bench.broker.take_effects()
    bench.broker.handle_timer(10.0)
    assert [e.consumer.address for e in bench.delivered()] == ["b", "a"]


def test_the_broker_says_when_it_wants_to_be_woken() -> None:
    """At the first event, and not at all when there is none."""
    bench = Bench(Queue("q", lock_duration=60.0))
    assert bench.broker.next_timer() is None
    bench.send("q", message(time_to_live=100.0))
    assert bench.broker.next_timer() == 100.0
    [delivery] = bench.receive("q")
    assert bench.broker.next_timer() == 60.0
    bench.settle("q", delivery)
    assert bench.broker.next_timer() is None


def test_tokens_are_unique_by_default() -> None:
    """Nobody has to bring a factory."""
    broker = Broker()
    broker.create_queue(Queue("q"), 0.0)
    broker.send("q", [message() for _ in range(100)], 0.0)
    consumer = broker.open_consumer("q", now=0.0)
    broker.set_credit(consumer, 100, 0.0)
    tokens = {effect.lock_token for effect in broker.take_effects() if isinstance(effect, Deliver)}
    assert len(tokens) == 100


def test_everything_can_be_thrown_away() -> None:
    """Messages in any state, session states and known ids; consumers stay and get what is new."""
    bench = Bench(
        Queue("q", duplicate_detection_window=60.0),
        Queue("s", requires_session=True),
        Topic("t", (Subscription("a"),)),
    )
    consumer = bench.open("q", credit=2)
    bench.send("q", message_id="1")
    [delivery] = bench.delivered()
    bench.settle("q", delivery, DeadLetter("bad"))
    for number in range(2, 5):
        bench.send("q", message_id=str(number))
    bench.schedule("q", 10.0)
    bench.schedule("t", 10.0)
    bench.send("t")
    holder = bench.open("s", "one", credit=1)
    bench.send("s", session_id="one")
    bench.send("s", session_id="two")
    bench.broker.set_state("s", "one", b"state", bench.now)
    bench.broker.take_effects()

    bench.broker.wipe(bench.now)

    for address in ("q", "s", "t/Subscriptions/a"):
        assert bench.peek(address) == bench.dead(address) == []
    assert bench.broker.get_state("s", "one", bench.now) is None
    assert bench.broker.runtime("t").scheduled == 0
    bench.advance(20.0)
    assert bench.delivered() == []
    bench.credit(consumer, 1)
    bench.credit(holder, 1)
    bench.send("q", message_id="1")
    bench.send("s", session_id="one")
    assert [delivery.consumer for delivery in bench.delivered()] == [consumer, holder]
