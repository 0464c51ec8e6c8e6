"""Links: attach and detach, credit, deliveries in both directions."""

from __future__ import annotations

import pytest

from sbrpc.emulator.amqp.connection import Closed, Credited, Detached, Event, Limits, Received
from sbrpc.emulator.amqp.link import LinkState
from sbrpc.emulator.amqp.performatives import (
    ACCEPTED,
    RECEIVER,
    SENDER,
    Attach,
    Detach,
    Disposition,
    Error,
    Flow,
    Rejected,
    Source,
    Target,
    Transfer,
)
from sbrpc.emulator.amqp.types import Long, Symbol

from .peer import Client, Wire


def received(
    link: object, delivery_id: int, payload: bytes, message_format: int = 0, settled: bool = False
) -> list[Event]:
    return [Received(link, delivery_id, payload, message_format, settled)]  # type: ignore[arg-type]


# -- attach and detach -----------------------------------------------------------------------------------


def test_a_sending_peer_is_answered_with_limits_and_credit(client: Client) -> None:
    """The answer echoes name, modes and terminus, tells the message size, and credit follows."""
    link = client.attach(3, False, name="n", snd_settle_mode=0, rcv_settle_mode=1, source=Source("s"))
    assert (link.role_is_sender, link.live, link.state) == (False, True, LinkState.PENDING)
    link.accept(max_message_size=1048576)
    attach, flow = client.received()
    assert attach == Attach("n", 3, RECEIVER, 0, 1, Source("s"), Target("b"), max_message_size=1048576)
    assert (flow.handle, flow.link_credit, flow.delivery_count, flow.drain) == (3, 1000, 0, False)


def test_a_receiving_peer_is_answered_with_the_first_count(client: Client) -> None:
    """The answer has initial-delivery-count 0, and whatever the gateway has changed."""
    address = "amqps://127.0.0.1:15998/s1"
    link = client.attach(3, True, source=Source(address, filter={Symbol("f"): None}), target=Target("t"))
    assert link.source is not None
    assert link.source.address == address
    properties = {Symbol("com.microsoft:locked-until-utc"): Long(5)}
    link.accept(Source(address, filter={Symbol("f"): "A"}), properties=properties)
    (attach,) = client.received()
    assert attach == Attach(
        "link-3",
        3,
        SENDER,
        2,
        0,
        Source(address, filter={Symbol("f"): "A"}),
        Target("t"),
        initial_delivery_count=0,
        properties=properties,
    )


def test_an_answer_always_has_source_and_target(client: Client) -> None:
    """Even to a peer that gave none: null would mean a refusal."""
    link = client.attach(3, False, source=None, target=None)
    assert (link.source, link.target) == (None, None)
    link.accept()
    assert (client.received()[0].source, link.target) == (Source(), Target())


def test_a_link_is_accepted_once(client: Client) -> None:
    """Accepting twice is the caller's mistake; accepting a link that is gone is not."""
    link = client.sender(1)
    with pytest.raises(RuntimeError, match="cannot become attached"):
        link.accept()
    link.detach()
    client.received()
    link.accept()
    assert client.received() == []


def test_refusing_attaches_nothing_and_detaches(client: Client) -> None:
    """A refusal is an attach without terminus and then a closing detach, with three elements of error."""
    link = client.attach(3, True)
    link.refuse("amqp:not-found", "no such queue")
    link.refuse("again")
    link.accept()
    attach, detach = client.received()
    assert (attach.name, attach.handle, attach.role, attach.source, attach.target) == (
        "link-3",
        3,
        SENDER,
        None,
        None,
    )
    assert detach == Detach(3, True, Error("amqp:not-found", "no such queue", None))
    assert not link.live
    assert client.server.links == []
    assert client.send(Detach(3, True)) == []
    assert client.received() == []


def test_a_link_can_wait_for_its_answer(client: Client) -> None:
    """An attach stays open while credit comes and goes; the answer may come much later."""
    link = client.attach(3, True)
    assert client.flow(3, 1) == [Credited(link, 1, False, False)]
    assert link.send(b"", tag=b"", settled=True) == -1
    link.drained()
    link.grant(5)
    assert client.received() == []
    assert client.server.links == [link]
    link.accept()
    assert [type(answer) for answer in client.received()] == [Attach]
    assert link.credit == 1


def test_a_peer_that_gives_up_waiting_gets_both_answers(client: Client) -> None:
    """A detach before our answer is answered with an empty attach and a detach."""
    link = client.attach(3, True)
    assert client.send(Detach(3, True)) == [Detached(link, True, None)]
    attach, detach = client.received()
    assert (attach.source, detach) == (None, Detach(3, True))
    link.accept()
    assert client.received() == []


@pytest.mark.parametrize("closed", [True, False])
def test_detach_of_the_peer_is_echoed(client: Client, closed: bool) -> None:
    """The echo is closed as the peer's detach is, and the event has the error."""
    link = client.sender(1)
    error = Error("a:b", "c")
    assert client.send(Detach(1, closed, error)) == [Detached(link, closed, error)]
    assert client.received() == [Detach(1, closed)]
    assert link.state is LinkState.DETACHED


def test_the_server_can_detach(client: Client) -> None:
    """Our detach goes out once; what the peer sends before its answer is ignored, the answer is silent."""
    link = client.sender(1)
    link.detach("amqp:link:detach-forced", "idle")
    link.detach()
    assert client.received() == [Detach(1, True, Error("amqp:link:detach-forced", "idle"))]
    assert client.transfer(b"late") == []
    assert client.flow(1, 5) == []
    link.outcome(0, ACCEPTED)
    assert client.send(Detach(1, True)) == []
    assert client.received() == []
    assert "detached" in repr(link)


def test_the_server_can_detach_before_answering(client: Client) -> None:
    """A detach of a link that still waits is a refusal."""
    link = client.attach(1, True)
    link.detach(closed=False)
    attach, detach = client.received()
    assert (attach.source, detach) == (None, Detach(1, False))


# -- deliveries from the peer ----------------------------------------------------------------------------


def test_deliveries_arrive(client: Client) -> None:
    """A transfer of one frame is one event with id, payload, format and settlement."""
    link = client.sender(1)
    assert client.transfer(b"one") == received(link, 0, b"one")
    assert client.transfer(b"two", message_format=0x80013700, settled=True) == received(
        link, 1, b"two", 0x80013700, True
    )
    assert client.transfer(b"", batchable=True) == received(link, 2, b"")
    assert (link.credit, link.delivery_count) == (997, 3)


@pytest.mark.parametrize("repeated", [True, False])
def test_deliveries_of_several_frames_are_joined(client: Client, repeated: bool) -> None:
    """Continuations may repeat id and tag or omit them; deliveries of different links may interleave."""
    link, other = client.sender(1), client.sender(2)
    again = (
        {"delivery_tag": b"tag", "message_format": 0}
        if repeated
        else {"delivery_tag": None, "message_format": None}
    )
    assert client.transfer(b"a", more=True) == []
    assert client.transfer(b"x", 2, more=True) == []
    assert client.transfer(b"b", more=True, delivery_id=0 if repeated else None, **again) == []
    assert client.transfer(b"y", 2, delivery_id=1) == received(other, 1, b"xy")
    assert client.transfer(b"c", delivery_id=0 if repeated else None, settled=True, **again) == received(
        link, 0, b"abc", 0, True
    )
    assert (link.credit, link.delivery_count) == (999, 1)
    assert client.server.partial_size == 0
    assert client.transfer(b"next") == received(link, 2, b"next")


@pytest.mark.parametrize("begun", [True, False])
def test_aborted_deliveries_are_discarded(client: Client, begun: bool) -> None:
    """An aborted delivery never happened, whether in its first frame or later."""
    link = client.sender(1)
    if begun:
        client.transfer(b"a", more=True)
        assert client.transfer(b"b", delivery_id=0, aborted=True) == []
    else:
        assert client.transfer(b"a", aborted=True) == []
    assert client.transfer(b"whole") == received(link, 1, b"whole")
    assert client.server.partial_size == 0


def test_another_delivery_in_the_middle_of_one_is_a_violation(client: Client) -> None:
    """Deliveries of one link do not interleave."""
    client.sender(1)
    client.transfer(b"a", more=True)
    assert isinstance(client.transfer(b"b")[-1], Closed)


@pytest.mark.parametrize(
    "fields",
    [{"delivery_id": None}, {"delivery_tag": None}],
)
def test_a_delivery_needs_id_and_tag(client: Client, fields: dict[str, object]) -> None:
    """The first frame of a delivery must say which it is."""
    client.sender(1)
    (_, closed) = client.transfer(b"", **fields)
    assert isinstance(closed, Closed)
    assert closed.error is not None
    assert closed.error.condition == "amqp:invalid-field"


def test_a_transfer_on_our_link_is_a_violation(client: Client) -> None:
    """Nobody else sends on a link on which the server sends."""
    client.receiver(2)
    events = client.transfer(b"", 2)
    assert isinstance(events[-1], Closed)
    assert events[-1].error is not None
    assert events[-1].error.condition == "amqp:not-allowed"


@pytest.mark.parametrize("frames", [1, 3])
@pytest.mark.parametrize("settled", [False, True])
def test_messages_too_large_are_rejected(client: Client, frames: int, settled: bool) -> None:
    """The delivery is rejected with the sizes once it has ended, nothing of it is kept, the link lives on."""
    link = client.attach(1, False)
    link.accept(max_message_size=100)
    client.received()
    for index in range(frames):
        assert client.received() == []
        more = index + 1 < frames
        assert client.transfer(b"x" * (150 // frames), more=more, delivery_id=0, settled=settled) == []
    if settled:
        assert client.received() == []
    else:
        (answer,) = client.received()
        assert isinstance(answer, Disposition)
        assert (answer.role, answer.first, answer.settled) == (RECEIVER, 0, True)
        assert isinstance(answer.state, Rejected)
        assert answer.state.error is not None
        assert answer.state.error.condition == "amqp:link:message-size-exceeded"
        assert "150 bytes" in str(answer.state.error.description)
    assert client.server.partial_size == 0
    assert client.transfer(b"fine", delivery_id=1) == received(link, 1, b"fine")


def test_messages_as_large_as_allowed_arrive(client: Client) -> None:
    """The limit itself is allowed, in one frame and in several; 0 means the limit of the connection."""
    link = client.attach(1, False)
    link.accept(max_message_size=100)
    assert client.transfer(b"x" * 100) == received(link, 0, b"x" * 100)
    client.transfer(b"x" * 50, more=True)
    assert client.transfer(b"x" * 50, delivery_id=1) == received(link, 1, b"x" * 100)
    other = client.attach(2, False)
    other.accept(max_message_size=0)
    assert other.max_message_size == Limits().max_message_size


def test_credit_is_topped_up_before_it_runs_out(client: Client) -> None:
    """A sending peer gets a flow whenever half of its credit is used."""
    link = client.attach(1, False)
    link.auto_credit = 10
    link.accept()
    client.received()
    flows = []
    for _ in range(12):
        client.transfer(b"")
        flows += client.received()
    assert [(flow.delivery_count, flow.link_credit) for flow in flows] == [(6, 10), (12, 10)]


@pytest.mark.parametrize(("auto", "expected"), [(0, []), (1, [(1, 1), (2, 1)])])
def test_credit_can_be_held_back(client: Client, auto: int, expected: list[tuple[int, int]]) -> None:
    """With auto_credit 0 only the gateway grants; with 1 each delivery is granted for itself."""
    link = client.attach(1, False)
    link.auto_credit = auto
    link.accept(initial_credit=1)
    client.received()
    flows = []
    for _ in range(2):
        client.transfer(b"")
        flows += client.received()
    assert [(flow.delivery_count, flow.link_credit) for flow in flows] == expected
    link.grant(7)
    (flow,) = client.received()
    assert (flow.link_credit, flow.delivery_count) == (7, 2)


def test_more_than_the_credit_is_accepted(client: Client) -> None:
    """A client that believes in more credit than it has is served all the same."""
    link = client.attach(1, False)
    link.auto_credit = 0
    link.accept()
    for index in range(3):
        assert client.transfer(b"") == received(link, index, b"")


def test_counts_wrap(client: Client) -> None:
    """Delivery counts begin where the peer says, and go on with zero."""
    link = client.attach(1, False, initial_delivery_count=0xFFFFFFFF)
    link.accept()
    client.received()
    client.transfer(b"")
    link.grant(5)
    assert client.received()[0].delivery_count == 0


# -- deliveries to the peer ------------------------------------------------------------------------------


def test_deliveries_are_sent(client: Client) -> None:
    """Each delivery is a transfer with the next id; credit and count follow."""
    link = client.receiver(2, credit=2)
    assert link.send(b"one", tag=b"t" * 16, settled=False) == 0
    assert link.send(b"two", tag=b"", settled=True, message_format=7) == 1
    assert client.received() == [
        (Transfer(2, 0, b"t" * 16, 0, False, False), b"one"),
        (Transfer(2, 1, b"", 7, True, False), b"two"),
    ]
    assert (link.credit, link.delivery_count) == (0, 2)


@pytest.mark.parametrize("size", [400, 512, 513, 1000, 5000, 0])
def test_large_deliveries_are_split(wire: Wire, size: int) -> None:
    """No frame is larger than the peer takes, and the parts are the whole; all of them name the delivery."""
    client = Client(wire)
    client.open(max_frame_size=512)
    link = client.receiver(2)
    payload = bytes(index % 251 for index in range(size))
    link.send(payload, tag=b"tag", settled=False)
    data = client.server.data_to_send()
    position, sizes = 0, []
    while position < len(data):
        sizes.append(int.from_bytes(data[position : position + 4], "big"))
        position += sizes[-1]
    assert max(sizes) <= 512
    client.server.out.append(data)
    frames = client.received()
    assert b"".join(part for _, part in frames) == payload
    assert [transfer.more for transfer, _ in frames] == [True] * (len(frames) - 1) + [False]
    assert {(transfer.delivery_id, transfer.delivery_tag) for transfer, _ in frames} == {(0, b"tag")}


@pytest.mark.parametrize(
    ("count", "delivery_count", "credit", "expected"),
    [
        (0, 0, 10, 10),
        (3, 0, 10, 7),
        (3, 3, 10, 10),
        (3, 0, 2, 0),
        (3, None, 5, 2),
        (0, 0xFFFFFFFF, 2, 1),
        (2, 0xFFFFFFFF, 2, 0),
        (0, 0, 0xFFFFFFFF, 0xFFFFFFFF),
    ],
)
def test_credit_is_counted_from_what_the_peer_has_seen(
    client: Client, count: int, delivery_count: int | None, credit: int, expected: int
) -> None:
    """Deliveries under way are taken off, modulo 2^32, and credit is never negative."""
    link = client.receiver(2)
    link.delivery_count = count
    assert client.flow(2, credit, delivery_count=delivery_count) == [Credited(link, expected, False, False)]
    assert link.credit == expected


def test_drain_uses_credit_up(client: Client) -> None:
    """A drained link has no credit, and a count that says so."""
    link = client.receiver(2, credit=5)
    link.send(b"", tag=b"t", settled=True)
    client.received()
    assert client.flow(2, 5, delivery_count=0, drain=True, echo=True) == [Credited(link, 4, True, True)]
    assert client.received() == []
    link.drained()
    (flow,) = client.received()
    assert (flow.handle, flow.delivery_count, flow.link_credit, flow.drain, flow.available) == (
        2,
        5,
        0,
        True,
        0,
    )
    assert link.credit == 0
    assert client.flow(2, 3, delivery_count=5) == [Credited(link, 3, False, False)]


def test_echo_is_answered(client: Client) -> None:
    """A flow that wants an echo gets the state of link and session."""
    link = client.receiver(2, credit=5)
    assert client.flow(2, 7, delivery_count=0, echo=True) == [Credited(link, 7, False, True)]
    (flow,) = client.received()
    assert isinstance(flow, Flow)
    assert (flow.handle, flow.link_credit, flow.drain) == (2, 7, False)


def test_more_than_the_credit_may_be_sent(client: Client) -> None:
    """Credit withdrawn while a delivery was decided on does not stop it, and does not become negative."""
    link = client.receiver(2, credit=0)
    assert link.send(b"", tag=b"t", settled=True) == 0
    assert link.credit == 0
