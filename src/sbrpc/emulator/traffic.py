"""What happened last, for people who look in: sends, deliveries, decisions, connections coming and going.

Owns a short memory of facts, each a handful of small values: it keeps no message alive and asks none what it
says, because every message passes here. Knows no wire and no clock.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from itertools import count

__all__ = ["Traffic", "TrafficEntry"]


@dataclass(frozen=True, slots=True)
class TrafficEntry:
    """One thing that happened. Sizes are bytes, times seconds since 1970."""

    number: int
    at: float
    what: str
    """`sent`, `delivered`, `completed`, `refused`, `connected`, ..."""
    address: str
    container_id: str
    message_id: str | None = None
    session_id: str | None = None
    size: int | None = None
    detail: str = ""


class Traffic:
    """The last `limit` things that happened, each with a number of its own."""

    def __init__(self, limit: int = 500) -> None:
        self._numbers = count(1)
        # Plain tuples until somebody looks: making one is all that a message may cost.
        self._entries: deque[tuple[int, float, str, str, str, object, str | None, int | None, str]] = deque(
            maxlen=limit
        )

    def note(
        self,
        at: float,
        what: str,
        address: str,
        container_id: str,
        message_id: object = None,
        session_id: str | None = None,
        size: int | None = None,
        detail: str = "",
    ) -> None:
        """Remember that something happened."""
        self._entries.append(
            (next(self._numbers), at, what, address, container_id, message_id, session_id, size, detail)
        )

    def after(self, number: int, most: int = 200) -> list[TrafficEntry]:
        """The latest entries with a higher number, at most so many, the oldest first."""
        found = [entry for entry in self._entries if entry[0] > number][-most:]
        return [
            TrafficEntry(*entry[:5], None if entry[5] is None else str(entry[5]), *entry[6:])
            for entry in found
        ]
