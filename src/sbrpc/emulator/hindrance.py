"""What stands between a socket and the gateway while faults are in force: silence, delay, and the end.

Owns carrying out, for one connection, what `faults` decides about its bytes. It imports asyncio for its
timers and knows no AMQP.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from sbrpc.emulator.faults import Faults, Subject

__all__ = ["DelayLine", "Hindrance"]


class DelayLine:
    """Hands on what is put in, in order, each piece no earlier than its time."""

    def __init__(self, loop: asyncio.AbstractEventLoop, hand_on: Callable[[bytes], None]) -> None:
        self.size = 0
        """Bytes that wait."""
        self._loop = loop
        self._hand_on = hand_on
        self._waiting: deque[tuple[float, bytes]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def put(self, data: bytes, delay: float) -> None:
        """Take a piece; it goes on at once only if nothing waits before it."""
        if not delay and not self._waiting:
            self._hand_on(data)
            return
        self._waiting.append((self._loop.time() + delay, data))
        self.size += len(data)
        if self._timer is None:
            self._arm()

    def clear(self) -> None:
        """Throw away what waits."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._waiting.clear()
        self.size = 0

    def _arm(self) -> None:
        due, _ = self._waiting[0]
        self._timer = self._loop.call_at(due, self._come_due)

    def _come_due(self) -> None:
        self._timer = None
        _, data = self._waiting.popleft()
        self.size -= len(data)
        self._hand_on(data)
        if self._waiting and self._timer is None:
            self._arm()


class Hindrance:
    """One connection's. `feed` and `write` are what happens without faults, `cut` ends the connection."""

    def __init__(
        self,
        subject: Subject,
        faults: Faults,
        loop: asyncio.AbstractEventLoop,
        *,
        feed: Callable[[bytes], None],
        write: Callable[[bytes], None],
        cut: Callable[[], None],
        most_waiting: int,
    ) -> None:
        self._subject = subject
        self._faults = faults
        self._cut = cut
        self._most_waiting = most_waiting
        self._in = DelayLine(loop, feed)
        self._out = DelayLine(loop, write)
        self._silent = False
        self._over = False

    def incoming(self, data: bytes) -> None:
        """Bytes have come from the socket."""
        if self._over or self._is_silent():
            return
        passage = self._faults.incoming(self._subject, data)
        if passage.data:
            self._in.put(passage.data, passage.delay)
        if passage.cut or self._in.size > self._most_waiting:
            self._end()

    def outgoing(self, data: bytes) -> None:
        """Bytes are to be sent."""
        if self._over or self._is_silent():
            return
        self._out.put(data, self._faults.outgoing_delay(self._subject))
        if self._out.size > self._most_waiting:
            self._end()

    @property
    def waiting(self) -> bool:
        """Whether bytes are still to be sent."""
        return self._out.size > 0

    def review(self) -> None:
        """The faults have changed: what was swallowed cannot be made good, so its connection ends with it."""
        if self._silent and not self._faults.silent(self._subject):
            self._end()

    def close(self) -> None:
        """The connection is gone."""
        self._over = True
        self._in.clear()
        self._out.clear()
        self._faults.forget(self._subject)

    def _is_silent(self) -> bool:
        self._silent = self._silent or self._faults.silent(self._subject)
        return self._silent

    def _end(self) -> None:
        self.close()
        self._cut()
