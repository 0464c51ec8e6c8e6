"""The message pump: messages of an entity without sessions, side by side and in no promised order.

Owns the links, how much runs at a time, and the locks of what runs. Knows nothing of events or calls; what a
message means is the handler's business.
"""

from __future__ import annotations

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

from ._link import Link
from ._locks import Lease, holding, lock_duration
from ._receiver import Receiver
from ._receiving import Appetite, Delivery, Direct, Handle, Pause, Stopping
from ._sdk import LockLost, is_transient, reconnecting, translated
from .errors import BusError

__all__ = ["MessagePump"]

_log = logging.getLogger("sbrpc.competing")

# On one link the SDK receives and settles one message after the other. So many handlers keep one link busy.
_PER_LINK = 8

# Messages whose handlers pause between attempts make room for others, up to this multiple of what may run.
# More of them, and the next thing to fail is the memory.
_MOST_HELD = 4

# A batch is asked for in turns of this length, between which stopping is noticed. The SDK would forget what
# it has of a batch if it were interrupted.
_BATCH_WAIT = 1.0

_GIVE_BACK = 2.0


class MessagePump:
    """Handles up to `concurrency` messages at a time, each in a task of its own.

    `handle` gets one message, or up to `size` at once where given; it is cancelled when a lock is lost. A
    pause between attempts makes room for another message. `stop()` takes nothing more and lets `run()` return
    once what runs is done; `give_up()` abandons what runs. `on_done` is called at that point; closing the
    links takes `run()` a second more.
    """

    def __init__(
        self,
        connect: Callable[[], ServiceBusReceiver],
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
        self._concurrency = concurrency
        self._size = size
        self._on_done = on_done
        self._stopping = Stopping()
        self._giving_up = Stopping()
        self._tasks: anyio.abc.TaskGroup | None = None
        self._receivers: list[Receiver] = []
        self._running = 0
        self._held = 0
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
        if not self._held:
            self._none_held.set()

    def give_up(self) -> None:
        """Cancel what is being handled and abandon it."""
        self.stop()
        self._giving_up.set()

    async def run(self) -> None:
        """Pump until `stop()`.

        Raises:
            BusError: Service Bus refuses for good, found out on the first attempt. Later refusals are logged
                and tried again, as whoever changed the entity may change it back.
        """
        failures: list[BusError] = []

        async def link() -> None:
            try:
                await self._link()
            except BusError as error:
                failures.append(error)
                tasks.cancel_scope.cancel()

        async with anyio.create_task_group() as tasks:
            self._tasks = tasks
            async with anyio.create_task_group() as links:
                for number in range(-(-self._concurrency // _PER_LINK)):
                    links.start_soon(link, name=f"link {number + 1} to {self._what}")
                await self._none_held.wait()
                for receiver in self._receivers:
                    receiver.stop()
            self._on_done()
        if failures:
            raise failures[0]

    # -- links -----------------------------------------------------------------------------------------

    async def _link(self) -> None:
        """One link after the other, as each may break."""
        linking = AsyncRetrying(
            retry=retry_if_exception(self._is_worth_retrying),
            wait=reconnecting,
            sleep=self._stopping.sleep,
            reraise=True,
        )
        while not self._stopping.is_set:
            await linking.copy()(self._use_one_link)

    def _is_worth_retrying(self, error: BaseException) -> bool:
        if not isinstance(error, BusError) or not (self._attached or is_transient(error)):
            return False
        if type(error) is not self._trouble:  # once, not for each link and each attempt
            self._trouble = type(error)
            _log.warning("the link to %s failed, trying again: %s", self._what, error)
        return True

    async def _use_one_link(self) -> None:
        assert self._tasks is not None
        link = Link(self._connect(), self._what)
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
                await self._receive_singly(link.handler)
        finally:
            link.release()

    async def _receive_singly(self, sdk_receiver: ServiceBusReceiver) -> None:
        def start(message: ServiceBusReceivedMessage) -> None:
            assert self._tasks is not None
            self._hold_more(1)
            self._tasks.start_soon(self._handle_one, receiver, message)

        receiver = Receiver(
            sdk_receiver, self._what, on_message=start, has_room=self._has_room, outlives_link=True
        )
        self._receivers.append(receiver)
        try:
            await receiver.run()
        except BusError:
            assert self._tasks is not None
            self._tasks.start_soon(self._linger, receiver, name=f"settle over {self._what}")
            raise
        finally:
            self._receivers.remove(receiver)

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
        link = Link(self._connect(), self._what)
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
            self._hold_more(1)
            try:
                await self._run(deliveries, renew, self._stopping.pause)
            finally:
                self._hold_more(-1)

    # -- messages --------------------------------------------------------------------------------------

    def _has_room(self) -> bool:
        return self._running < self._concurrency and self._held < self._concurrency * _MOST_HELD

    def _hold_more(self, messages: int) -> None:
        self._held += messages
        self._run_more(messages)
        if self._stopping.is_set and not self._held:
            self._none_held.set()

    def _run_more(self, messages: int) -> None:
        self._running += messages
        for receiver in self._receivers:
            receiver.room_made()

    async def _handle_one(self, receiver: Receiver, message: ServiceBusReceivedMessage) -> None:
        async def renew() -> None:
            await receiver.renew(message)

        async def pause(seconds: float) -> None:
            self._run_more(-1)
            try:
                await self._stopping.pause(seconds)
            finally:
                self._run_more(1)

        delivery = Delivery(message, receiver)
        try:
            await self._run([delivery], renew, pause)
        finally:
            if not delivery.tried:
                receiver.leave()
            self._hold_more(-1)

    async def _run(
        self, deliveries: Sequence[Delivery], renew: Callable[[], Awaitable[None]], pause: Pause
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
                await holding(lease, renew, partial(self._handle, deliveries, pause), self._what)
            if self._giving_up.is_set:
                await self._give_back(deliveries)
        except LockLost as error:
            _log.warning("%s", error)
        except BusError as error:
            _log.warning("%s; it will be delivered again", error)
        except Exception:  # the handler's own failure; the messages come back, and the log has the reason
            _log.exception("handling a message of %s failed", self._what)

    async def _give_back(self, deliveries: Sequence[Delivery]) -> None:
        with anyio.move_on_after(_GIVE_BACK):
            for delivery in deliveries:
                if not delivery.tried:
                    await delivery.abandon()
