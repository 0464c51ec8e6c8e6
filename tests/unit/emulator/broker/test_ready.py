"""The row of active messages: order by sequence number, returning to an old place, and holes."""

from __future__ import annotations

import random

from sbrpc.emulator.broker.messages import NEVER, Message, MessageState
from sbrpc.emulator.broker.ready import Ready

from .content import Text


def active(number: int) -> Message:
    message = Message(number, 0, 0.0, Text(), None, None, None, NEVER, None, None)
    message.become(MessageState.ACTIVE)
    return message


def drained(ready: Ready) -> list[int]:
    return [message.sequence_number for message in iter(ready.pop, None)]


def test_messages_come_out_in_the_order_of_their_numbers() -> None:
    """The row is first in, first out for messages that arrive in order."""
    ready = Ready()
    for number in range(1, 6):
        ready.push(active(number))
    assert drained(ready) == [1, 2, 3, 4, 5]


def test_a_message_that_returns_takes_its_old_place() -> None:
    """What was taken and comes back is ahead of everything younger, in whatever order it comes back."""
    ready, messages = Ready(), [active(number) for number in range(1, 7)]
    for message in messages:
        ready.push(message)
    taken = [ready.pop() for _ in range(4)]
    for message in (taken[2], taken[0], taken[3]):
        assert message is not None
        ready.push(message)
    assert drained(ready) == [1, 3, 4, 5, 6]


def test_a_message_that_has_gone_is_skipped_and_not_counted() -> None:
    """Holes show neither in the length nor in what comes out."""
    ready, messages = Ready(), [active(number) for number in range(1, 6)]
    for message in messages:
        ready.push(message)
    for index in (0, 2, 4):
        messages[index].become(MessageState.GONE)
        ready.left()
    assert len(ready) == 2
    assert drained(ready) == [2, 4]
    assert len(ready) == 0


def test_looking_at_the_head_takes_nothing() -> None:
    """`head` shows what `pop` would take."""
    ready = Ready()
    assert ready.head() is None
    ready.push(active(1))
    assert ready.head() is ready.head()
    assert drained(ready) == [1]


def test_a_row_through_which_much_passes_without_being_taken_stays_small() -> None:
    """Messages that expire behind one that stays do not pile up."""
    ready = Ready()
    ready.push(active(0))
    for number in range(1, 50_000):
        message = active(number)
        ready.push(message)
        message.become(MessageState.GONE)
        ready.left()
    assert len(ready) == 1
    assert len(ready._fresh) + len(ready._returned) < 200


def test_any_mixture_of_pushes_and_pops_keeps_the_order() -> None:
    """Whatever is taken, returned or lost, the head is the smallest number that is there."""
    chance, ready, there = random.Random(4), Ready(), {}
    for number in range(2000):
        there[number] = active(number)
        ready.push(there[number])
        if chance.random() < 0.5:
            taken = ready.pop()
            assert taken is not None
            assert taken.sequence_number == min(there)
            del there[taken.sequence_number]
            if chance.random() < 0.6:
                ready.push(taken)
                there[taken.sequence_number] = taken
        if there and chance.random() < 0.2:
            lost = there.pop(chance.choice(list(there)))
            lost.become(MessageState.GONE)
            ready.left()
        assert len(ready) == len(there)
