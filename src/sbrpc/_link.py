"""The life of one SDK sender or receiver: opened, used, and closed by a task of its own.

Opening takes half a second and closing a second more; a link that broke must not keep its successor waiting
for that. So each lives in its own task, and whoever used it only lets go.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Generic, TypeVar

import anyio
import anyio.abc

from . import _sdk

__all__ = ["PROMPT", "Link"]

H = TypeVar("H", bound=_sdk.Handler)

# For whatever the SDK makes: no keep-alive task. That task looks up once a second, and closing waits for it,
# also the closing that the SDK does before it reports a broken connection: we would hear of it up to a second
# late. Nothing needs it here. Receivers are read all the time, and an idle sender is replaced in time.
PROMPT: Mapping[str, Any] = MappingProxyType({"keep_alive": 0})


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
