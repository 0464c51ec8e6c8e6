"""Leases: when to renew a lock and when to give it up."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import anyio
import anyio.lowlevel
import pytest

from sbrpc._locks import Lease, holding, lock_duration
from sbrpc._sdk import LockLost

NOW = datetime(2026, 3, 1, tzinfo=timezone.utc)


@pytest.mark.parametrize(
    ("ahead", "age", "expected"),
    [
        (60, None, 60),
        (60, 3600, 60),  # an old message says nothing
        (360, 0, 300),  # Service Bus has no longer locks
        (360, -300, 60),  # the service's clock is five minutes ahead, the message is fresh by it
        (-240, 3600, 1),  # the local clock is ahead: renew at once rather than never
        (60, -90, 60),  # enqueued after the lock was taken: no bound
    ],
)
def test_duration_survives_clocks_that_differ(ahead: float, age: float | None, expected: float) -> None:
    """The lock's length comes out right where one of its two upper bounds does."""
    enqueued = None if age is None else NOW - timedelta(seconds=age)
    assert lock_duration(NOW + timedelta(seconds=ahead), NOW, enqueued) == expected


def test_lease_renews_at_half_its_life() -> None:
    """Renewal is due in the middle, counted from when the renewing operation began."""
    lease = Lease(60, now=100)
    assert (lease.renew_at, lease.expires_at) == (130, 160)
    lease.renewed(131)
    assert (lease.renew_at, lease.expires_at) == (161, 191)


def test_lease_learns_that_the_lock_is_shorter() -> None:
    """A shorter duration moves the end and the middle as if it had been known, a longer one nothing."""
    lease = Lease(300, now=100)
    lease.at_most(60)
    assert (lease.renew_at, lease.expires_at) == (130, 160)
    lease.at_most(90)
    assert (lease.renew_at, lease.expires_at) == (130, 160)


def test_failed_renewal_is_retried_until_the_end() -> None:
    """Pauses double, never go past the end, and the lock is lost there and not before."""
    lease, now, tries = Lease(64, now=0), 32.0, []
    while not lease.lost(now):
        lease.failed(now)
        now = lease.renew_at
        tries.append(now)
    assert tries == [34, 38, 46, 62, 64]


async def test_work_that_ends_returns_its_value() -> None:
    """Work under a lock that stays returns as if nothing were beside it."""

    async def work() -> int:
        return 7

    assert await holding(Lease(60, anyio.current_time()), anyio.lowlevel.checkpoint, work, "x") == 7


async def test_exception_of_work_comes_out_unwrapped() -> None:
    """The caller catches what the work raised, not a group around it."""

    async def work() -> None:
        raise KeyError("k")

    with pytest.raises(KeyError):
        await holding(Lease(60, anyio.current_time()), anyio.lowlevel.checkpoint, work, "x")


async def test_lost_lock_cancels_work() -> None:
    """When renewal says that the lock is gone, the work is cancelled and LockLost raised."""
    cancelled = False

    async def work() -> None:
        nonlocal cancelled
        try:
            await anyio.sleep_forever()
        finally:
            cancelled = True

    async def renew() -> None:
        raise LockLost

    lease = Lease(60, anyio.current_time() - 30)  # due for renewal now
    with pytest.raises(LockLost):
        await holding(lease, renew, work, "x")
    assert cancelled


async def test_lease_that_ran_out_cancels_work_without_asking() -> None:
    """Past its end the lock is not renewed any more: another worker may have it."""

    async def renew() -> None:
        pytest.fail("must not be renewed")

    with pytest.raises(LockLost):
        await holding(Lease(60, anyio.current_time() - 60), renew, anyio.sleep_forever, "x")


async def test_passing_trouble_does_not_lose_the_lock() -> None:
    """A renewal that fails for another reason is tried again, and the work goes on."""
    tries = 0
    renewed = anyio.Event()

    async def renew() -> None:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise ConnectionError
        renewed.set()

    lease = Lease(0.2, anyio.current_time() - 0.1)
    await holding(lease, renew, renewed.wait, "x")
    assert tries == 2


async def test_cancelling_from_outside_is_no_lost_lock() -> None:
    """Cancellation passes through as cancellation."""
    with anyio.move_on_after(0) as scope:
        await holding(
            Lease(60, anyio.current_time()),
            anyio.lowlevel.checkpoint,
            anyio.sleep_forever,
            "x",
        )
    assert scope.cancelled_caught
