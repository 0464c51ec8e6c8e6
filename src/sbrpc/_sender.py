"""One destination, one SDK sender, one task that owns it.

SDK senders are not safe for concurrent use and take half a second to open, so everything that goes to a queue
or topic passes through the one `Sender` of that destination. An idle sender sends at once. While a send is on
its way, whatever else arrives gathers and leaves together as soon as the way is free: nothing waits for a
timer. What leaves together is `_outgoing`'s business, and what it means everybody else's.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from time import monotonic
from typing import Any, TypeVar, cast

import anyio
import anyio.abc
from azure.servicebus.aio import ServiceBusSender
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type

from . import _sdk
from ._link import Link
from ._outgoing import BATCH_COUNT, Message, Messages, Operation, Outgoing, Waiting, pack, take_together
from ._tasks import telling
from .context import Deadline
from .errors import BusError, DeadlineExceeded, MessageTooLarge, NotRunning, SbrpcError

__all__ = ["Sender"]

T = TypeVar("T")

_log = logging.getLogger("sbrpc.sender")

# A send that Service Bus does not confirm within this time went into a dead connection.
_ATTEMPT_TIMEOUT = 5.0

# Service Bus detaches links that were idle for 10 minutes and drops connections on which nothing was said for
# 4. A link is replaced well before, while nobody needs it; that also limits how long a half-open connection
# stays unnoticed.
_REFRESH_AFTER = 100.0

# What is taken at once must be built before anything else gets a turn.
_MOST_TAKEN = 1000


# How many turns of the event loop others have to join, and from how many seconds on waiting is worth a timer.
_TURNS = 12
_TURNS_AT_LEAST = 3
_WORTH_WAITING = 0.0005


class Sender:
    """Sends to one queue or topic, reopening the link as often as it takes.

    `run()` is the owner task; the other methods may be called from any task of the same event loop.
    """

    def __init__(
        self,
        create: Callable[[], ServiceBusSender],
        entity: str,
        *,
        limit: int,
        refresh_after: float = _REFRESH_AFTER,
        company: Callable[[int], float] = lambda gathered: 0.0,
    ) -> None:
        self.entity = entity
        self._create = create
        self._what = f"sending to {entity!r}"
        self._limit = limit
        self._refresh_after = refresh_after
        self._company = company
        self._waiting: Waiting = OrderedDict()
        self._arrived = asyncio.Event()
        self._opened = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._stopped = False
        self._failure: BusError | None = None
        self._tasks: anyio.abc.TaskGroup | None = None
        self._fresh: _Replacement | None = None
        self._again: list[Outgoing] = []
        self._used = monotonic()
        self._sending: float | None = None
        self._serving: anyio.CancelScope | None = None
        self.bundle = 1
        """How many parts may share a message."""
        self.sent: int = 0
        """Messages that Service Bus has taken."""
        self.batches: int = 0
        self.throttled: int = 0
        """How often Service Bus has put off what was sent."""

    # -- for everybody -----------------------------------------------------------------------------------

    @property
    def ready(self) -> bool:
        """Whether the link is open as far as anybody knows."""
        return self._opened.is_set()

    @property
    def failure(self) -> BusError | None:
        """Why the link is not open, if an attempt failed."""
        return None if self.ready else self._failure

    async def wait_ready(self) -> None:
        """Wait until the link is open; raises at once if the entity is missing or access denied."""
        while not self._opened.is_set():
            if self._failure is not None and not _sdk.is_transient(self._failure):
                raise self._failure
            with anyio.move_on_after(0.05):
                await self._opened.wait()

    def post(self, item: Outgoing) -> None:
        """Queue something. `item.done` is called exactly once, unless the item is abandoned first.

        Raises:
            MessageTooLarge: a message is larger than the limit; nothing was queued.
            NotRunning: the sender has been closed.
        """
        if self._stopped:
            raise NotRunning(f"the sender to {self.entity!r} is closed")
        if item.size > self._limit:
            raise MessageTooLarge(item.size, self._limit, f"message to {self.entity!r}")
        if self._failure is not None and not _sdk.is_transient(self._failure) and not self.ready:
            raise self._failure
        line = self._waiting.get(item.group)
        if line is None:
            line = self._waiting[item.group] = deque()
        line.append(item)
        self._arrived.set()
        self._idle.clear()

    async def send(
        self,
        messages: Sequence[Message],
        size: int,
        *,
        deadline: Deadline,
        group: str | None = None,
        together: bool = False,
    ) -> None:
        """Send and wait until Service Bus has it.

        Cancelled: what is not on its way yet is not sent.

        Raises:
            DeadlineExceeded: Service Bus could not be reached in time.
            MessageTooLarge, BusError: as they say.
        """
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        item = Messages(messages, size, deadline, telling(future), group=group, whole=together)
        await self._wait(item, future)

    async def operate(self, operation: Callable[[ServiceBusSender], Awaitable[T]], deadline: Deadline) -> T:
        """Do something else with the SDK sender, in the owner task and in line with what is sent."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        results: list[T] = []

        async def keep(sdk_sender: ServiceBusSender) -> None:
            results.append(await operation(sdk_sender))

        await self._wait(Operation(keep, deadline, telling(future)), future)
        return results[0]

    async def _wait(self, item: Outgoing, future: asyncio.Future[None]) -> None:
        self.post(item)
        try:
            with anyio.move_on_after(None if item.deadline.is_never else item.deadline.remaining()):
                return await future
        finally:
            item.abandoned = True
        reason = f": {self._failure}" if self._failure is not None and not self.ready else ""
        raise DeadlineExceeded(f"{self.entity!r} did not take the message in time{reason}")

    async def flush(self) -> None:
        """Wait until nothing is queued or on its way."""
        await self._idle.wait()

    def suspect(self) -> None:
        """The link may be broken: open another one beside it, so that no time is lost if it is."""
        if self._tasks is not None and self.ready and self._fresh is None and not self._stopped:
            self._fresh = _Replacement()
            self._tasks.start_soon(self._refresh, self._fresh, self._tasks, name=f"refresh {self.entity}")

    def stop(self) -> None:
        """Send what is queued, then end `run()`. Nothing can be posted any more."""
        self._stopped = True
        self._arrived.set()

    # -- the owner task ----------------------------------------------------------------------------------

    async def run(self) -> None:
        """Own the link until `stop()`: open it, send, reopen."""
        watching = anyio.CancelScope()
        try:
            async with anyio.create_task_group() as self._tasks:
                self._tasks.start_soon(self._watch, watching, name=f"watch the sender to {self.entity}")
                while not (self._stopped and not self._waiting and not self._again):
                    link = await self._replacement() or await self._open(self._tasks)
                    try:
                        while link is not None:
                            link = await self._serve_until_hung(link)
                    except BusError as error:
                        self._lost(error)
                watching.cancel()
                self._discard_replacement()
        finally:
            self._tasks = None
            self._stopped = True
            self._opened.clear()
            self._drop_everything(NotRunning(f"the sender to {self.entity!r} is closed"))

    async def _open(self, tasks: anyio.abc.TaskGroup) -> Link[ServiceBusSender] | None:
        """Open a link, trying until it works or the sender is stopped with nothing left to send."""

        def give_up(state: RetryCallState) -> bool:
            return self._stopped

        attempts = AsyncRetrying(
            wait=_sdk.reconnecting,
            retry=retry_if_exception_type(BusError),
            stop=give_up,
            sleep=anyio.sleep,
        )
        try:
            return cast("Link[ServiceBusSender]", await attempts(self._open_once, tasks))
        except Exception as error:  # tenacity's RetryError: stopped while unreachable
            _log.debug("gave up opening %r: %s", self.entity, error)
            cause = self._failure or BusError(f"{self.entity!r} is out of reach")
            self._drop_everything(cause)
            return None

    def _made(self) -> Link[ServiceBusSender]:
        what = f"the sender to {self.entity!r}"
        with _sdk.translated(what):  # a connection string may be for another entity
            return Link(self._create(), what)

    async def _open_once(self, tasks: anyio.abc.TaskGroup) -> Link[ServiceBusSender]:
        try:
            link = self._made()
            await link.open(tasks)
        except BusError as error:
            self._lost(error)
            raise
        self._failure = None
        self._opened.set()
        return link

    def _lost(self, error: BusError) -> None:
        if self.ready or self._failure is None or type(self._failure) is not type(error):
            _log.warning("lost the link to %r: %s", self.entity, error)
        self._failure = _sdk.remembered(error)
        self._opened.clear()
        if not _sdk.is_transient(error):
            self._drop_everything(error)
        self._sweep()

    async def _serve_until_hung(self, link: Link[ServiceBusSender]) -> Link[ServiceBusSender] | None:
        with anyio.CancelScope() as self._serving:
            return await self._serve(link)
        raise _sdk.LinkLost(f"{self._what}: not confirmed in time")

    async def _serve(self, link: Link[ServiceBusSender]) -> Link[ServiceBusSender] | None:
        """Send over one link until the sender stops (None), or until it is replaced (by the one returned)."""
        try:
            while True:
                if self._fresh is not None and self._fresh.link is not None:
                    _log.debug("replaced the link to %r", self.entity)
                    return self._take_replacement()
                if self._again:
                    # As it was: the same calls together have the same message id as before.
                    again, self._again = self._again, []
                    await self._send(link, again)
                    continue
                if self._waiting:
                    if self.bundle > 1:
                        await self._let_others_join()
                    most = min(_MOST_TAKEN, BATCH_COUNT * self.bundle)
                    await self._send(link, take_together(self._waiting, most=most))
                    continue
                self._idle.set()
                if self._stopped:
                    return None
                self._arrived.clear()
                self._used = monotonic()
                await self._arrived.wait()
        finally:
            link.release()

    async def _let_others_join(self) -> None:
        """Give those who are about to send as well a chance to share the message.

        With nothing else to do, turns of the event loop take microseconds. In a loop that is busy they take
        as long as it needs to catch up, and that is when it pays to send less often.
        """
        before = 0
        for turn in range(_TURNS):
            gathered = sum(map(len, self._waiting.values()))
            patience = self._company(gathered) if gathered < self.bundle else 0.0
            if not patience:
                return
            if gathered == before and turn >= _TURNS_AT_LEAST:
                if patience >= _WORTH_WAITING:
                    await asyncio.sleep(patience)
                return
            before = gathered
            await asyncio.sleep(0)

    async def _watch(self, scope: anyio.CancelScope) -> None:
        """Replace the link when it was idle for long, and end a send that hangs.

        From outside and now and then: a scope of its own around every send would be a good part of its cost.
        """
        with scope:
            while True:
                await anyio.sleep(min(1.0, self._refresh_after))
                now = monotonic()
                if self._sending is not None:
                    if now - self._sending > _ATTEMPT_TIMEOUT + 1 and self._serving is not None:
                        self._serving.cancel()
                elif self._idle.is_set() and now - self._used >= self._refresh_after:
                    self._used = now
                    self.suspect()

    async def _refresh(self, fresh: _Replacement, tasks: anyio.abc.TaskGroup) -> None:
        try:
            link = self._made()
            await link.open(tasks)
        except BusError as error:
            # The old link may still work; if not, sending over it finds out and reopens as ever.
            _log.debug("could not open another link to %r: %s", self.entity, error)
            if self._fresh is fresh:
                self._fresh = None
        else:
            fresh.put(link)
        fresh.decided.set()
        self._arrived.set()

    async def _replacement(self) -> Link[ServiceBusSender] | None:
        """The link that was opened beside the one that broke, if any; it may be a moment until it is open."""
        if self._fresh is not None:
            await self._fresh.decided.wait()
        if self._fresh is None:
            return None
        self._failure = None
        self._opened.set()
        return self._take_replacement()

    def _take_replacement(self) -> Link[ServiceBusSender]:
        assert self._fresh is not None
        link = self._fresh.take()
        self._fresh = None
        return link

    def _discard_replacement(self) -> None:
        if self._fresh is not None:
            self._fresh.discard()
            self._fresh = None

    async def _send(self, link: Link[ServiceBusSender], items: list[Outgoing]) -> None:
        now = monotonic()
        items = self._wanted(items, now)
        if not items:
            return
        try:
            self._sending = now
            with _sdk.translated(self._what):
                sent = await self._perform(link.handler, items)
        except (_sdk.TooLargeForBus, _sdk.Refused) as error:
            if len(items) > 1:
                await self._send_singly(link, items)
            else:
                self._finish(items, self._refusal(error, items[0]))
        except _sdk.Throttled as error:
            self.throttled += 1
            _log.warning("throttled at %r: %s", self.entity, error)
            self._again += items
            self._failure = _sdk.remembered(error)
            await anyio.sleep(1.0)  # credits are dealt out anew each second
        except BusError as error:
            # Whether Service Bus has it is unknown. It is sent again under the same message id, so that
            # duplicate detection and the receivers can tell.
            if _sdk.is_transient(error):
                self._again += items
            else:
                self._finish(items, error)
            raise
        except BaseException:
            if self._serving is not None and self._serving.cancel_called:
                self._again += items  # it hung
            else:
                self._finish(items, NotRunning(f"the sender to {self.entity!r} was cancelled"))
            raise
        else:
            self.sent += sent
            self.batches += 1
            self._failure = None
            self._finish(items, None)
        finally:
            self._sending = None

    async def _send_singly(self, link: Link[ServiceBusSender], items: Sequence[Outgoing]) -> None:
        """One of them spoils the batch; by themselves the others get through."""
        rest = deque(items)
        try:
            while rest:
                await self._send(link, [rest.popleft()])
        finally:
            if rest:
                self._waiting.setdefault(items[0].group, deque()).extendleft(reversed(rest))

    def _refusal(self, error: BusError, item: Outgoing) -> SbrpcError:
        if isinstance(error, _sdk.TooLargeForBus):
            too_large = MessageTooLarge(item.size, self._limit, f"message to {self.entity!r}")
            too_large.__cause__ = error
            return too_large
        return error

    def _wanted(self, items: Iterable[Outgoing], now: float) -> list[Outgoing]:
        """Those that are still to be sent; who waits for one of the others is told."""
        wanted = []
        for item in items:
            if item.live(now):
                wanted.append(item)
            elif not item.abandoned:
                self._finish([item], DeadlineExceeded(f"{self.entity!r} could not be reached in time"))
        return wanted

    async def _perform(self, sender: ServiceBusSender, items: Sequence[Outgoing]) -> int:
        """Do what the items are; how many messages that were."""
        first = items[0]
        if isinstance(first, Operation):
            await first.act(sender)
            return 0
        messages = pack(items, self.bundle)
        what: Any = messages[0] if len(messages) == 1 and not first.alone else messages
        await sender.send_messages(what, timeout=_ATTEMPT_TIMEOUT)
        return len(messages)

    def _finish(self, items: Sequence[Outgoing], error: SbrpcError | None) -> None:
        for item in items:
            if not item.abandoned:
                item.abandoned = True
                item.done(error)

    def _sweep(self) -> None:
        """Forget what nobody waits for any more: while Service Bus is away, the queue must not only grow."""
        now = monotonic()
        self._again = self._wanted(self._again, now)
        for group, items in list(self._waiting.items()):
            kept = deque(self._wanted(items, now))
            if kept:
                self._waiting[group] = kept
            else:
                del self._waiting[group]

    def _drop_everything(self, error: SbrpcError) -> None:
        dropped = [*self._again, *(item for items in self._waiting.values() for item in items)]
        self._again = []
        self._waiting.clear()
        self._finish(dropped, error)
        self._idle.set()


class _Replacement:
    """Where a fresh link waits for its turn; a link that comes too late is released at once."""

    def __init__(self) -> None:
        self.link: Link[ServiceBusSender] | None = None
        self.decided = asyncio.Event()
        """Whether it is open or not, it is known."""
        self._over = False

    def put(self, link: Link[ServiceBusSender]) -> None:
        if self._over:
            link.release()
        else:
            self.link = link

    def take(self) -> Link[ServiceBusSender]:
        assert self.link is not None
        link, self.link = self.link, None
        return link

    def discard(self) -> None:
        self._over = True
        if self.link is not None:
            self.take().release()
