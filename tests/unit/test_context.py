"""Deadlines and what a handler may know."""

from __future__ import annotations

import math
import threading

import anyio
import pytest

from sbrpc.context import CallInfo, Cancellation, Deadline, current_deadline, deadline, fencing_token


def test_the_nearer_deadline_is_the_lesser() -> None:
    """`min` combines deadlines; the one that never passes changes nothing."""
    near, far = Deadline.after(1, now=10), Deadline.after(5, now=10)
    assert min(near, far, Deadline.never()) is near
    assert near.remaining(now=10.25) == 0.75
    assert far.remaining(now=20) == -5


def test_never_has_no_end() -> None:
    """`never()` has infinite time left and says so."""
    assert Deadline.never().is_never
    assert Deadline.never().remaining() == math.inf
    assert not Deadline.never().passed
    assert Deadline.after(math.inf).is_never


def test_a_timeout_that_is_no_number_is_refused() -> None:
    """A deadline after nan seconds would compare as neither passed nor to come."""
    with pytest.raises(ValueError, match="not nan"):
        Deadline.after(math.nan)


def test_scopes_nest_and_end() -> None:
    """An inner scope can only be shorter, and leaves nothing behind."""
    assert current_deadline().is_never
    with deadline(10) as outer:
        assert current_deadline() is outer
        with deadline(60) as inner:
            assert inner is outer
        with deadline(1) as inner:
            assert inner < outer
            assert current_deadline() is inner
        assert current_deadline() is outer
    assert current_deadline().is_never


async def test_a_task_inherits_the_deadline() -> None:
    """Work that is started inside a scope has the scope's deadline."""
    seen: list[Deadline] = []

    async def work() -> None:
        seen.append(current_deadline())

    with deadline(10) as outer:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(work)
    assert seen == [outer]


def test_cancelled_is_seen_from_a_thread() -> None:
    """A handler in a thread can look whether its call was given up, and the first reason stays."""
    cancellation = Cancellation()
    info = CallInfo("m", "1", cancellation=cancellation)
    seen: list[bool] = []
    assert not info.cancelled
    cancellation.cancel("lock lost")
    cancellation.cancel("shutting down")
    thread = threading.Thread(target=lambda: seen.append(info.cancelled))
    thread.start()
    thread.join()
    assert seen == [True]
    assert cancellation.reason == "lock lost"


def test_a_passed_deadline_counts_as_cancelled() -> None:
    """There is no use in work that is too late."""
    assert CallInfo("m", "1", deadline=Deadline.after(-1)).cancelled


def test_fencing_tokens_grow() -> None:
    """With every message and every delivery, and they fit a signed 64-bit column."""
    tokens = [fencing_token(1, 0), fencing_token(1, 1), fencing_token(1, 9999), fencing_token(2, 0)]
    assert tokens == sorted(set(tokens))
    assert fencing_token(2**64 - 1, 10**9) < 2**63
