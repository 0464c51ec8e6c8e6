"""The life of one SDK sender or receiver: opened, used, and closed by a task of its own.

Opening takes half a second and closing a second more; a link that broke must not keep its successor waiting
for that. So each lives in its own task, and whoever used it only lets go.
"""

from __future__ import annotations

import asyncio
from typing import Generic, TypeVar

import anyio
import anyio.abc

from . import _sdk

__all__ = ["Link"]

H = TypeVar("H", bound=_sdk.Handler)


class Link(Generic[H]):
    """An SDK object that is open from `open()` until some time after `release()`."""

    __slots__ = ("_done", "handler", "what")

    def __init__(self, handler: H, what: str) -> None:
        self.handler = handler
        self.what = what
        self._done = asyncio.Event()

    async def open(self, tasks: anyio.abc.TaskGroup) -> None:
        """Open it, in a task of the group that also closes it.

        Raises:
            BusError: it could not be opened in time.
        """
        await tasks.start(self._live, name=self.what)

    def release(self) -> None:
        """Nobody uses it any more."""
        self._done.set()

    async def _live(self, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        async with _sdk.opening(self.handler, self.what):
            task_status.started()
            await self._done.wait()
