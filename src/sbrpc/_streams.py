"""A streamed answer on its way: order on the caller's side, flow control on both.

The caller grants a number of replies; the server sends no more and waits. As the caller consumes, it
raises the total it has granted, which is a number that only grows, so a credit that is lost, doubled or late
does no harm. Pure bookkeeping: who sends what is decided here, sending is not done here.
"""

from __future__ import annotations

import asyncio
from collections import deque

from ._wire import OK, Address, Reply
from .errors import Aborted, ResourceExhausted, SbrpcError

__all__ = ["Inflow", "Outflow"]


class Inflow:
    """The caller's end: takes replies as they arrive, hands them out in order, says when to grant more."""

    def __init__(self, window: int) -> None:
        self.window = window
        self.control: Address | None = None
        self.ended = False
        self.granted = window
        self._expected = 0
        self._taken = 0
        self._early: dict[int, Reply] = {}
        self._ready: deque[Reply] = deque()
        self._failure: SbrpcError | None = None
        self._arrived = asyncio.Event()

    def push(self, reply: Reply) -> bool:
        """Take what arrived; True when nothing more is to come."""
        if self.control is None:
            self.control = reply.control
        elif reply.control is not None and reply.control.session != self.control.session:
            # A second server began the answer anew. Its parts need not fit those of the first.
            return self._fail(Aborted("the server was replaced in the middle of the stream; call again"))
        if reply.status is None:
            return False
        sequence = reply.sequence
        if sequence is None:
            # A plain reply to a streaming call: an error from before the stream began.
            return self._finish(reply)
        if sequence < self._expected or sequence in self._early:
            return False
        if sequence >= self.granted + 1:
            return self._fail(ResourceExhausted("the server sends more replies than it was granted"))
        self._early[sequence] = reply
        while (following := self._early.pop(self._expected, None)) is not None:
            self._expected += 1
            if following.end:
                return self._finish(following)
            self._ready.append(following)
            self._arrived.set()
        return False

    async def next(self) -> Reply | None:
        """The next reply in order, None at the end; cancelling loses nothing.

        Raises:
            SbrpcError: the stream broke.
        """
        while not self._ready:
            if self._failure is not None:
                raise self._failure
            if self.ended:
                return None
            self._arrived.clear()
            await self._arrived.wait()
        self._taken += 1
        return self._ready.popleft()

    def grant(self) -> int | None:
        """The new total to tell the server, when it is time to."""
        if self.ended or self.granted - self._taken > self.window // 2:
            return None
        self.granted = self._taken + self.window
        return self.granted

    def fail(self, error: SbrpcError) -> None:
        """End the stream with an error that did not come from the server."""
        self._fail(error)

    def _finish(self, last: Reply) -> bool:
        if last.status != OK or last.body:
            self._ready.append(last)
        self.ended = True
        self._arrived.set()
        return True

    def _fail(self, error: SbrpcError) -> bool:
        if not self.ended:
            self._failure = error
            self.ended = True
            self._arrived.set()
        return True


class Outflow:
    """The server's end: counts what was sent and waits for leave to send more."""

    def __init__(self, window: int | None) -> None:
        self._granted = window
        self._more = asyncio.Event()
        self.sent = 0

    @property
    def blocked(self) -> bool:
        """Whether the next reply has to wait."""
        return self._granted is not None and self.sent >= self._granted

    def take(self) -> int:
        """The sequence number of the reply that is sent now."""
        self.sent += 1
        return self.sent - 1

    def grant(self, total: int) -> None:
        """The caller may be sent this many replies in total."""
        if self._granted is not None and total > self._granted:
            self._granted = total
            self._more.set()

    async def wait(self, patience: float) -> bool:
        """Wait for leave to send; False when it did not come within `patience` seconds."""
        while self.blocked:
            self._more.clear()
            try:
                await asyncio.wait_for(self._more.wait(), patience)
            except asyncio.TimeoutError:
                return False
        return True
