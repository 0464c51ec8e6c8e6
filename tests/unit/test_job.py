"""The scope in which handlers run, one after the other, and the deadlines in it."""

from __future__ import annotations

import math
from time import monotonic

import anyio
import anyio.lowlevel
import pytest

from sbrpc._decide import What
from sbrpc._job import Job
from sbrpc._tasks import Turns
from sbrpc._wire import Request
from sbrpc.context import Deadline

pytestmark = pytest.mark.anyio


def job(deadline: Deadline | None = None) -> Job:
    return Job(Request("get_movie", b"null", "call"), deadline or Deadline.never())


async def test_handlers_that_end_by_themselves_share_a_scope() -> None:
    """None is made for each."""
    with Turns() as turns:
        first = turns.scope()
        one = job()
        one.began(turns, monotonic())
        assert not one.done(turns)
        assert turns.scope() is first


async def test_a_handler_that_is_stopped_ends_and_the_next_one_runs() -> None:
    """The cancellation of one reaches no other, whether it let itself be ended or not."""
    with Turns() as turns:
        for obeys in (True, False, True):
            one = job()
            one.began(turns, monotonic())
            one.stop(What.CANCELLED, "the caller has gone")
            error: BaseException | None = None
            try:
                await anyio.sleep(60)
            except anyio.get_cancelled_exc_class() as cancelled:
                error = cancelled if obeys else None
            assert one.done(turns, error) is obeys
            await anyio.lowlevel.checkpoint()  # it would end here


async def test_an_error_of_the_handler_remains_an_error() -> None:
    """Even if it was stopped at the same time."""
    with Turns() as turns:
        one = job()
        one.began(turns, monotonic())
        one.stop(What.CANCELLED, "the caller has gone")
        assert not one.done(turns, ValueError("its own"))


async def test_what_cancels_the_task_is_not_taken_for_the_end_of_a_handler() -> None:
    """A server that is left cancels its tasks; they have to end."""
    taken = None
    with anyio.CancelScope() as outer, Turns() as turns:
        one = job()
        one.began(turns, monotonic())
        outer.cancel()
        try:
            await anyio.sleep(60)
        except anyio.get_cancelled_exc_class() as error:
            taken = one.done(turns, error)
            raise
    assert taken is False
    assert outer.cancelled_caught


async def test_a_deadline_is_armed_when_it_is_near_and_not_left_for_the_next() -> None:
    """Far ones cost no timer."""
    with Turns() as turns:
        far = job(Deadline.after(1000))
        far.began(turns, monotonic())
        scope = turns.scope()
        assert scope.deadline == math.inf
        far.look(now=far.deadline.at - 0.1)
        assert scope.deadline < math.inf
        far.done(turns)
        assert turns.scope().deadline == math.inf
