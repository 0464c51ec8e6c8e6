"""What one task does for many things."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar, copy_context

import anyio
import anyio.lowlevel
import pytest

from sbrpc._tasks import isolated, telling


async def test_isolated_work_is_awaited_like_any() -> None:
    """It waits, returns, raises and is cancelled as if awaited directly; only what it sets stays inside."""
    variable = ContextVar("variable", default="outside")

    async def work(fails: bool = False) -> str:
        assert variable.get() == "outside"
        variable.set("inside")
        await anyio.lowlevel.checkpoint()
        if fails:
            raise KeyError("k")
        return variable.get()

    assert await isolated(work(), copy_context()) == "inside"
    with pytest.raises(KeyError):
        await isolated(work(fails=True), copy_context())
    with anyio.move_on_after(0) as scope:
        await isolated(anyio.sleep_forever(), copy_context())
    assert scope.cancelled_caught
    assert variable.get() == "outside"


async def test_a_future_is_told_once() -> None:
    """What comes first counts, and whoever has given up is told nothing."""
    loop = asyncio.get_running_loop()
    well, badly, given_up = loop.create_future(), loop.create_future(), loop.create_future()
    for future, told in ((well, (None, KeyError("late"))), (badly, (KeyError("k"), None))):
        done = telling(future)
        for each in told:
            done(each)
    given_up.cancel()
    telling(given_up)(None)
    assert well.result() is None
    assert isinstance(badly.exception(), KeyError)
    assert given_up.cancelled()
