"""Messages in the order of their sequence numbers, for peeking.

Owns a sorted list of numbers that is made when somebody peeks, not when messages pass: peeking is rare, and a
queue that nobody looks into pays nothing. Numbers that have gone since are skipped.
"""

from __future__ import annotations

from bisect import bisect_left

from sbrpc.emulator.broker.messages import Message

__all__ = ["SequenceOrder"]


class SequenceOrder:
    """A view on a store's messages by sequence number."""

    __slots__ = ("_messages", "_newest", "_numbers")

    def __init__(self, messages: dict[int, Message]) -> None:
        self._messages = messages
        self._numbers: list[int] = []
        self._newest: int | None = None

    def following(self, first: int, count: int) -> list[Message]:
        """Up to `count` messages whose number is `first` or more."""
        messages = self._messages
        # The mapping keeps the order of arrival: as long as its last key is the same, nothing has come.
        newest = next(reversed(messages), None)
        if newest != self._newest or len(self._numbers) > 2 * len(messages):
            self._numbers = sorted(messages)
            self._newest = newest
        found: list[Message] = []
        for index in range(bisect_left(self._numbers, first), len(self._numbers)):
            if len(found) >= count:
                break
            message = messages.get(self._numbers[index])
            if message is not None:
                found.append(message)
        return found
