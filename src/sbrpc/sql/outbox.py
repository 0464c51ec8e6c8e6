"""The outbox: an event is published if, and only if, the transaction that wrote it commits.

Rows are written in the user's transaction; a relay publishes them in their order per key and deletes them.
Several relays work side by side: what one has claimed, with everything of the same keys, the others leave
alone. A relay that dies is replaced when its claim runs out; what it may have published already is published
again under the same id.
"""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from time import monotonic
from typing import Any

import anyio
from sqlalchemy import (
    BigInteger,
    Column,
    Float,
    Integer,
    LargeBinary,
    MetaData,
    Row,
    String,
    Table,
    Text,
    delete,
    exists,
    func,
    or_,
    select,
    update,
)
from sqlalchemy import event as sqlalchemy_events
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession

from sbrpc.event import AttributeValue, CloudEvent, Event, EventInfo, current_event, envelope
from sbrpc.events import EventBus

from ._dialect import fresh_reads, now, take_turns

__all__ = ["Outbox", "OutboxRelay"]

_log = logging.getLogger("sbrpc.outbox")

# Seconds for the database to take note of what has become of a claim. The relay may be about to end.
_PATIENCE = 10.0


class Outbox:
    """The table of events to be published.

        outbox = Outbox(Base.metadata, source="/movies")

        async with sessions.begin() as session:
            session.add(movie)
            await outbox.add(session, MovieCreated(...), key=str(movie.id))

    Rows of a key are published in the order in which they were added. Where transactions of one key run at
    the same time, lock what the key stands for before adding; otherwise there is no order between them.
    """

    def __init__(self, metadata: MetaData, *, source: str, table: str = "sbrpc_outbox") -> None:
        self.source = source
        self.table: Table = Table(
            table,
            metadata,
            # SQLite numbers INTEGER keys only, and they have 64 bits there.
            Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
            Column("key", String(128), index=True),
            Column("event_id", String(128), nullable=False),
            Column("type", String(512), nullable=False),
            Column("source", String(512), nullable=False),
            Column("time", String(40), nullable=False),
            Column("subject", String(512)),
            Column("extensions", Text, nullable=False),
            Column("data", LargeBinary, nullable=False),
            Column("claimed_by", String(36)),
            Column("claimed_until", Float),
        )
        self._added: set[Callable[[], None]] = set()

    async def add(
        self,
        session: AsyncSession | AsyncConnection,
        event: Event,
        *,
        key: str | None = None,
        id: str | None = None,
        subject: str | None = None,
        cause: EventInfo | None = None,
        extensions: Mapping[str, AttributeValue] | None = None,
    ) -> str:
        """Have the event published once the transaction commits; returns its id.

        Raises like `EventBus.publish` where the event cannot be published as it is.
        """
        wire = envelope(
            event,
            id=id or str(uuid.uuid4()),
            source=self.source,
            time=datetime.now(timezone.utc),
            key=key,
            subject=subject,
            cause=cause or current_event.get(),
            extensions=extensions or {},
        )
        assert wire.time is not None
        await session.execute(
            self.table.insert().values(
                key=wire.extensions.get("partitionkey"),
                event_id=wire.id,
                type=wire.type,
                source=wire.source,
                time=wire.time.isoformat(),
                subject=wire.subject,
                extensions=json.dumps(dict(wire.extensions)),
                data=wire.data,
            )
        )
        if self._added and isinstance(session, AsyncSession):
            sqlalchemy_events.listen(session.sync_session, "after_commit", self._tell, once=True)
        return wire.id

    def _tell(self, _: Any) -> None:
        for wake in tuple(self._added):
            wake()

    async def waiting(self, session: AsyncSession | AsyncConnection) -> int:
        """How many events are to be published, for health pages and metrics."""
        return int(await session.scalar(select(func.count()).select_from(self.table)) or 0)


class OutboxRelay:
    """Publishes what the outbox has; run it beside the service, in as many processes as you like.

        async with bus, anyio.create_task_group() as tasks:
            tasks.start_soon(OutboxRelay(engine, outbox, bus).run)

    Args:
        interval: seconds between looks at the table; commits of this process' sessions are noticed at once.
        batch: how many events are claimed at a time.
        lease: seconds after which another relay takes over what this one has claimed; publishing is given up
            after half of it.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        outbox: Outbox,
        bus: EventBus,
        *,
        interval: float = 1.0,
        batch: int = 200,
        lease: float = 60.0,
    ) -> None:
        self.name: str = str(uuid.uuid4())
        """By which its claims are known."""
        self.published: int = 0
        """How many events it has published."""
        self._engine = engine
        self._outbox = outbox
        self._bus = bus
        self._interval = interval
        self._batch = batch
        self._lease = lease
        self._wake = anyio.Event()

    async def run(self) -> None:
        """Relay until cancelled. What goes wrong is logged and tried again."""
        self._outbox._added.add(self._notice)
        try:
            while True:
                self._wake = anyio.Event()
                try:
                    busy = await self.relay_once() > 0
                except Exception as error:  # the database or Service Bus is away; both come back
                    _log.warning("relaying events failed, trying again: %s", error)
                    busy = False
                if not busy:
                    with anyio.move_on_after(self._interval):
                        await self._wake.wait()
        finally:
            self._outbox._added.discard(self._notice)

    def _notice(self) -> None:
        self._wake.set()

    async def relay_once(self) -> int:
        """Publish what can be claimed now; returns how many events that were.

        Raises:
            SbrpcError: publishing failed; the claim is given up, so that it can be tried again at once.
        """
        claimed_at = monotonic()
        rows = await self._claim()
        if not rows:
            return 0
        try:
            # Less than the lease: nobody else may have begun with these when the last of them leaves.
            await self._bus.publish_as_is([_event_of(row) for row in rows], timeout=self._lease / 2)
        except BaseException:  # also when it is cancelled: the next relay need not wait for the lease to end
            await self._unclaim()
            raise
        if monotonic() - claimed_at > self._lease:
            _log.warning(
                "relaying took longer than the lease; another relay may have published the same events"
            )
        await self._remove([row.id for row in rows])
        self.published += len(rows)
        return len(rows)

    async def _claim(self) -> Sequence[Row[Any]]:
        table = self._outbox.table
        other = table.alias()
        async with self._engine.connect() as connection:
            if await connection.scalar(select(table.c.id).limit(1)) is None:
                return ()
        async with fresh_reads(self._engine).begin() as connection:
            # One relay claims at a time; it sees all claims before its own, and so no key is claimed twice.
            await take_turns(connection, table)
            clock = now(connection)
            ids = (
                select(table.c.id)
                .where(
                    or_(table.c.claimed_until.is_(None), table.c.claimed_until < clock),
                    ~exists().where(other.c.key == table.c.key, other.c.claimed_until >= clock),
                )
                .order_by(table.c.id)
                .limit(self._batch)
            )
            claim = (
                update(table)
                .where(table.c.id.in_(ids.scalar_subquery()))
                .values(claimed_by=self.name, claimed_until=clock + self._lease)
                .returning(table)
            )
            rows = (await connection.execute(claim)).all()
        return sorted(rows, key=lambda row: row.id)

    async def _remove(self, ids: Sequence[int]) -> None:
        """Take out what is published, also when the relay is being stopped: else it is published again."""
        table = self._outbox.table
        with anyio.fail_after(_PATIENCE, shield=True):
            async with self._engine.begin() as connection:
                await connection.execute(delete(table).where(table.c.id.in_(ids)))

    async def _unclaim(self) -> None:
        """Let others have what was claimed; where the database does not let us, the claim ends by itself."""
        table = self._outbox.table
        try:
            with anyio.fail_after(_PATIENCE, shield=True):
                async with self._engine.begin() as connection:
                    await connection.execute(
                        update(table)
                        .where(table.c.claimed_by == self.name)
                        .values(claimed_by=None, claimed_until=None)
                    )
        except (SQLAlchemyError, OSError, TimeoutError) as error:  # what publishing raised is of more use
            _log.warning("a claim could not be given up, and ends with its lease: %s", error)


def _event_of(row: Row[Any]) -> CloudEvent:
    return CloudEvent(
        id=row.event_id,
        source=row.source,
        type=row.type,
        data=row.data,
        time=datetime.fromisoformat(row.time),
        subject=row.subject,
        extensions=json.loads(row.extensions),
    )
