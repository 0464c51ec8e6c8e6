"""Coverage-guided fuzzing of everything behind the emulator's AMQP port, without the port.

    python -m tests.fuzz.gateway CORPUS_DIRECTORY -max_total_time=60

The invariant: no input ends anything but its own connection. Input is fed whole to one connection and
byte by byte to another (which may end differently: what comes on a link that is refused meanwhile is
ignored). No exception may leave the gateway, what is sent must be frames, nothing may be left of a
connection that is gone, and a bystander on a connection of its own must still be able to send a message.
"""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(
    include=["sbrpc.emulator.amqp", "sbrpc.emulator.broker", "sbrpc.emulator.gateway"]
):
    from sbrpc.emulator.access import Access
    from sbrpc.emulator.amqp import performatives as p
    from sbrpc.emulator.amqp import sections
    from sbrpc.emulator.amqp.connection import Connection, Limits
    from sbrpc.emulator.amqp.frames import frame, transfer_layout
    from sbrpc.emulator.amqp.types import Symbol
    from sbrpc.emulator.broker import Broker
    from sbrpc.emulator.gateway import Gateway
    from sbrpc.emulator.nodes import Peer
    from sbrpc.topology import Queue, Subscription, Topic

NOW = 1_700_000_000.0
AMQP, SASL = b"AMQP\x00\x01\x00\x00", b"AMQP\x03\x01\x00\x00"
# Small, so that limits are reached by small inputs.
LIMITS = Limits(max_frame_size=4096, max_message_size=16384, max_partial_size=32768, max_links=16)


def new_gateway() -> Gateway:
    """A namespace with one entity of each kind."""
    broker = Broker()
    entities = [
        Queue("q", dead_lettering_on_message_expiration=True, duplicate_detection_window=60.0),
        Queue("s", requires_session=True),
        Topic("t", subscriptions=(Subscription("sub"),)),
    ]
    broker.create(entities, NOW)
    return Gateway(broker, Access(), new_peer=lambda: Connection(LIMITS))


def sent(peer: Peer) -> bytes:
    """What the engine has for the peer; checked to be protocol headers and whole frames."""
    data = peer.amqp.data_to_send()
    position = 0
    while position < len(data):
        if data[position : position + 4] == b"AMQP":
            position += 8
            continue
        size = int.from_bytes(data[position : position + 4], "big")
        assert 8 <= size <= len(data) - position, "the server sent something that is no frame"
        position += size
    return data


def opening() -> bytes:
    """Headers, open and begin, as a client pipelines them."""
    parts = [
        frame(0, p.Open(container_id="fuzz", max_frame_size=4096, channel_max=9).encode()),
        frame(
            0,
            p.Begin(
                remote_channel=None, next_outgoing_id=0, incoming_window=2048, outgoing_window=2048
            ).encode(),
        ),
    ]
    return AMQP + b"".join(parts)


def attach(name: str, handle: int, role: bool, address: str, session: str | None = None) -> bytes:
    """A link to an address; with a session filter where a session is named."""
    wanted = {Symbol("com.microsoft:session-filter"): session} if session is not None else None
    source = p.Source(address=address if role is p.RECEIVER else "here", filter=wanted)
    target = p.Target(address="here" if role is p.RECEIVER else address)
    first = None if role is p.RECEIVER else 0
    return frame(
        0,
        p.Attach(
            name=name, handle=handle, role=role, source=source, target=target, initial_delivery_count=first
        ).encode(),
    )


def transfer(handle: int, payload: bytes, delivery_id: int = 0) -> bytes:
    """A whole delivery in one frame."""
    layout, _ = transfer_layout(0, handle, 4, 0, False, more=False)
    return layout(len(payload), delivery_id, delivery_id.to_bytes(4, "big")) + payload


def message(body: bytes = b"x", subject: str | None = None) -> bytes:
    """An encoded message."""
    return sections.Properties(message_id="m", subject=subject).encode() + sections.encode_data(body)


def seeds() -> list[bytes]:
    """Conversations that reach into every room, for the fuzzer to begin with."""
    credit = frame(
        0,
        p.Flow(
            next_incoming_id=0,
            incoming_window=2048,
            next_outgoing_id=0,
            outgoing_window=2048,
            handle=1,
            delivery_count=0,
            link_credit=10,
            drain=True,
        ).encode(),
    )
    settle = frame(0, p.Disposition(role=p.RECEIVER, first=0, settled=False, state=p.ACCEPTED).encode())
    send = attach("out", 0, p.SENDER, "q") + transfer(0, message())
    receive = attach("in", 1, p.RECEIVER, "q") + credit + settle
    manage = attach("m", 0, p.SENDER, "q/$management") + attach("r", 1, p.RECEIVER, "q/$management") + credit
    request = (
        sections.Properties(message_id="1", reply_to="q/$management").encode()
        + sections.encode_application_properties({"operation": "com.microsoft:peek-message"})
        + sections.encode_value({"from-sequence-number": 1, "message-count": 5})
    )
    return [
        opening(),
        SASL + opening(),
        opening() + send + receive,
        opening() + attach("in", 1, p.RECEIVER, "s", "A") + credit,
        opening() + attach("out", 0, p.SENDER, "t") + transfer(0, message(subject="s")),
        opening() + manage + transfer(0, request),
        opening() + send + frame(0, p.Detach(handle=0, closed=True).encode()) + frame(0, p.Close().encode()),
        b"GET / HTTP/1.1\r\n\r\n",
    ]


def bystander(gateway: Gateway) -> None:
    """Somebody else's connection, which must not notice anything."""
    peer = gateway.connect()
    gateway.feed(peer, opening() + attach("b", 0, p.SENDER, "t") + transfer(0, message()), NOW)
    assert not peer.amqp.closed, "a bystander's connection was ended"
    assert b"\x00\x53\x24\x45" in sent(peer), "a bystander's message was not accepted"
    gateway.disconnect(peer, NOW)


def check(data: bytes) -> None:
    """One input, whole and byte by byte."""
    for pieces in ([data], [data[index : index + 1] for index in range(len(data))]):
        gateway = new_gateway()
        peer = gateway.connect()
        for piece in pieces:
            gateway.feed(peer, piece, NOW)
            sent(peer)
        gateway.handle_timer(NOW + 61)
        bystander(gateway)
        gateway.disconnect(peer, NOW + 61)
        assert not gateway.peers, "a connection was not forgotten"


def main() -> None:
    """Fuzz until the fuzzer's own limits; the first argument is the corpus directory."""
    corpus = Path(sys.argv[1])
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(seeds()):
        (corpus / f"seed-{number}").write_bytes(seed)
    atheris.Setup(sys.argv, lambda data: check(bytes(data)))
    atheris.Fuzz()


if __name__ == "__main__":
    main()
