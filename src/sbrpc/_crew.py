"""The crew of a message pump: handles what its links bring, so many at a time, and keeps the locks of it.

Owns the messages that were received one by one and are not settled yet, the tasks that handle them, and how
many more may be asked for. Opens no link, and does not know what a message means.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from contextvars import copy_context
from functools import partial
from time import monotonic

import anyio
import anyio.abc
from azure.servicebus import ServiceBusReceivedMessage

from ._age import BrokerAge
from ._receiver import Receiver
from ._receiving import Delivery, Handle, Stopping, give_back
from ._sdk import LockLost
from ._settling import HeldLock
from ._tasks import Turns, isolated
from .errors import BusError

__all__ = ["Crew", "tell"]

_log = logging.getLogger("sbrpc.competing")

# Messages whose handlers pause between attempts make room for others, up to this multiple of what may run.
# More of them, and the next thing to fail is the memory.
_MOST_HELD = 4

# How often what is held is looked through for locks to renew. Locks last 5 s at least, as a rule 60.
_LOOK_AT_LOCKS = 0.25


class Crew:
    """Handles up to `concurrency` messages at a time, each in a context of its own.

    `handle` is cancelled when the lock of its message is lost. A pause between attempts makes room for
    another message, and so does settling. `on_change` is called whenever there may be room, or nothing left
    to do.
    """

    def __init__(
        self,
        handle: Handle,
        *,
        what: str,
        concurrency: int,
        stopping: Stopping,
        on_change: Callable[[], None],
    ) -> None:
        self._handle = handle
        self._what = what
        self._concurrency = concurrency
        self._stopping = stopping
        self._on_change = on_change
        self._ages = BrokerAge()
        self._held: set[_Held] = set()
        self._running = 0
        self._waiting: deque[_Held] = deque()
        self._idle: list[asyncio.Future[_Held]] = []
        """Tasks that have nothing to handle, the one that was busy last at the end."""
        self._giving_up = False
        self._tasks: anyio.abc.TaskGroup | None = None
        self._context = copy_context()
        """What handlers see that nothing was set for."""

    @property
    def held(self) -> int:
        """Messages that were taken and are not done with."""
        return len(self._held)

    @property
    def places(self) -> int:
        """How many more messages would be handled at once."""
        if len(self._held) >= self._concurrency * _MOST_HELD:
            return 0
        return self._concurrency - self._running - len(self._waiting)

    def take(self, receiver: Receiver, message: ServiceBusReceivedMessage) -> None:
        """Handle a message, now or as soon as there is a place for it; its lock is kept until then, too."""
        _, stale = self._ages.of(message.enqueued_time_utc, message.locked_until_utc, monotonic())
        if stale:
            _log.warning("%s: the lock of a message ran out before it could be handled", self._what)
            receiver.leave()
            self._on_change()
            return
        held = _Held(receiver, message, self._leave_place)
        self._held.add(held)
        if self._running < self._concurrency:
            self._begin(held)
        else:
            self._waiting.append(held)

    def give_up(self) -> None:
        """Cancel what is being handled and abandon all that is held."""
        self._giving_up = True
        for held in self._held:
            held.end("the pump stops")
        while self._waiting:
            self._begin(self._waiting.popleft())

    async def run(self) -> None:
        """Be there for messages, until cancelled. What is handled then is cancelled as well."""
        async with anyio.create_task_group() as tasks:
            self._tasks = tasks
            self._context = copy_context()
            while True:
                await anyio.sleep(_LOOK_AT_LOCKS)
                now = monotonic()
                for held in list(self._held):
                    held.look(now)

    # -- places ------------------------------------------------------------------------------------------

    def _begin(self, held: _Held) -> None:
        """Have it handled by a task that has nothing to do, or by a new one."""
        held.has_place = True
        self._running += 1
        if self._idle:
            self._idle.pop().set_result(held)
        else:
            assert self._tasks is not None
            self._tasks.start_soon(self._work, held, name=f"handle messages of {self._what}")

    def _leave_place(self, held: _Held) -> None:
        """It keeps no other from being handled any more."""
        if held.has_place:
            held.has_place = False
            self._running -= 1
            if self._waiting and self._running < self._concurrency:
                self._begin(self._waiting.popleft())
            self._on_change()

    async def _pause(self, held: _Held, seconds: float) -> None:
        self._leave_place(held)
        try:
            await self._stopping.pause(seconds)
        finally:
            held.has_place = True
            self._running += 1

    # -- messages ----------------------------------------------------------------------------------------

    async def _work(self, held: _Held) -> None:
        """Handle one message after the other. A task for each would be a good part of what one costs."""
        with Turns() as turns:
            while True:
                await self._serve(held, turns)
                if len(self._idle) >= self._concurrency:
                    return
                free: asyncio.Future[_Held] = asyncio.get_running_loop().create_future()
                self._idle.append(free)
                held = await free

    async def _serve(self, held: _Held, turns: Turns) -> None:
        try:
            await self._handle_one(held, turns)
            if self._giving_up and not held.delivery.tried:
                try:
                    await give_back([held.delivery])
                except BusError as error:
                    tell(error, self._what)
        finally:
            if not held.delivery.tried:
                held.receiver.leave()
            self._held.discard(held)
            if held.has_place:
                self._leave_place(held)
            else:
                self._on_change()

    async def _handle_one(self, held: _Held, turns: Turns) -> None:
        if held.ended is None:
            held.scope = turns.scope()
            try:
                pause = partial(self._pause, held)
                await isolated(self._handle([held.delivery], pause), self._context.copy())
            except BaseException as error:
                held.scope = None
                if not turns.over(error):
                    if not isinstance(error, Exception):
                        raise
                    tell(error, self._what)
            else:
                held.scope = None
                turns.over(None)
        if held.ended is not None and not self._giving_up:
            _log.warning(
                "%s: the lock of a message was lost while it was being handled: %s", self._what, held.ended
            )


def tell(error: Exception, what: str) -> None:
    """Log why the message of a handler is delivered again."""
    if isinstance(error, LockLost):
        _log.warning("%s", error)
    elif isinstance(error, BusError):
        _log.warning("%s; it will be delivered again", error)
    else:  # the handler's own failure; the messages come back, and the log has the reason
        _log.error("handling a message of %s failed", what, exc_info=error)


class _Held:
    """A message that is being handled or waits for it, its lock, and where it is settled."""

    __slots__ = ("_leave_place", "_lock", "delivery", "ended", "has_place", "receiver", "scope")

    def __init__(
        self, receiver: Receiver, message: ServiceBusReceivedMessage, leave_place: Callable[[_Held], None]
    ) -> None:
        self.receiver = receiver
        self.delivery = Delivery(message, self)
        self.has_place = False
        self.scope: anyio.CancelScope | None = None
        self.ended: str | None = None
        """Why it is not to be handled, or not any more."""
        self._lock = HeldLock(receiver, message)
        self._leave_place = leave_place

    def look(self, now: float) -> None:
        """Renew the lock if it is time to; end it if the lock is gone."""
        lost = self._lock.look(now)
        if lost is not None:
            self.end(lost)

    def end(self, why: str) -> None:
        """Cancel what handles it; the first reason counts."""
        if self.ended is None:
            self.ended = why
            if self.scope is not None:
                self.scope.cancel()

    # Its handler has ended when it is settled, and keeps no other from beginning.

    def complete(self, message: ServiceBusReceivedMessage) -> Awaitable[None]:
        self._leave_place(self)
        return self.receiver.complete(message)

    def abandon(self, message: ServiceBusReceivedMessage) -> Awaitable[None]:
        self._leave_place(self)
        return self.receiver.abandon(message)

    def dead_letter(
        self, message: ServiceBusReceivedMessage, reason: str, description: str
    ) -> Awaitable[None]:
        self._leave_place(self)
        return self.receiver.dead_letter(message, reason, description)
