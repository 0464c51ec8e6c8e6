"""The emulator's clock: real time that can also be pushed ahead.

Owns the one notion of "now" that the broker is given. Starts at the wall clock, so that time stamps mean
something to a client on the same machine, then follows the monotonic clock, so that a step of the wall clock
cannot expire a lock. Knows nothing of what the time is used for.
"""

from __future__ import annotations

import time

__all__ = ["VirtualClock"]


class VirtualClock:
    """Seconds since 1970 as float; `advance` adds to all later readings."""

    __slots__ = ("_ahead", "_base")

    def __init__(self) -> None:
        self._base = time.time() - time.monotonic()
        self._ahead = 0.0

    @property
    def ahead(self) -> float:
        """Seconds by which this clock has been pushed ahead of real time."""
        return self._ahead

    def now(self) -> float:
        """The broker's time now."""
        return self._base + time.monotonic() + self._ahead

    def advance(self, seconds: float) -> None:
        """Push the clock ahead by `seconds`; time never goes back, except by `rewind`."""
        if not seconds >= 0:
            raise ValueError(f"the clock can only be advanced, not moved by {seconds!r} seconds")
        self._ahead += seconds

    def rewind(self) -> None:
        """Show real time again: for a broker that was emptied, where no time that passed is remembered."""
        self._ahead = 0.0
