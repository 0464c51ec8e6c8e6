"""A message with many requests is settled once."""

from __future__ import annotations

from sbrpc._decide import Decision, Settlement
from sbrpc._settling import SettledTogether


def test_a_message_is_settled_after_its_last_request() -> None:
    """Once, and as all of them decide together."""
    settled: list[Decision] = []

    class Message(SettledTogether):
        def settle(self, decision: Decision) -> None:
            settled.append(decision)

    together = Message(3)
    together(Decision(Settlement.COMPLETE))
    together(Decision(Settlement.ABANDON))
    assert settled == []
    together(Decision(Settlement.COMPLETE))
    assert settled == [Decision(Settlement.ABANDON)]
