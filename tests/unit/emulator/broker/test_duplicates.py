"""The history of message ids."""

from __future__ import annotations

from uuid import UUID

from sbrpc.emulator.broker.duplicates import DuplicateHistory


def test_an_id_is_known_for_the_window_and_no_longer() -> None:
    """A duplicate is one that comes less than a window after the first."""
    history = DuplicateHistory(10.0)
    history.remember("a", 7, 100.0)
    assert history.known("a", 109.9) == 7
    assert history.known("a", 110.0) is None
    assert history.known("b", 101.0) is None


def test_ids_of_different_types_are_different() -> None:
    """The string that looks like a number or a uuid is another id."""
    history = DuplicateHistory(10.0)
    history.remember("1", 1, 0.0)
    history.remember(str(UUID(int=1)), 2, 0.0)
    assert history.known(1, 1.0) is None
    assert history.known(UUID(int=1), 1.0) is None


def test_the_history_forgets_what_is_older_than_the_window() -> None:
    """It holds as many ids as came within the window."""
    history = DuplicateHistory(10.0)
    for number in range(10_000):
        assert history.known(f"id-{number}", float(number)) is None
        history.remember(f"id-{number}", number, float(number))
    assert len(history) == 10


def test_a_shorter_window_holds_from_now_on() -> None:
    """Changing the window changes what counts as a duplicate."""
    history = DuplicateHistory(100.0)
    history.remember("a", 1, 0.0)
    history.window = 5.0
    assert history.known("a", 6.0) is None
