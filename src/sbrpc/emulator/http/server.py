"""The HTTP sockets: bytes to requests, responses to bytes, plain and TLS on one port.

Owns connections: their limits, time-outs and end. HTTP itself is h11's. What a request means is the handler's
business; this module knows no path.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus
from urllib.parse import parse_qsl

import h11

from sbrpc.emulator.http.messages import Handler, Request, Response, plain_response
from sbrpc.emulator.http.tls import TLS_HANDSHAKE, Certificate, Layer, PlainLayer, TlsLayer, TlsUnavailable

__all__ = ["HttpFront", "HttpLimits"]

log = logging.getLogger("sbrpc.emulator.http")

# What a TLS client shows as "handshake failure" rather than as a connection that ended without a reason.
_HANDSHAKE_FAILURE = bytes([0x15, 3, 1, 0, 2, 2, 40])


@dataclass(frozen=True)
class HttpLimits:
    """What one client may ask of the server. Sizes in bytes, times in seconds."""

    header_size: int = 32 * 1024
    body_size: int = 1024 * 1024
    connections: int = 200
    idle_time: float = 75.0
    """How long a connection may wait for its next request."""
    request_time: float = 30.0
    """How long a request may take to arrive, and a response to be taken."""
    closing_time: float = 2.0
    """How long requests under way may go on once the server closes."""


class HttpFront:
    """Listens for one handler. The handler runs on the loop and must not block it."""

    def __init__(
        self, handle: Handler, *, certificate: Certificate, limits: HttpLimits | None = None
    ) -> None:
        self.handle = handle
        self.certificate = certificate
        self.limits = limits or HttpLimits()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._busy: set[asyncio.Task[None]] = set()
        self._closing = False

    async def listen(self, host: str, port: int) -> int:
        """Start to listen; port 0 picks a free one. Gives the port, raises `OSError` if it is taken."""
        self._closing = False
        self._server = await asyncio.start_server(self._connected, host, port, backlog=128)
        return int(self._server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        """Stop listening, end idle connections, give the others a moment; safe to call twice."""
        self._closing = True
        server, self._server = self._server, None
        if server is not None:
            server.close()
        for task in self._tasks - self._busy:
            task.cancel()
        if self._busy:
            await asyncio.wait(set(self._busy), timeout=self.limits.closing_time)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        # Let the transports report their loss, so that nothing is left for the loop to complain about.
        for _ in range(3):
            await asyncio.sleep(0)
        if server is not None:
            await server.wait_closed()

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._closing or len(self._tasks) >= self.limits.connections:
            log.warning("HTTP connection refused: %d are open", len(self._tasks))
            writer.transport.abort()
            return
        task = asyncio.get_running_loop().create_task(
            self._converse(reader, writer), name="sbrpc emulator HTTP connection"
        )
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # So that `drain` means sent: what a closed connection has not sent would keep it, and us, waiting.
        writer.transport.set_write_buffer_limits(0)
        try:
            first = await asyncio.wait_for(reader.read(65536), self.limits.idle_time)
            layer = self._layer(first, writer)
            if layer is not None:
                await _Conversation(self, reader, writer, layer, first).run()
            writer.close()
        except (OSError, asyncio.TimeoutError, ssl.SSLError) as error:
            # The client is gone, or took too long, or broke TLS: nobody is there to be told.
            log.debug("HTTP connection ended: %r", error)
        finally:
            if not writer.is_closing():
                writer.transport.abort()

    def _layer(self, first: bytes, writer: asyncio.StreamWriter) -> Layer | None:
        if not first:
            return None
        if first[0] != TLS_HANDSHAKE:
            return PlainLayer()
        try:
            return TlsLayer(self.certificate.context)
        except TlsUnavailable as error:
            log.warning("refused a TLS connection: %s", error)
            writer.write(_HANDSHAKE_FAILURE)
            return None

    def working(self, busy: bool) -> None:
        """The current task has a request to answer, or has answered it."""
        task = asyncio.current_task()
        assert task is not None
        if busy:
            self._busy.add(task)
        else:
            self._busy.discard(task)

    @property
    def closing(self) -> bool:
        """Whether connections should end after the response they are about to send."""
        return self._closing


class _Conversation:
    """One connection: requests and responses in turn."""

    def __init__(
        self,
        front: HttpFront,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        layer: Layer,
        first: bytes,
    ) -> None:
        self.front = front
        self.limits = front.limits
        self.reader = reader
        self.writer = writer
        self.layer = layer
        self.h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=front.limits.header_size)
        if received := layer.receive(first):
            self.h11.receive_data(received)

    async def run(self) -> None:
        """Answer requests until one side has had enough."""
        front = self.front
        while True:
            try:
                request = await self._next_request()
                if request is None:
                    break
                front.working(True)
                try:
                    response = await self._answer(request)
                    await self._send(response, request.method)
                finally:
                    front.working(False)
            except h11.RemoteProtocolError as error:
                await self._refuse(error.error_status_hint, str(error))
                break
            if self.h11.our_state is not h11.DONE or self.h11.their_state is not h11.DONE:
                break
            self.h11.start_next_cycle()
        self.layer.end()
        await self._flush()

    async def _answer(self, request: Request) -> Response:
        try:
            return await self.front.handle(request)
        except Exception:  # whatever went wrong, the client gets an answer and the log gets the reason
            log.exception("%s %s failed", request.method, request.path)
            return plain_response("The emulator failed; its log says why.", 500)

    # -- in ---------------------------------------------------------------------------------------------

    async def _next_request(self) -> Request | None:
        """The next whole request, or `None` when there will be none."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.limits.idle_time
        head: h11.Request | None = None
        body: list[bytes] = []
        size = 0
        # h11 itself limits only headers that have not arrived whole.
        most = self.limits.header_size
        while True:
            event = self.h11.next_event()
            if event is h11.NEED_DATA:
                if not await self._receive(deadline - loop.time(), begun=head is not None):
                    return None
            elif isinstance(event, h11.Request):
                head = event
                if head.http_version not in (b"1.0", b"1.1"):
                    raise h11.RemoteProtocolError("only HTTP/1.1 and HTTP/1.0 are spoken here", 505)
                if len(head.target) + sum(len(name) + len(value) for name, value in head.headers) > most:
                    raise h11.RemoteProtocolError(f"the header is larger than {most} bytes", 431)
                deadline = loop.time() + self.limits.request_time
            elif isinstance(event, h11.Data):
                size += len(event.data)
                if size > self.limits.body_size:
                    raise h11.RemoteProtocolError(
                        f"the body is larger than {self.limits.body_size} bytes", 413
                    )
                body.append(bytes(event.data))
            elif isinstance(event, h11.EndOfMessage):
                assert head is not None
                return _request(head, b"".join(body), self.layer.scheme)
            else:
                return None

    async def _receive(self, timeout: float, *, begun: bool) -> bool:
        if begun and self.h11.they_are_waiting_for_100_continue:
            self._put(h11.InformationalResponse(status_code=100, headers=[], reason=b"Continue"))
        await self._flush()
        data = await asyncio.wait_for(self.reader.read(65536), max(timeout, 0.001))
        if not data:
            if not begun:
                return False
            self.h11.receive_data(b"")
            return True
        if received := self.layer.receive(data):
            self.h11.receive_data(received)
        return True

    # -- out --------------------------------------------------------------------------------------------

    def _put(self, event: h11.Event) -> None:
        if data := self.h11.send(event):
            self.layer.send(data)

    async def _send(self, response: Response, method: str) -> None:
        headers = [("Date", formatdate(usegmt=True)), ("Content-Length", str(len(response.body)))]
        if response.content_type is not None:
            headers.append(("Content-Type", response.content_type))
        headers += response.headers.items()
        if self.front.closing:
            headers.append(("Connection", "close"))
        reason = HTTPStatus(response.status).phrase.encode()
        self._put(h11.Response(status_code=response.status, headers=headers, reason=reason))
        if method != "HEAD" and response.body:
            self._put(h11.Data(data=response.body))
        self._put(h11.EndOfMessage())
        await self._flush()

    async def _refuse(self, status: int, reason: str) -> None:
        if self.h11.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            return
        await self._send(
            Response(status, f"{reason}\n".encode(), "text/plain; charset=utf-8", {"Connection": "close"}),
            "GET",
        )

    async def _flush(self) -> None:
        if data := self.layer.data_to_send():
            self.writer.write(data)
            await asyncio.wait_for(self.writer.drain(), self.limits.request_time)


def _request(head: h11.Request, body: bytes, scheme: str) -> Request:
    target = head.target.decode("ascii", "replace")
    if "://" in target.partition("?")[0]:
        # The absolute form, as sent to proxies.
        _, _, rest = target.partition("://")
        target = "/" + rest.partition("/")[2]
    path, _, query = target.partition("?")
    return Request(
        method=head.method.decode("ascii"),
        path=path,
        query=dict(parse_qsl(query, keep_blank_values=True)),
        headers={name.decode("ascii"): value.decode("latin-1") for name, value in head.headers},
        body=body,
        scheme=scheme,
    )
