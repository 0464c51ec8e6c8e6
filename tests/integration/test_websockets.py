"""Calls over WebSockets: through a front that speaks them, since the emulator does not."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest
from azure.servicebus import TransportType
from azure.servicebus.aio import ServiceBusClient

from sbrpc.emulator import Emulator
from tests import forked

from .laboratory import QUEUES, Bench, Item, Lab, make_client, make_server

ROOT = Path(__file__).resolve().parents[2]

web = pytest.importorskip("aiohttp.web")


@asynccontextmanager
async def front(port: int) -> AsyncIterator[str]:
    """The address of a server that passes on what comes in WebSocket messages, and back."""

    async def pass_on(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(protocols=["AMQPWSB10"])
        await socket.prepare(request)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)

        async def back() -> None:
            while data := await reader.read(65536):
                await socket.send_bytes(data)
            await socket.close()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(back)
            async for message in socket:
                writer.write(message.data)
            writer.close()
            tasks.cancel_scope.cancel()
        return socket

    app = web.Application()
    app.router.add_get("/$servicebus/websocket", pass_on)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


# What the SDK says without TLS, which Azure does not let anybody go without.
@pytest.mark.filterwarnings("ignore:ssl=None is deprecated:DeprecationWarning")
async def test_calls_go_over_websockets() -> None:
    """With the same client and server, on a connection that says so."""
    async with Emulator(queues=QUEUES) as emulator, front(emulator.port) as address:
        connection = ServiceBusClient.from_connection_string(
            emulator.connection_string,
            transport_type=TransportType.AmqpOverWebsocket,
            custom_endpoint_address=address,
            retry_total=0,
        )
        async with (
            connection,
            make_server(connection, Bench()) as server,
            make_client(connection) as client,
        ):
            await server.ready(60)
            await client.ready(60)
            assert await client.of(Lab).echo(Item(id=7), timeout=20) == Item(id=7)


@pytest.mark.parametrize(
    ("string", "arguments"), [(";TransportType=AmqpWebSockets", []), ("", ["--websockets"])]
)
async def test_connections_are_made_over_websockets_when_asked(string: str, arguments: list[str]) -> None:
    """By the connection string, as with SDKs of other languages, or by the argument; an error shows it."""
    somewhere = "Endpoint=sb://sbrpc.invalid/;SharedAccessKeyName=a;SharedAccessKey=Yg=="
    # In a process of its own: where it cannot connect, the SDK forgets to close aiohttp's session.
    environment = {**os.environ, "SERVICEBUS_CONNECTION_STRING": somewhere + string}
    done = await forked.run_aside(
        "-m", "sbrpc", "doctor", "tests.exported:server", *arguments, env=environment
    )
    assert done.returncode == 5
    assert re.search(r"(?i)websocket.*443", done.stderr.decode())
