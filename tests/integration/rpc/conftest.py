"""One emulator, one server and one client for the tests of a file."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from sbrpc import _sdk
from sbrpc.emulator import Emulator
from tests.integration.laboratory import QUEUES, Bench, Lab, Raw, make_client, make_server

from .world import World


@pytest.fixture(scope="module")
async def world() -> AsyncIterator[World]:
    """One emulator, one server and one client for all tests of a file: opening links takes a second."""
    bench = Bench()
    async with AsyncExitStack() as stack:
        emulator = await stack.enter_async_context(Emulator(queues=QUEUES))
        bus = await stack.enter_async_context(_sdk.connect(emulator.connection_string))
        server = make_server(emulator.connection_string, bench, reply_queues=["*.replies", "lab.replies"])
        client = make_client(emulator.connection_string, name="test")
        await stack.enter_async_context(server)
        await stack.enter_async_context(client)
        client.of(Lab)
        await client.ready(timeout=60)
        await server.ready(timeout=60)
        yield World(emulator, bench, server, client, Raw(bus, stack))
