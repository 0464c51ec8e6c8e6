"""How many calls a server likes to be given at once."""

from __future__ import annotations

from sbrpc._bundles import MOST_IN_A_BUNDLE
from sbrpc._intake import Advice


def advised(concurrency: int, seconds: float) -> int:
    advice = Advice(concurrency)
    for _ in range(500):
        advice.took(seconds)
    return advice()


def test_slow_handlers_take_a_share_of_what_runs_at_once() -> None:
    """So that other servers get theirs; one at the least."""
    assert advised(8, 0.02) == 2
    assert advised(1, 5.0) == 1
    assert advised(256, 0.5) == 64


def test_quick_handlers_take_many() -> None:
    """As many as are done within a moment, up to what a bundle may have."""
    assert 60 <= advised(16, 0.001) <= 64
    assert advised(16, 0.0001) == MOST_IN_A_BUNDLE


def test_before_anything_ran_the_advice_is_moderate() -> None:
    """Nothing is known of the handlers yet."""
    assert Advice(16)() == 16
