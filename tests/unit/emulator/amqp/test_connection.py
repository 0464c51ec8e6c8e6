"""The connection: handshake, frames, limits, time, and how it ends."""

from __future__ import annotations

from typing import Any

import pytest

from sbrpc.emulator.amqp.codec import encode
from sbrpc.emulator.amqp.connection import Closed, Connection, Detached, Event, Limits, Opened
from sbrpc.emulator.amqp.frames import EMPTY_FRAME, frame
from sbrpc.emulator.amqp.performatives import (
    Attach,
    Begin,
    Close,
    Detach,
    Disposition,
    End,
    Error,
    Flow,
    Open,
    SaslInit,
    SaslMechanisms,
    SaslOutcome,
    Source,
    Target,
    Transfer,
)
from sbrpc.emulator.amqp.types import Int, Symbol

from .peer import AMQP_HEADER, SASL_HEADER, Client, Wire, read_frames

OPEN = frame(0, Open("client").encode())


def condition(events: list[Event]) -> str | None:
    """The error with which the connection ended, which must be the last event."""
    closed = events[-1]
    assert isinstance(closed, Closed)
    return closed.error.condition if closed.error else None


# -- handshake -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mechanism", ["ANONYMOUS", "PLAIN", "EXTERNAL", "MSSBCBS"])
def test_sasl_leads_to_an_open_connection(wire: Wire, mechanism: str) -> None:
    """Each mechanism is accepted, and each step has its answer."""
    client = Client(wire)
    client.feed(SASL_HEADER)
    (header, offer) = client.received()
    assert header == SASL_HEADER
    assert isinstance(offer, SaslMechanisms)
    assert mechanism in offer.mechanisms
    client.feed(frame(0, SaslInit(mechanism, b"", "host").encode(), 1))
    assert client.received() == [SaslOutcome(0)]
    client.feed(AMQP_HEADER)
    assert client.received() == [AMQP_HEADER]
    (event,) = client.feed(OPEN)
    assert isinstance(event, Opened)
    assert event.connection is client.server
    assert [type(answer) for answer in client.received()] == [Open]


def test_unknown_mechanism_is_refused(wire: Wire) -> None:
    """A mechanism that was not offered gets outcome 1, and the connection is over."""
    client = Client(wire)
    events = client.feed(SASL_HEADER + frame(0, SaslInit("GSSAPI").encode(), 1))
    assert condition(events) == "amqp:unauthorized-access"
    assert client.received()[-1] == SaslOutcome(1)
    assert client.server.closed


def test_everything_may_be_pipelined(wire: Wire) -> None:
    """A client that waits for nothing gets all the answers in order."""
    client = Client(wire)
    attach = Attach("l", 2, True, source=Source("$cbs"), target=Target("$cbs"))
    events = client.feed(
        SASL_HEADER
        + frame(0, SaslInit("ANONYMOUS").encode(), 1)
        + AMQP_HEADER
        + OPEN
        + frame(1, Begin(None, 0, 65536, 65536, 4294967295).encode())
        + frame(1, attach.encode())
    )
    assert [type(event).__name__ for event in events] == ["Opened", "Attached"]
    client.server.links[0].accept()
    answers = client.received()
    assert [type(answer) for answer in answers] == [
        bytes,
        SaslMechanisms,
        SaslOutcome,
        bytes,
        Open,
        Begin,
        Attach,
    ]


def test_open_tells_who_is_who(wire: Wire) -> None:
    """The engine's limits go out, the peer's facts come in."""
    client = Client(wire, Limits(max_frame_size=1000, channel_max=10))
    client.feed(AMQP_HEADER)
    told = Open("me", "host", 4096, 100, 60000, properties={Symbol("product"): "p"})
    client.send(told, channel=0)
    assert client.received()[1:] == [Open("sbrpc", max_frame_size=1000, channel_max=10)]
    server = client.server
    assert (server.container_id, server.hostname, server.properties) == ("me", "host", {"product": "p"})
    assert server.frame_size == 1000
    assert "me" in repr(server)


def test_a_session_is_begun_on_the_channel_of_the_peer(wire: Wire) -> None:
    """The answer to BEGIN names the peer's channel and has windows the peer can work with."""
    client = Client(wire)
    client.open()
    client.begin(7)
    (answer,) = client.received()
    assert isinstance(answer, Begin)
    assert answer.remote_channel == 7
    assert answer.incoming_window >= 2048
    assert answer.handle_max is not None
    assert answer.handle_max >= 255
    assert [session.number for session in client.server.sessions] == [1, 7]


@pytest.mark.parametrize(
    ("data", "answer"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", SASL_HEADER),
        (b"\x16\x03\x01\x02\x00\x01", SASL_HEADER),
        (b"AMQP\x00\x00\x09\x01", SASL_HEADER),
        (b"AMQP\x02\x01\x00\x00", SASL_HEADER),
        (SASL_HEADER + frame(0, SaslInit("ANONYMOUS").encode(), 1) + SASL_HEADER, AMQP_HEADER),
        (SASL_HEADER + frame(0, SaslInit("ANONYMOUS").encode(), 1) + OPEN, AMQP_HEADER),
    ],
)
def test_foreign_headers_get_ours(wire: Wire, data: bytes, answer: bytes) -> None:
    """What is no AMQP header is answered with the header we expect, and the connection is over."""
    client = Client(wire)
    events = client.feed(data)
    assert condition(events) == "amqp:connection:framing-error"
    assert client.received()[-1] == answer
    assert client.server.closed


# -- frames ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"\x00\x00\x00\x07\x02\x00\x00\x00", "amqp:connection:framing-error"),
        (b"\x00\x01\x00\x01\x02\x00\x00\x00", "amqp:connection:framing-error"),
        (b"\xff\xff\xff\xff\x02\x00\x00\x00", "amqp:connection:framing-error"),
        (b"\x00\x00\x00\x08\x01\x00\x00\x00", "amqp:connection:framing-error"),
        (b"\x00\x00\x00\x08\x03\x00\x00\x00", "amqp:connection:framing-error"),
        (b"\x00\x00\x00\x08\x02\x02\x00\x00", "amqp:connection:framing-error"),
        (b"\x00\x00\x00\x08\x02\x01\x00\x00", "amqp:connection:framing-error"),
        (frame(1, b"\x00\x53\x14\xff"), "amqp:decode-error"),
        (frame(1, b"garbage!"), "amqp:decode-error"),
        (frame(1, b"\x00\x53\x99\x45"), "amqp:not-allowed"),
        (frame(1, Transfer(1, 0, b"").encode()[:-1]), "amqp:decode-error"),
        (frame(1, Flow(0, 1, 0, 1).encode() + b"x"), "amqp:decode-error"),
        (frame(1, b"\x00\x53\x14" + b"\xc0\x03\x01" + encode(Int(1))), "amqp:decode-error"),
        (frame(1, b"\x00\x53\x14\xc0\x02\x01\x45"), "amqp:decode-error"),
        (frame(0, SaslInit("ANONYMOUS").encode(), 1), "amqp:not-allowed"),
        (frame(0, SaslInit("ANONYMOUS").encode()), "amqp:not-allowed"),
        (OPEN, "amqp:not-allowed"),
        (frame(1, Begin(None, 0, 1, 1).encode()), "amqp:not-allowed"),
        (frame(2, Begin(1, 0, 1, 1).encode()), "amqp:not-allowed"),
        (frame(5000, Begin(None, 0, 1, 1).encode()), "amqp:connection:framing-error"),
        (frame(2, Flow(0, 1, 0, 1).encode()), "amqp:not-allowed"),
        (frame(2, Transfer(0).encode()), "amqp:not-allowed"),
        (frame(2, Disposition(True, 0).encode()), "amqp:not-allowed"),
        (frame(2, End().encode()), "amqp:not-allowed"),
    ],
)
def test_violations_close_the_connection(client: Client, data: bytes, expected: str) -> None:
    """Whatever breaks the protocol is answered with CLOSE and its condition; nothing follows it."""
    client.receiver()
    events = client.feed(data + OPEN)
    assert condition(events) == expected
    assert [type(event) for event in events] == [Detached, Closed]
    (close,) = client.received()
    assert isinstance(close, Close)
    assert close.error is not None
    assert close.error.condition == expected
    assert close.error.description
    assert client.server.closed
    assert client.feed(OPEN) == []
    assert client.received() == []


def test_extended_headers_are_skipped(client: Client) -> None:
    """A frame may begin its data later than the header ends."""
    body = Flow(0, 5, 0, 5, echo=True).encode()
    client.feed((len(body) + 12).to_bytes(4, "big") + b"\x03\x00\x00\x01" + b"ext!" + body)
    assert [type(answer) for answer in client.received()] == [Flow]


def test_a_violation_before_open_is_told_too(wire: Wire) -> None:
    """The error of a connection that was never opened goes out behind OPEN, as the standard wants it."""
    client = Client(wire)
    events = client.feed(AMQP_HEADER + frame(1, Begin(None, 0, 1, 1).encode()))
    assert condition(events) == "amqp:not-allowed"
    assert [type(answer) for answer in client.received()] == [bytes, Open, Close]


def test_descriptions_stay_small(client: Client) -> None:
    """An error that quotes the peer does not outgrow the peer's frames."""
    client.attach(3, False, name="n" * 5000)
    (events, answers) = (client.send(Attach("again", 3, False)), client.received())
    assert isinstance(events[0], Detached)
    assert len(answers[0].error.description) <= 300


def test_frames_too_small_for_an_open_are_refused(wire: Wire) -> None:
    """A max-frame-size below the 512 bytes of the standard ends the connection."""
    client = Client(wire)
    assert (
        condition(client.feed(AMQP_HEADER + frame(0, Open("c", None, 511).encode()))) == "amqp:invalid-field"
    )


def test_an_answer_that_does_not_fit_the_frames_of_the_peer_closes(wire: Wire) -> None:
    """A peer with small frames and large addresses cannot be answered; it is told so."""
    client = Client(wire)
    client.open(max_frame_size=512)
    link = client.attach(1, False, target=Target("t" * 600))
    link.accept()
    assert not link.live
    (close,) = client.received()
    assert close.error.condition == "amqp:frame-size-too-small"
    events = client.server.feed(b"")
    assert [type(event) for event in events] == [Detached, Closed]


# -- limits ----------------------------------------------------------------------------------------------


def test_the_number_of_sessions_is_limited(wire: Wire) -> None:
    """One session more than allowed ends the connection."""
    client = Client(wire, Limits(max_sessions=2))
    client.open()
    client.begin(2)
    events = client.send(Begin(None, 0, 1, 1), channel=3)
    assert condition(events) == "amqp:resource-limit-exceeded"


def test_the_number_of_links_is_limited_over_all_sessions(wire: Wire) -> None:
    """Links count over sessions; those that are gone do not count."""
    client = Client(wire, Limits(max_links=2))
    client.open()
    client.begin(2)
    client.attach(0, False)
    client.attach(0, False, channel=2)
    client.send(Detach(0, True), channel=2)
    client.attach(1, True, channel=2)
    client.send(End(), channel=2)
    client.attach(1, True)
    assert len(client.server.links) == 2
    assert condition(client.send(Attach("l", 2, True))) == "amqp:resource-limit-exceeded"


def test_incomplete_deliveries_are_limited_over_all_links(wire: Wire) -> None:
    """Bytes of deliveries that have only begun count over links; complete and aborted ones do not."""
    client = Client(wire, Limits(max_partial_size=100))
    client.open()
    client.sender(1)
    client.sender(2)
    client.transfer(b"x" * 60, 1, more=True)
    client.transfer(b"x" * 60, 1, delivery_id=None, aborted=True)
    client.transfer(b"x" * 60, 2, more=True)
    assert condition(client.transfer(b"x" * 60, 1, more=True)) == "amqp:resource-limit-exceeded"


# -- time ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("idle", "interval"), [(60000, 30.0), (20000, 10.0), (600000, 30.0), (1, 0.25)])
def test_heartbeats_go_to_peers_that_want_them(idle: int, interval: float) -> None:
    """A peer with an idle time-out gets an empty frame at half of it, and at least every 30 seconds."""
    client = Client()
    assert client.server.next_timer() is None
    client.open(idle_time_out=idle)
    server = client.server
    assert server.next_timer() == 0.0
    server.handle_timer(100.0)
    assert read_frames(server.data_to_send()) == ["heartbeat"]
    assert server.next_timer() == 100.0 + interval
    server.handle_timer(100.0 + interval / 2)
    assert server.data_to_send() == b""
    server.handle_timer(100.0 + interval)
    assert read_frames(server.data_to_send()) == ["heartbeat"]
    server.close()
    assert server.next_timer() is None
    server.handle_timer(1000.0)
    assert EMPTY_FRAME not in server.data_to_send()[-8:]


@pytest.mark.parametrize("idle", [None, 0])
def test_no_heartbeats_go_to_peers_that_want_none(idle: int | None) -> None:
    """Without an idle time-out there is no timer."""
    client = Client()
    client.open(idle_time_out=idle)
    assert client.server.next_timer() is None


def test_heartbeats_of_the_peer_mean_nothing(client: Client) -> None:
    """Empty frames are taken at any time and change nothing."""
    assert client.heartbeat() == []
    assert client.received() == []
    assert not client.server.closed


# -- the end ---------------------------------------------------------------------------------------------


def test_close_of_the_peer_is_answered(client: Client) -> None:
    """CLOSE ends links and connection, with the peer's error in the events."""
    link = client.receiver()
    events = client.send(Close(Error("a:b", "why", None)), channel=0)
    assert events == [Detached(link, False, Error("a:b", "why")), Closed(Error("a:b", "why"))]
    assert client.received() == [Close()]
    assert client.server.closed
    assert client.server.links == []


def test_close_may_come_before_open(wire: Wire) -> None:
    """A peer that changes its mind at once gets OPEN and CLOSE."""
    client = Client(wire)
    assert client.feed(AMQP_HEADER + frame(0, Close().encode())) == [Closed(None)]
    assert [type(answer) for answer in client.received()] == [bytes, Open, Close]


def test_the_server_can_close(client: Client) -> None:
    """A close from our side tells the error, with its three elements; its events come with the next call."""
    link = client.receiver()
    client.server.close("amqp:connection:forced", "restart")
    client.server.close("again")
    assert client.received() == [Close(Error("amqp:connection:forced", "restart", None))]
    assert client.server.closed
    assert not link.live
    error = Error("amqp:connection:forced", "restart")
    assert client.server.connection_lost() == [Detached(link, False, error), Closed(error)]
    assert client.server.connection_lost() == []


@pytest.mark.parametrize("said", [b"", SASL_HEADER])
def test_closing_before_headers_says_nothing(said: bytes) -> None:
    """Without an exchange of AMQP headers there is nobody who would understand CLOSE."""
    client = Client()
    client.feed(said)
    client.received()
    client.server.close("a:b")
    assert client.received() == []
    assert client.server.closed


def test_a_lost_socket_ends_all_links(client: Client) -> None:
    """When the socket is gone, each live link is reported once, and the connection."""
    link, other = client.receiver(2), client.attach(3, True)
    assert client.server.connection_lost() == [
        Detached(link, False, None),
        Detached(other, False, None),
        Closed(None),
    ]
    assert client.server.connection_lost() == []
    assert client.server.feed(OPEN) == []


def test_methods_of_a_dead_connection_do_nothing(client: Client) -> None:
    """What the gateway still says on links of a closed connection goes nowhere."""
    sender, receiver, pending = client.sender(1), client.receiver(2), client.attach(3, True)
    client.send(Close(), channel=0)
    client.received()
    sender.outcome(0, b"\x00\x53\x24\x45")
    sender.grant(5)
    receiver.drained()
    receiver.confirm(0, 0, b"\x00\x53\x24\x45")
    assert receiver.send(b"", tag=b"t", settled=False) == -1
    receiver.detach("a:b")
    pending.accept()
    pending.refuse("a:b")
    assert client.received() == []


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_kind_of_bytes_may_be_fed(kind: Any) -> None:
    """Bytes may come in whatever the transport has them in."""
    server = Connection()
    assert [type(event) for event in server.feed(kind(AMQP_HEADER + OPEN))] == [Opened]
