"""The emulator's sockets: bytes in, bytes out, and one timer.

Owns the listening sockets, one protocol object per connection and the wake-up for whatever is due next.
Every entry point is the same sentence: feed, process, transmit. It is the only module of the AMQP side that
imports asyncio, and it knows neither AMQP nor Service Bus.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from itertools import count
from typing import cast

from sbrpc.emulator.clock import VirtualClock
from sbrpc.emulator.faults import Faults
from sbrpc.emulator.gateway import Gateway
from sbrpc.emulator.hindrance import Hindrance
from sbrpc.emulator.nodes import Peer

__all__ = ["Front", "ServerConnection"]

log = logging.getLogger("sbrpc.emulator")

# Clients that leave Nagle's algorithm on and write a frame in two packets wait for our ACK of the first one,
# which Linux delays by 40 ms unless it is told not to, again after every read.
_QUICKACK: int | None = getattr(socket, "TCP_QUICKACK", None)
_READ_SIZE = 256 * 1024


class Front:
    """Listens for one gateway."""

    def __init__(
        self, gateway: Gateway, clock: VirtualClock, *, max_connections: int, max_backlog: int
    ) -> None:
        self.gateway = gateway
        self.clock = clock
        self.max_connections = max_connections
        # Bytes that may wait for one peer that does not read before its connection is dropped.
        self.max_backlog = max_backlog
        self.connections: set[ServerConnection] = set()
        self._connection_of: dict[Peer, ServerConnection] = {}
        # Set while there are faults in force.
        self.faults: Faults | None = None
        # Reads go in here, one after the other: whatever arrives is taken out before the next read.
        self.buffer = bytearray(_READ_SIZE)
        # Connections that have been read in this turn of the loop.
        self._read: list[ServerConnection] = []
        self._numbers = count(1)
        # Set when the last connection has gone, while somebody waits for it.
        self._empty: asyncio.Event | None = None
        self._server: asyncio.Server | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._flush_scheduled = False

    async def listen(self, host: str, port: int) -> tuple[str, int]:
        """Start to listen; port 0 picks a free one. Gives the address in use."""
        self._loop = asyncio.get_running_loop()
        self._server = await self._loop.create_server(lambda: ServerConnection(self), host, port, backlog=512)
        address = self._server.sockets[0].getsockname()
        return str(address[0]), int(address[1])

    async def close(self) -> None:
        """Stop listening and drop every connection; safe to call twice."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        server, self._server = self._server, None
        if server is not None:
            server.close()
        self.drop_all()
        # Let the transports report their loss, so that nothing is left for the loop to complain about.
        for _ in range(3):
            await asyncio.sleep(0)
        if server is not None:
            await server.wait_closed()

    async def drain(self, timeout: float) -> int:
        """Stop listening, ask every peer to go, and wait; how many connections had to be dropped."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
        for connection in list(self.connections):
            connection.peer.amqp.close(
                "amqp:connection:forced", "The connection was closed: Service Bus drains."
            )
            connection.flush()
        self._empty = asyncio.Event()
        if self.connections:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._empty.wait(), timeout)
        left = len(self.connections)
        await self.close()
        return left

    def drop_all(self) -> None:
        """Cut every connection without a word, as a crash would."""
        for connection in list(self.connections):
            connection.abort()

    def review(self) -> None:
        """The faults have changed: connections that only they kept alive end."""
        for connection in list(self.connections):
            if connection.hindrance is not None:
                connection.hindrance.review()

    # -- output -----------------------------------------------------------------------------------------

    def transmit(self) -> None:
        """Send what is pending everywhere, once per turn of the loop, and set the timer."""
        if not self._flush_scheduled and self._loop is not None:
            self._flush_scheduled = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_scheduled = False
        dirty, self.gateway.dirty = self.gateway.dirty, set()
        for peer in dirty:
            # A peer whose socket is gone has nobody to be told.
            if (connection := self._connection_of.get(peer)) is not None:
                connection.flush()
        read, self._read = self._read, []
        for connection in read:
            connection.acknowledge()
        self._arm()

    # -- time -------------------------------------------------------------------------------------------

    def _arm(self) -> None:
        if self._loop is None or self._server is None:
            return
        due = self.gateway.next_timer()
        if due is None:
            return
        when = self._loop.time() + max(0.0, due - self.clock.now())
        # Waking too early does no harm, and a new timer for each message that comes and goes would cost more.
        if self._timer is None or when < self._timer.when():
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._loop.call_at(when, self._due)

    def _due(self) -> None:
        self._timer = None
        self.wake()

    def wake(self) -> None:
        """Let everything happen that is due now."""
        self.gateway.handle_timer(self.clock.now())
        self.transmit()


class ServerConnection(asyncio.BufferedProtocol):
    """One client's socket."""

    def __init__(self, front: Front) -> None:
        self.front = front
        self.number = next(front._numbers)
        self.peer: Peer = front.gateway.connect()
        self.since = front.clock.now()
        self.remote = ""
        self.hindrance: Hindrance | None = None
        self.transport: asyncio.Transport | None = None
        self._socket: socket.socket | None = None
        self._answered = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._socket = transport.get_extra_info("socket")
        address = transport.get_extra_info("peername")
        self.remote = f"{address[0]}:{address[1]}" if address else ""
        self.front.connections.add(self)
        self.front._connection_of[self.peer] = self
        if len(self.front.connections) > self.front.max_connections:
            log.warning("connection refused: %d are open already", self.front.max_connections)
            self.abort()
        elif self.front.faults is not None and not self.front.faults.accepts():
            self.abort()

    def get_buffer(self, sizehint: int) -> bytearray:
        return self.front.buffer

    def buffer_updated(self, nbytes: int) -> None:
        front = self.front
        self._answered = False
        front._read.append(self)
        data = bytes(memoryview(front.buffer)[:nbytes])
        if front.faults is None and self.hindrance is None:
            self._feed(data)
        else:
            self._hindered().incoming(data)
            front.transmit()

    def _feed(self, data: bytes) -> None:
        self.front.gateway.feed(self.peer, data, self.front.clock.now())
        self.front.transmit()

    def _hindered(self) -> Hindrance:
        if self.hindrance is None:
            front = self.front
            assert front.faults is not None
            assert front._loop is not None
            self.hindrance = Hindrance(
                self.peer,
                front.faults,
                front._loop,
                feed=self._feed,
                write=self._write,
                cut=self.abort,
                most_waiting=front.max_backlog,
            )
        return self.hindrance

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.front.connections.discard(self)
        if self.front._empty is not None and not self.front.connections:
            self.front._empty.set()
        self.front._connection_of.pop(self.peer, None)
        if self.hindrance is not None:
            self.hindrance.close()
        self.front.gateway.disconnect(self.peer, self.front.clock.now())
        self.transport = None
        self.front.transmit()

    def flush(self) -> None:
        """Write what the engine has for this peer; drop the socket when the engine is done with it."""
        transport = self.transport
        if transport is None or transport.is_closing():
            return
        data = self.peer.amqp.data_to_send()
        if data:
            if self.front.faults is None and self.hindrance is None:
                self._write(data)
            else:
                self._hindered().outgoing(data)
        self._close_if_done()

    def _write(self, data: bytes) -> None:
        transport = self.transport
        if transport is not None and not transport.is_closing():
            self._answered = True
            transport.write(data)
            if transport.get_write_buffer_size() > self.front.max_backlog:
                log.warning(
                    "connection %s dropped: it does not read, %d bytes are waiting",
                    self.peer.amqp.container_id,
                    transport.get_write_buffer_size(),
                )
                self.abort()
        self._close_if_done()

    def acknowledge(self) -> None:
        """Have what was read acknowledged now, unless an answer has carried the acknowledgement."""
        if self._answered or self.transport is None or self._socket is None:
            return
        if _QUICKACK is not None:
            self._socket.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)

    def _close_if_done(self) -> None:
        waiting = self.hindrance is not None and self.hindrance.waiting
        if self.transport is not None and self.peer.amqp.closed and not waiting:
            self.transport.close()

    def abort(self) -> None:
        """End this connection at once, without AMQP's good-byes."""
        if self.transport is not None:
            self.transport.abort()
