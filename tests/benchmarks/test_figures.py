"""Medians over rounds."""

from __future__ import annotations

from benchmarks import figures


def test_rounds_become_medians_with_their_spread() -> None:
    """Each number of the rounds turns into its median, least and greatest, at its old place."""
    rounds = [{"calls": {"64": {"per_second": value}}} for value in (30.0, 10.0, 20.0)]

    gathered = figures.gather(rounds)

    assert gathered == {
        "calls": {"64": {"per_second": {"median": 20.0, "low": 10.0, "high": 30.0, "rounds": 3}}}
    }


def test_numbers_become_names() -> None:
    """Keys are strings, as they are after a trip through JSON."""
    assert list(figures.gather([{64: 1.0}])) == ["64"]


def test_what_one_round_lacks_is_taken_from_the_others() -> None:
    """A figure that only some rounds have is the median of those."""
    gathered = figures.gather([{"a": 1.0}, {"a": 3.0, "b": 5.0}])

    assert figures.median(gathered, "a") == 2.0
    assert figures.median(gathered, "b") == 5.0


def test_a_missing_figure_is_none() -> None:
    """Looking up what was not measured gives nothing instead of an error."""
    assert figures.median({"a": {}}, "a", "b") is None
    assert figures.median(None, "a") is None
