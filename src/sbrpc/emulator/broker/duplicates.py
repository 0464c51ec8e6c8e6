"""Duplicate detection: the message ids an entity has seen within its window.

Owns the history and its forgetting. An id counts from its first sight; a duplicate does not prolong it.
"""

from __future__ import annotations

from collections import deque

__all__ = ["DuplicateHistory"]


class DuplicateHistory:
    """Message ids with the sequence numbers they got, for `window` seconds."""

    __slots__ = ("_numbers", "_order", "window")

    def __init__(self, window: float) -> None:
        self.window = window
        self._numbers: dict[object, int] = {}
        self._order: deque[tuple[float, object]] = deque()

    def __len__(self) -> int:
        return len(self._numbers)

    def known(self, message_id: object, now: float) -> int | None:
        """The sequence number a message with this id got within the window, if there was one."""
        self._forget(now)
        return self._numbers.get(message_id)

    def remember(self, message_id: object, sequence_number: int, now: float) -> None:
        """Note an id that is not known."""
        self._numbers[message_id] = sequence_number
        self._order.append((now, message_id))

    def _forget(self, now: float) -> None:
        order = self._order
        oldest = now - self.window
        while order and order[0][0] <= oldest:
            del self._numbers[order.popleft()[1]]
