"""Live views: which keys of a projection have moved, told to all who watch, by one look at the database.

Owns the look at the positions, and who has been told what. Knows no broker, and nothing of the read model.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from types import TracebackType

import anyio
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncEngine

from sbrpc.errors import NotRunning

from .projection import Positions

__all__ = ["Watch"]

_log = logging.getLogger("sbrpc.sql")

# A look takes milliseconds; the end of a watch waits for the one that is under way. Seconds.
_PATIENCE = 10.0
_AT_ONCE = 500


class Watch:
    """Tells which keys of a projection move, for live views such as server-sent events.

        async with Watch(engine, positions, "movie-views") as watch:
            async for moved in watch.follow():  # {"17": 3}: what came to be at which position
                ...

    It asks the database instead of the broker: each process sees every change, whoever applied it, without a
    subscription of its own. All who follow share one look every `pause` seconds; while nothing changes, a
    look costs one aggregate. Several moves of a key between two looks are told as one, and who is slow gets
    what has moved meanwhile at once: nobody is waited for, and nothing piles up. A database that cannot be
    read is logged and asked again. Keys must not be taken out of the table while somebody watches.
    """

    def __init__(
        self, engine: AsyncEngine, positions: Positions, projection: str, *, pause: float = 0.2
    ) -> None:
        self._engine = engine
        self._columns = positions.table.c
        self._mine = positions.table.c.projection == projection
        self._pause = pause
        self._reached: dict[str, int] = {}
        self._sum: tuple[int, int] | None = None
        # Each key that has moved since the start, with the number of its last move; the latest stands last.
        self._moves: dict[str, int] = {}
        self._last = 0
        self._moved = anyio.Event()
        self._over = True
        self._stack: AsyncExitStack | None = None

    async def __aenter__(self) -> Watch:
        """Look for the first time: what is there by now is no news."""
        if self._stack is not None:
            raise NotRunning("this watch is already running")
        async with AsyncExitStack() as stack:
            self._reached, self._sum = {}, None
            await self._look()
            self._moves.clear()
            self._over = False
            tasks = await stack.enter_async_context(anyio.create_task_group())
            stack.callback(tasks.cancel_scope.cancel)
            tasks.start_soon(self._run, name="watch a projection")
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        await self.drain()
        stack, self._stack = self._stack, None
        assert stack is not None
        return await stack.__aexit__(kind, error, trace)

    async def drain(self, grace: float | None = None) -> None:
        """End all that follow, at once; new ones end at once too."""
        self._over = True
        self._tell()

    def follow(self) -> AsyncIterator[Mapping[str, int]]:
        """The keys that move from this call on, each time with their positions; ends with the watch.

        At most 500 come at a time, so that a statement can ask for all of them. Whoever calls this and then
        reads the view misses nothing. Any number may follow.
        """
        return self._follow(self._last)

    async def _follow(self, last: int) -> AsyncIterator[Mapping[str, int]]:
        while not self._over:
            moved = self._moved
            if self._last > last:
                news: dict[str, int] = {}
                for key in reversed(self._moves):
                    if self._moves[key] <= last:
                        break
                    news[key] = self._reached[key]
                last = self._last
                keys = [*reversed(news)]
                for start in range(0, len(keys), _AT_ONCE):
                    yield {key: news[key] for key in keys[start : start + _AT_ONCE]}
            else:
                await moved.wait()

    async def _run(self) -> None:
        while True:
            await anyio.sleep(self._pause)
            try:
                # Called out of a query, a driver loses its connection: aiosqlite's may then never be closed.
                with anyio.fail_after(_PATIENCE, shield=True):
                    news = await self._look()
                if news:
                    self._tell()
            except Exception as error:  # the database is away, as its driver puts it; it comes back
                _log.warning("the projection cannot be read: %s", error)

    async def _look(self) -> bool:
        """Whether anything is new. Positions only grow: their number and sum say whether to look closer."""
        key, position = self._columns.key, self._columns.position
        async with self._engine.connect() as connection:
            total = select(func.count(), func.coalesce(func.sum(position), 0)).where(self._mine)
            count, reached = (await connection.execute(total)).one()
            if (found := (int(count), int(reached))) == self._sum:
                return False
            rows = await connection.execute(select(key, position).where(self._mine))
            for one, at in rows:
                if at > self._reached.get(one, -1):
                    self._last += 1
                    self._reached[one] = at
                    self._moves.pop(one, None)
                    self._moves[one] = self._last
        self._sum = found
        return True

    def _tell(self) -> None:
        moved, self._moved = self._moved, anyio.Event()
        moved.set()
