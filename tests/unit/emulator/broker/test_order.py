"""The view for peeking: by sequence number, from anywhere, and up to date."""

from __future__ import annotations

from sbrpc.emulator.broker.messages import NEVER, Message
from sbrpc.emulator.broker.order import SequenceOrder

from .content import Text


def some(number: int) -> Message:
    return Message(number, 0, 0.0, Text(), None, None, None, NEVER, None, None)


def numbers(order: SequenceOrder, first: int = 0, count: int = 100) -> list[int]:
    return [message.sequence_number for message in order.following(first, count)]


def test_messages_follow_from_a_number_on() -> None:
    """The number itself is included, and the count is a limit."""
    order = SequenceOrder({number: some(number) for number in (1, 3, 5, 7)})
    assert numbers(order, 3) == [3, 5, 7]
    assert numbers(order, 4, 1) == [5]
    assert numbers(order, 8) == []
    assert numbers(order, 0, 0) == []


def test_the_view_is_sorted_even_if_arrival_was_not() -> None:
    """Dead letters arrive in the order of their deaths and are shown in the order of their numbers."""
    order = SequenceOrder({number: some(number) for number in (9, 2, 5)})
    assert numbers(order) == [2, 5, 9]


def test_the_view_follows_what_comes_and_goes() -> None:
    """Every look shows what is there at that moment."""
    messages = {1: some(1), 2: some(2)}
    order = SequenceOrder(messages)
    assert numbers(order) == [1, 2]
    del messages[1]
    messages[4] = some(4)
    assert numbers(order) == [2, 4]
    messages[3] = some(3)
    del messages[4]
    assert numbers(order) == [2, 3]
    messages.clear()
    assert numbers(order) == []
