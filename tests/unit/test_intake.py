"""How many calls a server likes to be given at once."""

from __future__ import annotations

from typing import Any, cast

import pytest

from sbrpc._bundles import MOST_IN_A_BUNDLE
from sbrpc._intake import Advice, Intake
from sbrpc._pace import Pace


def advised(concurrency: int, seconds: float) -> int:
    pace = Pace()
    for _ in range(500):
        pace.took(seconds)
    return Advice(concurrency, pace)()


def test_slow_handlers_take_what_runs_at_once() -> None:
    """More would wait here while another server may be idle."""
    assert advised(8, 0.02) == 8
    assert advised(1, 5.0) == 1


def test_quick_handlers_take_many() -> None:
    """As many as are done within a moment, up to what a bundle may have."""
    assert 60 <= advised(16, 0.001) <= 64
    assert advised(16, 0.0001) == MOST_IN_A_BUNDLE


def test_before_anything_ran_the_advice_is_moderate() -> None:
    """Nothing is known of the handlers yet."""
    assert Advice(16, Pace())() == 16


@pytest.mark.parametrize(
    ("seconds", "held", "room"),
    [
        (0.02, 7, True),
        (0.02, 8, True),  # all handlers are busy, and one of them is done soon
        (5.0, 7, True),
        (5.0, 8, False),  # another server may have a handler that is idle
    ],
)
def test_a_message_is_taken_ahead_where_handlers_are_quick(seconds: float, held: int, room: bool) -> None:
    """So that none of them waits for it; slow ones take no more than they serve."""
    pace = Pace()
    for _ in range(500):
        pace.took(seconds)
    intake = Intake(cast("Any", None), 8, pace, lambda: None)
    intake.held = held
    assert intake.has_room is room
