"""The short memory of what happened."""

from __future__ import annotations

from uuid import UUID

from sbrpc.emulator.traffic import Traffic, TrafficEntry


def test_entries_are_numbered_and_told_from_a_number_on() -> None:
    """Who looks in repeatedly gets what is new, in order."""
    traffic = Traffic()
    traffic.note(1.0, "connected", "", "c")
    traffic.note(2.0, "sent", "movies", "c", UUID(int=1), "s", 10, "d")
    (entry,) = traffic.after(1)
    assert entry == TrafficEntry(2, 2.0, "sent", "movies", "c", str(UUID(int=1)), "s", 10, "d")
    assert [each.number for each in traffic.after(0)] == [1, 2]
    assert traffic.after(2) == []


def test_only_the_latest_are_remembered() -> None:
    """Memory does not grow with what passes, and an answer has a limit as well."""
    traffic = Traffic(limit=3)
    for number in range(10):
        traffic.note(float(number), "sent", "q", "c")
    assert [each.number for each in traffic.after(0)] == [8, 9, 10]
    assert [each.number for each in traffic.after(0, most=2)] == [9, 10]
