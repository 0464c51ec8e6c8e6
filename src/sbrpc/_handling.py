"""Runs the handlers of one subscription and settles what they were given.

Between the pumps, which know messages and locks, and `_subscriptions`, which decides. Owns the attempts on an
event and the counters. Opens no link and publishes nothing.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from time import monotonic
from typing import Any

import anyio
import anyio.to_thread
from tenacity import RetryCallState, before_nothing, retry_all, retry_if_exception_type

from ._receiving import Delivery, Pause, Stopped
from ._subscriptions import (
    Abandon,
    Complete,
    DeadLetter,
    Elsewhere,
    Failed,
    Handled,
    Handler,
    Interrupted,
    Job,
    Keep,
    Outcome,
    Subscribed,
    Unhandled,
    decide,
    groups,
    resolve,
)
from .context import trace_id
from .errors import DecodeError
from .event import current_event

__all__ = ["Handling", "attempt"]

_log = logging.getLogger("sbrpc.events")

# Whoever may publish can make types up; beyond so many they are counted together only.
_MOST_COUNTS = 1000

_HANDLED = Handled()


class Handling:
    """What the pumps call: decodes, routes, runs and settles the messages of one subscription."""

    def __init__(self, subscription: Subscribed, counts: Counter[str], *, in_session: bool) -> None:
        self._subscription = subscription
        self._routes = subscription.routes()
        self._counts = counts
        self._in_session = in_session
        self._threads = anyio.CapacityLimiter(
            subscription.max_concurrent_sessions if in_session else subscription.concurrency
        )

    async def __call__(self, deliveries: Sequence[Delivery], pause: Pause) -> None:
        """Handle messages in their order.

        Raises:
            BusError: a message could not be settled; in a session, the ones after it have not been touched.
        """
        if len(deliveries) == 1:
            job = self._resolve(deliveries[0])
            await self._settle(deliveries, await self._run([job], pause) if isinstance(job, Job) else job)
            return
        resolved = [self._resolve(delivery) for delivery in deliveries]
        for group in groups(resolved):
            jobs = [job for job in resolved[group] if isinstance(job, Job)]
            outcome = await self._run(jobs, pause) if jobs else resolved[group.start]
            if isinstance(outcome, Failed) and len(jobs) > 1:
                # One of the batch is enough to fail it. By themselves, the others get through.
                for delivery, job in zip(deliveries[group], jobs, strict=True):
                    alone = await self._run([job], pause)
                    await self._settle([delivery], alone)
                    if self._ends_here(alone):
                        return
                continue
            assert not isinstance(outcome, Job)
            await self._settle(deliveries[group], outcome)
            if self._ends_here(outcome):
                return

    def _ends_here(self, outcome: Outcome) -> bool:
        return self._in_session and isinstance(outcome, Interrupted)

    def _resolve(self, delivery: Delivery) -> Job | Unhandled | Elsewhere | Failed:
        try:
            return resolve(delivery.message, self._routes, self._subscription.name)
        except DecodeError as error:
            return Failed(error)

    async def _run(self, jobs: Sequence[Job], pause: Pause) -> Outcome:
        outcome = await attempt(jobs[0].handler, jobs, pause, self._threads)
        if isinstance(outcome, Failed):
            self._counts["retried"] += outcome.attempts - 1
        return outcome

    async def _settle(self, deliveries: Sequence[Delivery], outcome: Outcome) -> None:
        settlement = decide(outcome, self._subscription.unknown, in_session=self._in_session)
        if isinstance(outcome, Unhandled):
            self._count_unknown(outcome.type)
        for delivery in deliveries:
            match settlement:
                case Complete():
                    await delivery.complete()
                case Abandon():
                    await delivery.abandon()
                case DeadLetter(reason, description):
                    await delivery.dead_letter(reason, description)
                    self._counts["dead_lettered"] += 1
                    _log.error(
                        "dead-lettered message %s of subscription %r: %s: %s",
                        delivery.message.sequence_number,
                        self._subscription.name,
                        reason,
                        description,
                    )
                case Keep():
                    pass
            if isinstance(outcome, Handled):
                self._counts["handled"] += 1

    def _count_unknown(self, kind: str) -> None:
        self._counts["unknown"] += 1
        name = f"unknown {kind}"
        if name not in self._counts:
            if len(self._counts) >= _MOST_COUNTS:
                return
            _log.warning(
                "subscription %r got a %r event, which it has no handler for; such events are settled as "
                "unknown=%r says, and this is logged once",
                self._subscription.name,
                kind,
                self._subscription.unknown,
            )
        self._counts[name] += 1


def _log_fields(jobs: Sequence[Job]) -> dict[str, str | None]:
    """What log records about events have besides their message; a batch is told by its first."""
    first = jobs[0].info
    return {"event_id": first.id, "trace_id": trace_id(first.traceparent)}


async def attempt(
    handler: Handler, jobs: Sequence[Job], pause: Pause, threads: anyio.CapacityLimiter
) -> Handled | Failed | Interrupted:
    """Call a handler with these events as often as its retry policy says, and tell how it ended.

    Only cancellation leaves it as an exception.
    """
    if handler.retry.before is not before_nothing:  # who wants to hear of every attempt does
        return await _attempts(handler, jobs, pause, threads)
    began = monotonic()
    try:
        await _call(handler, jobs, threads)
    except Exception as error:  # the handler's own; the policy decides what follows
        _tell(handler, jobs, 1)
        return await _attempts(handler, jobs, pause, threads, first=error, began=began)
    return _HANDLED


async def _attempts(
    handler: Handler,
    jobs: Sequence[Job],
    pause: Pause,
    threads: anyio.CapacityLimiter,
    *,
    first: Exception | None = None,
    began: float = 0.0,
) -> Handled | Failed | Interrupted:
    """Call a handler as its policy says, which is told of a first attempt that has failed already.

    Most events need no other one, and asking a policy takes longer than decoding an event.
    """
    attempts = 0

    async def once() -> None:
        nonlocal attempts
        number, attempts = attempts, attempts + 1
        if first is not None and not number:
            raise first
        try:
            await _call(
                handler, [replace(job, info=replace(job.info, attempt=number)) for job in jobs], threads
            )
        except Exception:  # the handler's own, for the policy
            _tell(handler, jobs, attempts)
            raise

    def before(state: RetryCallState) -> None:
        if first is not None and state.attempt_number == 1:
            state.start_time = began
        handler.retry.before(state)

    # Whatever the policy retries, cancellation is not retried.
    policy = handler.retry.copy(
        sleep=pause,
        retry=retry_all(retry_if_exception_type(Exception), handler.retry.retry),
        before=before,
        reraise=True,
    )
    try:
        await policy(once)
    except Stopped:
        return Interrupted()
    except Exception as error:  # the handler's own; its type and message go into the dead letter
        return Failed(error, attempts)
    return _HANDLED


def _tell(handler: Handler, jobs: Sequence[Job], attempts: int) -> None:
    _log.warning(
        "%s failed on %s (attempt %d)",
        handler.name,
        ", ".join(f"{job.info.type} {job.info.id}" for job in jobs[:3]),
        attempts,
        exc_info=True,
        extra=_log_fields(jobs),
    )


async def _call(handler: Handler, jobs: Sequence[Job], threads: anyio.CapacityLimiter) -> None:
    try:
        if handler.around is None:
            await _invoke(handler, jobs, threads)
        else:
            events, infos = [job.event for job in jobs], [job.info for job in jobs]
            await handler.around(events, infos, partial(_invoke, handler, jobs, threads))
    except asyncio.CancelledError as error:
        if anyio.current_effective_deadline() == -math.inf:
            raise
        # Nobody cancelled the handler. Let through, this would end the pump, and nobody would hear of it.
        raise RuntimeError("the handler waited for something that was cancelled") from error


async def _invoke(handler: Handler, jobs: Sequence[Job], threads: anyio.CapacityLimiter) -> None:
    events: Any = [job.event for job in jobs] if handler.batch else jobs[0].event
    infos: Any = [job.info for job in jobs] if handler.batch else jobs[0].info
    arguments = (events, infos) if handler.takes_info else (events,)
    # The cause of what a handler publishes. A batch has no single one.
    token = current_event.set(jobs[0].info if len(jobs) == 1 else None)
    try:
        if handler.is_async:
            result = handler.function(*arguments)
        else:
            # On a lost lock nobody waits for the thread: it cannot be stopped, and the fencing token is there
            # for what it may still write.
            call = partial(handler.function, *arguments)
            result = await anyio.to_thread.run_sync(call, abandon_on_cancel=True, limiter=threads)
        if inspect.isawaitable(result):
            await result
    finally:
        current_event.reset(token)
