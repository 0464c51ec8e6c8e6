"""Keeping a Service Bus lock while work runs under it.

`Lease` knows when to renew and when the lock must be taken for lost, on the monotonic clock and with `now`
as an argument; `holding` runs work beside the renewal and cancels it when the lock is gone. Knows nothing of
what is locked: a message, a session and a reply session are all the same here.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from datetime import datetime
from time import monotonic
from typing import TypeVar

import anyio

from ._sdk import LockLost

__all__ = ["Lease", "holding", "lock_duration"]

T = TypeVar("T")

_log = logging.getLogger("sbrpc.locks")

# Service Bus allows locks of at most 5 minutes. The least keeps a clock that is off from making renewal spin.
_LONGEST = 300.0
_SHORTEST = 1.0

# How long one renewal may take before it counts as failed. It is also how long finished work may have to
# wait for a renewal that is on its way: the SDK does not like being cancelled in the middle of one.
_RENEWAL_TIMEOUT = 10.0


def lock_duration(locked_until: datetime, now: datetime, enqueued_at: datetime | None = None) -> float:
    """Seconds that a lock just taken lasts.

    The service says until when, by its own clock, and never for how long. Against a local clock that is
    behind, the time since the message was enqueued (both by the service's clock) is a second upper bound.
    """
    seconds = (locked_until - now).total_seconds()
    if enqueued_at is not None and enqueued_at < locked_until:
        seconds = min(seconds, (locked_until - enqueued_at).total_seconds())
    return min(max(seconds, _SHORTEST), _LONGEST)


class Lease:
    """A lock in time: renewed at half its life, retried with growing pauses, lost at the end of it."""

    __slots__ = ("duration", "expires_at", "renew_at", "_pause")

    def __init__(self, duration: float, now: float) -> None:
        self.duration = duration
        self.renewed(now)

    def renewed(self, now: float) -> None:
        """The lock was taken or renewed by an operation that was started at `now`."""
        self.expires_at = now + self.duration
        self.renew_at = now + self.duration / 2
        self._pause = self.duration / 32

    def failed(self, now: float) -> None:
        """A renewal failed for a reason that may pass."""
        self.renew_at = min(now + self._pause, self.expires_at)
        self._pause *= 2

    def at_most(self, duration: float) -> None:
        """The lock turned out to be shorter than what was believed when it was taken."""
        too_long = self.duration - duration
        if too_long > 0:
            self.duration = duration
            self.expires_at -= too_long
            self.renew_at -= too_long / 2

    def lost(self, now: float) -> bool:
        """True once nobody can rely on the lock any more."""
        return now >= self.expires_at


async def holding(
    lease: Lease,
    renew: Callable[[], Awaitable[object]],
    work: Callable[[], Awaitable[T]],
    what: str,
) -> T:
    """Run `work` and renew the lock beside it.

    `renew` raising `LockLost` means just that; after any other exception it is called again until the lease
    ends. Cancelled from outside, the work is cancelled and nothing is renewed any more.

    Raises:
        LockLost: the lock ended first; the work has been cancelled and has come to its end.
    """
    lost = False
    result: list[T] = []
    failure: BaseException | None = None

    async def renewing() -> None:
        nonlocal lost
        await _renew_until_lost(lease, renew, what)
        lost = True
        tasks.cancel_scope.cancel()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(renewing, name=f"renew the lock of {what}")
        try:
            result.append(await work())
        except Exception as error:  # carried out of the task group, which would wrap it
            failure = error
        tasks.cancel_scope.cancel()
    if result:
        return result[0]
    if lost:
        raise LockLost(f"{what}: the lock was lost while work was running under it")
    assert failure is not None
    raise failure


async def _renew_until_lost(lease: Lease, renew: Callable[[], Awaitable[object]], what: str) -> None:
    while True:
        await anyio.sleep(max(0.0, lease.renew_at - monotonic()))
        started = monotonic()
        if lease.lost(started):
            _log.warning("the lock of %s could not be renewed in time", what)
            return
        try:
            with anyio.fail_after(min(_RENEWAL_TIMEOUT, lease.expires_at - started), shield=True):
                await renew()
        except LockLost as error:
            _log.warning("the lock of %s is lost: %s", what, error)
            return
        except Exception as error:  # connection trouble, throttling: the lock itself may still be ours
            _log.info("renewing the lock of %s failed, trying again: %s", what, error)
            lease.failed(monotonic())
        else:
            lease.renewed(started)
