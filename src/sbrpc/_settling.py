"""How the message of a request is settled, and how its lock is kept while handlers run under it.

Carries out what was decided about a message, through what received it: one receiver for a queue, the session
pump for a queue with sessions. A bundle is one message with many requests, settled once. Knows locks and
deliveries, not what is served.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import datetime, timezone

from azure.servicebus import ServiceBusReceivedMessage

from . import _sdk
from ._decide import Decision, Settlement, all_of
from ._locks import Lease, lock_duration
from ._receiver import Receiver
from ._receiving import Delivery
from .errors import BusError

__all__ = ["HeldLock", "SettledTogether", "settle_delivery", "settle_message"]

_log = logging.getLogger("sbrpc.server")


def settle_message(
    receiver: Receiver,
    message: ServiceBusReceivedMessage,
    decision: Decision,
    on_settled: Callable[[], None],
) -> None:
    """Settle through the receiver's task and do not wait for it: the next request may begin meanwhile."""

    def done(error: BusError | None) -> None:
        on_settled()
        if error is not None:
            # It comes again, and the store answers it.
            _log.warning("message %s was not settled: %s", message.message_id, error)

    if decision.settlement is Settlement.COMPLETE:
        receiver.completing(message, done)
    elif decision.settlement is Settlement.ABANDON:
        receiver.abandoning(message, done)
    elif decision.settlement is Settlement.DEAD_LETTER:
        receiver.dead_lettering(message, decision.reason, decision.description, done)
    else:
        receiver.leave()
        on_settled()


async def settle_delivery(delivery: Delivery, decision: Decision) -> None:
    """Settle in line with what else happens to the session.

    Raises:
        BusError: it could not be settled and will be delivered again.
    """
    steps: dict[Settlement, Callable[[], Awaitable[None]]] = {
        Settlement.COMPLETE: delivery.complete,
        Settlement.ABANDON: delivery.abandon,
        Settlement.DEAD_LETTER: lambda: delivery.dead_letter(decision.reason, decision.description),
    }
    step = steps.get(decision.settlement)
    if step is not None:
        await step()


class SettledTogether:
    """Takes what was decided about each of the `count` requests of a message, and settles it at the last."""

    __slots__ = ("_decided", "_missing")

    def __init__(self, count: int) -> None:
        self._missing = count
        self._decided: Decision | None = None

    def __call__(self, decision: Decision) -> None:
        """One more is decided."""
        before = self._decided
        if before is not None and before.settlement is not decision.settlement:
            decision = all_of((before, decision))
        elif before is not None:
            decision = before
        self._decided = decision
        self._missing -= 1
        if not self._missing:
            self.settle(decision)

    def settle(self, decision: Decision) -> None:
        """Settle the message."""
        raise NotImplementedError


class HeldLock:
    """The lock of one message under which handlers run."""

    def __init__(self, receiver: Receiver, message: ServiceBusReceivedMessage) -> None:
        self._receiver = receiver
        self._message = message
        self._lease: Lease | None = None
        self._renewing: asyncio.Future[None] | None = None
        self._started = 0.0

    def look(self, now: float) -> str | None:
        """Renew if it is time to; says why the lock is gone, if it is."""
        lease = self._lease
        if lease is None:  # most messages are settled before anybody looks
            wall = datetime.now(timezone.utc)
            until = self._message.locked_until_utc or wall
            lease = self._lease = Lease(lock_duration(until, wall, self._message.enqueued_time_utc), now)
        if self._renewing is not None and self._renewing.done():
            error = self._renewing.exception()
            self._renewing = None
            if isinstance(error, _sdk.LockLost):
                return f"the lock was lost: {error}"
            if error is not None:
                lease.failed(now)
            else:
                lease.renewed(self._started)
        if lease.lost(now):
            return "the lock could not be renewed in time"
        if self._renewing is None and now >= lease.renew_at:
            self._started = now
            self._renewing = self._receiver.renew(self._message)
        return None
