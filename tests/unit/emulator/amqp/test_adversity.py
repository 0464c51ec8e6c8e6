"""Generated adversity: any frame in any state, any bytes, whole and in pieces."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from sbrpc.emulator.amqp.composites import Composite
from sbrpc.emulator.amqp.connection import (
    Attached,
    Closed,
    Connection,
    Credited,
    Detached,
    Event,
    Limits,
    Opened,
    Received,
    Settled,
)
from sbrpc.emulator.amqp.frames import frame, performative_at, read_fields, read_header
from sbrpc.emulator.amqp.link import Link, LinkState
from sbrpc.emulator.amqp.performatives import (
    ACCEPTED,
    RELEASED,
    Attach,
    Begin,
    Close,
    Coordinator,
    Detach,
    Disposition,
    End,
    Error,
    Flow,
    Modified,
    Open,
    Rejected,
    SaslInit,
    Source,
    Target,
    Transfer,
    by_code,
)

from .peer import AMQP_HEADER, SASL_HEADER

LIMITS = Limits(
    max_frame_size=1024,
    max_message_size=300,
    max_partial_size=500,
    channel_max=3,
    max_sessions=2,
    handle_max=4,
    max_links=4,
    max_unsettled=3,
    incoming_window=4,
)

small = st.integers(0, 4)
ids = st.sampled_from([0, 1, 2, 3, 0xFFFFFFFF, 0x7FFFFFFF])
flags = st.none() | st.booleans()
errors = st.none() | st.just(Error("a:b", "c"))
states = st.none() | st.sampled_from([ACCEPTED, RELEASED, Rejected(Error("a:b")), Modified(True, False)])

performatives = st.one_of(
    st.builds(Open, st.just("c"), max_frame_size=st.sampled_from([None, 512, 4294967295])),
    st.builds(Begin, st.sampled_from([None, None, None, 0]), ids, ids, ids),
    st.builds(
        Attach,
        st.just("name"),
        small,
        st.booleans(),
        source=st.sampled_from([None, Source("s"), Source("s" * 500)]),
        target=st.sampled_from([None, Target("t"), Coordinator()]),
    ),
    st.builds(
        Flow,
        st.none() | ids,
        ids,
        ids,
        ids,
        st.none() | small,
        st.none() | ids,
        st.none() | ids,
        drain=flags,
        echo=flags,
    ),
    st.builds(
        Transfer, small, st.none() | ids, st.none() | st.just(b"t"), settled=flags, more=flags, aborted=flags
    ),
    st.builds(Disposition, st.booleans(), ids, st.none() | ids, flags, states),
    st.builds(Detach, small, flags, errors),
    st.builds(End, errors),
    st.builds(Close, errors),
    st.builds(SaslInit, st.sampled_from(["ANONYMOUS", "OTHER"])),
)


@st.composite
def frames(draw: st.DrawFn) -> bytes:
    """One frame, mostly of the kind that a client sends, with a payload where it may have one."""
    performative: Composite = draw(performatives)
    payload = draw(st.binary(max_size=200)) if isinstance(performative, Transfer) else b""
    kind = int(isinstance(performative, SaslInit))
    return frame(draw(st.integers(0, 2)), performative.encode() + payload, kind)


OPENING = AMQP_HEADER + frame(0, Open("c").encode()) + frame(0, Begin(None, 0, 3, 3).encode())
ATTACHED = OPENING + b"".join(
    frame(0, Attach("n", handle, handle % 2 == 0, source=Source("s"), target=Target("t")).encode())
    for handle in range(3)
)
openings = st.sampled_from([b"", SASL_HEADER, AMQP_HEADER, OPENING, ATTACHED, ATTACHED, ATTACHED])


class Gateway:
    """Answers events in a way drawn beforehand, and checks that they make sense."""

    def __init__(self, choices: list[int]) -> None:
        self.server = Connection(LIMITS)
        self.choices = choices
        self.seen: dict[Any, str] = {}
        self.opened = False
        self.over = False

    def choose(self) -> int:
        self.choices.append(self.choices.pop(0))
        return self.choices[-1]

    def feed(self, data: bytes) -> None:
        for event in self.server.feed(data):
            self.take(event)
            self.answer(event)
        self.check()

    def take(self, event: Event) -> None:
        """Opened is first, Attached the first of a link, Detached its last, Closed the last of all."""
        assert not self.over
        if isinstance(event, Opened):
            assert not self.opened
            self.opened = True
        elif isinstance(event, Closed):
            self.over = True
            assert "live" not in self.seen.values()
        elif isinstance(event, Attached):
            assert self.opened
            assert event.link not in self.seen
            self.seen[event.link] = "live"
        elif isinstance(event, Detached):
            assert self.seen[event.link] == "live"
            self.seen[event.link] = "gone"
        else:
            assert event.link in self.seen

    def answer(self, event: Event) -> None:
        link = getattr(event, "link", None)
        choice = self.choose()
        if isinstance(event, Attached):
            if choice == 0:
                self.drop(event.link)
            elif choice < 5 and event.link.live:
                event.link.accept()
        elif isinstance(event, Received):
            event.link.outcome(event.delivery_id, ACCEPTED if choice else RELEASED)
        elif isinstance(event, Credited):
            while event.link.credit and choice:
                event.link.send(b"x" * choice * 200, tag=b"tag", settled=choice == 1)
                choice -= 1
            if event.drain:
                event.link.drained()
        elif isinstance(event, Settled):
            for delivery_id in [delivery_id for delivery_id, _ in event.deliveries] + event.unknown:
                event.link.confirm(delivery_id, delivery_id, ACCEPTED)
        if choice == 5 and link is not None:
            self.drop(link)

    def drop(self, link: Link) -> None:
        """Refuse or detach a link from our side: unless it is gone already, no Detached follows."""
        if link.live:
            self.seen[link] = "dropped"
        link.refuse("a:b", "c")
        link.detach("a:b", "c")

    def check(self) -> None:
        """What the engine counts is what there is."""
        server = self.server
        links = [link for session in server._sessions.values() for link in session.handles.values()]
        assert server.link_count == len(links) <= LIMITS.max_links
        assert server.partial_size == sum(link._partial_size for link in links) <= LIMITS.max_partial_size
        assert len(server._sessions) <= LIMITS.max_sessions
        assert len(server._buffer) < LIMITS.max_frame_size
        assert server.closed == self.over or server._late
        for session in server._sessions.values():
            assert len(session.unsettled) <= LIMITS.max_unsettled
            assert session.remote_window >= 0
        for link in server.links:
            assert link.state in (LinkState.PENDING, LinkState.ATTACHED)
            assert link.credit >= 0 or not link.role_is_sender


def check_output(data: bytes) -> None:
    """The server's own frames keep to the protocol: nothing on ended channels or detached handles."""
    position, state = 0, "start"
    sessions: dict[int, dict[int, str]] = {}
    while position < len(data):
        assert state != "closed"
        if data[position : position + 4] == b"AMQP":
            position += 8
            continue
        size, _, kind, channel = read_header(data, position)
        body = data[position + 8 : position + size]
        position += size
        if kind == 1 or not body:
            continue
        code, start = performative_at(body)
        composite = by_code(code)
        assert composite is not None
        told: Any = composite.of(read_fields(body, start)[0])
        if composite is Open:
            assert state == "start"
            state = "open"
            continue
        assert state == "open"
        if composite is Close:
            state = "closed"
        elif composite is Begin:
            assert channel not in sessions
            sessions[channel] = {}
        elif composite is End:
            del sessions[channel]
        elif composite is Attach:
            handles = sessions[channel]
            # The client may take back the handle of a link that the server has detached.
            assert handles.get(told.handle) != "attached"
            handles[told.handle] = "attached"
        elif composite is Detach:
            assert sessions[channel].pop(told.handle) == "attached"
        elif composite is Transfer or (composite is Flow and told.handle is not None):
            assert sessions[channel][told.handle] == "attached"
        else:
            assert channel in sessions


choices = st.lists(st.integers(0, 5), min_size=1, max_size=10)


@settings(max_examples=300)
@given(openings, st.lists(frames(), max_size=15), choices)
def test_any_frame_in_any_state_ends_in_a_known_state(
    opening: bytes, pieces: list[bytes], choices: list[int]
) -> None:
    """Events stay in order, counts stay right, and what the server says keeps to the protocol itself."""
    gateway = Gateway(choices)
    output = b""
    for piece in [opening, *pieces]:
        gateway.feed(piece)
        output += gateway.server.data_to_send()
    for event in gateway.server.connection_lost():
        gateway.take(event)
    gateway.check()
    assert gateway.server.closed
    assert gateway.over
    assert gateway.server.links == []
    check_output(output)


@given(openings, st.lists(frames(), max_size=10), choices)
def test_pieces_do_not_matter(opening: bytes, pieces: list[bytes], choices: list[int]) -> None:
    """Frame by frame or byte by byte, the server says the same."""
    data = opening + b"".join(pieces)
    by_bytes, by_frames = Gateway(list(choices)), Gateway(list(choices))
    for index in range(len(data)):
        by_bytes.feed(data[index : index + 1])
    for index in range(len(opening)):
        by_frames.feed(opening[index : index + 1])
    for piece in pieces:
        by_frames.feed(piece)
    assert by_bytes.server.data_to_send() == by_frames.server.data_to_send()


@settings(max_examples=300)
@given(openings, st.binary(max_size=300), choices)
def test_garbage_ends_at_most_its_own_connection(opening: bytes, garbage: bytes, choices: list[int]) -> None:
    """Any bytes behind any beginning are taken without an exception."""
    gateway = Gateway(choices)
    gateway.feed(opening)
    gateway.feed(garbage)
    check_output(gateway.server.data_to_send())


@settings(max_examples=300)
@given(frames(), st.data(), choices)
def test_damaged_frames_end_at_most_their_own_connection(
    piece: bytes, data: st.DataObject, choices: list[int]
) -> None:
    """A frame with a few bytes changed is taken without an exception."""
    damaged = bytearray(piece)
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    gateway = Gateway(choices)
    gateway.feed(ATTACHED)
    gateway.feed(bytes(damaged))
    gateway.feed(piece)
    check_output(gateway.server.data_to_send())
