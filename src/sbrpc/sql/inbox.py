"""The inbox: an event that comes twice has its effect once."""

from __future__ import annotations

from sqlalchemy import Column, Float, MetaData, String, Table, delete
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from sbrpc.event import EventInfo

from ._dialect import insert, now

__all__ = ["Inbox"]


class Inbox:
    """Remembers which events were handled, in the transaction of the handler.

        inbox = Inbox(Base.metadata)

        async with sessions.begin() as session:
            if await inbox.first(session, info, consumer="billing"):
                ...

    What the handler writes and that it has handled the event become true together, or not at all.
    """

    def __init__(self, metadata: MetaData, table: str = "sbrpc_inbox") -> None:
        self.table: Table = Table(
            table,
            metadata,
            Column("consumer", String(128), primary_key=True),
            Column("source", String(512), primary_key=True),
            Column("event_id", String(128), primary_key=True),
            Column("handled_at", Float, nullable=False, index=True),
        )

    async def first(self, session: AsyncSession | AsyncConnection, info: EventInfo, *, consumer: str) -> bool:
        """Whether this is the first time that `consumer` handles the event.

        Of two transactions with the same event, the second one waits until the first has ended.
        """
        statement = (
            insert(session, self.table)
            .values(consumer=consumer, source=info.source, event_id=info.id, handled_at=now(session))
            .on_conflict_do_nothing()
            .returning(self.table.c.event_id)
        )
        return (await session.execute(statement)).first() is not None

    async def forget(self, session: AsyncSession | AsyncConnection, *, older_than: float) -> int:
        """Forget events handled more than so many seconds ago; returns how many.

        Longer than an event can take to come again: its time to live, and how long dead letters are kept.
        """
        statement = (
            delete(self.table)
            .where(self.table.c.handled_at < now(session) - older_than)
            .returning(self.table.c.event_id)
        )
        return len((await session.execute(statement)).all())
