"""JavaScript in the documentation, run by Node with Azure's SDK against services and clients of sbrpc."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from subprocess import DEVNULL, PIPE

import anyio
import anyio.abc
import pytest
from pydantic import BaseModel

from sbrpc import Contract, Queue, RpcClient, RpcServer, method
from sbrpc.emulator import Emulator
from tests.conformance.drivers import JavaScript, Unavailable

from .pages import on

HANGS = 60
PAGE = "docs/how-to/other-languages.md"
CALLER, SERVICE = on(PAGE, "js")

# What the second block has from the first one.
CLIENT = """
import { ServiceBusClient } from "@azure/service-bus";
const client = new ServiceBusClient(process.env.SERVICEBUS_CONNECTION_STRING);
"""


class GetMovie(BaseModel):
    id: int


class Movies(Contract, name="movies"):
    @method
    async def get_movie(self, request: GetMovie) -> str:
        raise NotImplementedError


@pytest.fixture(scope="module")
def node() -> str:
    """Where Node is, which finds the SDK from the directory of the scenarios."""
    try:
        return JavaScript().node
    except Unavailable as reason:
        pytest.skip(str(reason))


@asynccontextmanager
async def running(node: str, code: str, emulator: Emulator) -> AsyncIterator[anyio.abc.Process]:
    """Node with a module, in the directory from which it finds the SDK."""
    process = await anyio.open_process(
        [node, "--input-type=module", "--eval", code],
        stdin=DEVNULL,
        stdout=PIPE,
        cwd=JavaScript.HOME,
        env={**os.environ, "SERVICEBUS_CONNECTION_STRING": emulator.connection_string},
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@pytest.fixture
async def emulator() -> AsyncIterator[Emulator]:
    """The two queues that the page names."""
    async with Emulator(queues=["movies", Queue("gateway.replies", requires_session=True)]) as running:
        yield running


async def test_a_caller_in_javascript_gets_its_reply(node: str, emulator: Emulator) -> None:
    """As the page shows it: with the id of its message, the status and the value."""
    server = RpcServer(emulator.connection_string, Movies)

    @server.method(Movies.get_movie)
    async def get_movie(request: GetMovie) -> str:
        return f"movie {request.id}"

    async with server, running(node, CALLER, emulator) as process:
        assert process.stdout is not None
        with anyio.fail_after(HANGS):
            assert await process.stdout.receive() == b"true OK movie 1\n"
            assert await process.wait() == 0


async def test_a_service_in_javascript_answers(node: str, emulator: Emulator) -> None:
    """A client that knows its contract."""
    async with (
        running(node, CLIENT + SERVICE, emulator),
        RpcClient(emulator.connection_string, reply_queue="gateway.replies") as client,
    ):
        assert await client.of(Movies).get_movie(GetMovie(id=1), timeout=HANGS) == "Alien"
