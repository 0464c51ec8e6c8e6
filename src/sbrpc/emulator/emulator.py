"""The emulator as one object: broker, gateway and sockets put together.

Owns start and stop, the connection string, and the virtual clock's steps. What a queue does is the broker's,
what a frame means is the gateway's.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from types import TracebackType

from sbrpc.emulator.access import Access, AccessKey
from sbrpc.emulator.amqp.connection import Connection, Limits
from sbrpc.emulator.broker import Broker
from sbrpc.emulator.clock import VirtualClock
from sbrpc.emulator.gateway import Gateway
from sbrpc.emulator.tcp import Front
from sbrpc.topology import Queue, Topic

__all__ = ["Emulator"]

log = logging.getLogger("sbrpc.emulator")

DEFAULT_KEY_NAME = "RootManageSharedAccessKey"
DEFAULT_KEY = "SAS_KEY_VALUE"
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


class Emulator:
    """A Service Bus namespace inside this process.

        async with Emulator(queues=["movies"]) as emulator:
            client = ServiceBusClient.from_connection_string(emulator.connection_string)

    `queues` and `topics` are topology values, or names for entities with Azure's defaults. Port 0 picks a
    free one. It listens on loopback unless `host` says otherwise. All state is in memory and ends with
    the object; `restart` drops the connections and keeps the state. Times are seconds. Not safe to share
    between loops.
    """

    def __init__(
        self,
        *,
        queues: Iterable[Queue | str] = (),
        topics: Iterable[Topic | str] = (),
        host: str = "127.0.0.1",
        port: int = 0,
        http_port: int | None = None,
        namespace: str = "sbemulatorns",
        access_keys: Iterable[AccessKey] = (),
        max_connections: int = 5000,
        max_backlog: int = 64 * 1024 * 1024,
        limits: Limits | None = None,
    ) -> None:
        self.host = host
        self.port = port
        self.http_port = http_port
        self.namespace = namespace
        self.clock = VirtualClock()
        self.broker = Broker()
        self.access = Access(access_keys)
        amqp_limits = limits or Limits()
        self.gateway = Gateway(self.broker, self.access, new_peer=lambda: Connection(amqp_limits))
        self.front = Front(self.gateway, self.clock, max_connections=max_connections, max_backlog=max_backlog)
        self._wanted_port = port
        self._running = False
        now = self.clock.now()
        entities: list[Queue | Topic] = [Queue(item) if isinstance(item, str) else item for item in queues]
        entities += [Topic(item) if isinstance(item, str) else item for item in topics]
        self.broker.create(entities, now)

    @property
    def connection_string(self) -> str:
        """What an Azure SDK client needs to connect; known once the emulator runs."""
        key = self.access.keys[0] if self.access.keys else None
        return self.connection_string_for(
            key.name if key is not None else DEFAULT_KEY_NAME, key.key if key is not None else DEFAULT_KEY
        )

    def connection_string_for(self, key_name: str, key: str) -> str:
        """The connection string with a given access key in it."""
        if not self._running:
            raise RuntimeError("the emulator is not running; its port is known inside `async with`")
        return (
            f"Endpoint=sb://{self._address()};SharedAccessKeyName={key_name};"
            f"SharedAccessKey={key};UseDevelopmentEmulator=true;"
        )

    def _address(self) -> str:
        # A wildcard address is for listening; a client on this machine connects to loopback.
        host = {"0.0.0.0": "127.0.0.1", "::": "localhost"}.get(self.host, self.host)
        return f"{host}:{self.port}"

    async def __aenter__(self) -> Emulator:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Begin to listen. Raises `OSError` when the port is taken."""
        if self._running:
            raise RuntimeError("the emulator runs already")
        if self.host not in _LOOPBACK:
            log.warning("listening on %s: whoever reaches this address can use the emulator", self.host)
        _, self.port = await self.front.listen(self.host, self._wanted_port)
        self._running = True

    async def stop(self) -> None:
        """Drop all connections and stop listening; safe to call twice."""
        self._running = False
        await self.front.close()

    async def restart(self) -> None:
        """Drop all connections and listen again on the same port, with the same state."""
        self._wanted_port = self.port
        await self.stop()
        await self.start()

    async def advance(self, seconds: float) -> None:
        """Move the broker's time ahead; what falls due on the way happens in its order, at its time."""
        target = self.clock.now() + seconds
        while (due := self.gateway.next_timer()) is not None and due <= target:
            self.clock.advance(max(0.0, due - self.clock.now()))
            self.gateway.handle_timer(max(due, self.clock.now()))
            self.front.transmit()
            await asyncio.sleep(0)
        self.clock.advance(max(0.0, target - self.clock.now()))
        self.front.wake()
        await asyncio.sleep(0)
