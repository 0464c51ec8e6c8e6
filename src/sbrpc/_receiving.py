"""What the pumps share: a delivery that is settled once, how much to ask for, and stopping.

The SDK's buffer is out of reach: what waits in it is not renewed, and behind slow handlers it would go round
until Service Bus dead-letters it unseen. So a pump asks for as many messages as it can start at once, takes
what it has asked for as soon as it comes, and renews all it holds.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import anyio
from azure.servicebus import ServiceBusReceivedMessage
from azure.servicebus.aio import ServiceBusReceiver

from ._sdk import translated

__all__ = ["Appetite", "Delivery", "Direct", "Handle", "Pause", "Settler", "Stopped", "Stopping", "give_back"]

# Besides twice the quickest answer seen, this much is still taken for an answer from a backlog.
_PROMPT = 0.005

# Seconds for abandoning what a pump that stops has not handled; what is left comes back when its lock ends.
_GIVE_BACK = 2.0


class Stopped(Exception):
    """The pump stops; what has not begun yet is not to begin any more. Stays inside the library."""


class Pause(Protocol):
    """Waits between attempts on a message, without keeping others from being handled.

    Raises:
        Stopped: the pump stops, so there is no use in waiting.
    """

    async def __call__(self, seconds: float, /) -> None: ...


class Settler(Protocol):
    """Settles messages where they came from. Raises `BusError` when it could not."""

    def complete(self, message: ServiceBusReceivedMessage, /) -> Awaitable[None]: ...

    def abandon(self, message: ServiceBusReceivedMessage, /) -> Awaitable[None]: ...

    def dead_letter(
        self, message: ServiceBusReceivedMessage, reason: str, description: str, /
    ) -> Awaitable[None]: ...


class Direct:
    """Settles on an SDK receiver that nobody else is using meanwhile."""

    def __init__(self, receiver: ServiceBusReceiver, what: str) -> None:
        self._receiver = receiver
        self._what = what

    async def complete(self, message: ServiceBusReceivedMessage) -> None:
        with translated(f"{self._what}: completing message {message.sequence_number}"):
            await self._receiver.complete_message(message)

    async def abandon(self, message: ServiceBusReceivedMessage) -> None:
        with translated(f"{self._what}: abandoning message {message.sequence_number}"):
            await self._receiver.abandon_message(message)

    async def dead_letter(self, message: ServiceBusReceivedMessage, reason: str, description: str) -> None:
        with translated(f"{self._what}: dead-lettering message {message.sequence_number}"):
            await self._receiver.dead_letter_message(message, reason=reason, error_description=description)


class Delivery:
    """A received message and where it is to be settled. Settling it a second time does nothing.

    All of its methods raise `BusError` when the message could not be settled and will be delivered again,
    `LockLost` when that is because it is no longer ours.
    """

    __slots__ = ("message", "settled", "tried", "_settler")

    def __init__(self, message: ServiceBusReceivedMessage, settler: Settler) -> None:
        self.message = message
        self.settled = False
        self.tried = False
        """Whether it was attempted; what has failed once is not ours any more."""
        self._settler = settler

    async def complete(self) -> None:
        """Done; Service Bus deletes the message."""
        if not self.settled:
            self.tried = True
            await self._settler.complete(self.message)
            self.settled = True

    async def abandon(self) -> None:
        """Give the message back; its delivery count grows."""
        if not self.settled:
            self.tried = True
            await self._settler.abandon(self.message)
            self.settled = True

    async def dead_letter(self, reason: str, description: str) -> None:
        """Move the message to the dead letters."""
        if not self.settled:
            self.tried = True
            await self._settler.dead_letter(self.message, reason, description)
            self.settled = True


async def give_back(deliveries: Sequence[Delivery]) -> None:
    """Abandon what was not attempted, as far as that is quick.

    Raises:
        BusError: one could not be abandoned.
    """
    with anyio.move_on_after(_GIVE_BACK):
        for delivery in deliveries:
            if not delivery.tried:
                await delivery.abandon()


Handle = Callable[[Sequence[Delivery], Pause], Coroutine[Any, Any, None]]
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
