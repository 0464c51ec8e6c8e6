"""How the message of a request is settled, and how its lock is kept while a handler runs under it.

Adapts what receives (one receiver for a queue, the session pump for a queue with sessions) to what serving
needs. Knows locks and deliveries, not what is served.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import datetime, timezone
from time import monotonic

from azure.servicebus import ServiceBusReceivedMessage

from . import _sdk
from ._locks import Lease, lock_duration
from ._receiver import Receiver
from ._receiving import Delivery

__all__ = ["HeldLock", "QueueSettling", "SessionSettling"]

_log = logging.getLogger("sbrpc.server")


class QueueSettling:
    """Settles through the receiver's task and does not wait for it: the next request may begin meanwhile."""

    def __init__(
        self, receiver: Receiver, message: ServiceBusReceivedMessage, on_settled: Callable[[], None]
    ) -> None:
        self._receiver = receiver
        self._message = message
        self._on_settled = on_settled

    async def complete(self) -> None:
        self._receiver.complete(self._message).add_done_callback(self._settled)

    async def abandon(self) -> None:
        self._receiver.abandon(self._message).add_done_callback(self._settled)

    async def dead_letter(self, reason: str, description: str) -> None:
        self._receiver.dead_letter(self._message, reason, description).add_done_callback(self._settled)

    def leave(self) -> None:
        self._receiver.leave()

    def _settled(self, future: asyncio.Future[None]) -> None:
        self._on_settled()
        error = future.exception() if not future.cancelled() else None
        if error is not None:
            # It comes again, and the store answers it.
            _log.warning("message %s was not settled: %s", self._message.message_id, error)


class SessionSettling:
    """Settles in line with what else happens to the session."""

    def __init__(self, delivery: Delivery) -> None:
        self._delivery = delivery

    async def complete(self) -> None:
        await self._delivery.complete()

    async def abandon(self) -> None:
        await self._delivery.abandon()

    async def dead_letter(self, reason: str, description: str) -> None:
        await self._delivery.dead_letter(reason, description)

    def leave(self) -> None:
        pass


class HeldLock:
    """The lock of one request under which a handler runs."""

    def __init__(self, receiver: Receiver, message: ServiceBusReceivedMessage) -> None:
        self._receiver = receiver
        self._message = message
        now = datetime.now(timezone.utc)
        until = message.locked_until_utc
        self._lease = Lease(lock_duration(until or now, now, message.enqueued_time_utc), monotonic())
        self._renewing: asyncio.Future[None] | None = None
        self._started = 0.0

    def look(self, now: float) -> str | None:
        """Renew if it is time to; says why the lock is gone, if it is."""
        if self._renewing is not None and self._renewing.done():
            error = self._renewing.exception()
            self._renewing = None
            if isinstance(error, _sdk.LockLost):
                return f"the lock was lost: {error}"
            if error is not None:
                self._lease.failed(now)
            else:
                self._lease.renewed(self._started)
        if self._lease.lost(now):
            return "the lock could not be renewed in time"
        if self._renewing is None and now >= self._lease.renew_at:
            self._started = now
            self._renewing = self._receiver.renew(self._message)
        return None
