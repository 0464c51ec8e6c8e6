"""Events that Service Bus refuses: set aside in the outbox, with their keys, until somebody decides."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import MetaData, func, select
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from sbrpc import connect
from sbrpc._cloudevents import from_message
from sbrpc.emulator import Emulator
from sbrpc.errors import MessageTooLarge
from sbrpc.event import Event
from sbrpc.events import EventBus
from sbrpc.sql import Outbox, OutboxRelay
from sbrpc.topology import Subscription, Topic

SMALL = 4 * 1024

metadata = MetaData()
outbox = Outbox(metadata, source="/movies")


class Changed(Event, type="movies.changed.v1", key="movie"):
    movie: str | None
    title: str


class Noticed(Event, type="movies.noticed.v1"):
    title: str


@pytest.fixture
async def sessions(database: AsyncEngine) -> async_sessionmaker[AsyncSession]:
    async with database.begin() as connection:
        await connection.run_sync(metadata.create_all)
    return async_sessionmaker(database)


@pytest.fixture
async def emulator() -> AsyncIterator[Emulator]:
    """Two topics, of which one takes little at a time."""
    subscriptions = (Subscription("all"),)
    topics = [
        Topic("events", subscriptions=subscriptions),
        Topic("narrow", subscriptions=subscriptions, max_message_size_in_kilobytes=SMALL // 1024),
    ]
    async with Emulator(topics=topics) as running:
        yield running


async def add(sessions: async_sessionmaker[AsyncSession], *events: tuple[str, str]) -> list[str]:
    """Events of a key and a title; a title in capitals is a long one."""
    ids = []
    async with sessions.begin() as session:
        for key, title in events:
            long = title * SMALL if title.isupper() else title
            ids.append(await outbox.add(session, Changed(movie=key, title=long)))
    return ids


async def titles(emulator: Emulator, topic: str = "events") -> list[str]:
    """What a topic has got, by the first letter of the titles."""
    async with (
        connect(emulator.connection_string) as connection,
        connection.get_subscription_receiver(topic, "all") as receiver,
    ):
        found = [from_message(message) for message in await receiver.peek_messages(100)]
    return [json.loads(event.data)["title"][0] for event in found]


async def test_what_is_too_large_is_set_aside_and_holds_up_its_key_alone(
    database: AsyncEngine,
    sessions: async_sessionmaker[AsyncSession],
    emulator: Emulator,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Others get through, the reason can be read, and retried it comes before what follows it."""
    ids = await add(sessions, ("7", "a"), ("7", "B"), ("8", "c"), ("7", "d"), ("8", "e"))
    strict = EventBus(emulator.connection_string, topic="events", source="/x", max_message_size=SMALL)
    async with strict:
        relay = OutboxRelay(database, outbox, strict)
        assert await relay.relay_once() == 3
        assert await relay.relay_once() == 0
        await add(sessions, ("7", "f"), ("9", "g"))
        assert await relay.relay_once() == 1
    assert await titles(emulator) == ["a", "c", "e", "g"]
    assert (relay.published, relay.refused) == (4, 1)
    async with sessions.begin() as session:
        (refused,) = await outbox.refused(session)
        assert (refused.id, refused.type, refused.key) == (ids[1], "movies.changed.v1", "7")
        assert refused.reason.startswith("MessageTooLarge: ")
        assert refused.held_up == 2
        assert await outbox.waiting(session) == 3
        assert ids[1] in caplog.text
        assert await outbox.retry(session, "unknown") == 0
        assert await outbox.retry(session) == 1
    async with EventBus(emulator.connection_string, topic="events", source="/x") as roomy:
        assert await OutboxRelay(database, outbox, roomy).relay_once() == 3
    assert await titles(emulator) == ["a", "c", "e", "g", "B", "d", "f"]


async def test_what_service_bus_itself_refuses_is_set_aside(
    database: AsyncEngine, sessions: async_sessionmaker[AsyncSession], emulator: Emulator
) -> None:
    """Of a batch that is not taken, all but the culprits get through; given up, they hold up nobody."""
    ids = await add(sessions, ("7", "A"), ("7", "b"), ("8", "c"), ("9", "D"), ("8", "e"))
    async with EventBus(emulator.connection_string, topic="narrow", source="/x") as bus:
        relay = OutboxRelay(database, outbox, bus)
        assert await relay.relay_once() == 2
        async with sessions.begin() as session:
            assert [event.id for event in await outbox.refused(session)] == [ids[0], ids[3]]
            assert await outbox.discard(session, ids[0], ids[1]) == 1
        assert await relay.relay_once() == 1
    assert await titles(emulator, "narrow") == ["c", "e", "b"]


async def test_events_without_a_key_hold_up_nobody(
    database: AsyncEngine, sessions: async_sessionmaker[AsyncSession], emulator: Emulator
) -> None:
    """They have no order to keep."""
    async with sessions.begin() as session:
        for title in ("A" * SMALL, "b"):
            await outbox.add(session, Noticed(title=title))
    async with EventBus(emulator.connection_string, topic="narrow", source="/x") as bus:
        assert await OutboxRelay(database, outbox, bus).relay_once() == 1
    assert await titles(emulator, "narrow") == ["b"]


async def test_a_row_that_cannot_be_read_is_set_aside(
    database: AsyncEngine, sessions: async_sessionmaker[AsyncSession], emulator: Emulator
) -> None:
    """Whoever spoilt it, what was before it in its key is published, what is behind waits."""
    ids = await add(sessions, ("7", "a"), ("7", "b"), ("7", "c"))
    columns = outbox.table.c
    async with database.begin() as connection:
        spoil = outbox.table.update().where(columns.event_id == ids[1]).values(time="yesterday")
        await connection.execute(spoil)
    async with EventBus(emulator.connection_string, topic="events", source="/x") as bus:
        assert await OutboxRelay(database, outbox, bus).relay_once() == 1
    async with sessions() as session:
        assert [(event.id, event.held_up) for event in await outbox.refused(session)] == [(ids[1], 1)]


async def test_what_is_too_large_is_not_added(sessions: async_sessionmaker[AsyncSession]) -> None:
    """The transaction that would have announced it fails instead, while somebody can still do something."""
    small = Outbox(MetaData(), source="/movies", max_message_size=SMALL)
    async with sessions.begin() as session:
        await small.add(session, Changed(movie="7", title="a"))

    async def announce(title: str, **extensions: bytes) -> None:
        async with sessions.begin() as session:
            await small.add(session, Changed(movie="7", title="b"))
            await small.add(session, Changed(movie="7", title=title), extensions=extensions)

    with pytest.raises(MessageTooLarge, match=r"event movies\.changed\.v1 has \d+ bytes, the limit is 4096"):
        await announce("c" * SMALL)
    with pytest.raises(ValueError, match="extensions; raw is b"):
        await announce("d", raw=b"x")
    async with sessions() as session:
        assert await session.scalar(select(func.count()).select_from(outbox.table)) == 1
