"""How long one call may wait for others to share its message."""

from __future__ import annotations

import pytest

from sbrpc._pace import Pace


def pace_of(seconds: float) -> Pace:
    pace = Pace()
    for _ in range(500):
        pace.took(seconds)
    return pace


def test_a_lone_call_waits_for_nobody() -> None:
    """Nor do those who have all come already."""
    company = pace_of(1.0).company(lambda: 3)
    assert company(3) == 0.0
    assert company(2) > 0.0


def test_the_wait_is_a_small_part_of_what_calls_take() -> None:
    """And is bounded, however long they take."""
    assert pace_of(0.02).company(lambda: 9)(1) == pytest.approx(0.001, rel=0.01)
    assert pace_of(60).company(lambda: 9)(1) == 0.005


def test_the_last_calls_count_most() -> None:
    """What was long ago is forgotten."""
    pace = pace_of(1.0)
    for _ in range(200):
        pace.took(0.01)
    assert pace.mean == pytest.approx(0.01, rel=0.1)
