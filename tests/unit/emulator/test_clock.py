"""`sbrpc.emulator.clock`: the emulator's time."""

from __future__ import annotations

import pytest

from sbrpc.emulator.clock import VirtualClock


def test_the_clock_only_goes_ahead() -> None:
    """Advancing moves all later readings and is remembered; going back is refused."""
    clock = VirtualClock()
    before = clock.now()
    clock.advance(300)
    assert clock.now() >= before + 300
    assert clock.ahead == 300
    with pytest.raises(ValueError, match="only be advanced"):
        clock.advance(-1)
    with pytest.raises(ValueError, match="only be advanced"):
        clock.advance(float("nan"))


def test_the_clock_can_show_real_time_again() -> None:
    """For a broker that starts over."""
    clock = VirtualClock()
    clock.advance(300)
    clock.rewind()
    assert clock.ahead == 0
