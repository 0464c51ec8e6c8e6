"""What a server sends to a caller, one message or part of one each: answers, parts of streams, notices.

Owns how long sending is tried, and how many parts of a stream may be on their way. What is in them, and what
follows when the last is sent, is the worker's business.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from time import monotonic

from azure.servicebus.amqp import AmqpAnnotatedMessage

from ._bundles import ReplyPart
from ._job import Job
from ._wire import Reply
from .context import Deadline
from .errors import SbrpcError

__all__ = ["AnswerPart", "StreamPart", "Unconfirmed"]

# An answer that is late may still interest somebody who looks at the queue; it is tried this long.
_REPLY_PATIENCE = 5.0


class AnswerPart(ReplyPart):
    """Something to tell the caller of a job."""

    __slots__ = ("_advice", "job")

    def __init__(self, advice: Callable[[], int | None], job: Job, reply: Reply) -> None:
        until, least = job.deadline, monotonic() + _REPLY_PATIENCE
        if until.at < least:
            until = Deadline(least)
        super().__init__(reply, job.deadline, deadline=until, alone=not job.request.bundles)
        self.job = job
        self._advice = advice

    def messages(self) -> Sequence[AmqpAnnotatedMessage]:
        if self.job.request.bundles:
            self.reply.bundle = self._advice()
        return super().messages()

    def together(self, parts: Sequence[ReplyPart]) -> AmqpAnnotatedMessage:
        self.reply.bundle = self._advice()
        return super().together(parts)

    def done(self, error: SbrpcError | None) -> None:
        """Nobody waits for that."""


class StreamPart(AnswerPart):
    """One reply of many, of which only so many may be on their way."""

    __slots__ = ("_unconfirmed",)

    def __init__(
        self, advice: Callable[[], int | None], job: Job, reply: Reply, unconfirmed: Unconfirmed
    ) -> None:
        super().__init__(advice, job, reply)
        self._unconfirmed = unconfirmed

    def done(self, error: SbrpcError | None) -> None:
        self._unconfirmed.confirmed(error)


class Unconfirmed:
    """Counts replies that Service Bus has not confirmed yet, and remembers the first that failed."""

    def __init__(self, advice: Callable[[], int | None], most: int) -> None:
        self._advice = advice
        self._most = most
        self._count = 0
        self._error: SbrpcError | None = None
        self._changed = asyncio.Event()

    def posted(self, job: Job, reply: Reply) -> StreamPart:
        """One more, to be posted at once."""
        self._count += 1
        return StreamPart(self._advice, job, reply, self)

    def confirmed(self, error: SbrpcError | None) -> None:
        """One is with Service Bus, or failed."""
        self._count -= 1
        self._error = self._error or error
        self._changed.set()

    async def room(self) -> None:
        """Wait until one more may be posted; raises what the first that failed has failed with."""
        await self._until(self._most - 1)

    async def all(self) -> None:
        """Wait until all are with Service Bus; raises like `room`."""
        await self._until(0)

    async def _until(self, count: int) -> None:
        while self._count > count and self._error is None:
            self._changed.clear()
            await self._changed.wait()
        if self._error is not None:
            raise self._error
