"""Projections: a read model that ends in the same state whatever comes twice, late or out of date.

Owns positions: how far each key of each projection is. The tables of the read model are the user's, and so is
what an event does to them.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from sqlalchemy import BigInteger, Column, MetaData, String, Table, delete
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, async_sessionmaker

from sbrpc.event import Event, EventInfo

from ._dialect import insert, lock_table
from ._wrapping import named_as

__all__ = ["Positions", "Projection"]

_AT_ONCE = 300

E = TypeVar("E", bound=Event)
Source = AsyncIterable[tuple[str, int, E]] | Iterable[tuple[str, int, E]]


class Positions:
    """The table that knows how far each key of each projection is."""

    def __init__(self, metadata: MetaData, table: str = "sbrpc_positions") -> None:
        self.table: Table = Table(
            table,
            metadata,
            Column("projection", String(128), primary_key=True),
            Column("key", String(128), primary_key=True),
            Column("position", BigInteger, nullable=False),
        )

    async def advance(
        self, session: AsyncSession | AsyncConnection, projection: str, key: str, position: int
    ) -> bool:
        """Move a key forward; false, and nothing changed, when it is that far already.

        Of two transactions with the same key, the second one waits until the first has ended.
        """
        return bool(await self.advance_all(session, projection, {key: position}))

    async def advance_all(
        self, session: AsyncSession | AsyncConnection, projection: str, to: Mapping[str, int]
    ) -> frozenset[str]:
        """Move many keys forward, as a handler of batches does; the keys that have moved. See `advance`."""
        moved: set[str] = set()
        # In one order everywhere, so that two transactions never wait for each other.
        for some in _portions(sorted(to.items())):
            values = insert(session, self.table).values(
                [{"projection": projection, "key": key, "position": position} for key, position in some]
            )
            statement = values.on_conflict_do_update(
                index_elements=["projection", "key"],
                set_={"position": values.excluded.position},
                where=self.table.c.position < values.excluded.position,
            ).returning(self.table.c.key)
            moved.update((await session.execute(statement)).scalars())
        return frozenset(moved)


class Projection:
    """Applies events to a read model: each at most once, none after a later one of its key.

        movies = Projection("movie-views", sessions, positions)

        @bus.on(MovieCreated, MovieUpdated, subscription="movie-event-handler")
        @movies.applies(version=lambda event: event.movie.version)
        async def apply(session, event, info): ...

    The effects and the position are written in one transaction. `version` says which of two events of a key
    is the later one; it should come from what the event is about. Without it the sequence number of the
    subscription counts, and a dead letter that is replayed comes out as the latest of its key.
    """

    def __init__(self, name: str, sessions: async_sessionmaker[AsyncSession], positions: Positions) -> None:
        self.name = name
        self.positions = positions
        self._sessions = sessions

    def applies(
        self,
        *,
        version: Callable[[Any], int] | None = None,
        key: Callable[[Any], str] | None = None,
    ) -> Callable[
        [Callable[[AsyncSession, E, EventInfo], Awaitable[None]]], Callable[[E, EventInfo], Awaitable[None]]
    ]:
        """Make an event handler of a function `(session, event, info)` that changes the read model.

        A duplicate or an event out of date is a no-op: the function is not called. An event without a key
        fails, since there is nothing to go by.
        """

        def decorate(
            apply: Callable[[AsyncSession, E, EventInfo], Awaitable[None]],
        ) -> Callable[[E, EventInfo], Awaitable[None]]:
            async def handler(event: E, info: EventInfo) -> None:
                which = info.key if key is None else key(event)
                if which is None:
                    raise ValueError(
                        f"{info.type} {info.id} has no key that projection {self.name!r} could go by"
                    )
                position = info.sequence_number if version is None else version(event)
                async with self._sessions.begin() as session:
                    if await self.positions.advance(session, self.name, which, position):
                        await apply(session, event, info)

            return named_as(apply, handler)

        return decorate

    def applies_all(
        self,
        *,
        version: Callable[[Any], int],
        key: Callable[[Any], str],
    ) -> Callable[[Callable[[AsyncSession, list[E]], Awaitable[None]]], Callable[[list[E]], Awaitable[None]]]:
        """Make a handler of batches of a function `(session, events)` that changes the read model.

        The function gets the latest event of each key, and only those that are news, in one transaction for
        all of them. Where nothing is news it is not called.
        """

        def decorate(
            apply: Callable[[AsyncSession, list[E]], Awaitable[None]],
        ) -> Callable[[list[E]], Awaitable[None]]:
            async def handler(events: list[E]) -> None:
                latest = {key(event): event for event in sorted(events, key=version)}
                async with self._sessions.begin() as session:
                    to = {which: version(event) for which, event in latest.items()}
                    moved = await self.positions.advance_all(session, self.name, to)
                    if news := [event for which, event in latest.items() if which in moved]:
                        await apply(session, news)

            return named_as(apply, handler)

        return decorate

    async def rebuild(
        self,
        source: Source[E],
        apply: Callable[[AsyncSession, E], Awaitable[None]],
        *,
        clear: Callable[[AsyncSession], Awaitable[None]],
    ) -> int:
        """Make the read model anew from its source of truth; returns how many events it took.

        `clear` empties the read model. `source` gives (key, version, event), oldest first per key, and is
        read only once events are kept out: they wait until it is done, and go on from the versions it left.
        All of it is one transaction, so readers see the old state or the new one.
        """
        table = self.positions.table
        applied = 0
        async with self._sessions.begin() as session:
            await lock_table(session, table)
            await session.execute(delete(table).where(table.c.projection == self.name))
            await clear(session)
            async for key, version, event in _each(source):
                if await self.positions.advance(session, self.name, key, version):
                    await apply(session, event)
                    applied += 1
        return applied


def _portions(items: Sequence[tuple[str, int]]) -> Iterable[Sequence[tuple[str, int]]]:
    """A statement takes 32,767 values in PostgreSQL, and an old SQLite 999."""
    return (items[start : start + _AT_ONCE] for start in range(0, len(items), _AT_ONCE))


async def _each(source: Source[E]) -> Any:
    if isinstance(source, AsyncIterable):
        async for item in source:
            yield item
    else:
        for item in source:
            yield item
