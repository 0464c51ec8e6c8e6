"""What people do who look in: dead letters back to their entity, and looking without a trace."""

from __future__ import annotations

import pytest

from sbrpc.emulator.broker import DeadLetter
from sbrpc.topology import Queue, Subscription, Topic

from .bench import Bench, message

SUBSCRIPTION = "t/Subscriptions/s"


def bury(bench: Bench, address: str, count: int, session: str | None = None) -> None:
    """Receive so many messages and dead-letter them."""
    for delivery in bench.receive(address, count, session):
        bench.settle(address, delivery, DeadLetter("Poison", "it kills"))


@pytest.mark.parametrize("address", ["q", SUBSCRIPTION])
def test_dead_letters_go_back_where_they_came_from(address: str) -> None:
    """They come back as new messages without a reason, in their order; other entities notice nothing."""
    bench = Bench(Queue("q"), Topic("t", (Subscription("s"), Subscription("other"))))
    bench.send(address.partition("/")[0], *(message({"n": n}, message_id=f"m{n}") for n in range(3)))
    bury(bench, address, 3)
    assert bench.reasons(address) == ["Poison"] * 3
    assert bench.broker.replay(address, None, bench.now) == 3
    assert bench.dead(address) == []
    back = bench.peek(address)
    assert [each.message_id for each in back] == ["m0", "m1", "m2"]
    assert [dict(each.content.user()) for each in back] == [{"n": 0}, {"n": 1}, {"n": 2}]
    assert [(each.delivery_count, each.sequence_number) for each in back] == [(0, 4), (0, 5), (0, 6)]
    assert len(bench.peek("t/Subscriptions/other")) == (3 if address == SUBSCRIPTION else 0)


def test_some_dead_letters_can_be_chosen() -> None:
    """Only the numbers that are asked for, and that are there, go back; one that is locked stays."""
    bench = Bench(Queue("q"))
    bench.send("q", *(message() for _ in range(3)))
    bury(bench, "q", 3)
    bench.receive("q/$DeadLetterQueue", 1)
    assert bench.broker.replay("q", [1, 3, 99], bench.now) == 1
    assert [each.sequence_number for each in bench.dead("q")] == [1, 2]


def test_replayed_messages_are_delivered_at_once() -> None:
    """A receiver that waits gets them; in a session they come to its holder."""
    bench = Bench(Queue("q", requires_session=True))
    bench.send("q", session_id="s1")
    consumer = bench.open("q", "s1", credit=2)
    [delivery] = bench.delivered()
    bench.settle("q", delivery, DeadLetter("Poison"))
    assert bench.broker.replay("q", None, bench.now) == 1
    assert [each.consumer for each in bench.delivered()] == [consumer]


def test_a_dead_letter_without_its_session_stays() -> None:
    """What died for want of a session cannot go where one is needed."""
    bench = Bench(Topic("t", (Subscription("s", requires_session=True),)))
    bench.send("t")
    assert bench.reasons(SUBSCRIPTION) == ["Session id is null."]
    assert bench.broker.replay(SUBSCRIPTION, None, bench.now) == 0
    assert len(bench.dead(SUBSCRIPTION)) == 1


def test_looking_leaves_no_trace() -> None:
    """It shows what a peek shows, costs nothing and keeps no idle entity alive."""
    bench = Bench(Queue("q", auto_delete_on_idle=300))
    bench.send("q", *(message(session_id=f"s{n % 2}") for n in range(4)))
    before = bench.broker.runtime("q")
    bench.now += 10
    look = bench.broker.look
    assert [each.sequence_number for each in look("q", 2, 2, None, bench.now)] == [2, 3]
    assert len(look("q", 0, 250, None, bench.now)) == 4
    assert bench.broker.runtime("q") == before
    assert bench.broker.books()["q"].peeks == 0
