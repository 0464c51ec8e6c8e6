"""What becomes of a request: the table, row by row."""

from __future__ import annotations

import pytest

from sbrpc._decide import Decision, Outcome, Settlement, What, all_of, decide, decide_unsent
from sbrpc.errors import (
    BusError,
    DecodeError,
    EntityNotFound,
    ErrorCode,
    Internal,
    MessageTooLarge,
    NotFound,
    ResourceExhausted,
    RpcError,
)

WRONG = DecodeError("id: missing", details=[{"field": "id", "problem": "missing"}])
COMPLETE, ABANDON, DEAD, LEAVE = (
    Settlement.COMPLETE,
    Settlement.ABANDON,
    Settlement.DEAD_LETTER,
    Settlement.LEAVE,
)

RESULT = Outcome(What.RETURNED, body=b"1")
CACHED = Outcome(What.CACHED, body=b"2", status="NOT_FOUND")


@pytest.mark.parametrize(
    ("outcome", "settlement", "code"),
    [
        (Outcome(What.STREAMED), COMPLETE, None),
        (Outcome(What.FAILED, error=NotFound("x")), COMPLETE, "NOT_FOUND"),
        (Outcome(What.CRASHED), COMPLETE, "INTERNAL"),
        (Outcome(What.EXPIRED, note="late"), COMPLETE, "DEADLINE_EXCEEDED"),
        (Outcome(What.CANCELLED), COMPLETE, "CANCELLED"),
        (Outcome(What.UNDECODABLE, error=WRONG), COMPLETE, "INVALID_ARGUMENT"),
        (Outcome(What.INCOMPATIBLE, error=WRONG, schema={}), COMPLETE, "FAILED_PRECONDITION"),
        (Outcome(What.UNKNOWN_METHOD, note="get"), COMPLETE, "UNIMPLEMENTED"),
        (Outcome(What.POISONED, note="5"), DEAD, "ABORTED"),
        (Outcome(What.FORBIDDEN, note="q"), DEAD, None),
        (Outcome(What.DRAINING), ABANDON, None),
        (Outcome(What.LOCK_GONE), LEAVE, None),
    ],
)
def test_with_a_reply_address(outcome: Outcome, settlement: Settlement, code: str | None) -> None:
    """The caller hears of everything except what is in other hands or must not be answered."""
    decision = decide(outcome, can_reply=True)
    assert decision.settlement is settlement
    if code is None:
        assert decision.reply is None
    else:
        assert isinstance(decision.reply, RpcError)
        assert decision.reply.code is ErrorCode(code)


@pytest.mark.parametrize("outcome", [RESULT, CACHED, Outcome(What.SCATTERED)])
def test_results_are_replied(outcome: Outcome) -> None:
    """A result, new or kept, is sent as it is and the message completed."""
    assert decide(outcome, can_reply=True) == Decision(COMPLETE, outcome)


@pytest.mark.parametrize(
    ("outcome", "settlement", "reason"),
    [
        (RESULT, COMPLETE, ""),
        (CACHED, COMPLETE, ""),
        (Outcome(What.STREAMED), COMPLETE, ""),
        (Outcome(What.FAILED, error=NotFound("no movie 7")), DEAD, "NOT_FOUND"),
        (Outcome(What.CRASHED), ABANDON, ""),
        (Outcome(What.EXPIRED), COMPLETE, ""),
        (Outcome(What.CANCELLED), COMPLETE, ""),
        (Outcome(What.UNDECODABLE, error=WRONG), DEAD, "MalformedRequest"),
        (Outcome(What.INCOMPATIBLE, error=WRONG), DEAD, "IncompatibleRequest"),
        (Outcome(What.UNKNOWN_METHOD, note="get"), DEAD, "UnknownMethod"),
        (Outcome(What.POISONED, note="5"), DEAD, "MaxDeliveriesExceeded"),
        (Outcome(What.DRAINING), ABANDON, ""),
        (Outcome(What.LOCK_GONE), LEAVE, ""),
    ],
)
def test_without_a_reply_address(outcome: Outcome, settlement: Settlement, reason: str) -> None:
    """Nobody is told, so what failed for good is dead-lettered with a reason, and the rest tried again."""
    decision = decide(outcome, can_reply=False)
    assert (decision.settlement, decision.reply, decision.reason) == (settlement, None, reason)
    assert bool(decision.description) == bool(reason)


def test_every_outcome_has_a_row() -> None:
    """A new kind of outcome cannot be forgotten in the table."""
    for what in What:
        for can_reply in (True, False):
            assert isinstance(decide(Outcome(what, error=WRONG), can_reply=can_reply), Decision)


def test_a_crash_says_nothing_about_itself() -> None:
    """Whatever was raised, the caller learns only that something was."""
    for outcome in (Outcome(What.CRASHED, error=DecodeError("password=1")), Outcome(What.FAILED)):
        reply = decide(outcome, can_reply=True).reply
        assert isinstance(reply, Internal)
        assert "password" not in str(reply)
        assert reply.details == []


def test_wrong_fields_are_passed_on() -> None:
    """The caller gets one entry per wrong field."""
    reply = decide(Outcome(What.UNDECODABLE, error=WRONG), can_reply=True).reply
    assert isinstance(reply, RpcError)
    assert reply.details == WRONG.details


def test_an_incompatible_caller_gets_our_schema() -> None:
    """So that it can say in words how the two contracts differ."""
    reply = decide(Outcome(What.INCOMPATIBLE, error=WRONG, schema={"type": "object"}), can_reply=True).reply
    assert isinstance(reply, RpcError)
    assert reply.details[0] == {"schema": {"type": "object"}}
    assert reply.details[1:] == WRONG.details


def test_long_descriptions_are_cut() -> None:
    """A dead letter's header has little room."""
    decision = decide(Outcome(What.FAILED, error=NotFound("x" * 9999)), can_reply=False)
    assert len(decision.description) == 2048


def test_an_oversized_result_becomes_an_error() -> None:
    """Never a silent timeout; and if even the error is too large, the message is still settled."""
    once = decide_unsent(Decision(COMPLETE, RESULT), MessageTooLarge(300, 256), late=False)
    assert isinstance(once.reply, ResourceExhausted)
    assert once.settlement is COMPLETE
    assert "300" in str(once.reply)
    twice = decide_unsent(once, MessageTooLarge(300, 256), late=False)
    assert twice == Decision(ABANDON)


def test_a_missing_reply_queue_is_dead_lettered() -> None:
    """Repeating would not help; an operator has to see it."""
    decision = decide_unsent(Decision(COMPLETE, RESULT), EntityNotFound("no queue 'x.replies'"), late=False)
    assert (decision.settlement, decision.reason) == (DEAD, "ReplyQueueNotFound")
    assert "x.replies" in decision.description


def test_a_reply_that_nobody_reads_any_more_is_dropped() -> None:
    """After the deadline the request is done with."""
    assert decide_unsent(Decision(COMPLETE, RESULT), BusError("away"), late=True) == Decision(COMPLETE)


def test_an_unsent_reply_brings_the_request_back() -> None:
    """The next delivery finds the reply in the store and sends it."""
    assert decide_unsent(Decision(COMPLETE, RESULT), BusError("away"), late=False) == Decision(ABANDON)


def test_a_dead_letter_stays_one() -> None:
    """Telling the caller is an extra; not being able to does not bring a poison message back."""
    decision = Decision(DEAD, NotFound("x"), "Reason", "text")
    assert decide_unsent(decision, BusError("away"), late=False) == Decision(DEAD, None, "Reason", "text")


@pytest.mark.parametrize(
    ("settlements", "together"),
    [
        ([COMPLETE, COMPLETE], COMPLETE),
        ([COMPLETE, ABANDON], ABANDON),
        ([ABANDON, DEAD, COMPLETE], DEAD),
        ([COMPLETE, LEAVE, DEAD], LEAVE),
    ],
)
def test_of_many_requests_in_a_message_the_strongest_decides(
    settlements: list[Settlement], together: Settlement
) -> None:
    """What is not finished keeps it, what nobody can reply to ends it, a lost lock leaves it."""
    assert all_of([Decision(settlement) for settlement in settlements]).settlement is together
