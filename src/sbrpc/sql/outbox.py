"""The outbox: an event is published if, and only if, the transaction that wrote it commits.

Rows are written in the user's transaction; a relay publishes them in their order per key and deletes them.
Several relays work side by side: what one has claimed, with everything of the same keys, the others leave
alone. A relay that dies is replaced when its claim runs out; what it may have published already is published
again under the same id. What Service Bus refuses is set aside, and what follows it in its key waits.
"""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from operator import attrgetter
from time import monotonic
from typing import Any

import anyio
from sqlalchemy import (
    BigInteger,
    Column,
    Delete,
    Float,
    Integer,
    LargeBinary,
    MetaData,
    Row,
    String,
    Table,
    Text,
    Update,
    and_,
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
from sqlalchemy.sql import ColumnElement

from sbrpc._cloudevents import in_batches, published
from sbrpc._sdk import Refused
from sbrpc._wire import size_of
from sbrpc.errors import MessageTooLarge
from sbrpc.event import AttributeValue, CloudEvent, Event, EventInfo, current_event, envelope
from sbrpc.events import EventBus

from ._dialect import fresh_reads, now, take_turns

__all__ = ["Outbox", "OutboxRelay", "RefusedEvent"]

_log = logging.getLogger("sbrpc.outbox")

# Seconds for the database to take note of what has become of a claim. The relay may be about to end.
_PATIENCE = 10.0


@dataclass(frozen=True)
class RefusedEvent:
    """An event that cannot be published as it is, set aside in the outbox until somebody decides."""

    id: str
    type: str
    key: str | None
    reason: str
    held_up: int
    """How many later events of its key wait for it."""


class Outbox:
    """The table of events to be published.

        outbox = Outbox(Base.metadata, source="/movies")

        async with sessions.begin() as session:
            session.add(movie)
            await outbox.add(session, MovieCreated(...), key=str(movie.id))

    Rows of a key are published in the order in which they were added. Where transactions of one key run at
    the same time, lock what the key stands for before adding; otherwise there is no order between them.

    An event that Service Bus refuses for good stays in the table, with the reason in the column `refused`.
    Later events of its key wait, others go on: `refused` lists such events, `retry` and `discard` end that.

    Args:
        source: who publishes, as a URI reference such as `/movies`.
        table: the name of the table.
        max_message_size: bytes, the same as the `EventBus` of the relay has.
    """

    def __init__(
        self,
        metadata: MetaData,
        *,
        source: str,
        table: str = "sbrpc_outbox",
        max_message_size: int = 256 * 1024,
    ) -> None:
        self.source = source
        self.max_message_size = max_message_size
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
            Column("refused", Text),
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

        Raises:
            MessageTooLarge: the event is larger than `max_message_size`; nothing was added.
            ContractError, ValueError: the event cannot be published as it is.
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
        if (size := size_of(published(wire))) > self.max_message_size:
            raise MessageTooLarge(size, self.max_message_size, f"event {wire.type}")
        await session.execute(
            self.table.insert().values(
                key=wire.extensions.get("partitionkey"),
                event_id=wire.id,
                type=wire.type,
                source=wire.source,
                time=wire.time.isoformat(),
                subject=wire.subject,
                extensions=_as_json(wire.extensions),
                data=wire.data,
            )
        )
        self._tell_of_commit(session)
        return wire.id

    def _tell_of_commit(self, session: AsyncSession | AsyncConnection) -> None:
        if self._added and isinstance(session, AsyncSession):
            sqlalchemy_events.listen(session.sync_session, "after_commit", self._tell, once=True)

    def _tell(self, _: Any) -> None:
        for wake in tuple(self._added):
            wake()

    async def waiting(self, session: AsyncSession | AsyncConnection) -> int:
        """How many events are not published yet, those set aside included, for health pages and metrics."""
        return int(await session.scalar(select(func.count()).select_from(self.table)) or 0)

    async def refused(self, session: AsyncSession | AsyncConnection) -> list[RefusedEvent]:
        """The events that were set aside because they cannot be published, in the order they were added."""
        columns, later = self.table.c, self.table.alias()
        held_up = (
            select(func.count())
            .select_from(later)
            .where(later.c.key == columns.key, later.c.id > columns.id)
            .scalar_subquery()
        )
        rows = await session.execute(
            select(columns.event_id, columns.type, columns.key, columns.refused, held_up)
            .where(columns.refused.is_not(None))
            .order_by(columns.id)
        )
        return [RefusedEvent(*row) for row in rows]

    async def retry(self, session: AsyncSession | AsyncConnection, *ids: str) -> int:
        """Have refused events published after all, those of these ids or all; returns how many.

        They come first in their keys. What is refused again is set aside again.
        """
        again = update(self.table).where(*self._set_aside(ids)).values(refused=None)
        return await self._decide(session, again)

    async def discard(self, session: AsyncSession | AsyncConnection, id: str, *more: str) -> int:
        """Give up refused events, so that what follows them in their keys goes on; returns how many."""
        return await self._decide(session, delete(self.table).where(*self._set_aside((id, *more))))

    def _set_aside(self, ids: Sequence[str]) -> Iterable[ColumnElement[bool]]:
        yield self.table.c.refused.is_not(None)
        if ids:
            yield self.table.c.event_id.in_(ids)

    async def _decide(self, session: AsyncSession | AsyncConnection, statement: Update | Delete) -> int:
        decided = (await session.execute(statement.returning(self.table.c.id))).all()
        self._tell_of_commit(session)
        return len(decided)


@dataclass
class _Progress:
    """What has become of the rows that a relay has claimed. Those named nowhere can be claimed again."""

    published: list[int] = field(default_factory=list)
    refused: dict[int, str] = field(default_factory=dict)
    stuck: dict[str, int] = field(default_factory=dict)
    """The first refused row of each key that has one."""

    def refuse(self, row: Row[Any], reason: str) -> None:
        self.refused[row.id] = reason
        if row.key is not None:
            self.stuck.setdefault(row.key, row.id)

    def waits(self, row: Row[Any]) -> bool:
        """Whether it follows a refused one in its key."""
        return row.key in self.stuck and row.id > self.stuck[row.key]


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
        self.refused: int = 0
        """How many events it has set aside, because Service Bus refuses them."""
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
        progress = _Progress()
        try:
            # Less than the lease: nobody else may have begun with these when the last of them leaves.
            await self._publish(rows, claimed_at + self._lease / 2, progress)
        except BaseException:  # also when it is cancelled: the next relay need not wait for the lease to end
            await self._give_up(progress)
            raise
        if monotonic() - claimed_at > self._lease:
            _log.warning(
                "relaying took longer than the lease; another relay may have published the same events"
            )
        await self._note(progress)
        return len(progress.published)

    # -- the table -------------------------------------------------------------------------------------

    async def _claim(self) -> Sequence[Row[Any]]:
        table = self._outbox.table
        other = table.alias()
        todo = table.c.refused.is_(None)
        async with self._engine.connect() as connection:
            if await connection.scalar(select(table.c.id).where(todo).limit(1)) is None:
                return ()
        # To the end: what is claimed by a relay that does not know of it, nobody publishes for a whole lease.
        with anyio.fail_after(_PATIENCE, shield=True):
            async with fresh_reads(self._engine).begin() as connection:
                # One relay claims at a time; it sees all claims before its own, and no key is claimed twice.
                await take_turns(connection, table)
                clock = now(connection)
                kept = exists().where(
                    other.c.key == table.c.key,
                    or_(
                        other.c.claimed_until >= clock,
                        and_(other.c.refused.is_not(None), other.c.id < table.c.id),
                    ),
                )
                ids = (
                    select(table.c.id)
                    .where(todo, or_(table.c.claimed_until.is_(None), table.c.claimed_until < clock), ~kept)
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

    async def _note(self, progress: _Progress) -> None:
        """Write down what became of a claim, also when the relay is being stopped, and give up the rest."""
        table = self._outbox.table
        mine = table.c.claimed_by == self.name
        with anyio.fail_after(_PATIENCE, shield=True):
            async with self._engine.begin() as connection:
                if progress.published:
                    await connection.execute(delete(table).where(table.c.id.in_(progress.published)))
                for id, reason in progress.refused.items():
                    await connection.execute(
                        update(table).where(mine, table.c.id == id).values(refused=reason)
                    )
                await connection.execute(
                    update(table).where(mine).values(claimed_by=None, claimed_until=None)
                )
        self.published += len(progress.published)
        self.refused += len(progress.refused)

    async def _give_up(self, progress: _Progress) -> None:
        """Let others have what was claimed; where the database does not let us, the claim ends by itself."""
        try:
            await self._note(progress)
        except (SQLAlchemyError, OSError, TimeoutError) as error:  # what publishing raised is of more use
            _log.warning("a claim could not be given up, and ends with its lease: %s", error)

    # -- Service Bus -----------------------------------------------------------------------------------

    async def _publish(self, rows: Sequence[Row[Any]], until: float, progress: _Progress) -> None:
        readable = [kept for row in rows if (kept := self._read(row, progress)) is not None]
        for portion in in_batches(readable, attrgetter("size"), self._bus.max_message_size):
            await self._send(portion, until, progress)

    async def _send(self, portion: Sequence[_Kept], until: float, progress: _Progress) -> None:
        wanted = [kept for kept in portion if not progress.waits(kept.row)]
        events = (kept.event for kept in wanted)
        try:
            await self._bus.publish_as_is(events, timeout=max(0.0, until - monotonic()))
        except (MessageTooLarge, Refused) as error:
            if len(wanted) == 1:
                self._set_aside(wanted[0].row, error, progress)
                return
            # A batch arrives whole or not at all. By themselves, all but the one that spoils it get through.
            for kept in wanted:
                await self._send([kept], until, progress)
        else:
            progress.published += [kept.row.id for kept in wanted]

    def _read(self, row: Row[Any], progress: _Progress) -> _Kept | None:
        try:
            event = _event_of(row)
            return _Kept(row, event, size_of(published(event)))
        except (AttributeError, TypeError, ValueError) as error:  # somebody else has written to the table
            self._set_aside(row, error, progress)
            return None

    def _set_aside(self, row: Row[Any], error: Exception, progress: _Progress) -> None:
        reason = f"{type(error).__name__}: {error}"
        progress.refuse(row, reason)
        _log.error(
            "event %s of type %s and key %r cannot be published and stays in %s: %s. Later events of its key "
            "wait. Once the cause is mended, Outbox.retry publishes it; Outbox.discard gives it up",
            *(row.event_id, row.type, row.key, self._outbox.table.name, reason),
        )


@dataclass(frozen=True)
class _Kept:
    row: Row[Any]
    event: CloudEvent
    size: int


def _as_json(extensions: Mapping[str, AttributeValue]) -> str:
    for name, value in extensions.items():
        if not isinstance(value, str | int):
            raise ValueError(
                f"an outbox keeps texts, numbers and truth values as extensions; {name} is {value!r}"
            )
    return json.dumps(dict(extensions))


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
