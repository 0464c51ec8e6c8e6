"""What the pumps share: a delivery that is settled once, how much to ask for, and stopping.

Receivers run without prefetch. The SDK's buffer is out of reach: what waits in it is not renewed, and behind
slow handlers it would go round until Service Bus dead-letters it unseen. So a pump asks for as many messages
as it can start at once, and renews all it holds.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import anyio
from azure.servicebus import ServiceBusReceivedMessage
from azure.servicebus.aio import ServiceBusReceiver
from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt, wait_fixed

from ._sdk import is_transient, translated

__all__ = ["Appetite", "Delivery", "Handle", "Pause", "Stopped", "Stopping"]

# Besides twice the quickest answer seen, this much is still taken for an answer from a backlog.
_PROMPT = 0.005

_SETTLE_ONCE = AsyncRetrying(stop=stop_after_attempt(1), reraise=True)
_SETTLE_AGAIN = AsyncRetrying(
    retry=retry_if_exception(is_transient), stop=stop_after_attempt(3), wait=wait_fixed(0.3), reraise=True
)


class Stopped(Exception):
    """The pump stops; what has not begun yet is not to begin any more. Stays inside the library."""


class Pause(Protocol):
    """Waits between attempts on a message, without keeping others from being handled.

    Raises:
        Stopped: the pump stops, so there is no use in waiting.
    """

    async def __call__(self, seconds: float, /) -> None: ...


class Delivery:
    """A received message and the receiver it has to be settled on. Settling it a second time does nothing."""

    __slots__ = ("message", "settled", "_receiver", "_retrying", "_what")

    def __init__(
        self,
        message: ServiceBusReceivedMessage,
        receiver: ServiceBusReceiver,
        what: str,
        *,
        in_session: bool,
    ) -> None:
        self.message = message
        self.settled = False
        self._receiver = receiver
        self._what = what
        # A message outside of a session stays locked when its link is lost, and can be settled on the next
        # one. A session's message cannot: its receiver is of no use any more.
        self._retrying = _SETTLE_ONCE if in_session else _SETTLE_AGAIN

    async def complete(self) -> None:
        """Done; Service Bus deletes the message.

        Raises:
            BusError: it could not be settled and will be delivered again; LockLost when the lock is gone.
        """
        await self._settle("completing", lambda: self._receiver.complete_message(self.message))

    async def abandon(self) -> None:
        """Give the message back; its delivery count grows. Raises like `complete`."""
        await self._settle("abandoning", lambda: self._receiver.abandon_message(self.message))

    async def dead_letter(self, reason: str, description: str) -> None:
        """Move the message to the dead letters. Raises like `complete`."""
        await self._settle(
            "dead-lettering",
            lambda: self._receiver.dead_letter_message(
                self.message, reason=reason, error_description=description
            ),
        )

    async def _settle(self, doing: str, operation: Callable[[], Awaitable[None]]) -> None:
        if self.settled:
            return

        async def once() -> None:
            with translated(f"{doing} message {self.message.sequence_number} of {self._what}"):
                await operation()

        await self._retrying.copy()(once)  # a copy, as running it changes it
        self.settled = True


Handle = Callable[[Sequence[Delivery], Pause], Awaitable[None]]
"""Handles messages in their order and settles them. Cancelled when their lock is lost."""


class Appetite:
    """How many messages to ask for next: one while they come one by one, more while there is a backlog.

    Of n > 1 messages asked for, the SDK holds back what has come for up to 0.2 s until all n are there. That
    is lost time for messages that come one by one, and none where n are waiting. The two are told apart by
    how quickly the last answer came, compared with the quickest one there was: a round trip to the broker.
    """

    __slots__ = ("_asked", "_most", "_next", "_quickest")

    def __init__(self, most: int) -> None:
        self._most = most
        self._next = 1
        self._asked = 1
        self._quickest = 1.0

    def ask(self, room: int) -> int:
        """How many messages to ask for, with `room` places free for them."""
        self._asked = max(1, min(self._next, room))
        return self._asked

    def got(self, count: int, seconds: float, *, redelivered: bool) -> None:
        """Learn from an answer of `count` messages that took `seconds`.

        A redelivered message may be one that kills the process each time. What is received together with it
        shares its fate and its delivery count, so it is left alone.
        """
        if redelivered or count < self._asked:
            self._next = 1
            return
        each = seconds / count
        self._quickest = min(self._quickest, each)
        if each <= 2 * self._quickest + _PROMPT:
            self._next = min(self._most, self._asked * 2)
        else:
            self._next = max(1, self._asked // 2)


class Stopping:
    """Says that a pump takes nothing more, and ends the waits that were only for more."""

    def __init__(self) -> None:
        self._event = anyio.Event()
        self._scopes: set[anyio.CancelScope] = set()

    @property
    def is_set(self) -> bool:
        """Whether the pump stops."""
        return self._event.is_set()

    def set(self) -> None:
        """Stop taking; calling it again does nothing."""
        self._event.set()
        for scope in tuple(self._scopes):
            scope.cancel()

    @contextmanager
    def interrupts(self) -> Iterator[None]:
        """The block is cancelled when stopping begins, and execution goes on behind it."""
        with anyio.CancelScope() as scope:
            if self.is_set:
                scope.cancel()
            self._scopes.add(scope)
            try:
                yield
            finally:
                self._scopes.discard(scope)

    async def sleep(self, seconds: float) -> None:
        """Sleep that long, or until stopping begins."""
        with anyio.move_on_after(seconds):
            await self._event.wait()

    async def pause(self, seconds: float) -> None:
        """Sleep as a `Pause`.

        Raises:
            Stopped: stopping has begun.
        """
        await self.sleep(seconds)
        if self.is_set:
            raise Stopped
