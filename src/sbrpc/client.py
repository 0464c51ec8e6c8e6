"""`RpcClient`: typed calls to services over Service Bus.

Owns the client's connection: one reply channel, one sender per destination, the table of calls that wait. How
replies find their way is `_replies`' business, how messages look `_wire`'s.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import re
import socket
from collections import OrderedDict
from collections.abc import AsyncGenerator, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack
from secrets import token_hex
from time import monotonic
from types import TracebackType
from typing import Any, TypeVar

import anyio
import anyio.abc
from azure.servicebus.aio import ServiceBusClient
from tenacity import AsyncRetrying

from . import _sdk
from ._calls import RETRY, Call, Known, Sent, StopAt, Terms, encode, result, too_late
from ._link import PROMPT
from ._outgoing import Messages
from ._pace import Pace
from ._replies import Expected, ReplyChannel
from ._sender import Sender
from ._streams import Inflow
from ._wire import (
    CANCEL,
    CREDIT,
    Address,
    Reply,
    Request,
    check_metadata,
    control_message,
    request_message,
    size_of,
)
from .context import CallInfo, Deadline, deadline_in
from .contract import CallOptions, Contract, MethodKind, MethodSpec, check_contract, stub_of
from .errors import DeadlineExceeded, NotRunning, SbrpcError, Unavailable
from .middleware import Middleware, Next, chain

__all__ = ["RpcClient"]

C = TypeVar("C", bound=Contract)

_NOT_IN_A_SESSION_ID = re.compile(r"[^A-Za-z0-9_.\-]")

# Replies that the SDK may take ahead: nobody else can take them.
_PREFETCH = 50

# A handler that goes on for a caller long gone is told to stop; one message per call will do.
_REMEMBERED_ORPHANS = 256


class RpcClient:
    """Calls services. Use it as `async with RpcClient(connection, reply_queue="gateway.replies") as client`.

    `connection` is a connection string or a `ServiceBusClient`, best made by `sbrpc.connect()`. The reply
    queue must exist and require sessions; all instances of all services can share one. Safe for any number of
    concurrent calls from one event loop. Opening happens in the background; `ready()` waits for it.

    A call raises the `RpcError` that the handler answered with; `DeadlineExceeded` when its time is over, or
    `Unavailable` where Service Bus was out of reach until then; `EntityNotFound`, `AccessDenied` or another
    `BusError` as soon as a queue turns out to be missing or closed to it; `InvalidArgument` or
    `MessageTooLarge` where nothing was sent. Who cancels a call waits no more: its handler stops too if the
    method is `cancellable`, and else goes on.

    Args:
        reply_queue: where replies are received. Servers send replies only to queues that their
            `reply_queues` name, by default `*.replies`; others' calls end in `DeadlineExceeded`.
        name: the first part of the reply session's id, for people who look at the queue.
        timeout: seconds a call may take if neither it nor its contract says otherwise; `math.inf` for ever.
        middleware: code around every call, the first outermost.
        retry: how idempotent methods are repeated when the service is unavailable. The deadline bounds all
            attempts together.
        max_message_size: bytes, 256 KB on Standard, up to 100 MB on Premium.
        heartbeat: seconds of silence after which the path of replies is tried.
        bundle: whether calls that wait for their turn anyway may share a message, with services that
            understand it. A lone call is never held up.

    Raises:
        ValueError: the timeout is not positive, or no reply queue is named.
    """

    def __init__(
        self,
        connection: str | ServiceBusClient,
        *,
        reply_queue: str,
        name: str | None = None,
        timeout: float = 30.0,
        middleware: Sequence[Middleware] = (),
        retry: AsyncRetrying | None = None,
        max_message_size: int = 256 * 1024,
        heartbeat: float = 60.0,
        bundle: bool = True,
    ) -> None:
        if not timeout > 0:
            raise ValueError(f"timeout must be a positive number of seconds, not {timeout!r}")
        if not reply_queue:
            raise ValueError("reply_queue must be the name of a queue with sessions: 'gateway.replies'")
        self._loop: asyncio.AbstractEventLoop | None = None
        self._connection = connection
        self._reply_queue = reply_queue
        self._instance = _instance_id(name)
        self._timeout = timeout
        self._middleware = tuple(middleware)
        self._retry = retry
        self._ids = f"{token_hex(10)}-"
        self._count = itertools.count(1)
        self._pace = Pace()
        self._limit = max_message_size
        self._heartbeat = heartbeat
        self._bundle = bundle
        self._stack: AsyncExitStack | None = None
        self._bus: ServiceBusClient | None = None
        self._tasks: anyio.abc.TaskGroup | None = None
        self._channel: ReplyChannel | None = None
        self._senders: dict[str, Sender] = {}
        self._orphans: OrderedDict[str, None] = OrderedDict()

    # -- life --------------------------------------------------------------------------------------------

    async def __aenter__(self) -> RpcClient:
        if self._stack is not None:
            raise NotRunning("this client is already running")
        self._loop = asyncio.get_running_loop()
        async with AsyncExitStack() as stack:
            self._bus = bus = await stack.enter_async_context(_sdk.client_for(self._connection))
            self._tasks = await stack.enter_async_context(anyio.create_task_group())
            self._channel = ReplyChannel(
                lambda session: bus.get_queue_receiver(
                    self._reply_queue, session_id=session, prefetch_count=_PREFETCH, **PROMPT
                ),
                self._reply_queue,
                self._instance,
                self._sender_to(self._reply_queue),
                heartbeat=self._heartbeat,
                on_orphan=self._on_orphan,
                on_lost=self._suspect_senders,
            )
            self._tasks.start_soon(self._channel.run, name=f"replies to {self._instance}")
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Send what is queued, then close. Calls that still wait raise `Unavailable`."""
        stack, self._stack = self._stack, None
        tasks, self._tasks = self._tasks, None
        channel, self._channel = self._channel, None
        assert stack is not None
        assert tasks is not None
        assert channel is not None
        # Shielded: a block that is being cancelled closes what it opened all the same.
        with anyio.CancelScope(shield=True):
            channel.close(Unavailable("the client was closed while the call waited"))
            for sender in self._senders.values():
                sender.stop()
            with anyio.move_on_after(_sdk.CLOSE_TIMEOUT):
                for sender in self._senders.values():
                    await sender.flush()
                await channel.wait_closed()
        self._senders.clear()
        tasks.cancel_scope.cancel()
        # The exception of the block, if any, is none of the task group's: it would come out wrapped.
        await stack.__aexit__(None, None, None)

    async def ready(self, timeout: float | None = None) -> None:
        """Wait until calls can be made: every link is open, and a message came back over the reply queue.

        Raises:
            EntityNotFound, AccessDenied, BusError: what is missing, at once.
            Unavailable: Service Bus could not be reached within `timeout` seconds.
        """
        channel, _ = self._running()
        with anyio.move_on_after(timeout):
            await channel.wait_ready()
            for sender in list(self._senders.values()):
                await sender.wait_ready()
            return
        raise Unavailable(f"not ready after {timeout:g} s: {self._trouble() or 'still opening'}")

    @property
    def reply_queue(self) -> str:
        """Where replies are received; it has to require sessions."""
        return self._reply_queue

    @property
    def is_ready(self) -> bool:
        """Whether calls can be made now, as far as anybody knows; for a health endpoint."""
        channel = self._channel
        return channel is not None and channel.ready and all(s.ready for s in self._senders.values())

    @property
    def is_running(self) -> bool:
        """Whether the client is open, even if Service Bus is out of reach."""
        return self._channel is not None

    @property
    def pending(self) -> int:
        """How many calls wait for a reply."""
        return self._channel.pending if self._channel is not None else 0

    @property
    def throttled(self) -> int:
        """How often Service Bus has put off what this client sent."""
        return sum(sender.throttled for sender in self._senders.values())

    @property
    def replies(self) -> ReplyChannel:
        """The reply channel, for health pages and metrics.

        As of the last heartbeat `round_trip` is how many seconds it took, and `clock_skew` by how many the
        clock of Service Bus is ahead; `late` and `foreign` count what nobody waited for, or was not ours.
        """
        return self._running()[0]

    # -- stubs -------------------------------------------------------------------------------------------

    def of(
        self,
        contract: type[C],
        *,
        queue: str | None = None,
        timeout: float | None = None,
        metadata: Mapping[str, str] | None = None,
        key: str | None = None,
    ) -> C:
        """The service that a contract describes, to be called: `await client.of(Movies).get_movie(...)`.

        A stub is cheap and may be kept. `queue` is the service's request queue, its name unless given;
        `timeout` in seconds, `metadata` and the ordering `key` apply to every call through this stub.

        Raises:
            ValueError: the timeout is no number, or a key of the metadata is reserved.
        """
        self._running()
        check_contract(contract)
        destination = queue or contract.contract_name
        options = CallOptions(timeout=timeout, metadata=check_metadata(metadata or {}), key=key)
        stub = stub_of(contract, _Destination(self, destination, self._middleware), options)
        self._sender_to(destination)
        return stub

    def _sender_to(self, queue: str) -> Sender:
        sender = self._senders.get(queue)
        if sender is None:
            bus, tasks = self._bus, self._tasks
            if bus is None or tasks is None:
                raise _not_running()
            sender = Sender(
                lambda: bus.get_queue_sender(queue, **PROMPT),
                queue,
                limit=self._limit,
                company=self._pace.company(lambda: self.pending),
            )
            self._senders[queue] = sender
            tasks.start_soon(sender.run, name=f"sender to {queue}")
        return sender

    def _suspect_senders(self) -> None:
        """The link of the replies broke; what broke it may have broken the others, which find out later."""
        for sender in self._senders.values():
            sender.suspect()

    def _running(self) -> tuple[ReplyChannel, anyio.abc.TaskGroup]:
        if self._channel is None or self._tasks is None:
            raise _not_running()
        return self._channel, self._tasks

    def _check_loop(self) -> None:
        # What belongs to one loop and is used from another works now and then, and hangs otherwise.
        if self._loop is not None and self._loop is not asyncio.get_running_loop():
            raise NotRunning(
                "the client runs in another event loop; from a thread, call it there, for instance with "
                "asyncio.run_coroutine_threadsafe"
            )

    def _trouble(self) -> str:
        troubles = [self._channel.failure] if self._channel is not None else []
        troubles += [sender.failure for sender in self._senders.values()]
        return "; ".join(str(trouble) for trouble in troubles if trouble is not None)

    # -- calls -------------------------------------------------------------------------------------------

    def _terms(self, spec: MethodSpec, options: CallOptions, request: Any) -> Terms:
        timeout = spec.timeout
        if timeout is None or (options.timeout is not None and options.timeout < timeout):
            timeout = options.timeout
        key = options.key
        if key is None and spec.key is not None:
            key = spec.key(request)
        until = deadline_in(self._timeout if timeout is None else timeout)
        return Terms(self._new_id(), until, options.metadata, key)

    def _new_id(self) -> str:
        # Random once and counted then: asking the system for randomness takes longer than all else here.
        return f"{self._ids}{next(self._count):x}"

    async def _call(self, queue: str, spec: MethodSpec, request: Any, info: Known) -> Any:
        self._check_loop()
        body = encode(spec, request)
        if spec.kind is MethodKind.ONE_WAY:
            return await self._command(queue, spec, body, info)
        if not spec.idempotent:
            return await self._attempt(queue, spec, body, info, info.call_id)
        if self._retry is not None:
            return await self._retried(self._retry, None, queue, spec, body, info)
        try:
            return await self._attempt(queue, spec, body, info, info.call_id)
        except Unavailable as error:
            # Only now: setting up a policy takes as long as everything else about a call.
            return await self._retried(RETRY, error, queue, spec, body, info)

    async def _retried(
        self,
        policy: AsyncRetrying,
        first: SbrpcError | None,
        queue: str,
        spec: MethodSpec,
        body: bytes,
        info: Known,
    ) -> Any:
        """The call under a policy; `first` is how its first attempt ended, if that has been made."""
        call_id = info.call_id

        async def attempt() -> Any:
            nonlocal call_id, first
            if first is not None:
                error, first = first, None
                call_id = self._new_id()
                raise error
            # Its own id each time, lest the server's cache answer with the error that is to be overcome.
            mine, call_id = call_id, self._new_id()
            return await self._attempt(queue, spec, body, info, mine)

        retrying = policy.copy()
        retrying.stop = policy.stop | StopAt(info.deadline)  # type: ignore[operator]
        return await retrying(attempt)

    async def _attempt(self, queue: str, spec: MethodSpec, body: bytes, info: Known, call_id: str) -> Any:
        channel, _ = self._running()
        assert self._loop is not None
        began = monotonic()
        epoch, sender = channel.current(), self._sender_to(queue)
        request = self._request(spec, body, info, call_id, epoch.address)
        call = Call(sender, spec, request, info.deadline, epoch, self._loop.create_future())
        channel.register(call)
        try:
            sender.post(call)
            reply = await call.future
            self._pace.took(monotonic() - began)
        except asyncio.CancelledError:
            if call.control is not None and spec.cancellable:
                self._tell(CANCEL, call_id, call.control)
            raise
        finally:
            channel.forget(call_id)
            call.over()
        return result(spec, reply)

    async def _stream(
        self, queue: str, spec: MethodSpec, request: Any, info: Known
    ) -> AsyncGenerator[Any, None]:
        self._check_loop()
        channel, _ = self._running()
        body = encode(spec, request)
        inflow = Inflow(spec.window)

        def fail(error: SbrpcError | None) -> None:
            if error is not None:
                inflow.fail(error)

        epoch, sender = channel.current(), self._sender_to(queue)
        item = Sent(
            self._request(spec, body, info, info.call_id, epoch.address), info.deadline, fail, alone=True
        )

        def late() -> None:
            fail(too_late(sender, spec, epoch.queue))

        channel.register(Expected(info.call_id, info.deadline, epoch, inflow.push, fail, late))
        try:
            sender.post(item)
            while (reply := await inflow.next()) is not None:
                yield result(spec, reply)
                total = inflow.grant()
                if total is not None and inflow.control is not None:
                    self._tell(CREDIT, info.call_id, inflow.control, total)
        finally:
            channel.forget(info.call_id)
            item.abandoned = True
            if inflow.control is not None and not inflow.ended:
                self._tell(CANCEL, info.call_id, inflow.control)

    async def _command(self, queue: str, spec: MethodSpec, body: bytes, info: Known) -> None:
        message = request_message(self._request(spec, body, info, info.call_id))
        await self._sender_to(queue).send(
            [message], size_of(message), deadline=info.deadline, group=info.session_id
        )

    def _request(
        self,
        spec: MethodSpec,
        body: bytes,
        info: Known,
        call_id: str,
        reply_to: Address | None = None,
    ) -> Request:
        remaining = info.deadline.remaining()
        if remaining <= 0:
            raise DeadlineExceeded(f"{spec}: the deadline passed before the call was sent")
        streams = spec.kind is MethodKind.STREAM
        return Request(
            subject=spec.subject,
            body=body,
            call_id=call_id,
            reply_to=reply_to.queue if reply_to is not None else None,
            reply_to_session_id=reply_to.session if reply_to is not None else None,
            timeout=None if info.deadline.is_never else remaining,
            metadata=info.metadata,
            session_id=info.session_id,
            fingerprint=spec.fingerprint,
            window=spec.window if streams else None,
            cancellable=spec.cancellable and not streams,
            bundles=self._bundle and reply_to is not None,
        )

    def _tell(self, kind: str, call_id: str, to: Address, total: int = 0) -> None:
        """Send a credit or a cancel; nobody waits for it, and losing one does no lasting harm."""
        if to.queue != self._reply_queue and not to.queue.endswith(".control"):
            return  # a server does not get to choose where our messages go
        message = control_message(kind, call_id, to, total)
        item = Messages(
            (message,), size_of(message), Deadline.after(30), lambda error: None, group=to.session
        )
        try:
            self._sender_to(to.queue).post(item)
        except SbrpcError:
            pass  # the client is closing, or the queue is gone; the server's deadline ends the handler

    def _on_orphan(self, reply: Reply) -> None:
        """A part of an answer that nobody waits for: tell the handler, if it says where."""
        if reply.control is None or reply.end or reply.call_id in self._orphans:
            return
        self._orphans[reply.call_id] = None
        if len(self._orphans) > _REMEMBERED_ORPHANS:
            self._orphans.popitem(last=False)
        self._tell(CANCEL, reply.call_id, reply.control)


class _Destination:
    """A request queue as an `Invoker`."""

    def __init__(self, client: RpcClient, queue: str, middleware: Sequence[Middleware]) -> None:
        self._client = client
        self._queue = queue
        self._middleware = middleware
        self._chains: dict[str, Next] = {}

    def invoke(self, spec: MethodSpec, request: Any, options: CallOptions) -> Coroutine[Any, Any, Any]:
        if options.metadata:
            check_metadata(options.metadata)
        terms = self._client._terms(spec, options, request)
        if not self._middleware:
            return self._client._call(self._queue, spec, request, terms)
        return self._through(spec, request, terms)

    async def _through(self, spec: MethodSpec, request: Any, terms: Terms) -> Any:
        async def call(request: Any, info: CallInfo) -> Any:
            if spec.kind is MethodKind.STREAM:
                return self._client._stream(self._queue, spec, request, info)
            return await self._client._call(self._queue, spec, request, info)

        info = CallInfo(
            method=spec.subject,
            call_id=terms.call_id,
            deadline=terms.deadline,
            metadata=terms.metadata,
            contract=spec.contract,
            queue=self._queue,
            session_id=terms.session_id,
        )
        return await chain(self._middleware, call)(request, info)

    async def invoke_stream(
        self, spec: MethodSpec, request: Any, options: CallOptions
    ) -> AsyncGenerator[Any, None]:
        check_metadata(options.metadata)
        terms = self._client._terms(spec, options, request)
        if self._middleware:
            replies = await self._through(spec, request, terms)
        else:
            replies = self._client._stream(self._queue, spec, request, terms)
        try:
            async for reply in replies:
                yield reply
        finally:
            # Without this, breaking out of the loop would leave the inner one to the garbage collector.
            close = getattr(replies, "aclose", None)
            if close is not None:
                await close()


def _instance_id(name: str | None) -> str:
    readable = name or f"{socket.gethostname()}-{os.getpid()}"
    return f"{_NOT_IN_A_SESSION_ID.sub('-', readable)[:80]}-{token_hex(6)}"


def _not_running() -> NotRunning:
    return NotRunning("the client is not running; use it inside `async with RpcClient(...) as client`")
