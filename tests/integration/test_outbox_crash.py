"""Killed at any moment, a service with an outbox loses no event and invents none; the read model is equal."""

from __future__ import annotations

import random
import sys
from collections import defaultdict
from pathlib import Path

import anyio
import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

from sbrpc.emulator import Emulator
from sbrpc.event import EventInfo
from sbrpc.events import EventBus
from sbrpc.sql import OutboxRelay, Projection
from sbrpc.topology import Subscription, Topic

from .outbox_child import Changed, films, metadata, outbox, positions, views

pytestmark = pytest.mark.applications

HANGS = 60
ROUNDS = 4


async def test_killed_service_publishes_what_it_committed(tmp_path: Path) -> None:
    """After kill -9 in the middle of writing and relaying, database and read model are equal row by row."""
    chance = random.Random(11)
    url = f"sqlite+aiosqlite:///{tmp_path / 'films.db'}"
    engine = create_async_engine(url)
    sessions = async_sessionmaker(engine)
    async with engine.begin() as connection:
        await connection.run_sync(metadata.create_all)
        await connection.execute(films.insert(), [{"id": n, "version": 0} for n in range(5)])
        await connection.execute(views.insert(), [{"id": n, "version": 0} for n in range(5)])
    seen: dict[int, list[int]] = defaultdict(list)
    subscription = Subscription("views", requires_session=True)
    async with Emulator(topics=[Topic("films", subscriptions=(subscription,))]) as emulator:
        bus = EventBus(emulator.connection_string, topic="films", source="/films")
        projection = Projection("views", sessions, positions)

        @projection.applies(version=lambda event: event.version)
        async def project(session: AsyncSession, event: Changed, info: EventInfo) -> None:
            await session.execute(
                views.update().where(views.c.id == event.film).values(version=event.version)
            )

        @bus.on(Changed, subscription="views")
        async def handle(event: Changed, info: EventInfo) -> None:
            seen[event.film].append(event.version)
            await project(event, info)

        async with bus:
            for _ in range(ROUNDS):
                await _run_and_kill(url, emulator.connection_string, chance.uniform(0.2, 1.5))
            relay = OutboxRelay(engine, outbox, bus)

            async def versions() -> tuple[list[int], list[int]]:
                async with engine.connect() as connection:
                    written = await connection.scalars(select(films.c.version).order_by(films.c.id))
                    viewed = await connection.scalars(select(views.c.version).order_by(views.c.id))
                    return list(written), list(viewed)

            with anyio.fail_after(HANGS):
                while True:
                    await relay.relay_once()
                    written, viewed = await versions()
                    if written == viewed:
                        break
                    await anyio.sleep(0.05)
    await engine.dispose()
    assert min(written) > 1
    for film, last in enumerate(written):
        # An event may come twice, after a kill between publishing and deleting its row; none is missing, and
        # none comes before the one it follows.
        assert list(dict.fromkeys(seen[film])) == list(range(1, last + 1))


async def _run_and_kill(url: str, connection_string: str, seconds: float) -> None:
    command = [sys.executable, "-m", "tests.integration.outbox_child", url, connection_string]
    async with await anyio.open_process(command, cwd=Path(__file__).parents[2], stderr=None) as child:
        try:
            assert child.stdout is not None
            with anyio.fail_after(HANGS):
                assert (await child.stdout.receive()).startswith(b"ready")
            # The moment of the kill is what is random here; nothing waits for time to pass.
            await anyio.sleep(seconds)
        finally:
            child.kill()
        await child.wait()
