"""For the tests of applications: the real client, server and SDK against a Service Bus in this process.

    async def test_a_movie_is_found() -> None:
        async with service_for(Movies, MovieService(database)) as movies:
            assert (await movies.get_movie(GetMovie(id=1))).title == "Alien"

`service_for` brings everything up for one test, which takes the SDK two seconds. With a `Bench` that many
tests share, or the fixture `sbrpc_bench` of the pytest plugin, the next test takes milliseconds. For tests
from end to end, `application` runs whole programs as `sbrpc run` does. Needs `pip install "sbrpc[emulator]"`,
and no test framework.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TypeVar

from sbrpc.contract import Contract
from sbrpc.emulator import Emulator

from ._application import Application, application, free_port
from ._bench import REPLY_QUEUE, Bench, Letter
from ._entities import Entity, entities_of
from ._published import Published

__all__ = [
    "Application",
    "Bench",
    "Entity",
    "Letter",
    "Published",
    "application",
    "emulator",
    "free_port",
    "service_for",
]

C = TypeVar("C", bound=Contract)


def emulator(*entities: Entity, reply_queue: str = REPLY_QUEUE) -> Emulator:
    """An emulator with what an application needs: `async with emulator(Movies, bus) as namespace`.

    `entities` are topology (`Queue`, `Topic`, or a queue's name), or who is going to use it: contracts,
    servers, buses. A reply queue is always there. `namespace.connection_string` is what the application
    connects to.
    """
    wanted = entities_of(entities, reply_queue)
    return Emulator(queues=wanted.queues.values(), topics=wanted.topics.values())


@asynccontextmanager
async def service_for(
    contract: type[C],
    service: object,
    *entities: Entity,
    reply_queue: str = REPLY_QUEUE,
    timeout: float | None = None,
    metadata: Mapping[str, str] | None = None,
    key: str | None = None,
) -> AsyncIterator[C]:
    """A service on an emulator of its own, as its callers see it: `Bench.service_for` for a single test."""
    async with (
        Bench(*entities, reply_queue=reply_queue) as bench,
        bench.service_for(contract, service, timeout=timeout, metadata=metadata, key=key) as stub,
    ):
        yield stub
