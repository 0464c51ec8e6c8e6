"""A request that is being served: its deadline, and how its handler is ended early.

Owns the scopes of running handlers. Knows nothing of messages, replies or what becomes of the request.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable
from time import monotonic

import anyio

from ._decide import What
from ._streams import Outflow
from ._tasks import Turns
from ._wire import Address, Request
from .context import Cancellation, Deadline, log_fields

__all__ = ["Job", "keep_deadlines"]

# How often running handlers are looked through for deadlines that come near, in seconds. Most calls are done
# long before their deadline: a timer for each of them would be a good part of what a call costs.
_LOOK = 0.25
_NEAR = 2 * _LOOK


class Job:
    """A request that is being served."""

    __slots__ = (
        "_cancellation",
        "_scope",
        "control",
        "deadline",
        "ended",
        "key",
        "outflow",
        "request",
        "stale",
        "stopped",
    )

    def __init__(self, request: Request, deadline: Deadline, *, stale: bool = False) -> None:
        self.request = request
        self.deadline = deadline
        self.stale = stale
        """Its lock ran out while it waited here, so it is delivered again, here or elsewhere."""
        self.key = f"{request.reply_to or ''}|{request.reply_to_session_id or ''}|{request.call_id}"
        """What identifies the call among all callers."""
        self._cancellation: Cancellation | None = None
        self.stopped: What | None = None
        self.outflow: Outflow | None = None
        self.control: Address | None = None
        self.ended: asyncio.Event | None = None
        """Set when it has been settled, if anybody waits for that."""
        self._scope: anyio.CancelScope | None = None

    @property
    def cancellation(self) -> Cancellation:
        """Says whether and why it was given up; the same object each time."""
        if self._cancellation is None:
            self._cancellation = Cancellation()
        return self._cancellation

    @property
    def log_fields(self) -> dict[str, str | None]:
        """For every log record about this call."""
        return log_fields(self.request.call_id, self.request.metadata)

    def stop(self, what: What, why: str) -> None:
        """End the handler early; the first reason counts."""
        if self.stopped is None:
            self.stopped = what
            self.cancellation.cancel(why)
            if self._scope is not None:
                self._scope.cancel()

    # -- while the handler runs --------------------------------------------------------------------------

    def began(self, turns: Turns, now: float) -> None:
        """The handler runs from now on, in the scope of these turns: `stop` and the deadline cancel it."""
        self._scope = turns.scope()
        if self.deadline.at - now < _NEAR:
            self.look(now)

    def done(self, turns: Turns, error: BaseException | None = None) -> bool:
        """The handler has ended, if so with an error; says whether that was the end it was given."""
        self._scope = None
        return turns.over(error)

    def look(self, now: float) -> None:
        """Arm the deadline of the running handler if it is near."""
        if self._scope is not None and self.deadline.at - now < _NEAR and self._scope.deadline == math.inf:
            self._scope.deadline = asyncio.get_running_loop().time() + max(0.0, self.deadline.remaining())


async def keep_deadlines(running: Iterable[Job]) -> None:
    """Arm the deadlines of running handlers as they come near, until cancelled."""
    while True:
        await anyio.sleep(_LOOK)
        now = monotonic()
        for job in list(running):
            job.look(now)
