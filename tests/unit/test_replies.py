"""The life of a reply session: the table of states."""

from __future__ import annotations

import itertools

import pytest

from sbrpc._replies import Event, State, next_state

MOVES_ON = {(State.OPENING, Event.HELD), (State.OPENING, Event.LOST), (State.LIVE, Event.LOST)}


@pytest.mark.parametrize(("state", "event"), sorted(MOVES_ON, key=str))
def test_losing_a_session_begins_the_next_one_at_once(state: State, event: Event) -> None:
    """New calls never wait for an old lock; the old session goes on for the calls that wait on it."""
    assert next_state(state, event) == (State.DRAINING, True)


def test_only_a_loss_begins_a_new_epoch() -> None:
    """Nothing else moves on: an epoch that drains has a successor already."""
    for state, event in itertools.product(State, Event):
        try:
            _, moves_on = next_state(state, event)
        except RuntimeError:
            continue
        assert moves_on == ((state, event) in MOVES_ON)


def test_a_failed_attempt_changes_nothing() -> None:
    """Nothing was attached, so the same session can be asked for again."""
    assert next_state(State.OPENING, Event.FAILED) == (State.OPENING, False)
    assert next_state(State.DRAINING, Event.FAILED) == (State.DRAINING, False)


def test_a_draining_epoch_drains_until_it_is_drained() -> None:
    """Whatever happens to its links."""
    for event in (Event.OPENED, Event.FAILED, Event.HELD, Event.LOST):
        assert next_state(State.DRAINING, event) == (State.DRAINING, False)
    assert next_state(State.DRAINING, Event.DRAINED) == (State.ENDED, False)


def test_every_epoch_can_be_closed() -> None:
    """Closing the client ends whatever is open."""
    for state in (State.OPENING, State.LIVE, State.DRAINING):
        assert next_state(state, Event.CLOSED) == (State.ENDED, False)


def test_what_cannot_happen_is_an_error() -> None:
    """A wrong step is a bug, and is not taken silently."""
    for event in Event:
        with pytest.raises(RuntimeError, match="ended"):
            next_state(State.ENDED, event)
    with pytest.raises(RuntimeError, match="live"):
        next_state(State.LIVE, Event.OPENED)
