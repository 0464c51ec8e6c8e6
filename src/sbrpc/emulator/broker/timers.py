"""All future events of the broker in one heap.

Owns the order of time. Every item (message, session, consumer, entity) has at most one live entry, marked
by its `timer` attribute; an entry whose time differs from the mark is stale and skipped. So that stale
entries do not pile up, the heap is rebuilt once they are the majority. What happens at a time is the
handler's business, and a handler that finds itself called too early arms the item again.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from sbrpc.emulator.broker.messages import NEVER

__all__ = ["Due", "Timed", "Timers"]

# Below this many stale entries, rebuilding the heap costs more than it frees.
_WORTH_IT = 512


class Timed(Protocol):
    """Something that can be woken."""

    timer: float


class Due(NamedTuple):
    """An entry whose time has come."""

    when: float
    order: int
    handler: Callable[[Any, float], None]
    item: Any


class Timers:
    """A heap of wake-up times with lazy deletion."""

    __slots__ = ("_order", "_stale", "heap")

    def __init__(self) -> None:
        # Entries are (time, order of arming, handler, item); public because the broker looks at the first
        # entry before each operation, and that has to cost nothing.
        self.heap: list[tuple[float, int, Callable[[Any, float], None], Timed]] = []
        self._order = 0
        self._stale = 0

    def __len__(self) -> int:
        return len(self.heap)

    def arm(self, item: Timed, when: float, handler: Callable[[Any, float], None]) -> None:
        """Wake the item at `when` at the latest; an earlier wake-up that is set already stays."""
        marked = item.timer
        if when >= marked:
            return
        if marked != NEVER:
            self._discard()
        item.timer = when
        self._order = order = self._order + 1
        heapq.heappush(self.heap, (when, order, handler, item))

    def disarm(self, item: Timed) -> None:
        """Do not wake the item any more."""
        if item.timer != NEVER:
            item.timer = NEVER
            self._discard()

    def next(self) -> float | None:
        """When the next live entry is due."""
        heap = self.heap
        while heap:
            when, _, _, item = heap[0]
            if item.timer == when:
                return when
            heapq.heappop(heap)
            self._stale -= 1
        return None

    def pop_due(self, now: float) -> Due | None:
        """Take the first live entry out if it is due at `now`."""
        when = self.next()
        if when is None or when > now:
            return None
        entry = heapq.heappop(self.heap)
        entry[3].timer = NEVER
        return Due(*entry)

    def _discard(self) -> None:
        self._stale = stale = self._stale + 1
        if stale > _WORTH_IT and stale * 2 > len(self.heap):
            # In place: others hold on to the list.
            self.heap[:] = [entry for entry in self.heap if entry[3].timer == entry[0]]
            heapq.heapify(self.heap)
            self._stale = 0
