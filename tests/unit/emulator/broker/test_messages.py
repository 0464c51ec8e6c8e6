"""Messages and their states."""

from __future__ import annotations

import pytest

from sbrpc.emulator.broker.messages import NEVER, Message, MessageState

from .content import Text

LEGAL = {
    (MessageState.ARRIVING, MessageState.ACTIVE),
    (MessageState.ARRIVING, MessageState.SCHEDULED),
    (MessageState.ARRIVING, MessageState.GONE),
    (MessageState.SCHEDULED, MessageState.ACTIVE),
    (MessageState.SCHEDULED, MessageState.GONE),
    (MessageState.ACTIVE, MessageState.LOCKED),
    (MessageState.ACTIVE, MessageState.GONE),
    (MessageState.LOCKED, MessageState.ACTIVE),
    (MessageState.LOCKED, MessageState.DEFERRED),
    (MessageState.LOCKED, MessageState.GONE),
    (MessageState.DEFERRED, MessageState.LOCKED),
    (MessageState.DEFERRED, MessageState.GONE),
}


def in_state(state: MessageState) -> Message:
    return Message(5, 3, 1.0, Text(), "id", "session", 60.0, 61.0, None, "key", state=state)


@pytest.mark.parametrize("before", MessageState)
@pytest.mark.parametrize("after", MessageState)
def test_states_change_along_the_table_only(before: MessageState, after: MessageState) -> None:
    """Every pair of states is either a legal step or an error, and never happens half."""
    message = in_state(before)
    if (before, after) in LEGAL:
        message.become(after)
        assert message.state is after
    else:
        with pytest.raises(RuntimeError, match="message 5"):
            message.become(after)
        assert message.state is before


def test_a_lock_does_not_show_in_a_peek() -> None:
    """A locked message looks active, and deferred if it was deferred before it was locked."""
    assert in_state(MessageState.LOCKED).shown_state is MessageState.ACTIVE
    assert in_state(MessageState.SCHEDULED).shown_state is MessageState.SCHEDULED
    message = in_state(MessageState.LOCKED)
    message.deferred = True
    assert message.shown_state is MessageState.DEFERRED


def test_a_message_goes_on_with_what_it_says_and_without_its_schedule() -> None:
    """What enters another entity is content, ids and time to live; number and lock stay behind."""
    incoming = in_state(MessageState.LOCKED).as_incoming()
    assert (incoming.message_id, incoming.session_id, incoming.partition_key) == ("id", "session", "key")
    assert incoming.time_to_live == 60.0
    assert incoming.scheduled_at is None


def test_never_is_later_than_any_time() -> None:
    """Comparing with it needs no special case."""
    assert NEVER > 1e300
