"""The live stream of changes: what the read model learns is told to all who listen, as server-sent events.

It asks the read model instead of the broker, so each API process sees every change without a subscription of
its own. It knows nothing of HTTP but how an event is written.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal

import anyio
from anyio.streams.memory import MemoryObjectSendStream
from pydantic import BaseModel
from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from .contract import Movie
from .database import film
from .events import VIEWS, MovieView, positions

PAUSE = 0.2  # seconds between two looks at the read model
HEARTBEAT = 10.0  # seconds of silence after which a comment is sent, so that proxies keep the connection
BACKLOG = 64  # looks that a listener may be behind before its stream ends
READY = "retry: 1000\nevent: ready\ndata: {}\n\n"  # whoever lists after this misses nothing

log = logging.getLogger(__name__)


class Change(BaseModel):
    """What happened to a film, and the film as it is now, unless it is deleted."""

    kind: Literal["created", "updated", "deleted"]
    id: int
    version: int
    movie: Movie | None


class Changes:
    """Looks for changes on behalf of all listeners of this process. Several changes of a film between two
    looks are told as one."""

    def __init__(self, read_model: AsyncEngine) -> None:
        self._read_model = read_model
        self._versions: dict[int, int] = {}
        self._sum: tuple[int, ...] | None = None
        self._listeners: set[MemoryObjectSendStream[str]] = set()
        self._over = anyio.Event()

    async def watch(self) -> None:
        """Look until `close`. A database that cannot be read is said, and asked again."""
        while not self._over.is_set():
            try:
                if text := await self._look():
                    self._tell(text)
            except SQLAlchemyError as error:
                log.warning("the read model cannot be read: %s", error)
            with anyio.move_on_after(PAUSE):
                await self._over.wait()

    async def follow(self) -> AsyncIterator[str]:
        """The stream of one listener, from now until `close`, or until it is too far behind."""
        if self._over.is_set():
            return
        send, receive = anyio.create_memory_object_stream[str](BACKLOG)
        self._listeners.add(send)
        try:
            yield READY
            while True:
                text = ": heartbeat\n\n"
                with anyio.move_on_after(HEARTBEAT):
                    text = await receive.receive()
                yield text
        except anyio.EndOfStream:
            pass  # told everything: `close`, or `_tell` gave this listener up
        finally:
            self._listeners.discard(send)
            send.close()
            receive.close()

    def close(self) -> None:
        """End all streams; new ones end at once."""
        self._over.set()
        for listener in self._listeners:
            listener.close()

    async def _look(self) -> str:
        """What is new since the last look. While nothing is, this costs one aggregate: positions only grow,
        and a deleted film keeps its one."""
        reached = positions.table.c
        async with self._read_model.connect() as database:
            total = select(func.count(), func.coalesce(func.sum(reached.position), 0))
            found = tuple((await database.execute(total)).one())
            if found == self._sum:
                return ""
            all_films = select(reached.key, reached.position).where(reached.projection == VIEWS)
            versions = {int(key): position for key, position in await database.execute(all_films)}
            changed = {id: v for id, v in versions.items() if v > self._versions.get(id, 0)}
            new, text = sorted(changed), ""
            if self._sum is None:  # what was there before anybody could listen
                new.clear()
            for start in range(0, len(new), 500):  # a statement takes only so many parameters
                some = new[start : start + 500]
                rows = await database.execute(select(MovieView).where(MovieView.id.in_(some)))
                films = {row.id: film(row) for row in rows}
                for id in some:
                    change = self._change(id, changed[id], films.get(id))
                    text += f"data: {change.model_dump_json()}\n\n"
            self._versions |= changed
            self._sum = found
        return text

    def _change(self, id: int, version: int, movie: Movie | None) -> Change:
        if movie is None:
            return Change(kind="deleted", id=id, version=version, movie=None)
        kind: Literal["created", "updated"] = "updated" if id in self._versions else "created"
        return Change(kind=kind, id=id, version=movie.version, movie=movie)

    def _tell(self, text: str) -> None:
        for listener in list(self._listeners):
            if listener.statistics().current_buffer_used < BACKLOG:
                listener.send_nowait(text)
            else:  # it comes again, and lists what it has missed
                self._listeners.discard(listener)
                listener.close()


@asynccontextmanager
async def watching(read_model: AsyncEngine) -> AsyncIterator[Changes]:
    """The changes of this read model, looked for in the background."""
    changes = Changes(read_model)
    await changes._look()  # what is there by now is no news
    async with anyio.create_task_group() as group:
        group.start_soon(changes.watch)
        try:
            yield changes
        finally:
            changes.close()
