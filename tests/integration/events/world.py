"""The events that these tests publish, what they see of them, and what is left on the broker."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
from azure.servicebus.aio import ServiceBusClient
from tenacity import AsyncRetrying, stop_after_attempt, wait_fixed

from sbrpc._sdk import connect
from sbrpc.emulator import Emulator
from sbrpc.event import Event, EventInfo
from sbrpc.events import EventBus

SOON = AsyncRetrying(stop=stop_after_attempt(3), wait=wait_fixed(0.01))

# Only against hanging for ever; nothing is measured with it.
HANGS = 30


class Created(Event, type="movies.created.v1", key="movie"):
    movie: str
    n: int = 0


class Deleted(Event, type="movies.deleted.v1", key="movie"):
    movie: str


class Padded(Event, type="movies.padded.v1"):
    text: str


class Seen:
    """What handlers saw, and a way to wait for it."""

    def __init__(self) -> None:
        self.events: list[Any] = []
        self.infos: list[EventInfo] = []
        self._changed = anyio.Event()

    def add(self, event: Any, info: EventInfo | None = None) -> None:
        self.events.append(event)
        if info is not None:
            self.infos.append(info)
        self._changed.set()
        self._changed = anyio.Event()

    async def until(self, count: int, hangs: float = HANGS) -> None:
        with anyio.fail_after(hangs):
            while len(self.events) < count:
                await self._changed.wait()


async def true(condition: Callable[[], bool]) -> None:
    """Wait until something is the case that nobody announces."""
    with anyio.fail_after(HANGS):
        while not condition():  # noqa: ASYNC110
            await anyio.sleep(0.01)


async def counted(bus: EventBus, what: str, count: int) -> None:
    """Wait until the bus has counted that many; unlike the handler, it counts what is settled."""
    await true(lambda: bus.counts[what] >= count)


@asynccontextmanager
async def raw(emulator: Emulator) -> AsyncIterator[ServiceBusClient]:
    async with connect(emulator.connection_string) as client:
        yield client


async def dead_letters(emulator: Emulator, subscription: str, count: int) -> list[tuple[object, object]]:
    """Reason and description of a subscription's dead letters, once there are that many."""
    address = f"events/Subscriptions/{subscription}"
    await true(lambda: emulator.broker.runtime(address).dead_letter >= count)
    found = emulator.broker.look(f"{address}/$DeadLetterQueue", 0, 100, None, emulator.clock.now())
    properties = [message.content.user() for message in found]
    return [(each["DeadLetterReason"], each["DeadLetterErrorDescription"]) for each in properties]


def left(emulator: Emulator, subscription: str) -> int:
    """How many messages the subscription still has."""
    return emulator.broker.runtime(f"events/Subscriptions/{subscription}").active
