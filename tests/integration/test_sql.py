"""Outbox, inbox and projections on real databases: SQLite and PostgreSQL."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import AsyncIterator
from datetime import datetime, timezone
from typing import Any

import anyio
import pytest
from sqlalchemy import Column, Integer, MetaData, String, Table, select
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from sbrpc.emulator import Emulator
from sbrpc.errors import DeadlineExceeded, Unavailable
from sbrpc.event import Event, EventInfo
from sbrpc.events import EventBus
from sbrpc.middleware import EventMiddleware, Publication
from sbrpc.sql import Inbox, Outbox, OutboxRelay, Positions, Projection
from sbrpc.topology import Subscription, Topic

HANGS = 60

metadata = MetaData()
movies = Table("movies", metadata, Column("id", String(20), primary_key=True), Column("title", String(100)))
views = Table(
    "views",
    metadata,
    Column("id", String(20), primary_key=True),
    Column("version", Integer),
    Column("applied", Integer),
)
outbox = Outbox(metadata, source="/movies")
inbox = Inbox(metadata)
positions = Positions(metadata)


class Changed(Event, type="movies.changed.v1", key="movie"):
    movie: str
    version: int


@pytest.fixture
async def engine(database: AsyncEngine) -> AsyncEngine:
    """A database with empty tables."""
    async with database.begin() as connection:
        await connection.run_sync(metadata.create_all)
    return database


@pytest.fixture
def sessions(engine: AsyncEngine) -> async_sessionmaker[AsyncSession]:
    return async_sessionmaker(engine, expire_on_commit=False)


@pytest.fixture
async def emulator() -> AsyncIterator[Emulator]:
    subscriptions = (Subscription("views", requires_session=True),)
    async with Emulator(topics=[Topic("events", subscriptions=subscriptions)]) as running:
        yield running


def info(key: str = "7", number: int = 1, **changes: Any) -> EventInfo:
    now = datetime.now(timezone.utc)
    facts: dict[str, Any] = {
        "id": f"e-{number}",
        "source": "/movies",
        "type": "movies.changed.v1",
        "time": now,
        "subject": None,
        "key": key,
        "correlation_id": None,
        "causation_id": None,
        "traceparent": None,
        "tracestate": None,
        "delivery_count": 0,
        "attempt": 0,
        "sequence_number": number,
        "enqueued_at": now,
        "fencing_token": number,
    }
    return EventInfo(**{**facts, **changes})


async def rows(engine: AsyncEngine, table: Table) -> list[Any]:
    async with engine.connect() as connection:
        return list((await connection.execute(select(table).order_by(table.c[0]))).all())


# -- outbox --------------------------------------------------------------------------------------------


async def test_exactly_the_committed_events_are_published(
    engine: AsyncEngine, sessions: async_sessionmaker[AsyncSession], emulator: Emulator
) -> None:
    """Whatever commits or rolls back, several relays publish the committed events, in order per key."""
    chance = random.Random(3)
    bus = EventBus(emulator.connection_string, topic="events", source="/unused")
    got: dict[str, list[int]] = defaultdict(list)
    ids: list[str] = []
    wanted: dict[str, list[int]] = defaultdict(list)

    @bus.on(Changed, subscription="views")
    async def handle(event: Changed, info: EventInfo) -> None:
        got[event.movie].append(event.version)
        ids.append(info.id)

    async with bus, anyio.create_task_group() as tasks:
        relays = [OutboxRelay(engine, outbox, bus, interval=0.05, batch=7) for _ in range(3)]
        for relay in relays:
            tasks.start_soon(relay.run)
        for version in range(60):
            movie = str(version % 4)
            async with sessions() as session:
                await outbox.add(session, Changed(movie=movie, version=version))
                if chance.random() < 0.3:
                    await session.rollback()
                else:
                    await session.commit()
                    wanted[movie].append(version)
        with anyio.fail_after(HANGS):
            while sum(map(len, got.values())) < sum(map(len, wanted.values())):  # noqa: ASYNC110
                await anyio.sleep(0.01)
            while await rows(engine, outbox.table):  # noqa: ASYNC110
                await anyio.sleep(0.01)
        tasks.cancel_scope.cancel()
    assert got == wanted
    assert len(set(ids)) == len(ids)
    assert sum(relay.published for relay in relays) == len(ids)


async def test_event_survives_the_relay_with_everything_on_it(
    engine: AsyncEngine, sessions: async_sessionmaker[AsyncSession], emulator: Emulator
) -> None:
    """What the outbox keeps is what a handler gets: id, time, key, cause and extensions."""
    bus = EventBus(emulator.connection_string, topic="events", source="/unused")
    seen: list[tuple[Changed, EventInfo]] = []
    done = anyio.Event()

    @bus.on(Changed, subscription="views")
    async def handle(event: Changed, info: EventInfo) -> None:
        seen.append((event, info))
        done.set()

    async with sessions.begin() as session:
        event_id = await outbox.add(
            session, Changed(movie="7", version=1), subject="s", cause=info(), extensions={"shard": 3}
        )
        assert await outbox.waiting(session) == 1
    async with bus:
        assert await OutboxRelay(engine, outbox, bus).relay_once() == 1
        with anyio.fail_after(HANGS):
            await done.wait()
    event, facts = seen[0]
    assert event == Changed(movie="7", version=1)
    assert (facts.id, facts.source, facts.key, facts.subject) == (event_id, "/movies", "7", "s")
    assert (facts.causation_id, facts.extensions["shard"]) == ("e-1", 3)


async def test_claim_of_a_dead_relay_runs_out(
    engine: AsyncEngine, sessions: async_sessionmaker[AsyncSession], emulator: Emulator
) -> None:
    """What a relay claimed and did not publish, another one gets later, and nothing of its keys before."""
    bus = EventBus(emulator.connection_string, topic="events", source="/unused")
    async with sessions.begin() as session:
        await outbox.add(session, Changed(movie="7", version=1))
    dead = OutboxRelay(engine, outbox, bus, lease=0.5)
    assert len(await dead._claim()) == 1
    async with sessions.begin() as session:
        await outbox.add(session, Changed(movie="7", version=2))
        await outbox.add(session, Changed(movie="8", version=1))
    living = OutboxRelay(engine, outbox, bus)
    assert [(row.key, row.id) for row in await living._claim()] == [("8", 3)]
    with anyio.fail_after(HANGS):
        while not (claimed := await living._claim()):  # noqa: ASYNC110
            await anyio.sleep(0.05)
    assert [row.id for row in claimed] == [1, 2]


async def test_failed_publish_keeps_the_events(
    engine: AsyncEngine, sessions: async_sessionmaker[AsyncSession], emulator: Emulator
) -> None:
    """While Service Bus is away the rows stay, unclaimed, and the relay says why."""
    bus = EventBus(emulator.connection_string, topic="events", source="/unused")
    async with sessions.begin() as session:
        await outbox.add(session, Changed(movie="7", version=1))
    async with bus:
        with pytest.raises(DeadlineExceeded):
            await OutboxRelay(engine, outbox, bus, lease=1e-6).relay_once()
        (row,) = await rows(engine, outbox.table)
        assert row.claimed_by is None
        assert await OutboxRelay(engine, outbox, bus).relay_once() == 1


class Vanishing(EventMiddleware):
    """The database loses its table while an event is being published, which then fails or never ends."""

    def __init__(self, engine: AsyncEngine, error: Exception | None = None) -> None:
        self.engine = engine
        self.error = error
        self.gone = anyio.Event()

    async def publish(self, publication: Publication, call_next: Any) -> Any:
        async with self.engine.begin() as connection:
            await connection.run_sync(outbox.table.drop)
        self.gone.set()
        if self.error is not None:
            raise self.error
        await anyio.sleep_forever()


async def test_a_claim_that_cannot_be_given_up_hides_no_error(
    engine: AsyncEngine,
    sessions: async_sessionmaker[AsyncSession],
    emulator: Emulator,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What publishing raised comes out; what the database said stands in the log."""
    away = Vanishing(engine, Unavailable("away"))
    bus = EventBus(emulator.connection_string, topic="events", source="/unused", middleware=[away])
    async with sessions.begin() as session:
        await outbox.add(session, Changed(movie="7", version=1))
    async with bus:
        with pytest.raises(Unavailable, match="away"):
            await OutboxRelay(engine, outbox, bus).relay_once()
    assert "ends with its lease" in caplog.text


async def test_a_relay_ends_when_it_is_told_to_whatever_the_database_says(
    engine: AsyncEngine, sessions: async_sessionmaker[AsyncSession], emulator: Emulator
) -> None:
    """Cancelled in the middle of publishing, it does not take the database's trouble for its own."""
    away = Vanishing(engine)
    bus = EventBus(emulator.connection_string, topic="events", source="/unused", middleware=[away])
    async with sessions.begin() as session:
        await outbox.add(session, Changed(movie="7", version=1))
    relay = OutboxRelay(engine, outbox, bus)
    async with bus:
        with anyio.fail_after(HANGS):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(relay.run)
                await away.gone.wait()
                tasks.cancel_scope.cancel()
    assert relay.published == 0


async def test_plain_connections_will_do(engine: AsyncEngine) -> None:
    """Whoever works without the ORM hands in a connection instead of a session."""
    async with engine.begin() as connection:
        await outbox.add(connection, Changed(movie="7", version=1))
        assert await outbox.waiting(connection) == 1
        assert await inbox.first(connection, info(), consumer="a")
        assert not await inbox.first(connection, info(), consumer="a")
        assert await positions.advance(connection, "p", "7", 2)
        assert not await positions.advance(connection, "p", "7", 2)


# -- inbox ---------------------------------------------------------------------------------------------


async def test_many_positions_advance_at_once(sessions: async_sessionmaker[AsyncSession]) -> None:
    """Of many keys, those move that are not that far yet; a transaction that fails moves none."""
    many = {str(n): 2 for n in range(1000)}
    async with sessions.begin() as session:
        assert await positions.advance_all(session, "p", {"1": 1, "2": 2, "3": 3}) == {"1", "2", "3"}
        assert await positions.advance_all(session, "p", {}) == frozenset()
    async with sessions() as session:
        assert await positions.advance_all(session, "p", many) == many.keys() - {"2", "3"}
        await session.rollback()
    async with sessions.begin() as session:
        assert await positions.advance_all(session, "p", many) == many.keys() - {"2", "3"}
        assert await positions.advance_all(session, "p", many) == frozenset()
        assert await positions.advance_all(session, "another", many) == many.keys()


async def test_event_counts_once(engine: AsyncEngine, sessions: async_sessionmaker[AsyncSession]) -> None:
    """The second time an event comes, the inbox says so; other consumers and sources are not concerned."""
    async with sessions.begin() as session:
        assert await inbox.first(session, info(), consumer="a")
    async with sessions.begin() as session:
        assert not await inbox.first(session, info(), consumer="a")
        assert await inbox.first(session, info(), consumer="b")
        assert await inbox.first(session, info(source="/other"), consumer="a")


async def test_inbox_forgets_with_the_transaction(sessions: async_sessionmaker[AsyncSession]) -> None:
    """A handler that fails has not handled the event."""
    async with sessions() as session:
        assert await inbox.first(session, info(), consumer="a")
        await session.rollback()
    async with sessions.begin() as session:
        assert await inbox.first(session, info(), consumer="a")


async def test_inbox_forgets_what_is_old(sessions: async_sessionmaker[AsyncSession]) -> None:
    """Entries older than asked for are removed and counted, newer ones stay."""
    async with sessions.begin() as session:
        await inbox.first(session, info(), consumer="a")
    async with sessions.begin() as session:
        assert await inbox.forget(session, older_than=3600) == 0
        assert await inbox.forget(session, older_than=-1) == 1


async def test_two_transactions_with_one_event(sessions: async_sessionmaker[AsyncSession]) -> None:
    """Of handlers that work on the same event at the same time, one has the effect."""
    firsts: list[bool] = []

    async def handle() -> None:
        async with sessions.begin() as session:
            firsts.append(await inbox.first(session, info(), consumer="a"))

    async with anyio.create_task_group() as tasks:
        for _ in range(5):
            tasks.start_soon(handle)
    assert sorted(firsts) == [False] * 4 + [True]


# -- projections ---------------------------------------------------------------------------------------


def projection(sessions: async_sessionmaker[AsyncSession]) -> Any:
    """A handler that writes the last version of a film and how many events it took."""
    project = Projection("views", sessions, positions)

    @project.applies(version=lambda event: event.version)
    async def apply(session: AsyncSession, event: Changed, info: EventInfo) -> None:
        await _apply(session, event)

    return apply


async def _apply(session: AsyncSession, event: Changed) -> None:
    row = (await session.execute(select(views).where(views.c.id == event.movie))).first()
    if row is None:
        await session.execute(views.insert().values(id=event.movie, version=event.version, applied=1))
    else:
        changed = views.update().where(views.c.id == event.movie)
        await session.execute(changed.values(version=event.version, applied=row.applied + 1))


async def test_duplicates_and_late_events_change_nothing(
    engine: AsyncEngine, sessions: async_sessionmaker[AsyncSession]
) -> None:
    """Whatever comes twice or late, the read model has the last version of each key."""
    handle = projection(sessions)
    for number, version in enumerate([1, 2, 2, 1, 3, 3, 2, 5, 4]):
        await handle(Changed(movie="7", version=version), info(number=number))
    await handle(Changed(movie="8", version=1), info(key="8", number=99))
    assert await rows(engine, views) == [("7", 5, 4), ("8", 1, 1)]


async def test_any_order_ends_in_the_same_state(
    engine: AsyncEngine, sessions: async_sessionmaker[AsyncSession]
) -> None:
    """Deliveries shuffled, repeated and concurrent end where one ordered delivery would."""
    handle = projection(sessions)
    events = [Changed(movie=str(n % 3), version=n) for n in range(30)] * 2
    random.Random(5).shuffle(events)
    limit = anyio.Semaphore(4)

    async def deliver(number: int, event: Changed) -> None:
        async with limit:
            await handle(event, info(key=event.movie, number=number))

    async with anyio.create_task_group() as tasks:
        for number, event in enumerate(events):
            tasks.start_soon(deliver, number, event)
    assert [row[:2] for row in await rows(engine, views)] == [("0", 27), ("1", 28), ("2", 29)]


async def test_failed_event_does_not_advance(
    engine: AsyncEngine, sessions: async_sessionmaker[AsyncSession]
) -> None:
    """A handler that raises leaves neither effects nor a position, so the next delivery counts."""
    project = Projection("views", sessions, positions)
    fails = True

    @project.applies()
    async def apply(session: AsyncSession, event: Changed, info: EventInfo) -> None:
        await _apply(session, event)
        if fails:
            raise RuntimeError("afterwards")

    with pytest.raises(RuntimeError):
        await apply(Changed(movie="7", version=1), info())
    assert await rows(engine, views) == []
    fails = False
    await apply(Changed(movie="7", version=1), info())
    await apply(Changed(movie="7", version=9), info())
    assert await rows(engine, views) == [("7", 1, 1)]


async def test_of_a_batch_only_the_latest_news_of_each_key_are_applied(
    engine: AsyncEngine, sessions: async_sessionmaker[AsyncSession]
) -> None:
    """In whatever order they come; a batch without news calls nothing, and one that fails leaves nothing."""
    project = Projection("views", sessions, positions)
    applied: list[list[tuple[str, int]]] = []
    fails = False

    @project.applies_all(version=lambda event: event.version, key=lambda event: event.movie)
    async def apply(session: AsyncSession, events: list[Changed]) -> None:
        for event in events:
            await _apply(session, event)
        if fails:
            raise RuntimeError("afterwards")
        applied.append(sorted((event.movie, event.version) for event in events))

    def batch(*events: tuple[str, int]) -> list[Changed]:
        return [Changed(movie=movie, version=version) for movie, version in events]

    await apply(batch(("7", 2), ("8", 1), ("7", 1), ("7", 2)))
    await apply(batch(("7", 1), ("8", 1)))
    fails = True
    with pytest.raises(RuntimeError):
        await apply(batch(("7", 3), ("8", 2)))
    fails = False
    await apply(batch(("8", 0), ("7", 3)))
    assert applied == [[("7", 2), ("8", 1)], [("7", 3)]]
    assert await rows(engine, views) == [("7", 3, 2), ("8", 1, 1)]


async def test_event_without_key_is_an_error(sessions: async_sessionmaker[AsyncSession]) -> None:
    """Nothing can be told about the order of an event without a key."""
    with pytest.raises(ValueError, match="has no key"):
        await projection(sessions)(Changed(movie="7", version=1), info(key=None))  # type: ignore[arg-type]


async def test_rebuild_starts_over_from_the_source(
    engine: AsyncEngine, sessions: async_sessionmaker[AsyncSession]
) -> None:
    """After a rebuild the read model is what the source says; older events are late, newer ones count."""
    handle = projection(sessions)
    await handle(Changed(movie="7", version=1), info())
    await handle(Changed(movie="gone", version=4), info(key="gone"))
    project = Projection("views", sessions, positions)

    async def clear(session: AsyncSession) -> None:
        await session.execute(views.delete())

    source = [("7", 3, Changed(movie="7", version=3)), ("8", 2, Changed(movie="8", version=2))]
    assert await project.rebuild(source, _apply, clear=clear) == 2
    assert await rows(engine, views) == [("7", 3, 1), ("8", 2, 1)]
    await handle(Changed(movie="7", version=2), info())
    await handle(Changed(movie="8", version=5), info(key="8"))
    assert await rows(engine, views) == [("7", 3, 1), ("8", 5, 2)]


async def test_failed_rebuild_changes_nothing(
    engine: AsyncEngine, sessions: async_sessionmaker[AsyncSession]
) -> None:
    """A source that fails half-way leaves the old read model in place."""
    await projection(sessions)(Changed(movie="7", version=1), info())

    async def clear(session: AsyncSession) -> None:
        await session.execute(views.delete())

    async def source() -> AsyncIterator[tuple[str, int, Changed]]:
        yield "8", 1, Changed(movie="8", version=1)
        raise ConnectionError("the service is away")

    with pytest.raises(ConnectionError):
        await Projection("views", sessions, positions).rebuild(source(), _apply, clear=clear)
    assert await rows(engine, views) == [("7", 1, 1)]
