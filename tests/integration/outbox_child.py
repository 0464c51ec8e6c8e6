"""A service that writes films and their events in one transaction until somebody kills it."""

from __future__ import annotations

import sys

import anyio
from sqlalchemy import Column, Integer, MetaData, Table, func, select
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

from sbrpc.event import Event
from sbrpc.events import EventBus
from sbrpc.sql import Outbox, OutboxRelay, Positions

metadata = MetaData()
films = Table("films", metadata, Column("id", Integer, primary_key=True), Column("version", Integer))
views = Table("views", metadata, Column("id", Integer, primary_key=True), Column("version", Integer))
outbox = Outbox(metadata, source="/films")
positions = Positions(metadata)


class Changed(Event, type="films.changed.v1", key="film"):
    film: int
    version: int


async def main(url: str, connection_string: str) -> None:
    engine = create_async_engine(url)
    sessions = async_sessionmaker(engine)
    bus = EventBus(connection_string, topic="films", source="/films")
    async with bus, anyio.create_task_group() as tasks:
        tasks.start_soon(OutboxRelay(engine, outbox, bus, batch=5, lease=2, interval=0.05).run)
        async with sessions() as session:
            done = int(await session.scalar(select(func.coalesce(func.sum(films.c.version), 0))) or 0)
        print("ready", flush=True)
        while True:
            film, version = done % 5, done // 5 + 1
            async with sessions.begin() as session:
                await session.execute(films.update().where(films.c.id == film).values(version=version))
                await outbox.add(session, Changed(film=film, version=version))
            done += 1


if __name__ == "__main__":
    anyio.run(main, sys.argv[1], sys.argv[2])
