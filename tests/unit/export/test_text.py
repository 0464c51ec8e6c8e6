"""Durations, symbols and shapes that the formats share."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sbrpc import Queue
from sbrpc.emulator.config import parse_duration
from sbrpc.export._text import duration, filter_of, names_of, properties_of
from sbrpc.topology import CorrelationFilter, FalseFilter, Rule, SqlFilter, Subscription, Topic, TrueFilter


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(60, "PT1M"), (5, "PT5S"), (90, "PT1M30S"), (0.1, "PT0.1S"), (86400, "P1D"), (1209661.5, "P14DT1M1.5S")],
)
def test_seconds_become_durations(seconds: float, text: str) -> None:
    """As short as ISO 8601 has them."""
    assert duration(seconds) == text


@given(st.integers(min_value=1, max_value=10**11))
def test_durations_are_read_as_what_they_were(milliseconds: int) -> None:
    """To the millisecond, whatever the length."""
    assert round(parse_duration(duration(milliseconds / 1000)) * 1000) == milliseconds


@given(st.sets(st.text(alphabet="aAbB12.-_/", min_size=1, max_size=6)), st.sampled_from(["", "_", "-"]))
def test_every_name_has_its_own_symbol(names: set[str], separator: str) -> None:
    """However similar the names are."""
    symbols = names_of(names, separator)
    assert symbols.keys() == names
    assert len(set(symbols.values())) == len(names)
    assert all(symbol[0].isalpha() for symbol in symbols.values())


def test_only_what_is_not_usual_is_written() -> None:
    """A plain queue says what is fixed at its creation and how long a lock lasts."""
    plain = {
        "lockDuration": "PT1M",
        "maxDeliveryCount": 10,
        "maxSizeInMegabytes": 1024,
        "requiresSession": False,
    }
    assert properties_of(Queue("q")) == plain
    full = Queue(
        "q",
        default_message_time_to_live=3600,
        dead_lettering_on_message_expiration=True,
        duplicate_detection_window=600,
        forward_to="f",
        forward_dead_lettered_messages_to="d",
        auto_delete_on_idle=300,
        max_message_size_in_kilobytes=2048,
        status="Disabled",
    )
    assert properties_of(full) == plain | {
        "autoDeleteOnIdle": "PT5M",
        "deadLetteringOnMessageExpiration": True,
        "defaultMessageTimeToLive": "PT1H",
        "duplicateDetectionHistoryTimeWindow": "PT10M",
        "forwardDeadLetteredMessagesTo": "d",
        "forwardTo": "f",
        "maxMessageSizeInKilobytes": 2048,
        "requiresDuplicateDetection": True,
        "status": "Disabled",
    }
    assert properties_of(Topic("t")) == {"maxSizeInMegabytes": 1024}
    lenient = Subscription("s", dead_lettering_on_filter_evaluation_exceptions=False)
    assert properties_of(lenient)["deadLetteringOnFilterEvaluationExceptions"] is False


def test_filters_have_two_forms() -> None:
    """Resource Manager knows correlation and SQL; everything and nothing are SQL."""
    assert filter_of(Rule("r", TrueFilter()))["sqlFilter"] == {"sqlExpression": "1=1"}
    assert filter_of(Rule("r", FalseFilter()))["sqlFilter"] == {"sqlExpression": "1=0"}
    assert filter_of(Rule("r", SqlFilter("a = 1"), action="SET b = 2")) == {
        "filterType": "SqlFilter",
        "sqlFilter": {"sqlExpression": "a = 1"},
        "action": {"sqlExpression": "SET b = 2"},
    }
    correlation = CorrelationFilter(subject="s", session_id="x", properties={"n": 1})
    assert filter_of(Rule("r", correlation)) == {
        "filterType": "CorrelationFilter",
        "correlationFilter": {"label": "s", "sessionId": "x", "properties": {"n": "1"}},
    }
