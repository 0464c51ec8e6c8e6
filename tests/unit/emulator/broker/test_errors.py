"""The sentences that clients match on."""

from __future__ import annotations

import re

from sbrpc.emulator.broker import errors


def test_the_unknown_entity_is_named_the_way_clients_recognise() -> None:
    """The JavaScript client tells a missing entity from other errors by this pattern."""
    error = errors.not_found("orders")
    assert error.condition == "amqp:not-found"
    assert re.search(r"The messaging entity '.+' could not be found", error.description)


def test_an_error_shows_condition_and_description() -> None:
    """Its text is enough to understand a log line."""
    assert str(errors.message_lock_lost()).startswith("com.microsoft:message-lock-lost: The lock supplied is")


def test_the_timeout_says_how_long_was_waited() -> None:
    """The time has the form the service uses."""
    assert "00:01:05.000" in errors.timed_out(65.0, "x").description
    assert "01:00:02.500" in errors.timed_out(3602.5, "x").description


def test_a_full_entity_names_its_kind() -> None:
    """Queue and topic are told apart."""
    assert errors.quota_exceeded("Topic", "t").description.endswith("for Topic: 't'.")
