"""The message pump: messages of an entity without sessions, side by side and in no promised order.

Owns the links, and how much is asked for over each. What comes one by one the crew handles; batches are
handled here, one per link. Knows nothing of events or calls; what a message means is the handler's business.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timezone
from functools import partial
from time import monotonic

import anyio
import anyio.abc
from azure.servicebus import ServiceBusReceivedMessage
from azure.servicebus.aio import ServiceBusReceiver
from tenacity import AsyncRetrying, retry_if_exception

from ._crew import Crew, tell
from ._link import Link
from ._locks import Lease, holding, lock_duration
from ._receiver import Receiver
from ._receiving import Appetite, Delivery, Direct, Handle, Stopping, give_back
from ._sdk import is_transient, reconnecting, translated
from .errors import BusError

__all__ = ["MessagePump", "portions"]

_log = logging.getLogger("sbrpc.competing")

# One link asks for single messages. Others ask for several at a time, which spares a request for each: for up
# to so many, or half of what may be handled at a time where that is less. Further ones are of use where the
# broker is far away: one of them for so many handlers.
_MOST_AT_ONCE = 8
_LEAST_AT_ONCE = 4
_PER_LINK = 16

# Each link is busy with one batch; there is one for so many handlers.
_PER_BATCH = 8

# A batch is asked for in turns of this length, between which stopping is noticed. The SDK would forget what
# it has of a batch if it were interrupted.
_BATCH_WAIT = 1.0


def portions(concurrency: int) -> list[int]:
    """How many messages each link asks for at a time, for so many handlers."""
    several = min(concurrency // 2, _MOST_AT_ONCE)
    return [1, *[several] * max(1, concurrency // _PER_LINK)] if several >= _LEAST_AT_ONCE else [1]


class MessagePump:
    """Handles up to `concurrency` messages at a time, each in a context of its own.

    `connect` makes a receiver that prefetches so many messages. `handle` gets one message, or up to `size` at
    once where given; it is cancelled when a lock is lost. A pause between attempts makes room for another
    message. `stop()` takes nothing more and lets `run()` return once what was taken is done; `give_up()`
    abandons it. `on_done` is called at that point; closing the links takes `run()` a second more.
    """

    def __init__(
        self,
        connect: Callable[[int], ServiceBusReceiver],
        handle: Handle,
        *,
        what: str,
        concurrency: int,
        size: int | None = None,
        on_done: Callable[[], None] = lambda: None,
    ) -> None:
        self._connect = connect
        self._handle = handle
        self._what = what
        self._size = size
        self._on_done = on_done
        self._stopping = Stopping()
        self._giving_up = Stopping()
        self._tasks: anyio.abc.TaskGroup | None = None
        self._receivers: list[Receiver] = []
        self._portions = portions(concurrency) if size is None else [0] * -(-concurrency // _PER_BATCH)
        """How many messages each link asks for at a time; none of its own accord where it takes batches."""
        self._crew = Crew(
            handle, what=what, concurrency=concurrency, stopping=self._stopping, on_change=self._changed
        )
        self._asked = 0
        """Messages that were asked for, or will be, and have not come; each has its place."""
        self._sated: dict[Receiver, int] = {}
        """Who waits for leave to ask for so many more."""
        self._several = 0
        """Links that are open and ask for several messages."""
        self._opening = 0
        """Links that wait for places before they are opened."""
        self._room = asyncio.Event()
        self._batches = 0
        self._none_held = anyio.Event()
        self._attached = False
        self._trouble: type[BusError] | None = None

    @property
    def listening(self) -> bool:
        """Whether Service Bus has let us listen."""
        return self._attached

    def stop(self) -> None:
        """Take no more messages."""
        self._stopping.set()
        for receiver in self._receivers:
            receiver.pause()
        self._changed()

    def give_up(self) -> None:
        """Cancel what is being handled and abandon it."""
        self.stop()
        self._giving_up.set()
        self._crew.give_up()

    async def run(self) -> None:
        """Pump until `stop()`.

        Raises:
            BusError: Service Bus refuses for good, found out on the first attempt. Later refusals are logged
                and tried again, as whoever changed the entity may change it back.
        """
        failures: list[BusError] = []

        async def link(portion: int) -> None:
            try:
                await self._link(portion)
            except BusError as error:
                failures.append(error)
                tasks.cancel_scope.cancel()

        async with anyio.create_task_group() as tasks:
            self._tasks = tasks
            crew = await tasks.start(self._run_crew)
            async with anyio.create_task_group() as links:
                for number, portion in enumerate(self._portions, 1):
                    links.start_soon(link, portion, name=f"link {number} to {self._what}")
                await self._none_held.wait()
                for receiver in self._receivers:
                    receiver.stop()
            crew.cancel()
            self._on_done()
        if failures:
            raise failures[0]

    async def _run_crew(self, *, task_status: anyio.abc.TaskStatus[anyio.CancelScope]) -> None:
        with anyio.CancelScope() as scope:
            task_status.started(scope)
            await self._crew.run()

    # -- links -----------------------------------------------------------------------------------------

    async def _link(self, portion: int) -> None:
        """One link after the other, as each may break."""
        linking = AsyncRetrying(
            retry=retry_if_exception(self._is_worth_retrying),
            wait=reconnecting,
            sleep=self._stopping.sleep,
            reraise=True,
        )
        while not self._stopping.is_set:
            await linking.copy()(self._use_one_link, portion)

    def _is_worth_retrying(self, error: BaseException) -> bool:
        if not isinstance(error, BusError) or not (self._attached or is_transient(error)):
            return False
        if type(error) is not self._trouble:  # once, not for each link and each attempt
            self._trouble = type(error)
            _log.warning("the link to %s failed, trying again: %s", self._what, error)
        return True

    async def _use_one_link(self, portion: int) -> None:
        assert self._tasks is not None
        link = Link(self._connect(max(0, portion - 1)), self._what)
        with self._stopping.interrupts():
            await self._reserve(portion)
        if self._stopping.is_set:
            return
        reserved = portion
        try:
            with self._stopping.interrupts():
                await link.open(self._tasks)
                self._attached = True
                self._trouble = None
            if self._stopping.is_set:
                return
            if self._size:
                await self._receive_batches(link.handler, self._size)
            else:
                reserved = 0
                await self._receive_singly(link.handler, portion)
        finally:
            self._asked -= reserved
            self._changed()
            link.release()

    async def _reserve(self, portion: int) -> None:
        """Wait for places for what the SDK asks for when it opens a link."""
        self._opening += 1
        try:
            while self._crew.places - self._asked < portion:
                self._room.clear()
                await self._room.wait()
        finally:
            self._opening -= 1
        self._asked += portion

    async def _receive_singly(self, sdk_receiver: ServiceBusReceiver, portion: int) -> None:
        """Take messages one by one.

        The SDK asks for one message more than it is to prefetch: when it opens the link, and again whenever
        nothing is left of them. What waits in its buffer nobody renews. So a portion is asked for when there
        is a place for all of it, and is then taken whatever happens meanwhile.
        """
        asked = portion
        begun = True
        loop = asyncio.get_running_loop()

        def has_room() -> bool:
            nonlocal asked
            if not begun:
                return False
            if not asked:
                if not self._may_ask(portion):
                    self._sated[receiver] = portion
                    return False
                asked = portion
                self._asked += portion
            return True

        def take(message: ServiceBusReceivedMessage) -> None:
            nonlocal asked, begun
            if asked:
                asked -= 1
                self._asked -= 1
            self._crew.take(receiver, message)
            self._changed()
            # Its handler goes first. Many are done at their first turn, and leave something to be settled
            # before there is anything to wait for.
            begun = False
            loop.call_soon(go_on)

        def go_on() -> None:
            nonlocal begun
            begun = True
            receiver.room_made()

        receiver = Receiver(sdk_receiver, self._what, on_message=take, has_room=has_room, outlives_link=True)
        self._receivers.append(receiver)
        self._several += portion > 1
        try:
            await receiver.run()
        except BusError:
            assert self._tasks is not None
            self._tasks.start_soon(self._linger, receiver, name=f"settle over {self._what}")
            raise
        finally:
            self._receivers.remove(receiver)
            self._sated.pop(receiver, None)
            self._asked -= asked
            self._several -= portion > 1
            self._changed()

    def _may_ask(self, portion: int) -> bool:
        places = self._crew.places - self._asked
        if portion == 1 and self._several:
            # For the places that are left where there is none for several. Single messages are the dearest.
            return places > 0 and not self._asked and places < self._portions[-1]
        return places >= portion

    def _changed(self) -> None:
        """There may be room again, or nothing left to do."""
        if self._stopping.is_set:
            if not (self._crew.held or self._batches):
                self._none_held.set()
            return
        if self._opening:
            self._room.set()
        if self._sated and any(map(self._may_ask, self._sated.values())):
            sated, self._sated = self._sated, {}
            for receiver in sated:
                receiver.room_made()

    async def _linger(self, receiver: Receiver) -> None:
        """Settle over new links what came over one that broke, until nothing of it is left."""
        try:
            with self._giving_up.interrupts():
                while await receiver.needs_link():
                    await self._linger_once(receiver)
        finally:
            receiver.give_up()

    async def _linger_once(self, receiver: Receiver) -> None:
        assert self._tasks is not None
        link = Link(self._connect(0), self._what)
        try:
            await link.open(self._tasks)
            await receiver.linger(link.handler)
        except BusError as error:
            _log.info("the link over which %s is settled failed: %s", self._what, error)
            await self._giving_up.sleep(0.3)
        finally:
            link.release()

    async def _receive_batches(self, receiver: ServiceBusReceiver, size: int) -> None:
        settler = Direct(receiver, self._what)
        appetite = Appetite(size)

        async def renew() -> None:
            for delivery in deliveries:
                if not delivery.settled:
                    with translated(self._what):
                        await receiver.renew_message_lock(delivery.message)

        while not self._stopping.is_set:
            began, count = monotonic(), appetite.ask(size)
            with translated(self._what):
                messages = await receiver.receive_messages(max_message_count=count, max_wait_time=_BATCH_WAIT)
            redelivered = any(message.delivery_count for message in messages)
            appetite.got(len(messages), monotonic() - began, redelivered=redelivered)
            if not messages:
                continue
            deliveries = [Delivery(message, settler) for message in messages]
            self._batches += 1
            try:
                await self._handle_batch(deliveries, renew)
            finally:
                self._batches -= 1
                self._changed()

    async def _handle_batch(
        self, deliveries: Sequence[Delivery], renew: Callable[[], Awaitable[None]]
    ) -> None:
        now = datetime.now(timezone.utc)
        lease = Lease(
            min(
                lock_duration(message.locked_until_utc or now, now, message.enqueued_time_utc)
                for message in (delivery.message for delivery in deliveries)
            ),
            monotonic(),
        )
        try:
            with self._giving_up.interrupts():
                handle = partial(self._handle, deliveries, self._stopping.pause)
                await holding(lease, renew, handle, self._what)
            if self._giving_up.is_set:
                await give_back(deliveries)
        except Exception as error:  # the handler's own, or a link's; the log says which
            tell(error, self._what)
