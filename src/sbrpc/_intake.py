"""From received messages to served requests: how many at once, and under whose locks.

Owns the requests that were received from a queue without sessions and are not settled, the tasks that serve
them, and the renewal of their messages' locks. Knows one receiver from another, but opens none; what serving
means is the worker's business.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from time import monotonic

import anyio
import anyio.abc
from azure.servicebus import ServiceBusReceivedMessage

from ._bundles import MOST_IN_A_BUNDLE, is_bundle, read_requests
from ._decide import Decision, Settlement, What
from ._job import Job
from ._pace import Pace
from ._receiver import Receiver
from ._serving import Worker
from ._settling import HeldLock, SettledTogether, settle_message
from ._tasks import Turns
from ._wire import read_request
from .errors import DecodeError

__all__ = ["Advice", "Intake"]

_log = logging.getLogger("sbrpc.server")

# How often running handlers are looked through for locks to renew. Locks last 5 s at least, as a rule 60.
_LOOK_AT_LOCKS = 0.25

# Where handlers take less, in seconds, one message waits here for its turn, so that none of them ever waits
# for a message. It is locked meanwhile, and no other server gets it.
_SOON = 0.25

# A bundle is served by one server, while others may be idle. So it has no more calls than the server runs at
# once, or is done with in so many seconds.
_NO_TIME = 0.004


class Advice:
    """How many calls a server likes to be given in one message, by how long its handlers take."""

    __slots__ = ("_concurrency", "_pace")

    def __init__(self, concurrency: int, pace: Pace) -> None:
        self._concurrency = concurrency
        self._pace = pace

    def __call__(self) -> int:
        """The number of calls."""
        quick = self._concurrency * _NO_TIME / max(self._pace.mean, 1e-6)
        return max(1, min(MOST_IN_A_BUNDLE, max(self._concurrency, int(quick))))


class Intake:
    """Serves what receivers take, `concurrency` requests at a time.

    `take` and the properties are for the event loop that runs the tasks.
    """

    def __init__(self, worker: Worker, concurrency: int, pace: Pace, on_change: Callable[[], None]) -> None:
        self._worker = worker
        self._concurrency = concurrency
        self._pace = pace
        self._on_change = on_change
        self._waiting: deque[tuple[Job, _Taken]] = deque()
        self._serving = 0
        self._spare = False
        """Whether a task is there, or on its way, that serves what comes next."""
        self._arrived = asyncio.Event()
        self._locks: dict[HeldLock, Sequence[Job]] = {}
        self.held = 0
        """Requests that were received and are not answered yet."""

    @property
    def has_room(self) -> bool:
        """Whether another message may be received: for whom there is a handler, or soon will be."""
        return self.held < self._concurrency or (not self._waiting and self._pace.mean < _SOON)

    def take(
        self, receiver: Receiver, message: ServiceBusReceivedMessage, tasks: anyio.abc.TaskGroup
    ) -> None:
        """Serve the requests in a message, in tasks of the group, and settle it."""
        bundle = is_bundle(message)
        try:
            requests = read_requests(message) if bundle else [read_request(message)]
        except DecodeError as error:
            _log.warning("dead-lettering a bundle: %s", error)
            reason = Decision(Settlement.DEAD_LETTER, reason="MalformedBundle", description=str(error))
            settle_message(receiver, message, reason, self._on_change)
            return
        if not requests:
            settle_message(receiver, message, Decision(Settlement.COMPLETE), self._on_change)
            return
        jobs = self._worker.jobs(requests)
        # What kills a server is found out by itself, and spares those it travelled with.
        scattered = len(requests) > 1 and requests[0].delivery_count > 0
        taken = _Taken(self, receiver, message, len(jobs), scattered=scattered)
        self._locks[taken.lock] = jobs
        self.held += len(jobs)
        for job in jobs:
            self._waiting.append((job, taken))
        self._serve_more(tasks)

    def stop(self, what: What, why: str) -> None:
        """End what is being served early, and what waits for its turn."""
        for jobs in list(self._locks.values()):
            for job in jobs:
                job.stop(what, why)

    async def keep_locks(self) -> None:
        """Renew the locks of handlers that run for long; stop those whose lock is gone."""
        while True:
            await anyio.sleep(_LOOK_AT_LOCKS)
            now = monotonic()
            for lock, jobs in list(self._locks.items()):
                why = lock.look(now)
                if why is not None:
                    for job in jobs:
                        job.stop(What.LOCK_GONE, why)

    def answered(self, receiver: Receiver) -> None:
        """One of the requests is answered; says so where that makes room for another message."""
        self.held -= 1
        if self.held == self._concurrency - 1:
            # Over another link too, if this one is gone.
            receiver.room_made()
            self._on_change()

    def settle(self, taken: _Taken, decision: Decision) -> None:
        """All of the requests in a message are answered."""
        del self._locks[taken.lock]
        settle_message(taken.receiver, taken.message, decision, self._on_change)
        taken.receiver.room_made()
        self._on_change()

    def _serve_more(self, tasks: anyio.abc.TaskGroup) -> None:
        if self._spare:
            self._arrived.set()
        elif self._waiting and self._serving < self._concurrency:
            self._spare = True
            self._serving += 1
            tasks.start_soon(self._serve, tasks, name="serve requests")

    async def _serve(self, tasks: anyio.abc.TaskGroup) -> None:
        """Serve what waits, one after the other; while one takes its time, the next task goes on beside it.

        So handlers that never wait for anything cost no task each. One task stays when nothing is left to do.
        """
        self._spare = False
        try:
            with Turns() as turns:
                while True:
                    if not self._waiting:
                        if self._spare:
                            return
                        self._spare = True
                        self._arrived.clear()
                        await self._arrived.wait()
                        self._spare = False
                        continue
                    job, taken = self._waiting.popleft()
                    if not self._spare:
                        self._serve_more(tasks)
                    began = monotonic()
                    try:
                        await self._worker.serve(job, taken, turns, began, scattered=taken.scattered)
                    except Exception:  # a bug of ours: the lock runs out and the request comes again
                        _log.exception("serving call %s failed", job.request.call_id, extra=job.log_fields)
                        taken(Decision(Settlement.LEAVE))
                    self._pace.took(monotonic() - began)
        finally:
            self._serving -= 1
            self._on_change()


class _Taken(SettledTogether):
    """A message whose requests are being answered."""

    __slots__ = ("_intake", "lock", "message", "receiver", "scattered")

    def __init__(
        self,
        intake: Intake,
        receiver: Receiver,
        message: ServiceBusReceivedMessage,
        requests: int,
        *,
        scattered: bool,
    ) -> None:
        super().__init__(requests)
        self._intake = intake
        self.receiver = receiver
        self.message = message
        self.lock = HeldLock(receiver, message)
        self.scattered = scattered
        """Its requests are not served, but each caller is told to send it again by itself."""

    def __call__(self, decision: Decision) -> None:
        """One more is answered."""
        self._intake.answered(self.receiver)
        super().__call__(decision)

    def settle(self, decision: Decision) -> None:
        self._intake.settle(self, decision)
