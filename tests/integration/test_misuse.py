"""What people get wrong: each time one clear error, and nothing that hangs or ends unseen."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import anyio
import anyio.to_thread
import pytest
from azure.servicebus.aio import ServiceBusClient

from sbrpc import BusError, Contract, ContractError, Event, EventBus, RpcClient, RpcServer, method
from sbrpc.emulator import Emulator
from sbrpc.errors import NotRunning
from sbrpc.topology import Queue, Subscription, Topic

HANGS = 60


class Films(Contract, name="films"):
    @method
    async def show(self, request: int) -> int:
        raise NotImplementedError


class Shown(Event, type="films.shown.v1"):
    film: int


@pytest.fixture
async def emulator() -> AsyncIterator[Emulator]:
    queues = [Queue("films"), Queue("gateway.replies", requires_session=True)]
    topics = [Topic("events", subscriptions=(Subscription("ordered", requires_session=True),))]
    async with Emulator(queues=queues, topics=topics) as running:
        yield running


async def test_a_key_for_one_entity_will_do_where_it_may(emulator: Emulator) -> None:
    """A connection string as the portal shows it for a queue ends in its name; the key's rights decide."""
    string = emulator.connection_string.rstrip(";") + ";EntityPath=films"
    server = RpcServer(string, Films)

    @server.method(Films.show)
    async def show(film: int) -> int:
        return film

    with anyio.fail_after(HANGS):
        async with server, RpcClient(string, reply_queue="gateway.replies") as client:
            assert await client.of(Films).show(7) == 7


async def test_a_client_for_another_entity_is_an_error_at_once(emulator: Emulator) -> None:
    """The SDK makes no sender then; nothing spins, and the first call says why."""
    string = emulator.connection_string.rstrip(";") + ";EntityPath=other"
    with anyio.fail_after(HANGS):
        async with (
            ServiceBusClient.from_connection_string(string) as connection,
            EventBus(connection, topic="events", source="/films") as bus,
        ):
            with pytest.raises(BusError, match="does not match the EntityPath"):
                await bus.publish(Shown(film=7))


async def test_another_event_loop_is_named(emulator: Emulator) -> None:
    """A client or a bus used from a loop in another thread says so, instead of working now and then."""
    string = emulator.connection_string
    with anyio.fail_after(HANGS):
        async with (
            RpcClient(string, reply_queue="gateway.replies") as client,
            EventBus(string, topic="events", source="/films") as bus,
        ):
            films = client.of(Films)
            for use in (lambda: films.show(7), lambda: bus.publish(Shown(film=7))):
                with pytest.raises(NotRunning, match="another event loop"):
                    await anyio.to_thread.run_sync(anyio.run, use)


async def test_a_handler_that_waits_for_what_was_cancelled_ends_nothing_else(emulator: Emulator) -> None:
    """It is tried again like any that fails, and other events are handled."""
    bus = EventBus(emulator.connection_string, topic="events", source="/films")
    shown: list[int] = []
    done = anyio.Event()

    @bus.on(Shown, subscription="ordered", max_concurrent_sessions=1)
    async def show(event: Shown) -> None:
        shown.append(event.film)
        if shown == [7]:
            task = asyncio.ensure_future(anyio.sleep_forever())
            task.cancel()
            await task
        if event.film == 8:
            done.set()

    with anyio.fail_after(HANGS):
        async with bus:
            for film in (7, 8):
                await bus.publish(Shown(film=film), key="one")
            await done.wait()
    assert shown == [7, 7, 8]


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"time_to_live": timedelta(days=60)}, "up to 49 days"),
        ({"time_to_live": timedelta(seconds=-1)}, "up to 49 days"),
        ({"key": 7}, "key is a text, not 7"),
        ({"subject": 7}, "subject cannot be 7"),
        ({"subject": ""}, "subject cannot be ''"),
        ({"time": "now"}, "time cannot be 'now'"),
        ({"extensions": {"size": 1.5}}, "cannot be 'size': 1.5"),
        ({"extensions": {7: "x"}}, "cannot be 7: 'x'"),
    ],
)
async def test_what_cannot_be_published_is_named_before_it_is_sent(
    emulator: Emulator, wrong: dict[str, Any], match: str
) -> None:
    """Wrong values would break the link, or come out as dead letters; and the next event gets through."""
    with anyio.fail_after(HANGS):
        async with EventBus(emulator.connection_string, topic="events", source="/films") as bus:
            with pytest.raises((ContractError, ValueError), match=match):
                await bus.publish(Shown(film=7), **wrong)
            assert await bus.publish(Shown(film=8))


@pytest.mark.parametrize("timeout", ["5", math.nan, timedelta(seconds=5)])
async def test_a_timeout_is_a_number(emulator: Emulator, timeout: Any) -> None:
    """What is none is named where it is given, to a stub as to a call."""
    with anyio.fail_after(HANGS):
        async with RpcClient(emulator.connection_string, reply_queue="gateway.replies") as client:
            with pytest.raises(ValueError, match="timeout must be a number of seconds, not"):
                client.of(Films, timeout=timeout)
            with pytest.raises(ValueError, match="timeout must be a number of seconds, not"):
                await client.of(Films).show(1, timeout=timeout)


def test_names_are_needed() -> None:
    """An empty one, as a missing setting gives, is an error where it is given."""
    nothing: Any = None
    with pytest.raises(ContractError, match="topic=''"):
        EventBus("", topic="")
    with pytest.raises(ContractError, match="topic=None"):
        EventBus("", topic=nothing)
    with pytest.raises(ContractError, match="subscription=''"):
        EventBus("", topic="events").on(Shown, subscription="")
    with pytest.raises(ValueError, match="reply_queue must be the name"):
        RpcClient("", reply_queue="")
