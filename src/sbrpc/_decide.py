"""What becomes of a request: how its message is settled and what the caller is told. One table, no I/O.

    outcome        with a reply address                   without one (one-way)
    Returned       reply OK, complete                     complete
    Cached         the same reply again, complete         complete
    Streamed       (replies are sent), complete           complete
    Failed         reply its code, complete               dead-letter <code>
    Crashed        reply INTERNAL, complete               abandon: another try, up to the limit
    Expired        reply DEADLINE_EXCEEDED, complete      complete
    Cancelled      reply CANCELLED, complete              complete
    Undecodable    reply INVALID_ARGUMENT, complete       dead-letter MalformedRequest
    Incompatible   reply FAILED_PRECONDITION, complete    dead-letter IncompatibleRequest
    UnknownMethod  reply UNIMPLEMENTED, complete          dead-letter UnknownMethod
    Poisoned       reply ABORTED, dead-letter             dead-letter MaxDeliveriesExceeded
    Forbidden      dead-letter ForbiddenReplyTo           -
    Draining       abandon: another server takes it       abandon
    LockGone       nothing: it is in other hands          nothing
    Scattered      notice to send it alone, complete      -

A reply that cannot be sent is an outcome too: `decide_unsent`. Of the decisions about the requests of one
message `all_of` makes one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any, NamedTuple

from ._codec import sendable
from .errors import (
    Aborted,
    Cancelled,
    DeadlineExceeded,
    DecodeError,
    EntityNotFound,
    FailedPrecondition,
    Internal,
    InvalidArgument,
    MessageTooLarge,
    ResourceExhausted,
    RpcError,
    SbrpcError,
    Unimplemented,
)

__all__ = ["Decision", "Outcome", "Settlement", "What", "all_of", "decide", "decide_unsent"]

# The dead-letter reason and description stand in the message's header, which may have 64 KB in total.
_LONGEST_DESCRIPTION = 2048


class What(Enum):
    """The kinds of outcome."""

    RETURNED = "returned"
    CACHED = "cached"
    STREAMED = "streamed"
    FAILED = "failed"
    CRASHED = "crashed"
    EXPIRED = "expired"
    CANCELLED = "cancelled"
    UNDECODABLE = "undecodable"
    INCOMPATIBLE = "incompatible"
    UNKNOWN_METHOD = "unknown method"
    POISONED = "poisoned"
    FORBIDDEN = "forbidden"
    DRAINING = "draining"
    LOCK_GONE = "lock gone"
    SCATTERED = "scattered"
    """It came in a bundle that was delivered before: one of its calls may be what kills servers."""


# Named tuples: for most calls one of each is made, and frozen dataclasses take three times as long.
class Outcome(NamedTuple):
    """What became of a request."""

    what: What
    body: bytes = b""
    """The result, for RETURNED and CACHED."""
    status: str = "OK"
    """The status that was replied, for CACHED."""
    error: SbrpcError | None = None
    """What was raised, or what is wrong with the request."""
    note: str = ""
    """A detail for people: the method's name, the reply address, how many deliveries."""
    schema: Mapping[str, Any] | None = None
    """What this server takes, for INCOMPATIBLE."""


class Settlement(Enum):
    """What is done with the request's message."""

    COMPLETE = "complete"
    ABANDON = "abandon"
    DEAD_LETTER = "dead-letter"
    LEAVE = "leave"


class Decision(NamedTuple):
    """What to do: reply first, then settle."""

    settlement: Settlement
    reply: RpcError | Outcome | None = None
    """An error to tell the caller, or the outcome whose result to send; None for silence."""
    reason: str = ""
    """Why it is dead-lettered, for programs and dashboards."""
    description: str = ""
    """The same for people."""


# Looked up once: members of an enumeration take a while to look up.
_SAID_AS_IT_IS = (What.RETURNED, What.CACHED, What.SCATTERED)
_COMPLETE = Settlement.COMPLETE


def decide(outcome: Outcome, *, can_reply: bool) -> Decision:
    """The row of the table. `can_reply`: there is a reply address, and we may send there."""
    what = outcome.what
    if what in _SAID_AS_IT_IS:
        return Decision(_COMPLETE, outcome if can_reply else None)
    if what is What.LOCK_GONE:
        return Decision(Settlement.LEAVE)
    if what is What.DRAINING:
        return Decision(Settlement.ABANDON)
    if what is What.FORBIDDEN:
        return _dead("ForbiddenReplyTo", outcome.note)
    if what is What.POISONED:
        text = f"delivered {outcome.note} times without being answered"
        return _dead("MaxDeliveriesExceeded", text, Aborted(f"gave up: {text}") if can_reply else None)
    if what is What.STREAMED:
        return Decision(Settlement.COMPLETE)
    error = _error(outcome)
    if can_reply:
        return Decision(Settlement.COMPLETE, error)
    if what is What.CRASHED:
        return Decision(Settlement.ABANDON)
    if what in (What.EXPIRED, What.CANCELLED):
        return Decision(Settlement.COMPLETE)
    reason = {
        What.UNDECODABLE: "MalformedRequest",
        What.INCOMPATIBLE: "IncompatibleRequest",
        What.UNKNOWN_METHOD: "UnknownMethod",
    }.get(what, error.code.value)
    return _dead(reason, error.message)


# What happens to a message whose requests do not agree, the first that is there.
_ORDER = (Settlement.LEAVE, Settlement.DEAD_LETTER, Settlement.ABANDON, Settlement.COMPLETE)


def all_of(decisions: Sequence[Decision]) -> Decision:
    """What to do with a message that carried many requests. Each has been replied to by itself.

    Delivered again, it is not served again: callers that still wait send their calls anew.
    """
    return min(decisions, key=lambda decision: _ORDER.index(decision.settlement))


def _error(outcome: Outcome) -> RpcError:
    """What the caller is told. Of an unexpected exception, that there was one and nothing else."""
    what, error = outcome.what, outcome.error
    details = error.details if isinstance(error, DecodeError) else []
    if what is What.EXPIRED:
        return DeadlineExceeded(outcome.note)
    if what is What.CANCELLED:
        return Cancelled(outcome.note)
    if what is What.UNKNOWN_METHOD:
        return Unimplemented(f"this service has no method {outcome.note!r}")
    if what is What.UNDECODABLE:
        return InvalidArgument(str(error), details=details)
    if what is What.INCOMPATIBLE:
        ours = [{"schema": dict(outcome.schema)}] if outcome.schema is not None else []
        text = f"the caller's contract is another one than the server's: {error}"
        return FailedPrecondition(text, details=[*ours, *details])
    if what is What.FAILED and isinstance(error, RpcError):
        return error
    return Internal("the handler failed; the server's log says how, under this call's id")


def _dead(reason: str, description: str, reply: RpcError | None = None) -> Decision:
    return Decision(Settlement.DEAD_LETTER, reply, reason, sendable(description)[:_LONGEST_DESCRIPTION])


def decide_unsent(decision: Decision, error: SbrpcError, *, late: bool) -> Decision:
    """What to do instead when the reply of a decision could not be sent.

    `late`: the caller's deadline has passed, so nobody would read it. An oversized result becomes an error
    reply; an oversized error, a shorter one.
    """
    if isinstance(error, MessageTooLarge) and not _is_fallback(decision.reply):
        too_large = ResourceExhausted(
            f"the reply has {error.size} bytes and Service Bus takes {error.limit}; "
            "ask for less, or stream the result"
        )
        return Decision(decision.settlement, too_large, decision.reason, decision.description)
    if isinstance(error, EntityNotFound):
        return _dead("ReplyQueueNotFound", str(error))
    if late or decision.settlement is Settlement.DEAD_LETTER:
        return Decision(decision.settlement, None, decision.reason, decision.description)
    # The work is done but nobody knows: another delivery finds the reply in the cache and sends it.
    return Decision(Settlement.ABANDON)


def _is_fallback(reply: RpcError | Outcome | None) -> bool:
    return isinstance(reply, ResourceExhausted) and not reply.details
