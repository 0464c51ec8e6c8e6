"""Serving one request: from what stood in the message to the reply and the settlement.

A ladder of checks, the handler, a decision, and doing what was decided. Where requests come from and how many
at a time is `_intake`'s and `server`'s business; what an outcome means stands in `_decide`.
"""

from __future__ import annotations

import asyncio
import fnmatch
import logging
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextvars import copy_context
from time import monotonic
from typing import Any, TypeVar

import anyio

from ._age import BrokerAge
from ._answers import AnswerPart, Unconfirmed
from ._decide import Decision, Outcome, Settlement, What, decide, decide_unsent
from ._handlers import Handler, Registry
from ._job import Job, keep_deadlines
from ._replies import Expected, ReplyChannel
from ._sdk import bounded
from ._sender import Sender
from ._streams import Outflow
from ._tasks import Turns, isolated
from ._wire import (
    CANCEL,
    CREDIT,
    OK,
    Address,
    Reply,
    Request,
    error_body,
)
from .context import CallInfo, Deadline, fencing_token, limit
from .contract import MethodKind, MethodSpec
from .errors import (
    BusError,
    DecodeError,
    FailedPrecondition,
    RpcError,
    SbrpcError,
)
from .middleware import Middleware, Next, chain
from .store import CachedReply, MemoryReplyStore, ReplyStore

__all__ = ["Job", "Settle", "Worker"]

T = TypeVar("T")

_log = logging.getLogger("sbrpc.server")

# How long a reply is kept after the caller has stopped waiting for it, and for callers who wait for ever.
_KEEP_AFTER_DEADLINE = 60.0
_KEEP_WITHOUT_DEADLINE = 600.0

# A store that does not answer within this time has failed.
_STORE_PATIENCE = 5.0

# Seconds that a streaming handler has to clean up once it was ended: it must not keep a server from stopping.
_CLEANING_UP = 5.0

# Streamed replies that may be on their way to Service Bus at once.
_UNCONFIRMED = 32

# Only what a handler has said is kept: everything else is found out again, or may have changed by then.
_RETURNED = What.RETURNED
_KEPT = (_RETURNED, What.FAILED)

# Matching a name against patterns takes longer than looking it up; requests can name any.
_REMEMBERED_QUEUES = 1000

# A handler that waits for leave to send says this often where leave is to be sent: the address may change.
_REMIND = 15.0


Settle = Callable[[Decision], None]
"""Carries out what was decided about the message of a request. Called once, as soon as the reply is sent."""


class Worker:
    """Serves requests one by one or many at a time; holds what they share."""

    def __init__(
        self,
        registry: Registry,
        *,
        queue: str,
        sender_to: Callable[[str], Sender],
        control_of: Callable[[str], ReplyChannel],
        forget_sender: Callable[[str], None],
        advice: Callable[[], int | None],
        reply_queues: Sequence[str],
        middleware: Sequence[Middleware],
        store: ReplyStore | None,
        max_deliveries: int,
        threads: int,
    ) -> None:
        self._registry = registry
        self._queue = queue
        self._sender_to = sender_to
        self._control_of = control_of
        self._forget_sender = forget_sender
        self._advice = advice
        self._reply_queues = tuple(pattern.lower() for pattern in reply_queues)
        self._middleware = tuple(middleware)
        self._store = store
        # Itself, which neither fails nor waits; a class derived from it may do both.
        self._memory = store if type(store) is MemoryReplyStore else None
        self._max_deliveries = max_deliveries
        self._threads = anyio.CapacityLimiter(threads)
        self._ages = BrokerAge()
        self._allowed: dict[str, bool] = {}
        self._chains: dict[str, Next] = {}
        self._calls: dict[str, Job] = {}
        self.running: set[Job] = set()
        self.served = 0

    def jobs(self, requests: Sequence[Request]) -> list[Job]:
        """The requests of one message, with the deadlines that are left of theirs."""
        now = monotonic()
        first = requests[0]
        age, stale = self._ages.of(first.enqueued_at, first.locked_until, now)
        jobs = []
        for request in requests:
            timeout = request.timeout if request.timeout is not None else request.time_to_live
            until = Deadline.never() if timeout is None else Deadline.after(timeout - age, now=now)
            jobs.append(Job(request, until, stale=stale))
        return jobs

    async def serve(
        self, job: Job, settle: Settle, turns: Turns, now: float, *, scattered: bool = False
    ) -> None:
        """Serve a request. Returns when its handler is done; the reply may still be on its way then.

        `turns` are the calling task's, `now` is the monotonic time.
        `scattered`: do not serve it, but tell the caller to send it again by itself. Cancelled, it neither
        replies nor settles.
        """
        self.running.add(job)
        try:
            outcome = await self._outcome(job, turns, now, scattered)
            decision = decide(outcome, can_reply=job.request.reply_to is not None)
            if self._store is not None and decision.reply is not None and outcome.what in _KEPT:
                # Before it is sent: a redelivery may come from the moment it is.
                await self._keep(self._store, job, decision.reply)
        except BaseException:
            self._over(job)
            raise
        self._conclude(job, decision, settle)

    async def keep_deadlines(self) -> None:
        """Interrupt handlers at their deadlines, until cancelled; runs as long as anything is served."""
        await keep_deadlines(self.running)

    def _over(self, job: Job) -> None:
        self.running.discard(job)
        if self._calls.get(job.key) is job:
            del self._calls[job.key]
        if job.ended is not None:
            job.ended.set()
        self.served += 1

    # -- what becomes of it ------------------------------------------------------------------------------

    async def _outcome(self, job: Job, turns: Turns, now: float, scattered: bool) -> Outcome:
        request = job.request
        if request.reply_to is not None and not self._may_reply_to(request.reply_to):
            allowed = ", ".join(map(repr, self._reply_queues))
            text = (
                f"replies to {request.reply_to!r} are not allowed by this server, whose `reply_queues` are "
                f"{allowed or 'none'}"
            )
            return Outcome(What.FORBIDDEN, note=text)
        if job.stale:
            return Outcome(What.LOCK_GONE)
        if job.stopped is not None:
            return Outcome(job.stopped, note=job.cancellation.reason or "")
        if job.key in self._calls and request.call_id:
            await self._settle_twins(job)
            now = monotonic()
        kept = None
        if self._store is not None and request.reply_to is not None and request.call_id:
            if self._memory is not None:
                kept = self._memory.kept(job.key)
            else:
                kept = await self._ask_store(job, "look up", self._store.get(job.key))
                now = monotonic()
        if kept is not None:
            return Outcome(What.CACHED, body=kept.body, status=kept.status)
        if scattered:
            return Outcome(What.SCATTERED)
        if request.delivery_count >= self._max_deliveries:
            return Outcome(What.POISONED, note=str(request.delivery_count))
        if request.problem is not None:
            return Outcome(What.UNDECODABLE, error=DecodeError(request.problem))
        handler = self._registry.get(request.subject)
        if handler is None:
            return Outcome(What.UNKNOWN_METHOD, note=request.subject)
        if job.deadline.at <= now:
            return Outcome(What.EXPIRED, note="the deadline passed before the request was served")
        try:
            value = handler.spec.request.decode(request.body)
        except DecodeError as error:
            return self._undecodable(handler, request, error)
        self._calls[job.key] = job
        return await self._run(job, turns, now, handler, value)

    async def _ask_store(self, job: Job, what: str, asked: Awaitable[T]) -> T | None:
        """What the store says. One that fails or hangs must not keep the caller from an answer."""
        call_id = job.request.call_id
        try:
            with bounded(_STORE_PATIENCE):
                return await asked
        except Exception:
            _log.exception("the store failed to %s the reply to call %s", what, call_id, extra=job.log_fields)
        else:
            text = "the store took more than %g s to %s the reply to call %s"
            _log.error(text, _STORE_PATIENCE, what, call_id, extra=job.log_fields)
        return None

    async def _settle_twins(self, job: Job) -> None:
        """The same call is already being served here: let that end first."""
        twin = self._calls[job.key]
        if twin.request.sequence_number == job.request.sequence_number:
            # The very message again: the lock it was served under is gone, though nobody told us.
            twin.stop(What.LOCK_GONE, "the request was delivered again")
        if twin.ended is None:
            twin.ended = asyncio.Event()
        with anyio.move_on_after(max(0.0, min(job.deadline.remaining(), 3600.0))):
            await twin.ended.wait()

    def _undecodable(self, handler: Handler, request: Request, error: DecodeError) -> Outcome:
        if request.fingerprint and request.fingerprint != handler.spec.fingerprint:
            return Outcome(What.INCOMPATIBLE, error=error, schema=handler.spec.request.schema())
        return Outcome(What.UNDECODABLE, error=error)

    def _may_reply_to(self, queue: str) -> bool:
        allowed = self._allowed.get(queue)
        if allowed is None:
            if len(self._allowed) >= _REMEMBERED_QUEUES:
                self._allowed.clear()
            allowed = any(fnmatch.fnmatchcase(queue.lower(), pattern) for pattern in self._reply_queues)
            self._allowed[queue] = allowed
        return allowed

    async def _run(self, job: Job, turns: Turns, now: float, handler: Handler, value: Any) -> Outcome:
        if job.stopped is not None:
            return Outcome(job.stopped, note=job.cancellation.reason or "")
        outcome: Outcome | None = None
        job.began(turns, now)
        # As if it had a task of its own: what it sets of context variables is gone with it.
        context = copy_context()
        context.run(limit, job.deadline)
        try:
            outcome = await isolated(self._call(job, handler, value), context)
        except BaseException as error:
            if not job.done(turns, error):
                raise
        else:
            job.done(turns)
        if job.stopped is What.LOCK_GONE or (outcome is None and job.stopped is not None):
            return Outcome(job.stopped, note=job.cancellation.reason or "")
        if outcome is None:
            job.cancellation.cancel("the deadline passed")
            return Outcome(What.EXPIRED, note="the deadline passed while the request was being served")
        return outcome

    def _info(self, job: Job, handler: Handler) -> CallInfo:
        request = job.request
        return CallInfo(
            method=request.subject,
            call_id=request.call_id,
            deadline=job.deadline,
            metadata=request.metadata,
            contract=handler.spec.contract,
            queue=self._queue,
            delivery_count=request.delivery_count,
            enqueued_at=request.enqueued_at,
            session_id=request.session_id,
            reply_to=request.reply_to,
            fencing_token=fencing_token(request.sequence_number, request.delivery_count),
            cancellation=job.cancellation,
        )

    async def _call(self, job: Job, handler: Handler, value: Any) -> Outcome:
        spec = handler.spec
        try:
            if spec.kind is MethodKind.STREAM or job.request.cancellable:
                with self._controlled(job, handler):
                    result = await self._result(job, handler, value)
                    if spec.kind is MethodKind.STREAM:
                        return await self._stream(job, handler, result)
            else:
                result = await self._result(job, handler, value)
            if spec.kind is MethodKind.ONE_WAY:
                return Outcome(What.RETURNED, body=b"null")
            return Outcome(_RETURNED, spec.response.encode(result))
        except RpcError as error:
            return Outcome(What.FAILED, error=error)
        except asyncio.CancelledError:
            if anyio.current_effective_deadline() == -math.inf:
                raise
            # Nobody cancelled the handler. It waited for something that was.
            return self._crashed(job, spec)
        except Exception:  # the handler's own, or the middleware's
            return self._crashed(job, spec)

    def _crashed(self, job: Job, spec: MethodSpec) -> Outcome:
        """The caller gets INTERNAL, the log the rest."""
        _log.exception("%s failed for call %s", spec, job.request.call_id, extra=job.log_fields)
        return Outcome(What.CRASHED)

    def _result(self, job: Job, handler: Handler, value: Any) -> Awaitable[Any]:
        if self._middleware or handler.spec.kind is MethodKind.STREAM:
            return self._chain(handler)(value, self._info(job, handler))
        # What nobody looks at is not made: that takes longer than to decode most requests.
        info = self._info(job, handler) if handler.takes_info else None
        return handler.call(value, info, self._threads)

    def _chain(self, handler: Handler) -> Next:
        call = self._chains.get(handler.spec.subject)
        if call is None:

            async def endpoint(request: Any, info: CallInfo) -> Any:
                if handler.spec.kind is MethodKind.STREAM:
                    return handler.stream(request, info)
                return await handler.call(request, info, self._threads)

            call = self._chains[handler.spec.subject] = chain(self._middleware, endpoint)
        return call

    # -- streams and cancellation ------------------------------------------------------------------------

    def _controlled(self, job: Job, handler: Handler) -> _Controlled:
        request = job.request
        wanted = (request.window is not None or request.cancellable) and request.reply_to is not None
        if handler.spec.kind is MethodKind.STREAM:
            job.outflow = Outflow(request.window)
        if not wanted or not request.call_id:
            return _Controlled(job, None)
        assert request.reply_to is not None
        controlled = _Controlled(job, self._control_of(request.reply_to))
        if request.cancellable and job.outflow is None and controlled.address() is not None:
            # Tell the caller now where a cancel would have to go; a stream says so with every part.
            notice = Reply(request.call_id, None, session_id=request.reply_to_session_id, control=job.control)
            self._post(AnswerPart(self._advice, job, notice))
        return controlled

    async def _stream(self, job: Job, handler: Handler, replies: AsyncIterator[Any]) -> Outcome:
        outflow = job.outflow
        assert outflow is not None
        confirmed = Unconfirmed(self._advice, _UNCONFIRMED)
        try:
            async for value in replies:
                body = handler.spec.response.encode(value)
                if job.request.reply_to is None:
                    continue
                await self._wait_for_leave(job, outflow)
                await confirmed.room()
                self._post(confirmed.posted(job, self._part(job, OK, body)))
            if job.request.reply_to is not None:
                self._post(confirmed.posted(job, self._part(job, OK, b"", end=True)))
                await confirmed.all()
        finally:
            close = getattr(replies, "aclose", None)
            if close is not None:
                with anyio.move_on_after(_CLEANING_UP, shield=True):
                    await close()
        return Outcome(What.STREAMED)

    async def _wait_for_leave(self, job: Job, outflow: Outflow) -> None:
        patience = 0.0
        while outflow.blocked and not await outflow.wait(patience):
            patience = _REMIND
            assert job.request.reply_to is not None
            failure = self._control_of(job.request.reply_to).failure
            if failure is not None and isinstance(failure, BusError) and job.control is None:
                raise FailedPrecondition(
                    "the server cannot receive flow control for this stream: it needs the right to listen on "
                    "the reply queue, or a control queue"
                ) from failure
            notice = Reply(
                job.request.call_id, None, session_id=job.request.reply_to_session_id, control=job.control
            )
            self._post(AnswerPart(self._advice, job, notice))

    def _part(self, job: Job, status: str, body: bytes, *, end: bool = False) -> Reply:
        assert job.outflow is not None
        return Reply(
            job.request.call_id,
            status,
            body,
            sequence=job.outflow.take(),
            end=end,
            control=job.control,
            session_id=job.request.reply_to_session_id,
        )

    # -- carrying out ------------------------------------------------------------------------------------

    def _conclude(self, job: Job, decision: Decision, settle: Settle) -> None:
        """Reply if there is something to say, then settle. Goes on when Service Bus has the reply."""
        if decision.settlement is Settlement.DEAD_LETTER:
            _log.warning(
                "dead-lettering call %s of %r: %s: %s",
                job.request.call_id,
                job.request.subject,
                decision.reason,
                decision.description,
                extra=job.log_fields,
            )
        if decision.reply is None:
            self._replied(job, decision, settle, None)
            return
        try:
            self._post(_Answer(self, job, self._answer(job, decision.reply), decision, settle))
        except SbrpcError as error:
            self._replied(job, decision, settle, error)

    def _replied(self, job: Job, decision: Decision, settle: Settle, error: SbrpcError | None) -> None:
        """Service Bus has the reply, or does not take it."""
        if error is None:
            self._over(job)
            settle(decision)
            return
        _log.warning("no reply to call %s: %s", job.request.call_id, error, extra=job.log_fields)
        if isinstance(error, BusError) and job.request.reply_to is not None:
            self._forget_sender(job.request.reply_to)
        self._conclude(job, decide_unsent(decision, error, late=job.deadline.passed), settle)

    async def _keep(self, store: ReplyStore, job: Job, reply: RpcError | Outcome) -> None:
        """Remember a reply, until some time after its caller has stopped waiting."""
        if job.outflow is not None or not job.request.call_id:
            return
        ttl = _KEEP_WITHOUT_DEADLINE
        if not job.deadline.is_never:
            ttl = max(0.0, job.deadline.remaining()) + _KEEP_AFTER_DEADLINE
        kept = CachedReply(*self._encoded(job, reply))
        if self._memory is not None:
            self._memory.keep(job.key, kept, ttl)
        else:
            await self._ask_store(job, "keep", store.put(job.key, kept, ttl))

    def _encoded(self, job: Job, reply: RpcError | Outcome) -> tuple[str, bytes]:
        if isinstance(reply, Outcome):
            return reply.status, reply.body
        handler = self._registry.get(job.request.subject)
        return reply.code.value, error_body(reply, handler.spec.errors if handler is not None else None)

    def _answer(self, job: Job, reply: RpcError | Outcome) -> Reply:
        request = job.request
        if isinstance(reply, Outcome) and reply.what is What.SCATTERED:
            return Reply(request.call_id, None, session_id=request.reply_to_session_id, alone=True)
        status, body = self._encoded(job, reply)
        if job.outflow is not None:
            return self._part(job, status, body, end=True)
        return Reply(request.call_id, status, body, session_id=request.reply_to_session_id)

    def _post(self, part: AnswerPart) -> None:
        reply_to = part.job.request.reply_to
        assert reply_to is not None
        self._sender_to(reply_to).post(part)


class _Answer(AnswerPart):
    """The last of a job, and what follows from it for the message of the request."""

    __slots__ = ("_decision", "_settle", "_worker")

    def __init__(self, worker: Worker, job: Job, reply: Reply, decision: Decision, settle: Settle) -> None:
        super().__init__(worker._advice, job, reply)
        self._worker = worker
        self._decision = decision
        self._settle = settle

    def done(self, error: SbrpcError | None) -> None:
        self._worker._replied(self.job, self._decision, self._settle, error)


class _Controlled:
    """While it is entered, credits and cancels for a job arrive."""

    def __init__(self, job: Job, channel: ReplyChannel | None) -> None:
        self._job = job
        self._channel = channel
        self._registered = False

    def address(self) -> Address | None:
        """Where the caller sends them to; None if the server may not listen there."""
        job, channel = self._job, self._channel
        if channel is None:
            return None
        if not self._registered:
            call_id = job.request.call_id
            try:
                epoch = channel.current()
            except SbrpcError as error:
                _log.warning("call %s cannot be controlled: %s", call_id, error, extra=job.log_fields)
            else:
                channel.register(Expected(call_id, job.deadline, epoch, self._on_control))
                job.control = epoch.address
                self._registered = True
        return job.control

    def _on_control(self, reply: Reply) -> bool:
        if reply.subject == CANCEL:
            self._job.stop(What.CANCELLED, "the caller cancelled the call")
        elif reply.subject == CREDIT and reply.window is not None and self._job.outflow is not None:
            self._job.outflow.grant(reply.window)
        return False

    def __enter__(self) -> None:
        self.address()

    def __exit__(self, *exception: object) -> None:
        if self._registered and self._channel is not None:
            self._channel.forget(self._job.request.call_id)
