"""What operations cost."""

from __future__ import annotations

from sbrpc.emulator.broker import Books


def test_credits_are_counted_as_azure_does() -> None:
    """One for each message sent, received or peeked and each filter, ten for a management operation."""
    books = Books(sends=3, receives=2, peeks=5, management=4, filters=7)
    assert books.credits == 3 + 2 + 5 + 40 + 7
    assert books.operations == 3 + 2 + 5 + 4


def test_books_can_begin_anew() -> None:
    """Cleared books say nothing has happened."""
    books = Books(1, 2, 3, 4, 5)
    books.clear()
    assert books == Books()
