"""One SDK receiver and the one task that uses it.

The SDK's receivers must not wait for messages and settle at a time: whoever waits holds the socket for up to
0.2 s, and what the one reads the other does not notice. So receiving, settling and renewing take turns here.
The task waits for messages and is called out of its wait, gently, when something is to be settled: reads of
the SDK may be cancelled at any point without losing a byte. Where settlements are not confirmed promptly they
run side by side, or a distant broker would be asked for one thing per round trip. They read the socket for
everybody; while any is under way, nobody waits for messages, they are looked for.

Owns the loop over one link until it breaks, and what was received over it until it is settled. What messages
mean, and where another link comes from, is decided elsewhere.
"""

from __future__ import annotations

import asyncio
import logging
import math
import sys
from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial
from time import monotonic
from typing import Any

import anyio
import anyio.abc
from azure.servicebus import ServiceBusReceivedMessage
from azure.servicebus.aio import ServiceBusReceiver

from . import _sdk
from ._tasks import telling
from .errors import BusError

__all__ = ["Receiver"]

Done = Callable[[BusError | None], None]

_log = logging.getLogger("sbrpc.receiver")

# Looks into the SDK's buffer without waiting: a budget that is spent before it starts.
_NO_WAIT = 1e-9

# The longest wait for a message. Only an upper bound: whatever is to be done ends the wait.
_WAIT = 30.0

# Under load the next message ends the wait anyway; this spares most settlements the cost of calling out.
_PATIENCE = 0.004

# Where a settlement is confirmed sooner than this, one after the other is quickest: of several at a time, one
# may read what another one waits for, which then waits until the socket has been silent for 0.2 s.
_PROMPTLY = 0.02

# One may be slow because this process did not get its turn.
_SLOW = 3

# How many operations may be under way, and how often messages are looked for meanwhile.
_MOST_AT_ONCE = 64
_LOOK = 0.005

# A broker that does not confirm a settlement or a renewal within this time has gone away.
_OPERATION_TIMEOUT = 10.0

# How long operations may take to find out that their link is gone.
_LAST_CHANCE = 0.2

# How many links an operation is tried over, if it outlives them.
_MOST_ATTEMPTS = 4


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
        self._under_way: set[_Operation] = set()
        self._wake = asyncio.Event()
        self._waiting: anyio.CancelScope | None = None
        self._impatient: asyncio.TimerHandle | None = None
        self._receiving = True
        self._stopped = False
        self._broken: BusError | None = None
        self._slow = 0
        """How many operations in a row were not confirmed promptly."""
        self.received = 0
        self.outstanding = 0
        """Messages that were received and are neither settled nor left."""

    # -- for everybody -----------------------------------------------------------------------------------

    @property
    def broken(self) -> BusError | None:
        """Why the link ended, if it did."""
        return self._broken

    @property
    def receiving(self) -> bool:
        """Whether a message may come at any moment; after `pause()` soon no longer."""
        return self._waiting is not None

    def complete(self, message: ServiceBusReceivedMessage) -> asyncio.Future[None]:
        """Settle: done."""
        return self._awaited(partial(self.completing, message))

    def abandon(self, message: ServiceBusReceivedMessage) -> asyncio.Future[None]:
        """Settle: to be delivered again at once."""
        return self._awaited(partial(self.abandoning, message))

    def dead_letter(
        self, message: ServiceBusReceivedMessage, reason: str, description: str
    ) -> asyncio.Future[None]:
        """Settle: to the dead-letter queue."""
        return self._awaited(partial(self.dead_lettering, message, reason, description))

    # As above, for those who are told instead of waiting: a future would cost as much as all else here.

    def completing(self, message: ServiceBusReceivedMessage, done: Done) -> None:
        """Settle: done."""
        self._settle(lambda: self._sdk.complete_message(message), "complete", done)

    def abandoning(self, message: ServiceBusReceivedMessage, done: Done) -> None:
        """Settle: to be delivered again at once."""
        self._settle(lambda: self._sdk.abandon_message(message), "abandon", done)

    def dead_lettering(
        self, message: ServiceBusReceivedMessage, reason: str, description: str, done: Done
    ) -> None:
        """Settle: to the dead-letter queue."""
        self._settle(
            lambda: self._sdk.dead_letter_message(message, reason=reason, error_description=description),
            "dead-letter",
            done,
        )

    def leave(self) -> None:
        """A message is not going to be settled here; its lock was lost or is to run out."""
        self._gone()

    def renew(self, message: ServiceBusReceivedMessage) -> asyncio.Future[None]:
        """Renew the lock of a message."""
        return self._awaited(
            partial(self._enqueue, lambda: self._sdk.renew_message_lock(message), "renew", urgent=True)
        )

    def renew_session(self) -> asyncio.Future[None]:
        """Renew the lock of the session."""
        return self._awaited(
            partial(self._enqueue, lambda: self._sdk.session.renew_lock(), "renew the session", urgent=True)
        )

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

    def _awaited(self, begin: Callable[[Done], None]) -> asyncio.Future[None]:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        begin(telling(future))
        return future

    def _settle(self, act: Callable[[], Awaitable[Any]], name: str, done: Done) -> None:
        def gone(error: BusError | None) -> None:
            self._gone()
            done(error)

        self._enqueue(act, name, gone)

    def _gone(self) -> None:
        self.outstanding -= 1
        self._wake.set()

    def _enqueue(
        self, act: Callable[[], Awaitable[Any]], name: str, done: Done, *, urgent: bool = False
    ) -> None:
        if self._broken is not None and not self._outlives_link:
            done(_sdk.LockLost(f"{self._what}: cannot {name}, the link is gone"))
        else:
            self._operations.append(_Operation(act, name, done))
            self._call_out(0 if urgent else _PATIENCE)

    def _call_out(self, patience: float) -> None:
        self._wake.set()
        if self._waiting is None:
            return
        if not patience:
            self._waiting.cancel()
        elif self._impatient is None:
            self._impatient = asyncio.get_running_loop().call_later(patience, self._lose_patience)

    def _lose_patience(self) -> None:
        # Set once and left to go off: setting a timer anew for each message would cost more than that.
        self._impatient = None
        if not self._operations or self._waiting is None:
            return
        left = self._operations[0].posted + _PATIENCE - monotonic()
        if left > 0:  # it was set for another one, which is done with
            self._impatient = asyncio.get_running_loop().call_later(left, self._lose_patience)
        else:
            self._waiting.cancel()

    # -- the owner task ----------------------------------------------------------------------------------

    async def run(self) -> None:
        """Use the open SDK receiver until `stop()`.

        Raises:
            BusError: the link is gone. Operations that were not done wait for `linger()` if they outlive the
                link, and have failed otherwise.
        """
        try:
            async with anyio.create_task_group() as tasks:
                try:
                    with _sdk.translated(self._what), anyio.CancelScope() as scope:
                        tasks.start_soon(self._watch, scope, name=f"watch {self._what}")
                        await self._loop(tasks)
                    if scope.cancelled_caught:
                        raise _sdk.LinkLost(f"{self._what}: not confirmed in time")
                except BusError as error:  # carried out of the task group, which would wrap it
                    self._broken = self._broken or _sdk.remembered(error)
                    await self._until_nothing_is_under_way(_LAST_CHANCE)
                tasks.cancel_scope.cancel()
        except BaseException:
            self._outlives_link = False
            raise
        finally:
            broken = self._broken
            self._broken = broken or BusError(f"{self._what} is closed")
            if not self._outlives_link:
                self._fail_operations()
        if broken is not None:
            raise broken

    async def _watch(self, scope: anyio.CancelScope) -> None:
        """Give up on a link over which something is not confirmed.

        From outside and now and then: a scope of its own around every settlement would be a part of its cost.
        """
        while True:
            await anyio.sleep(1.0)
            late = monotonic() - _OPERATION_TIMEOUT
            if any(operation.began < late for operation in self._under_way):
                scope.cancel()

    async def _until_nothing_is_under_way(self, patience: float) -> None:
        # Over a broken link what is under way fails by itself. Cancelled instead, the SDK leaves tasks behind
        # that complain about it.
        with anyio.move_on_after(patience):
            while self._under_way:
                self._wake.clear()
                await self._wake.wait()

    async def needs_link(self) -> bool:
        """After the link broke: wait until another is needed; False when nothing is left to be settled."""
        while self.outstanding > 0 or self._operations:
            if self._operations:
                return True
            self._wake.clear()
            await self._wake.wait()
        return False

    async def linger(self, receiver: ServiceBusReceiver) -> None:
        """After the link broke: settle over another receiver of the same queue what is left to be settled.

        The locks are still ours. The SDK settles by lock token what it has not received itself.

        Raises:
            BusError: that link is gone as well; call again with another one.
        """
        self._sdk = receiver
        self._broken = None
        while await self.needs_link():
            operation = self._operations.popleft()
            with _sdk.bounded(_OPERATION_TIMEOUT) as scope:
                await self._perform(operation)
            if scope.cancelled_caught:
                self._broken = self._broken or _sdk.LinkLost(f"{self._what}: not confirmed in time")
            if self._broken is not None:
                raise self._broken

    def give_up(self) -> None:
        """What is left to be settled will not be."""
        self._outlives_link = False
        self._broken = self._broken or BusError(f"{self._what} is closed")
        self._fail_operations()

    def _fail_operations(self) -> None:
        while self._operations:
            operation = self._operations.popleft()
            operation.done(_sdk.LockLost(f"{self._what}: {operation.name}: {self._broken}"))

    async def _loop(self, tasks: anyio.abc.TaskGroup) -> None:
        while True:
            # The scope serves many waits, for it costs as much as what a message is; only being called out of
            # one uses it up.
            scope = _sdk.bounded(math.inf)
            try:
                with scope:
                    if await self._turns(tasks, scope):
                        return
            except asyncio.CancelledError:
                # Called out of its wait while it handles a lost link, the SDK loses what on Python 3.10
                # tells this cancellation from one from outside. Of that one the outer scopes know.
                outside = anyio.current_effective_deadline() == -math.inf
                if sys.version_info >= (3, 11) or outside or not scope.cancel_called:
                    raise
                raise _sdk.LinkLost(f"{self._what}: the link broke") from None

    async def _turns(self, tasks: anyio.abc.TaskGroup, scope: anyio.CancelScope) -> bool:
        """Settle and receive, until stopped (True), or as long as the scope lasts (False)."""
        while not scope.cancel_called:
            self._wake.clear()
            if self._operations:
                await self._begin_operations(tasks)
                if self._broken is not None:
                    raise self._broken
            busy = bool(self._operations or self._under_way)
            if self._receiving and self._has_room():
                came = await self._receive(_NO_WAIT if busy else _WAIT, scope)
                if scope.cancel_called:
                    break
                if self._under_way:
                    # The settlements must get their turns: looking into the SDK's buffer waits for nothing.
                    # Waiting in earnest would have to be called off, and that can lose the link's credit.
                    with anyio.move_on_after(0 if came else _LOOK):
                        await self._wake.wait()
                elif came and self._operations:
                    # Whoever was waiting for it goes first, and whoever that one wakes: they are what callers
                    # wait for, while nobody waits for a settlement.
                    await asyncio.sleep(0)
                    await asyncio.sleep(0)
            elif self._under_way or not self._operations:
                if self._stopped and not busy:
                    return True
                await self._wake.wait()
        return False

    async def _begin_operations(self, tasks: anyio.abc.TaskGroup) -> None:
        """Do one thing that is to be done, or begin everything if the broker has turned out to be slow."""
        if self._operations and self._slow < _SLOW and not self._under_way:
            operation = self._operations.popleft()
            self._under_way.add(operation)
            await self._perform(operation)
            return
        while self._operations and len(self._under_way) < _MOST_AT_ONCE:
            operation = self._operations.popleft()
            self._under_way.add(operation)
            tasks.start_soon(self._perform, operation, name=f"{operation.name} over {self._what}")

    async def _receive(self, wait: float, scope: anyio.CancelScope) -> bool:
        self._waiting = scope
        try:
            messages = await self._sdk.receive_messages(max_message_count=1, max_wait_time=wait)
        finally:
            self._waiting = None
        for message in messages:
            self.received += 1
            self.outstanding += 1
            self._on_message(message)
        return bool(messages)

    async def _perform(self, operation: _Operation) -> None:
        operation.began = monotonic()
        try:
            await operation.act()
        except Exception as raised:  # the SDK's, of whatever kind; whoever asked for the operation is told
            error = _sdk.translate(raised, f"{self._what}: {operation.name}")
            if isinstance(error, _sdk.LinkLost):
                self._undone(operation, error)
                self._broken = self._broken or _sdk.remembered(error)
            else:
                operation.done(error)
        except BaseException:
            self._undone(operation, _sdk.LinkLost(f"{self._what}: {operation.name} was interrupted"))
            raise
        else:
            operation.done(None)
        finally:
            self._under_way.discard(operation)
            if monotonic() - operation.began < _PROMPTLY:
                self._slow = 0
            elif not self._under_way:
                # Side by side everything takes long; so the next one is tried by itself again.
                self._slow = min(self._slow + 1, _SLOW) if self._slow < _SLOW else _SLOW - 1
            self._call_out(0)

    def _undone(self, operation: _Operation, error: BusError) -> None:
        operation.attempts += 1
        if self._outlives_link and operation.attempts < _MOST_ATTEMPTS:
            self._operations.appendleft(operation)
        else:
            operation.done(error)


class _Operation:
    __slots__ = ("act", "attempts", "began", "done", "name", "posted")

    def __init__(self, act: Callable[[], Awaitable[Any]], name: str, done: Done) -> None:
        self.act = act
        self.name = name
        self.attempts = 0
        self.posted: float = monotonic()
        self.began = math.inf
        self.done = done
        """Told once how it went."""
