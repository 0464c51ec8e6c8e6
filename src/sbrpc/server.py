"""`RpcServer`: runs the handlers of one or more contracts for the requests on one queue.

Owns the links: the request receiver or the session pump, one sender per reply queue, the control channels,
and the order in which all of it starts and stops. What happens to a single request is `_serving`'s business.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from secrets import token_hex
from time import monotonic
from types import TracebackType
from typing import Any, TypeVar, cast, overload

import anyio
import anyio.abc
from azure.servicebus import NEXT_AVAILABLE_SESSION, ServiceBusReceivedMessage
from azure.servicebus.aio import ServiceBusClient, ServiceBusReceiver
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type

from . import _sdk
from ._bundles import MOST_IN_A_BUNDLE
from ._decide import Decision, What
from ._handlers import Registry, StreamRegistrar, UnaryRegistrar
from ._intake import Advice, Intake
from ._link import PROMPT, Link
from ._pace import Pace
from ._receiver import Receiver
from ._receiving import Delivery, Pause
from ._replies import ReplyChannel
from ._sender import Sender
from ._serving import Worker
from ._sessions import ACCEPT_WAIT, SessionPump
from ._settling import settle_delivery
from ._signals import asked_to_stop
from ._tasks import Turns
from ._wire import REPLY_QUEUES, read_request
from .contract import Contract, Method, StreamMethod, UnaryMethod, spec_of
from .errors import BusError, ContractError, EntityNotFound, NotRunning, Unavailable
from .middleware import Middleware
from .store import MemoryReplyStore, ReplyStore

__all__ = ["RpcServer"]

Req = TypeVar("Req")
Res = TypeVar("Res")
_MEMORY: Any = object()

_log = logging.getLogger("sbrpc.server")

# Few messages can be many calls, which other servers could take. For fewer, the SDK would ask more often, and
# to ask costs what it costs to send.
_PREFETCH = 4

# Control messages that the SDK may take ahead: they are few, and nobody else can take them.
_CONTROL_PREFETCH = 50


class RpcServer:
    """Serves contracts: register handlers with `@server.method(Movies.get_movie)`, then `serve()`.

    `async with RpcServer(...)` runs it beside other code; leaving the block drains it: no new requests, what
    runs may finish within `grace` seconds, the rest is handed back for another server to take at once. Bound
    to the event loop in which it is entered.

    Args:
        connection: a connection string or a `ServiceBusClient`, best made by `sbrpc.connect()`.
        contracts: what is served, all on one queue.
        queue: the request queue; the first contract's name unless given.
        concurrency: how many handlers run at once.
        prefetch: how many messages may wait here besides, already locked; each may have many calls.
        bundle: whether callers are told that their calls may share a message. A server understands it always.
        max_concurrent_sessions: for a queue that requires sessions: serves the calls of one key in order, and
            so many keys side by side.
        reply_queues: patterns of the queues that replies may be sent to. A request that names another one is
            dead-lettered.
        control_queue: a queue with sessions, for flow control and cancels; the caller's reply queue by
            default.
        middleware: code around every handler, the first outermost.
        store: keeps replies for requests that are delivered again, an `sbrpc.store.ReplyStore`; in memory by
            default, None for no store. While it fails or takes more than 5 seconds, calls are served without.
        max_deliveries: a request that was delivered this often without an answer is dead-lettered.
        max_message_size: bytes, 256 KB on Standard, up to 100 MB on Premium.
        threads: how many synchronous handlers run at once.
        grace: seconds that running handlers have to finish when the server stops.

    Raises:
        ContractError: there is no contract, or two have a method of the same name on the wire.
        ValueError, TypeError: the concurrency or the reply queues make no sense.
    """

    def __init__(
        self,
        connection: str | ServiceBusClient,
        *contracts: type[Contract],
        queue: str | None = None,
        concurrency: int = 16,
        prefetch: int | None = None,
        max_concurrent_sessions: int | None = None,
        reply_queues: Sequence[str] = REPLY_QUEUES,
        control_queue: str | None = None,
        middleware: Sequence[Middleware] = (),
        store: ReplyStore | None = _MEMORY,
        max_deliveries: int = 5,
        max_message_size: int = 256 * 1024,
        threads: int | None = None,
        grace: float = 20.0,
        bundle: bool = True,
    ) -> None:
        if not contracts:
            raise ContractError("a server needs at least one contract: RpcServer(connection, Movies)")
        if concurrency < 1:
            raise ValueError(f"concurrency must be at least 1, not {concurrency}")
        if isinstance(reply_queues, str):
            raise TypeError(f"reply_queues is a list of patterns, as in reply_queues=[{reply_queues!r}]")
        self.queue: str = queue or contracts[0].contract_name
        self._connection = connection
        self._registry = Registry(contracts)
        self._contracts = contracts
        self._concurrency = concurrency
        self._prefetch = min(concurrency, _PREFETCH) if prefetch is None else prefetch
        self._sessions = max_concurrent_sessions
        self._reply_queues = tuple(reply_queues)
        self._control_queue = control_queue
        self._limit = max_message_size
        self._max_deliveries = max_deliveries
        self._grace = grace
        self._instance = f"{socket.gethostname()[:40]}-{os.getpid()}-{token_hex(6)}"
        self._pace = Pace()
        advice = Advice(concurrency, self._pace)
        self._worker = Worker(
            self._registry,
            queue=self.queue,
            sender_to=self._sender_to,
            control_of=self._control_of,
            forget_sender=self._forget_sender,
            advice=advice if bundle else lambda: None,
            reply_queues=self._reply_queues,
            middleware=middleware,
            store=MemoryReplyStore() if store is _MEMORY else store,
            max_deliveries=max_deliveries,
            threads=threads or concurrency,
        )
        self._changed = asyncio.Event()
        self._intake = Intake(self._worker, concurrency, self._pace, self._room_made)
        self._stack: AsyncExitStack | None = None
        self._bus: ServiceBusClient | None = None
        self._tasks: anyio.abc.TaskGroup | None = None
        self._senders: dict[str, Sender] = {}
        self._controls: dict[str, ReplyChannel] = {}
        self._receiver: Receiver | None = None
        self._receivers: set[Receiver] = set()
        self._pump: SessionPump | None = None
        self._draining = False
        self._taking = asyncio.Event()
        self._failure: BusError | None = None

    # -- handlers ----------------------------------------------------------------------------------------

    @overload
    def method(self, declared: UnaryMethod[Req, Res], /) -> UnaryRegistrar[Req, Res]: ...
    @overload
    def method(self, declared: StreamMethod[Req, Res], /) -> StreamRegistrar[Req, Res]: ...
    def method(self, declared: Method[Req, Res], /) -> UnaryRegistrar[Req, Res] | StreamRegistrar[Req, Res]:
        """Register the decorated function as the handler of a method.

        A handler takes `(request)` or `(request, info)`. It may be `async def`, or a plain `def`, which runs
        in a thread; of a streaming method it is an async generator. It answers with a value of the declared
        type or by raising an `RpcError`.

        Raises:
            ContractError: it is of a contract not served here, has a handler already, or takes another kind.
        """
        spec = spec_of(declared)

        def add(handler: Callable[..., Any]) -> None:
            self._registry.add(spec, handler)

        if isinstance(declared, StreamMethod):
            return StreamRegistrar(add)
        return UnaryRegistrar(add)

    def implement(self, contract: type[Contract], service: object) -> None:
        """Register the methods of an object that are named as the contract's.

        Raises:
            ContractError: one is missing, or cannot be the handler of its method.
        """
        for name, spec in contract.contract_methods.items():
            handler = getattr(service, name, None)
            if handler is None:
                raise ContractError(f"{type(service).__name__} has no method {name!r}, which {spec} needs")
            self._registry.add(spec, handler)

    # -- life --------------------------------------------------------------------------------------------

    async def serve(self) -> None:
        """Run until SIGTERM or SIGINT, then drain. Cancelled, it drains too.

        Raises:
            EntityNotFound, AccessDenied, BusError: the request queue cannot be read, found out at the start.
        """
        async with self:
            await self.ready()
            await asked_to_stop()

    async def __aenter__(self) -> RpcServer:
        if self._stack is not None:
            raise NotRunning("this server is already running")
        self._registry.check_complete()
        async with AsyncExitStack() as stack:
            self._bus = await stack.enter_async_context(_sdk.client_for(self._connection))
            self._tasks = await stack.enter_async_context(anyio.create_task_group())
            self._draining = False
            self._tasks.start_soon(self._worker.keep_deadlines, name=f"deadlines of {self.queue}")
            for queue in self._reply_queues:
                if not set(queue) & set("*?["):
                    self._sender_to(queue)
            if self._sessions is not None:
                self._tasks.start_soon(self._take_sessions, name=f"sessions of {self.queue}")
            else:
                self._tasks.start_soon(self._take, name=f"requests of {self.queue}")
                self._tasks.start_soon(self._intake.keep_locks, name=f"locks of {self.queue}")
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Drain, then close everything. Bounded by `grace` and a few seconds more."""
        stack, tasks = self._stack, self._tasks
        assert stack is not None
        assert tasks is not None
        with anyio.CancelScope(shield=True):
            await self.drain()
            await self._close()
        tasks.cancel_scope.cancel()
        self._stack = self._tasks = None
        self._senders.clear()
        self._controls.clear()
        # The exception of the block, if any, is none of the task group's: it would come out wrapped.
        await stack.__aexit__(None, None, None)

    async def ready(self, timeout: float | None = None) -> None:
        """Wait until requests are being taken.

        Raises:
            EntityNotFound, AccessDenied, BusError: the request queue cannot be read, at once.
            Unavailable: Service Bus could not be reached within `timeout` seconds.
        """
        if self._tasks is None:
            raise NotRunning("the server is not running; use it inside `async with`, or `await serve()`")
        with anyio.move_on_after(timeout):
            while not self._taking.is_set():
                if self._failure is not None and not _sdk.is_transient(self._failure):
                    raise self._failure
                with anyio.move_on_after(0.05):
                    await self._taking.wait()
            return
        raise Unavailable(f"not ready after {timeout:g} s: {self._failure or 'still opening'}")

    @property
    def contracts(self) -> tuple[type[Contract], ...]:
        """What is served."""
        return self._contracts

    @property
    def reply_queues(self) -> tuple[str, ...]:
        """Patterns of the queues that replies may be sent to."""
        return self._reply_queues

    @property
    def control_queue(self) -> str | None:
        """Where flow control and cancels arrive; None means the caller's reply queue."""
        return self._control_queue

    @property
    def concurrency(self) -> int:
        """How many requests are worked on at once, at most."""
        return self._sessions or self._concurrency

    @property
    def prefetch(self) -> int:
        """How many messages may wait here besides, already locked; none of a queue with sessions."""
        return 0 if self.ordered else self._prefetch

    @property
    def max_deliveries(self) -> int:
        """A request that was delivered this often without an answer is dead-lettered."""
        return self._max_deliveries

    @property
    def ordered(self) -> bool:
        """Whether the request queue has to require sessions."""
        return self._sessions is not None

    @property
    def is_ready(self) -> bool:
        """Whether requests are being taken; false from the moment draining begins."""
        return self._taking.is_set() and not self._draining

    @property
    def is_live(self) -> bool:
        """Whether the server runs, even if Service Bus is out of reach; for a liveness probe."""
        return self._tasks is not None and not self._tasks.cancel_scope.cancel_called

    @property
    def running(self) -> int:
        """How many handlers run now."""
        return len(self._worker.running)

    @property
    def throttled(self) -> int:
        """How often Service Bus has put off the replies of this server."""
        return sum(sender.throttled for sender in self._senders.values())

    async def drain(self, grace: float | None = None) -> None:
        """Take nothing more, and wait until what runs has ended and its replies are sent.

        What still runs after `grace` seconds, the server's own unless given, is handed back. Leaving the
        block does this too; call it where something else has to be kept until handlers are done. Idempotent.
        """
        self._draining = True
        for receiver in self._receivers:
            receiver.pause()
        if self._pump is not None:
            self._pump.stop()
        with anyio.move_on_after(self._grace if grace is None else grace):
            await self._until(self._is_idle)
        self._intake.stop(What.DRAINING, "the server is shutting down")
        for job in list(self._worker.running):
            job.stop(What.DRAINING, "the server is shutting down")
        with anyio.move_on_after(_sdk.CLOSE_TIMEOUT):
            await self._until(self._is_idle)
            for sender in list(self._senders.values()):
                await sender.flush()
            await self._until(lambda: all(receiver.outstanding <= 0 for receiver in self._receivers))

    async def _close(self) -> None:
        for receiver in self._receivers:
            receiver.stop()
        for channel in self._controls.values():
            channel.close(Unavailable("the server is shutting down"))
        for sender in self._senders.values():
            sender.stop()
        with anyio.move_on_after(_sdk.CLOSE_TIMEOUT):
            for channel in self._controls.values():
                await channel.wait_closed()
            # Closing gives prefetched requests back, which are otherwise locked until their locks run out.
            await self._until(lambda: not self._receivers and (self._pump is None or not self._pump.active))

    def _is_idle(self) -> bool:
        # What comes while a receiver is called out of its wait is served still.
        waiting = any(receiver.receiving for receiver in self._receivers)
        return not (waiting or self._worker.running or self._intake.held)

    async def _until(self, holds: Callable[[], bool]) -> None:
        while not holds():
            # Settlements end in the receivers' tasks, which do not tell; they are looked after now and then.
            self._changed.clear()
            with anyio.move_on_after(0.02):
                await self._changed.wait()

    # -- requests ----------------------------------------------------------------------------------------

    async def _take(self) -> None:
        """Keep a receiver on the request queue until the server drains."""
        while not self._draining:
            link = await self._open(self._request_link)
            if link is None:
                return
            receiver = self._receiver = self._receiver_over(link)
            self._receivers.add(receiver)
            self._failure = None
            self._taking.set()
            if self._draining:
                receiver.pause()
            try:
                await receiver.run()
            except BusError as error:
                self._failure = _sdk.remembered(error)
                self._taking.clear()
                _log.warning("lost the link to %r: %s", self.queue, error)
                link.release()
                if isinstance(error, _sdk.LinkLost):
                    # What broke this link may have broken the others, which find out only when they send.
                    for sender in self._senders.values():
                        sender.suspect()
                assert self._tasks is not None
                self._tasks.start_soon(self._linger, receiver, name=f"settle over {self.queue}")
            else:
                self._receivers.discard(receiver)
                self._changed.set()
                link.release()

    def _receiver_over(self, link: Link[ServiceBusReceiver]) -> Receiver:
        receiver = Receiver(
            link.handler,
            link.what,
            on_message=lambda message: self._on_message(receiver, message),
            has_room=lambda: self._intake.has_room,
            outlives_link=True,
        )
        return receiver

    async def _linger(self, receiver: Receiver) -> None:
        """Settle over new links what was received over one that broke, until nothing of it is left."""
        try:
            while await receiver.needs_link():
                link = await self._open(self._settling_link)
                if link is None:
                    return
                try:
                    await receiver.linger(link.handler)
                except BusError as error:
                    _log.info("lost the link over which %r is settled: %s", self.queue, error)
                finally:
                    link.release()
        finally:
            receiver.give_up()
            self._receivers.discard(receiver)

    async def _open(
        self, open_once: Callable[[], Awaitable[Link[ServiceBusReceiver]]]
    ) -> Link[ServiceBusReceiver] | None:
        def give_up(state: RetryCallState) -> bool:
            return self._draining

        attempts = AsyncRetrying(
            wait=_sdk.reconnecting,
            retry=retry_if_exception_type(BusError),
            stop=give_up,
            sleep=anyio.sleep,
            reraise=True,
        )
        try:
            return cast("Link[ServiceBusReceiver]", await attempts(open_once))
        except BusError:
            return None

    async def _settling_link(self) -> Link[ServiceBusReceiver]:
        """A link that takes no requests: the SDK settles over it, by lock token, what came over another."""
        assert self._bus is not None
        assert self._tasks is not None
        receiver = self._bus.get_queue_receiver(self.queue, prefetch_count=0, **PROMPT)
        link = Link(receiver, f"the settling link of {self.queue!r}")
        await link.open(self._tasks)
        return link

    async def _request_link(self) -> Link[ServiceBusReceiver]:
        assert self._bus is not None
        assert self._tasks is not None
        receiver = self._bus.get_queue_receiver(self.queue, prefetch_count=self._prefetch, **PROMPT)
        link = Link(receiver, f"the receiver of {self.queue!r}")
        try:
            await link.open(self._tasks)
        except _sdk.MustNotRequireSessions as error:
            self._failure = _sdk.MustNotRequireSessions(
                f"{error}; to serve a queue with sessions, pass max_concurrent_sessions"
            )
            raise self._failure from error
        except BusError as error:
            if type(self._failure) is not type(error):
                _log.warning("cannot open %s, trying again: %s", link.what, error)
            self._failure = _sdk.remembered(error)
            raise
        return link

    def _on_message(self, receiver: Receiver, message: ServiceBusReceivedMessage) -> None:
        assert self._tasks is not None
        self._intake.take(receiver, message, self._tasks)

    def _room_made(self) -> None:
        self._changed.set()
        if self._receiver is not None:
            self._receiver.room_made()

    # -- requests in order -------------------------------------------------------------------------------

    async def _take_sessions(self) -> None:
        assert self._sessions is not None
        bus = self._bus
        assert bus is not None
        self._pump = SessionPump(
            lambda: bus.get_queue_receiver(
                self.queue, session_id=NEXT_AVAILABLE_SESSION, max_wait_time=ACCEPT_WAIT
            ),
            self._serve_in_order,
            what=repr(self.queue),
            sessions=self._sessions,
        )
        self._taking.set()
        try:
            await self._pump.run()
        except BusError as error:
            self._failure = _sdk.remembered(error)
            self._taking.clear()
            _log.error("cannot serve %r: %s", self.queue, error)

    async def _serve_in_order(self, deliveries: Sequence[Delivery], pause: Pause) -> None:
        for delivery in deliveries:
            if self._draining:
                return
            decided: asyncio.Future[Decision] = asyncio.get_running_loop().create_future()
            (job,) = self._worker.jobs([read_request(delivery.message)])
            try:
                with Turns() as turns:
                    await self._worker.serve(job, decided.set_result, turns, monotonic())
                await settle_delivery(delivery, await decided)
            except BusError as error:
                # It comes again; the cache answers it.
                _log.warning(
                    "call %s was answered but not settled: %s",
                    job.request.call_id,
                    error,
                    extra=job.log_fields,
                )

    # -- replies -----------------------------------------------------------------------------------------

    def _sender_to(self, queue: str) -> Sender:
        sender = self._senders.get(queue)
        if sender is None:
            bus, tasks = self._bus, self._tasks
            if bus is None or tasks is None:
                raise NotRunning("the server is not running")
            sender = Sender(
                lambda: bus.get_queue_sender(queue, **PROMPT),
                queue,
                limit=self._limit,
                company=self._pace.company(lambda: len(self._worker.running)),
            )
            sender.bundle = MOST_IN_A_BUNDLE
            self._senders[queue] = sender
            tasks.start_soon(sender.run, name=f"replies to {queue}")
        return sender

    def _forget_sender(self, queue: str) -> None:
        """A reply queue that does not exist must not cost a task for ever; requests can name any."""
        sender = self._senders.get(queue)
        if sender is not None and isinstance(sender.failure, EntityNotFound):
            del self._senders[queue]
            sender.stop()

    def _control_of(self, reply_queue: str) -> ReplyChannel:
        queue = self._control_queue or reply_queue
        channel = self._controls.get(queue)
        if channel is None:
            bus, tasks = self._bus, self._tasks
            if bus is None or tasks is None:
                raise NotRunning("the server is not running")
            channel = self._controls[queue] = ReplyChannel(
                lambda session: bus.get_queue_receiver(
                    queue, session_id=session, prefetch_count=_CONTROL_PREFETCH, **PROMPT
                ),
                queue,
                f"control-{self._instance}",
                self._sender_to(queue),
            )
            tasks.start_soon(channel.run, name=f"control of {self.queue}")
        return channel
