"""Every promise under every fault, with hundreds of calls in flight: none lost, none crossed."""

from __future__ import annotations

import pytest

from .mishaps import MISHAPS
from .runs import PROMISES, SIZE, Story, applicable

# The SDK leaves sockets of connections that failed to the garbage collector, which complains about them.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def under(mishap: str, *promise: str) -> object:
    """A case of the matrix; those of one fault stay in one process, as one run tells about all of them."""
    return pytest.param(mishap, *promise, id=f"{' '.join(promise)}@{mishap}")


CASES = [under(mishap, each) for mishap in MISHAPS for each in PROMISES if applicable(each, mishap, SIZE)]


@pytest.mark.parametrize("mishap", [under(mishap) for mishap in MISHAPS])
def test_enough_was_in_flight(mishap: str, stories: dict[str, Story]) -> None:
    """When the fault struck, at least so many calls were waiting for their replies."""
    assert stories[mishap].in_flight >= SIZE.calls


@pytest.mark.parametrize(("mishap", "promise"), CASES)
def test_promise_under_fault(mishap: str, promise: str, stories: dict[str, Story]) -> None:
    """Every call ends as promised: nothing is lost, and no reply reaches another call."""
    tally = stories[mishap].tallies[promise]
    assert tally.made
    assert not tally.crossed
    assert not tally.lost
    assert tally.answered
