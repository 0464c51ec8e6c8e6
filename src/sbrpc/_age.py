"""How long a message has been with Service Bus, told without trusting any two clocks to agree.

A deadline travels as what was left when the request was sent. The server must subtract the time the message
spent in the broker, and knows when it was enqueued only by the broker's clock. Two lower bounds are kept, and
the greater one counts:

* By the broker's clock alone: a message is locked for the queue's lock duration from the moment it is handed
  out, so `locked_until - enqueued_at - lock duration` is its age at that moment. The lock duration is not
  told; the smallest `locked_until - enqueued_at` ever seen is it, as soon as one message was fresh.
* By the monotonic clock here: `now - enqueued_at` is the age plus a constant nobody knows; the smallest one
  seen is that constant, again as soon as one message was fresh.

Both can only be too small: an error here lets work start that will be too late, and never kills work that
is in time. What is too late for certain is also dropped by the message's time to live.
"""

from __future__ import annotations

from datetime import datetime

__all__ = ["BrokerAge"]

# Clocks drift apart, by seconds in a day at worst; a bound that is older than this is not used any more.
_MEMORY = 600.0


class BrokerAge:
    """Estimates ages from below, from what one receiver sees. `now` is monotonic time in seconds."""

    __slots__ = ("_lock", "_offset")

    def __init__(self) -> None:
        self._lock = _Least()
        self._offset = _Least()

    def of(
        self, enqueued_at: datetime | None, locked_until: datetime | None, now: float
    ) -> tuple[float, bool]:
        """The age of a message, and whether its lock ran out while it waited where nobody renews it.

        If it did, the message is delivered again, here or elsewhere.
        """
        if enqueued_at is None:
            return 0.0, False
        age = self.age(enqueued_at, locked_until, now)
        return age, locked_until is not None and age >= (locked_until - enqueued_at).total_seconds() > 0

    def age(self, enqueued_at: datetime, locked_until: datetime | None, now: float) -> float:
        """Seconds the message spent in the broker, at least; what it shows is learned from first."""
        enqueued = enqueued_at.timestamp()
        ages = [self._offset.above(now - enqueued, now)]
        if locked_until is not None and locked_until > enqueued_at:
            ages.append(self._lock.above(locked_until.timestamp() - enqueued, now))
        return max(ages)


class _Least:
    """The least value of the last ten to twenty minutes."""

    __slots__ = ("_current", "_previous", "_since")

    def __init__(self) -> None:
        self._current: float | None = None
        self._previous: float | None = None
        self._since = 0.0

    def above(self, value: float, now: float) -> float:
        """How far a value lies above the least one, itself included."""
        if self._current is None or now - self._since > _MEMORY:
            stale = self._current is None or now - self._since > 2 * _MEMORY
            self._previous = None if stale else self._current
            self._current = value
            self._since = now
        self._current = min(self._current, value)
        return value - (self._current if self._previous is None else min(self._current, self._previous))
