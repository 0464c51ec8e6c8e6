"""What a call carries besides its value: the deadline, and what a handler may know about its message.

Deadlines are points on the monotonic clock, kept in a `ContextVar` so that calls made inside a handler or
a `with deadline(...)` block inherit what is left. This module knows no Service Bus and waits for nothing.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping
from contextvars import ContextVar, Token
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType

__all__ = ["CallInfo", "Deadline", "current_deadline", "deadline"]

NO_METADATA: Mapping[str, str] = MappingProxyType({})

_TRACE_ID = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, order=True, slots=True)
class Deadline:
    """A point in monotonic time, in seconds. `min()` combines two; `Deadline.never()` is the neutral one."""

    at: float

    @classmethod
    def after(cls, seconds: float, *, now: float | None = None) -> Deadline:
        """The deadline that is `seconds` from now."""
        if math.isnan(seconds):
            raise ValueError("a timeout must be a number of seconds, not nan")
        return cls((time.monotonic() if now is None else now) + seconds)

    @classmethod
    def never(cls) -> Deadline:
        """The deadline that does not pass."""
        return cls(math.inf)

    def remaining(self, now: float | None = None) -> float:
        """Seconds left; negative once it has passed, `inf` for `never()`."""
        return self.at - (time.monotonic() if now is None else now)

    @property
    def passed(self) -> bool:
        """Whether the deadline lies in the past."""
        return self.remaining() <= 0

    @property
    def is_never(self) -> bool:
        """Whether there is no deadline at all."""
        return self.at == math.inf


_current: ContextVar[Deadline | None] = ContextVar("sbrpc_deadline", default=None)


_NEVER = Deadline.never()


def current_deadline() -> Deadline:
    """The deadline of the enclosing scope or handler, `Deadline.never()` where there is none."""
    return _current.get() or _NEVER


def deadline_in(seconds: float) -> Deadline:
    """The deadline of what may take so long: `seconds` from now, or the enclosing one if that is nearer."""
    if math.isnan(seconds):
        raise ValueError("a timeout must be a number of seconds, not nan")
    enclosing = _current.get()
    until = time.monotonic() + seconds
    return Deadline(until) if enclosing is None or until <= enclosing.at else enclosing


def limit(until: Deadline) -> None:
    """Set the deadline of the running context, for good, unless the enclosing one is nearer."""
    enclosing = _current.get()
    if enclosing is None or until.at <= enclosing.at:
        _current.set(until)


class deadline:
    """Every call made inside the block ends within `seconds`; blocks nest, the nearest point in time wins.

    Only calls look at it: the block itself is not interrupted. Yields the deadline in force.
    """

    __slots__ = ("_token", "_wanted")

    def __init__(self, seconds: float | Deadline) -> None:
        self._wanted = seconds if isinstance(seconds, Deadline) else Deadline.after(seconds)

    def __enter__(self) -> Deadline:
        outer = _current.get()
        combined = self._wanted if outer is None or self._wanted.at <= outer.at else outer
        self._token: Token[Deadline | None] = _current.set(combined)
        return combined

    def __exit__(self, *exception: object) -> None:
        _current.reset(self._token)


class Cancellation:
    """Says whether somebody gave up on a call. Set once, from the event loop; read from any thread."""

    __slots__ = ("reason",)

    def __init__(self) -> None:
        self.reason: str | None = None

    def cancel(self, reason: str) -> None:
        """Mark the call as given up; the first reason stays."""
        if self.reason is None:
            self.reason = reason


@dataclass(frozen=True)
class CallInfo:
    """What is known about one call: handlers get it as their second argument, middleware on both sides.

    On the caller's side only `method`, `call_id`, `deadline`, `metadata`, `session_id`, `contract` and
    `queue` carry meaning.
    """

    method: str
    """The name on the wire, for instance `get_movie`."""
    call_id: str
    """Unique per attempt; the same again when Service Bus delivers the message again."""
    deadline: Deadline = field(default_factory=Deadline.never)
    metadata: Mapping[str, str] = field(default_factory=lambda: NO_METADATA)
    """What the caller sent along, as strings."""
    contract: str = ""
    queue: str = ""
    """The request queue that the call goes through."""
    delivery_count: int = 0
    """How often the message was delivered before; above 0 an earlier handler may have had effects."""
    enqueued_at: datetime | None = None
    """When Service Bus accepted the request, by its clock."""
    session_id: str | None = None
    """The ordering key, on a queue that requires sessions."""
    reply_to: str | None = None
    """Where the reply goes; `None` for a one-way call."""
    fencing_token: int = 0
    """Grows with every delivery. A database that refuses writes with a smaller token than it has seen is
    safe from a worker that lost its lock and does not know it yet."""
    cancellation: Cancellation = field(default_factory=Cancellation, repr=False, compare=False)

    @property
    def cancelled(self) -> bool:
        """Whether the call was given up: for handlers in threads, which cannot be interrupted."""
        return self.cancellation.reason is not None or self.deadline.passed


def log_fields(call_id: str | None, metadata: Mapping[str, str] = NO_METADATA) -> dict[str, str | None]:
    """What every log record about a call has besides its message, as `extra`: `call_id` and `trace_id`."""
    return {
        "call_id": call_id,
        "trace_id": trace_id(metadata.get("traceparent") or metadata.get("Diagnostic-Id")),
    }


def trace_id(traceparent: str | None) -> str | None:
    """The trace that a W3C `traceparent` belongs to, as 32 hexadecimal digits; None if it is not one."""
    parts = (traceparent or "").split("-")
    return parts[1] if len(parts) >= 4 and _TRACE_ID.fullmatch(parts[1]) else None


def fencing_token(sequence_number: int, delivery_count: int) -> int:
    """The order of deliveries as one number of 63 bits: later messages and later deliveries are greater."""
    # A partitioned entity keeps its partition in the upper 16 bits of the sequence number. Those say nothing
    # about order, and the room is needed for the delivery count.
    return (sequence_number & 0xFFFF_FFFF_FFFF) << 15 | min(delivery_count, 0x7FFF)
