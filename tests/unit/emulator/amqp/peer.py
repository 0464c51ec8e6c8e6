"""The client end of a connection to the engine: the same codec, over a fake wire."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from sbrpc.emulator.amqp.composites import Composite
from sbrpc.emulator.amqp.connection import Attached, Connection, Event, Limits
from sbrpc.emulator.amqp.frames import EMPTY_FRAME, frame, performative_at, read_fields, read_header
from sbrpc.emulator.amqp.link import Link
from sbrpc.emulator.amqp.performatives import (
    Attach,
    Begin,
    Disposition,
    Flow,
    Open,
    Source,
    Target,
    Transfer,
    by_code,
)

AMQP_HEADER = b"AMQP\x00\x01\x00\x00"
SASL_HEADER = b"AMQP\x03\x01\x00\x00"

Wire = Callable[[bytes], Iterable[bytes]]


def whole(data: bytes) -> Iterable[bytes]:
    """A wire that delivers everything at once."""
    return [data]


def byte_by_byte(data: bytes) -> Iterable[bytes]:
    """A wire that delivers single bytes."""
    return (data[index : index + 1] for index in range(len(data)))


def read_frames(data: bytes) -> list[Any]:
    """What the server sent: headers as bytes, "heartbeat", performatives, and (transfer, payload) pairs."""
    seen: list[Any] = []
    position = 0
    while position < len(data):
        if data[position : position + 4] == b"AMQP":
            seen.append(data[position : position + 8])
            position += 8
            continue
        size, offset, _, _ = read_header(data, position)
        body = data[position + 4 * offset : position + size]
        position += size
        if not body:
            seen.append("heartbeat")
            continue
        code, start = performative_at(body)
        kind = by_code(code)
        assert kind is not None
        fields, end = read_fields(body, start)
        # Clients index into the lists: every field is there, trailing nulls included.
        assert len(fields) == len(kind.KINDS), f"{kind.NAME} has {len(fields)} fields"
        performative = kind.of(fields)
        seen.append((performative, body[end:]) if isinstance(performative, Transfer) else performative)
    return seen


class Client:
    """A peer of a `Connection`. Whatever it sends, it returns the events the server sees."""

    def __init__(self, wire: Wire = whole, limits: Limits = Limits()) -> None:  # noqa: B008 - frozen
        self.server = Connection(limits)
        self.wire = wire
        self.next_id = 0

    def feed(self, data: bytes) -> list[Event]:
        """Send raw bytes."""
        return [event for piece in self.wire(data) for event in self.server.feed(piece)]

    def send(self, *performatives: Composite, channel: int = 1, payload: bytes = b"") -> list[Event]:
        """Send performatives, each in a frame of its own; the payload goes with each transfer."""
        return self.feed(
            b"".join(
                frame(
                    channel, performative.encode() + (payload if isinstance(performative, Transfer) else b"")
                )
                for performative in performatives
            )
        )

    def received(self) -> list[Any]:
        """What the server has sent since the last call."""
        return read_frames(self.server.data_to_send())

    def open(self, **fields: Any) -> None:
        """Open the connection without SASL, and begin a session on channel 1."""
        window = fields.pop("incoming_window", 2048)
        self.feed(AMQP_HEADER)
        self.send(Open("client", **{"max_frame_size": 65536, **fields}), channel=0)
        self.begin(1, window)
        self.received()

    def begin(self, channel: int = 1, window: int = 2048) -> None:
        """Begin a session."""
        self.send(Begin(None, 0, window, 2048), channel=channel)

    def attach(self, handle: int, receiver: bool, channel: int = 1, **fields: Any) -> Link:
        """Attach a link that the server has yet to answer."""
        attach = Attach(
            **{
                "name": f"link-{handle}",
                "handle": handle,
                "role": receiver,
                "source": Source("a"),
                "target": Target("b"),
                "initial_delivery_count": None if receiver else 0,
                **fields,
            }
        )
        (event,) = self.send(attach, channel=channel)
        assert isinstance(event, Attached)
        return event.link

    def sender(self, handle: int = 1, **fields: Any) -> Link:
        """A link on which the client sends, accepted."""
        link = self.attach(handle, False, **fields)
        link.accept()
        self.received()
        return link

    def receiver(self, handle: int = 2, credit: int = 10, **fields: Any) -> Link:
        """A link on which the server sends, accepted and with credit."""
        link = self.attach(handle, True, **fields)
        link.accept()
        self.flow(handle, credit)
        self.received()
        return link

    def flow(self, handle: int, credit: int, **fields: Any) -> list[Event]:
        """Give credit on a link."""
        return self.send(
            Flow(
                **{
                    "next_incoming_id": self.server.sessions[0].next_outgoing_id,
                    "incoming_window": 2048,
                    "next_outgoing_id": 0,
                    "outgoing_window": 2048,
                    "handle": handle,
                    "link_credit": credit,
                    **fields,
                }
            )
        )

    def transfer(self, payload: bytes, handle: int = 1, **fields: Any) -> list[Event]:
        """Send a transfer frame; by default a whole delivery with the next id."""
        if "delivery_id" not in fields:
            fields["delivery_id"] = self.next_id
            self.next_id += 1
        fields = {"delivery_tag": b"tag", "message_format": 0, **fields}
        return self.send(Transfer(handle, **fields), payload=payload)

    def settle(self, first: int, last: int | None = None, **fields: Any) -> list[Event]:
        """Tell the outcome of deliveries from the server."""
        return self.send(Disposition(True, first, last, **fields))

    def heartbeat(self) -> list[Event]:
        """Send an empty frame."""
        return self.feed(EMPTY_FRAME)
