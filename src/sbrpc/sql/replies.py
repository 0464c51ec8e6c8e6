"""Replies that outlive the server that gave them, in a database that all servers of a queue share."""

from __future__ import annotations

from sqlalchemy import Column, Float, LargeBinary, MetaData, String, Table, delete, select
from sqlalchemy.ext.asyncio import AsyncEngine

from sbrpc.store import CachedReply

from ._dialect import insert, now

__all__ = ["ReplyStore"]

_CLEANED_AT_ONCE = 100

# A call is known by its reply queue, its reply session and its id, with a bar between them. Service Bus takes
# 260 characters for the first and 128 for each of the others.
_LONGEST_CALL = 260 + 1 + 128 + 1 + 128


class ReplyStore:
    """Keeps replies for redelivered calls across processes and restarts; the `store` of an `RpcServer`.

    Any number of servers may share a table. The first reply to a call stays until it expires by the clock of
    the database. Each `put` deletes up to 100 expired replies, so that the table stays bounded.
    The handler's own transaction is another one: a server that dies between the two runs the call again.
    """

    def __init__(self, engine: AsyncEngine, metadata: MetaData, table: str = "sbrpc_replies") -> None:
        self._engine = engine
        self.table: Table = Table(
            table,
            metadata,
            Column("call", String(_LONGEST_CALL), primary_key=True),
            Column("status", String(64), nullable=False),
            Column("body", LargeBinary, nullable=False),
            Column("expires_at", Float, nullable=False, index=True),
        )

    async def get(self, key: str) -> CachedReply | None:
        """The reply to a call, if it was answered and is still kept."""
        columns = self.table.c
        async with self._engine.connect() as connection:
            statement = select(columns.status, columns.body).where(
                columns.call == key, columns.expires_at > now(connection)
            )
            row = (await connection.execute(statement)).first()
        return None if row is None else CachedReply(row.status, row.body)

    async def put(self, key: str, reply: CachedReply, ttl: float) -> None:
        """Keep a reply for at least `ttl` seconds, unless the call has one that has not expired."""
        columns = self.table.c
        async with self._engine.begin() as connection:
            new = insert(connection, self.table).values(
                call=key, status=reply.status, body=reply.body, expires_at=now(connection) + ttl
            )
            await connection.execute(
                new.on_conflict_do_update(
                    index_elements=[columns.call],
                    set_={name: new.excluded[name] for name in ("status", "body", "expires_at")},
                    where=columns.expires_at <= now(connection),
                )
            )
            # Rows that another server is deleting are left to it, where the database can say so.
            expired = (
                select(columns.call)
                .where(columns.expires_at <= now(connection))
                .limit(_CLEANED_AT_ONCE)
                .with_for_update(skip_locked=True)
            )
            await connection.execute(delete(self.table).where(columns.call.in_(expired)))
