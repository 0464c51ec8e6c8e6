"""How long calls take, and how long one may wait for company because of it.

Pure arithmetic for both ends: sharing a message saves most of what a message costs, and a wait that is a
small part of what a call takes anyway is not noticed. A lone call waits for nobody.
"""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["Pace"]

# How much the last call counts in the mean time that calls take.
_WEIGHT = 0.05

# The part of that time which one may wait for others to share its message.
_SHARE = 0.05

# Longer than this nobody waits, however long calls take. Seconds.
_LONGEST = 0.005

# Of calls about which nothing is known yet it is assumed that they take a moment.
_A_MOMENT = 0.004


class Pace:
    """The mean time that calls take, the last ones counting most."""

    __slots__ = ("mean",)

    def __init__(self) -> None:
        self.mean = _A_MOMENT

    def took(self, seconds: float) -> None:
        """A call has taken so long."""
        self.mean += (seconds - self.mean) * _WEIGHT

    def company(self, under_way: Callable[[], int]) -> Callable[[int], float]:
        """Says how many seconds those who have gathered may wait for the rest of what is under way."""

        def patience(gathered: int) -> float:
            return min(self.mean * _SHARE, _LONGEST) if under_way() > gathered else 0.0

        return patience
