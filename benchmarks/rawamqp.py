"""A client of raw AMQP frames on blocking sockets: as little work per message as Python allows.

Owns the frames a load generator needs, built once and patched with delivery ids. It borrows the emulator's
codec to build them and none of its engine; what it knows of Service Bus is the shape of what the Python SDK
puts on the wire.
"""

from __future__ import annotations

import socket
import struct
import time
import uuid

from sbrpc.emulator.amqp import frames, sections
from sbrpc.emulator.amqp import performatives as p
from sbrpc.emulator.amqp.types import Symbol, Timestamp

__all__ = ["RawConnection", "RawReceiver", "RawSender", "sdk_message"]

_BATCH_FORMAT = 0x80013700
_HEADERS = b"AMQP\x03\x01\x00\x00"
_U32 = struct.Struct(">I")
_TRANSFER, _DISPOSITION, _FLOW = 0x14, 0x15, 0x13
_TIMEOUT = 30.0


def sdk_message(size: int = 128) -> bytes:
    """A message as the Python SDK encodes it, with a body of `size` bytes."""
    now = Timestamp(int(time.time() * 1000))
    properties = sections.Properties(
        message_id=str(uuid.uuid4()),
        subject="get_movie",
        reply_to="gateway.replies",
        content_type="application/json",
        absolute_expiry_time=Timestamp(now + 60_000),
        creation_time=now,
        reply_to_group_id="0f8fad5bd9cb469fa16570867728950e",
    )
    header = sections.Header(durable=True, ttl=60_000)
    return b"".join(
        (
            header.encode(),
            properties.encode(),
            sections.encode_application_properties({"sbrpc-timeout-ms": 30_000}),
            sections.encode_data(b"x" * size),
        )
    )


class RawConnection:
    """One connection with one session; performatives in, frames out."""

    def __init__(self, address: tuple[str, int], container: str = "load") -> None:
        self.socket = socket.create_connection(address, timeout=_TIMEOUT)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = b""
        self._frames: list[tuple[int, bytes]] = []
        init = p.SaslInit(Symbol("ANONYMOUS"), b"")
        self.socket.sendall(_HEADERS + frames.frame(0, init.encode(), frames.SASL_FRAME))
        self.socket.sendall(b"AMQP\x00\x01\x00\x00")
        self.write(p.Open(container, "127.0.0.1", max_frame_size=1 << 20, channel_max=65535))
        # Windows so wide that no session flow is ever needed.
        self.write(p.Begin(None, 0, 0x7FFFFFFF, 0x7FFFFFFF, 255))
        self._read_exactly(8)
        self._wait_for(0x40)
        self._wait_for(0x44)
        self._read_exactly(8)
        self._wait_for(0x10)
        self._wait_for(0x11)

    def write(self, performative: p.Composite) -> None:
        """Send one performative on channel 0."""
        self.socket.sendall(frames.frame(0, performative.encode()))

    def attach(self, address: str, *, sender: bool, settled: bool = False) -> None:
        """Attach the one link this connection has, with handle 0."""
        self.write(
            p.Attach(
                f"load-{uuid.uuid4()}",
                0,
                not sender,
                1 if settled else 0,
                0,
                p.Source(None if sender else address),
                p.Target(address if sender else None),
                initial_delivery_count=0 if sender else None,
            )
        )
        _, body = self._wait_for(0x12)
        if b"\x00\x53\x28" not in body and b"\x00\x53\x29" not in body:
            self.close()
            raise ConnectionError(f"attaching to {address!r} was refused")

    def close(self) -> None:
        """Drop the socket."""
        self.socket.close()

    def _read_exactly(self, count: int) -> bytes:
        while len(self._buffer) < count:
            self._buffer += self._receive()
        data, self._buffer = self._buffer[:count], self._buffer[count:]
        return data

    def _receive(self) -> bytes:
        data = self.socket.recv(1 << 18)
        if not data:
            raise ConnectionError("the emulator closed the connection")
        return data

    def _wait_for(self, code: int) -> tuple[int, bytes]:
        while True:
            size = _U32.unpack(self._read_exactly(4))[0]
            body = self._read_exactly(size - 4)[4:]
            if len(body) > 3 and body[2] == code:
                return code, body
            if len(body) > 3 and body[2] in (0x16, 0x17, 0x18):
                self.close()
                raise ConnectionError(f"the emulator refused: {body!r}")

    def read(self) -> bytes:
        """At least one whole frame and nothing but whole frames; blocks until they are there."""
        data = self._buffer
        while True:
            position, end = 0, len(data)
            while end - position >= 8:
                size = _U32.unpack_from(data, position)[0]
                if position + size > end:
                    break
                position += size
            if position:
                self._buffer = data[position:]
                return data[:position]
            data += self._receive()


class RawSender(RawConnection):
    """A sender that keeps as many deliveries under way as `window` says."""

    def __init__(self, address: tuple[str, int], entity: str) -> None:
        super().__init__(address)
        self.attach(entity, sender=True)
        while not self._frames_have_flow(self.read()):
            pass
        self._next = 0

    @staticmethod
    def _frames_have_flow(data: bytes) -> bool:
        return b"\x00\x53\x13" in data

    def send(self, messages: list[bytes], count: int, *, batch: int = 1, window: int = 400) -> float:
        """Send `count` messages and wait until all are accepted; the seconds it took.

        With `batch` above one, that many go in one transfer. Raises when an answer is not `accepted`.
        """
        payload_of = [
            messages[i]
            if batch == 1
            else b"".join(sections.encode_data(messages[(i + k) % len(messages)]) for k in range(batch))
            for i in range(min(len(messages), 64))
        ]
        message_format = 0 if batch == 1 else _BATCH_FORMAT
        head, _ = frames.transfer_layout(0, 0, 4, message_format, False, False)
        transfers = -(-count // batch)
        if batch > 1:
            window = max(4, window // batch)
        per_write = max(1, min(50, window // 4))
        start, sent, accepted = self._next, 0, 0
        began = time.perf_counter()
        while accepted < transfers:
            while sent < transfers and sent - accepted + per_write <= window:
                parts = []
                for _ in range(min(per_write, transfers - sent)):
                    payload = payload_of[sent % len(payload_of)]
                    number = start + sent
                    parts.append(head(len(payload), number, _U32.pack(number & 0xFFFFFFFF)))
                    parts.append(payload)
                    sent += 1
                self.socket.sendall(b"".join(parts))
            accepted += self._accepted(self.read())
        self._next = start + sent
        return time.perf_counter() - began

    @staticmethod
    def _accepted(data: bytes) -> int:
        position, count = 0, 0
        while position < len(data):
            size = _U32.unpack_from(data, position)[0]
            if size > 8 and data[position + 10] == _DISPOSITION:
                fields, _ = frames.read_fields(data, position + 11)
                if fields[4] is not p.ACCEPTED:
                    raise ConnectionError(f"a message was not accepted: {fields[4]!r}")
                count += 1 if fields[2] is None else fields[2] - fields[1] + 1
            position += size
        return count


class RawReceiver(RawConnection):
    """A receiver that completes what it gets, each message with a disposition of its own, as the SDK does."""

    def __init__(self, address: tuple[str, int], entity: str, *, settled: bool = False) -> None:
        super().__init__(address)
        self.attach(entity, sender=False, settled=settled)
        self._settled = settled
        self._got = 0

    def receive(self, count: int, *, credit: int = 1000, ranges: bool = False) -> float:
        """Receive `count` messages, complete them and wait for the confirmations; the seconds it took."""
        got = confirmed = granted = 0
        began = time.perf_counter()
        while confirmed < count:
            if granted < count and granted - got <= credit // 2:
                granted = min(count, got + credit)
                self.socket.sendall(
                    frames.flow(
                        0,
                        (0, 0x7FFFFFFF, 0, 0x7FFFFFFF),
                        (0, self._got & 0xFFFFFFFF, granted - got, 0),
                    )
                )
            data = self.read()
            arrived: list[int] = []
            position = 0
            while position < len(data):
                size = _U32.unpack_from(data, position)[0]
                code = data[position + 10] if size > 8 else 0
                if code == _TRANSFER:
                    # The emulator writes all its uints long: the delivery id stands at a fixed place.
                    arrived.append(_U32.unpack_from(data, position + 20)[0])
                elif code == _DISPOSITION:
                    fields, _ = frames.read_fields(data, position + 11)
                    if fields[4] is not p.ACCEPTED:
                        raise ConnectionError(f"a completion failed: {fields[4]!r}")
                    confirmed += 1 if fields[2] is None else fields[2] - fields[1] + 1
                elif code in (0x16, 0x17, 0x18):
                    raise ConnectionError(f"the emulator detached: {data[position : position + size]!r}")
                position += size
            if not arrived:
                continue
            got += len(arrived)
            self._got += len(arrived)
            if self._settled:
                confirmed = got
            elif ranges:
                self.socket.sendall(self._complete(arrived[0], arrived[-1]))
            else:
                self.socket.sendall(b"".join([self._complete(number, number) for number in arrived]))
        if got != count:
            raise ConnectionError(f"{got} messages came instead of {count}")
        return time.perf_counter() - began

    _ONE = struct.Struct(">IBBH6s c cI c c4s c".replace(" ", ""))

    def _complete(self, first: int, last: int) -> bytes:
        # disposition(role receiver, first, last, settled false, accepted, batchable null)
        if first == last:
            head = b"\x00\x53\x15\xc0\x0e\x06"
            return self._ONE.pack(
                27, 2, 0, 0, head, b"\x41", b"\x70", first, b"\x40", b"\x42", p.ACCEPTED.encode(), b"\x40"
            )
        state = p.Disposition(True, first, last, False, p.ACCEPTED, None)
        return frames.frame(0, state.encode())
