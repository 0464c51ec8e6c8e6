"""One SDK receiver and the one task that uses it.

The SDK's receivers must not be used by two coroutines at a time: a settlement beside a waiting receive holds
the socket for 0.2 s, and what the one reads the other does not notice. So receiving, settling and renewing
take turns here. The task waits for messages and is called out of its wait, gently, when something is to be
settled: reads of the SDK may be cancelled at any point without losing a byte.

Owns the loop over one link until it breaks. What messages mean, and what happens after the link is gone, is
decided elsewhere.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import anyio
from azure.servicebus import ServiceBusReceivedMessage
from azure.servicebus.aio import ServiceBusReceiver

from . import _sdk
from .errors import BusError

__all__ = ["Receiver"]

T = TypeVar("T")

_log = logging.getLogger("sbrpc.receiver")

# Looks into the SDK's buffer without waiting: a budget that is spent before it starts.
_NO_WAIT = 1e-9

# The longest wait for a message. Only an upper bound: whatever is to be done ends the wait.
_WAIT = 30.0

# Under load the next message ends the wait anyway; this spares most settlements the cost of calling out.
_PATIENCE = 0.004

# A broker that does not confirm a settlement or a renewal within this time has gone away.
_OPERATION_TIMEOUT = 10.0


class Receiver:
    """Takes messages from one SDK receiver, one by one, as long as there is room for them.

    `run()` is the owner task. The others may be called from any task of the same event loop.
    """

    def __init__(
        self,
        receiver: ServiceBusReceiver,
        what: str,
        *,
        on_message: Callable[[ServiceBusReceivedMessage], None],
        has_room: Callable[[], bool] = lambda: True,
        outlives_link: bool = False,
    ) -> None:
        self._sdk = receiver
        self._what = what
        self._on_message = on_message
        self._has_room = has_room
        self._outlives_link = outlives_link
        self._operations: deque[_Operation] = deque()
        self._wake = asyncio.Event()
        self._waiting: anyio.CancelScope | None = None
        self._receiving = True
        self._stopped = False
        self._broken: BusError | None = None
        self.received = 0
        self.outstanding = 0
        """Messages that were received and are neither settled nor left."""

    # -- for everybody -----------------------------------------------------------------------------------

    @property
    def broken(self) -> BusError | None:
        """Why the link ended, if it did."""
        return self._broken

    def complete(self, message: ServiceBusReceivedMessage) -> asyncio.Future[None]:
        """Settle: done."""
        return self._settle(lambda: self._sdk.complete_message(message), "complete")

    def abandon(self, message: ServiceBusReceivedMessage) -> asyncio.Future[None]:
        """Settle: to be delivered again at once."""
        return self._settle(lambda: self._sdk.abandon_message(message), "abandon")

    def dead_letter(
        self, message: ServiceBusReceivedMessage, reason: str, description: str
    ) -> asyncio.Future[None]:
        """Settle: to the dead-letter queue."""
        return self._settle(
            lambda: self._sdk.dead_letter_message(message, reason=reason, error_description=description),
            "dead-letter",
        )

    def leave(self) -> None:
        """A message is not going to be settled here; its lock was lost or is to run out."""
        self._gone()

    def renew(self, message: ServiceBusReceivedMessage) -> asyncio.Future[None]:
        """Renew the lock of a message."""
        return self._enqueue(lambda: self._sdk.renew_message_lock(message), "renew", urgent=True)

    def renew_session(self) -> asyncio.Future[None]:
        """Renew the lock of the session."""
        return self._enqueue(lambda: self._sdk.session.renew_lock(), "renew the session", urgent=True)

    def room_made(self) -> None:
        """There may be room for messages again."""
        self._wake.set()

    def pause(self) -> None:
        """Take no more messages; go on settling."""
        self._receiving = False
        self._call_out(0)

    def stop(self) -> None:
        """Take no more messages, finish what is to be settled, then end `run()`."""
        self._receiving = False
        self._stopped = True
        self._call_out(0)

    def _settle(self, act: Callable[[], Awaitable[Any]], name: str) -> asyncio.Future[None]:
        future = self._enqueue(act, name)
        future.add_done_callback(lambda settled: self._gone())
        return future

    def _gone(self) -> None:
        self.outstanding -= 1
        self._wake.set()

    def _enqueue(
        self, act: Callable[[], Awaitable[Any]], name: str, *, urgent: bool = False
    ) -> asyncio.Future[None]:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self._broken is not None and not self._outlives_link:
            future.set_exception(_sdk.LockLost(f"{self._what}: cannot {name}, the link is gone"))
            _retrieved(future)
        else:
            self._operations.append(_Operation(act, name, future))
            self._call_out(0 if urgent else _PATIENCE)
        return future

    def _call_out(self, patience: float) -> None:
        self._wake.set()
        if self._waiting is not None:
            self._waiting.deadline = min(self._waiting.deadline, anyio.current_time() + patience)

    # -- the owner task ----------------------------------------------------------------------------------

    async def run(self) -> None:
        """Use the open SDK receiver until `stop()`.

        Raises:
            BusError: the link is gone. Operations that were not done have failed with `LockLost`.
        """
        try:
            with _sdk.translated(self._what):
                await self._loop()
        except BusError as error:
            self._broken = error
            raise
        finally:
            self._broken = self._broken or BusError(f"{self._what} is closed")
            if not self._outlives_link:
                self._fail_operations()

    async def linger(self) -> None:
        """After the link of a queue without sessions broke: settle what was received over it.

        The locks are still ours, and the SDK settles by lock token over a new connection that it opens by
        itself. Ends when nothing is outstanding any more, and gives up on what cannot be settled.
        """
        try:
            while self.outstanding > 0 or self._operations:
                if not self._operations:
                    self._wake.clear()
                    await self._wake.wait()
                    continue
                operation = self._operations.popleft()
                for pause in (0.2, 0.5, 1.0, None):
                    try:
                        await self._perform(operation, last=pause is None)
                        break
                    except BusError:
                        if pause is not None:
                            await anyio.sleep(pause)
        finally:
            self._outlives_link = False
            self._fail_operations()

    def _fail_operations(self) -> None:
        while self._operations:
            operation = self._operations.popleft()
            operation.fail(_sdk.LockLost(f"{self._what}: {operation.name}: {self._broken}"))

    async def _loop(self) -> None:
        while True:
            self._wake.clear()
            if self._receiving and self._has_room():
                await self._receive(_NO_WAIT if self._operations else _WAIT)
            elif not self._operations:
                if self._stopped:
                    return
                await self._wake.wait()
            if self._operations:
                await self._perform(self._operations.popleft())

    async def _receive(self, wait: float) -> None:
        messages: list[ServiceBusReceivedMessage] = []
        with anyio.CancelScope() as scope:
            self._waiting = scope
            try:
                messages = await self._sdk.receive_messages(max_message_count=1, max_wait_time=wait)
            finally:
                self._waiting = None
        for message in messages:
            self.received += 1
            self.outstanding += 1
            self._on_message(message)

    async def _perform(self, operation: _Operation, *, last: bool | None = None) -> None:
        last = not self._outlives_link if last is None else last
        try:
            with _sdk.translated(f"{self._what}: {operation.name}"), anyio.fail_after(_OPERATION_TIMEOUT):
                await operation.act()
        except _sdk.LinkLost as error:
            if last:
                operation.fail(error)
            elif self._broken is None:
                self._operations.appendleft(operation)
            raise
        except BusError as error:
            operation.fail(error)
        except BaseException:
            operation.fail(_sdk.LinkLost(f"{self._what}: {operation.name} was interrupted"))
            raise
        else:
            operation.succeed()


class _Operation:
    __slots__ = ("_future", "act", "name")

    def __init__(self, act: Callable[[], Awaitable[Any]], name: str, future: asyncio.Future[None]) -> None:
        self.act = act
        self.name = name
        self._future = future

    def succeed(self) -> None:
        if not self._future.done():
            self._future.set_result(None)

    def fail(self, error: BusError) -> None:
        if not self._future.done():
            self._future.set_exception(error)
            _retrieved(self._future)


def _retrieved(future: asyncio.Future[None]) -> None:
    """Nobody has to await a settlement; one that fails must not be reported by the garbage collector."""
    future.exception()
