"""Sessions: handles, windows, flows, dispositions, and how they end."""

from __future__ import annotations

import pytest

from sbrpc.emulator.amqp.codec import encode, encode_fields
from sbrpc.emulator.amqp.connection import Attached, Closed, Credited, Detached, Limits, Settled
from sbrpc.emulator.amqp.frames import frame
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
    Outcome,
    Received,
    Rejected,
    Source,
    Target,
    Transfer,
)

from .peer import Client, Wire

# -- life ------------------------------------------------------------------------------------------------


def test_end_of_the_peer_is_answered(client: Client) -> None:
    """END ends the links of its session only, and is answered."""
    link = client.receiver()
    client.begin(2)
    other = client.attach(0, True, channel=2)
    client.received()
    assert client.send(End(Error("a:b", "c"))) == [Detached(link, False, Error("a:b", "c"))]
    assert client.received() == [End()]
    assert client.server.links == [other]


@pytest.mark.parametrize(
    "straggler",
    [
        Detach(4, False),
        End(),
        Flow(0, 1, 0, 1, 4),
        Transfer(1, 0, b""),
        Disposition(True, 0),
        Attach("late", 9, True, source=Source("a"), target=Target("b")),
    ],
)
def test_frames_on_an_ended_channel_mean_nothing(client: Client, straggler: Detach) -> None:
    """Clients end a session and detach its links afterwards; that is no violation."""
    client.sender(4)
    client.send(End())
    client.received()
    assert client.send(straggler) == []
    assert client.received() == []
    assert not client.server.closed


def test_an_ended_channel_can_begin_again(client: Client) -> None:
    """A channel is free after END, and knows nothing of the session before."""
    client.sender(4)
    client.send(End())
    client.received()
    client.begin(1)
    assert [type(answer) for answer in client.received()] == [Begin]
    client.sender(4)
    client.transfer(b"")
    assert not client.server.closed


@pytest.mark.parametrize(
    ("violation", "condition"),
    [
        (Transfer(9, 0, b""), "amqp:session:unattached-handle"),
        (Flow(0, 1, 0, 1, 9), "amqp:session:unattached-handle"),
        (Detach(9), "amqp:session:unattached-handle"),
        (Attach("again", 2, True, source=Source(), target=Target()), "amqp:session:handle-in-use"),
    ],
)
def test_violations_within_a_session_end_the_session(
    client: Client, violation: Detach, condition: str
) -> None:
    """The session ends with the error, the connection lives on; what follows is ignored until END."""
    link = client.receiver(2)
    (event,) = client.send(violation)
    assert isinstance(event, Detached)
    assert event.link is link
    (end,) = client.received()
    assert isinstance(end, End)
    assert end.error is not None
    assert end.error.condition == condition
    assert client.send(Transfer(9, 0, b""), Flow(0, 1, 0, 1, 9), Disposition(True, 0)) == []
    assert client.send(End()) == []
    assert client.received() == []
    client.begin(1)
    client.receiver(2)


def test_handles_above_the_maximum_close_the_connection(wire: Wire) -> None:
    """A handle beyond handle-max is a framing error, as the standard says."""
    client = Client(wire, Limits(handle_max=5))
    client.open()
    client.attach(5, True)
    events = client.send(Attach("l", 6, True))
    assert isinstance(events[-1], Closed)
    assert events[-1].error is not None
    assert events[-1].error.condition == "amqp:connection:framing-error"


def test_handles_are_free_after_both_sides_have_detached(client: Client) -> None:
    """A handle can be used again, and stragglers for a free one mean nothing."""
    client.sender(4)
    client.send(Detach(4, True))
    assert client.received() == [Detach(4, True)]
    assert client.send(Detach(4, True), Flow(0, 1, 0, 1, 4), Transfer(4, 0, b"")) == []
    client.sender(4)
    assert not client.server.closed


def test_a_handle_that_we_detached_can_be_taken_again(client: Client) -> None:
    """Clients take the handle of a refused link back without answering the detach."""
    client.attach(4, False).refuse("amqp:not-found", "no")
    client.received()
    link = client.attach(4, False)
    link.accept()
    assert client.server.links == [link]


def test_transactions_are_refused(client: Client) -> None:
    """A link to a coordinator is refused by the engine itself."""
    assert client.send(Attach("t", 1, False, source=Source(), target=Coordinator())) == []
    attach, detach = client.received()
    assert (attach.source, attach.target) == (None, None)
    assert detach.closed
    assert detach.error.condition == "amqp:not-implemented"


# -- flows and windows -----------------------------------------------------------------------------------


def test_session_flows_are_answered_when_they_ask(client: Client) -> None:
    """A flow without handle is silent, unless it wants an echo."""
    assert client.send(Flow(0, 10, 0, 10)) == []
    assert client.received() == []
    client.send(Flow(0, 10, 0, 10, echo=True))
    (answer,) = client.received()
    assert isinstance(answer, Flow)
    assert answer.handle is None
    assert answer.incoming_window >= 2048


def test_the_session_window_is_kept_open(wire: Wire) -> None:
    """A peer that counts our window down gets it renewed before it is half used."""
    client = Client(wire, Limits(incoming_window=10))
    client.open()
    client.sender(1).auto_credit = 0
    for count in range(6):
        client.transfer(b"")
        answers = client.received()
        if count < 5:
            assert answers == []
    (flow,) = answers
    assert (flow.next_incoming_id, flow.incoming_window, flow.handle) == (6, 10, None)


def test_the_window_of_the_peer_is_honoured(client: Client) -> None:
    """Frames beyond the peer's window wait, in order, until a flow opens it."""
    link = client.receiver(credit=100)
    client.flow(2, 100, incoming_window=2)
    for index in range(4):
        assert link.send(b"%d" % index, tag=b"t", settled=True) == index
    assert [payload for _, payload in client.received()] == [b"0", b"1"]
    client.send(Flow(2, 1, 0, 1))
    assert [payload for _, payload in client.received()] == [b"2"]
    assert link.send(b"4", tag=b"t", settled=True) == 4
    client.send(Flow(3, 10, 0, 1))
    assert [payload for _, payload in client.received()] == [b"3", b"4"]
    assert link.session.next_outgoing_id == 5


def test_the_window_counts_frames_not_deliveries(client: Client) -> None:
    """A delivery of several frames stops in the middle when the window is used up."""
    link = client.receiver()
    client.flow(2, 10, incoming_window=3)
    link.send(b"x" * 65536 * 4, tag=b"t", settled=False)
    assert len(client.received()) == 3
    client.flow(2, 9, delivery_count=1, incoming_window=100)
    assert [transfer.more for transfer, _ in client.received()] == [True, False]


def test_a_peer_that_has_seen_nothing_counts_from_zero(client: Client) -> None:
    """Without next-incoming-id the window is relative to our first id."""
    link = client.receiver(credit=100)
    link.send(b"", tag=b"t", settled=True)
    client.send(Flow(None, 3, 0, 1))
    assert link.session.remote_window == 2


@pytest.mark.parametrize(
    ("next_incoming_id", "window", "expected"),
    [
        (0xFFFFFFFE, 5, 3),
        (0xFFFFFFFD, 1, 0),
        (0xFFFFFFFD, 0xFFFFFFFF, 0xFFFFFFFC),
        (0xFFFFFFFF, 0x7FFFFFFF, 0x7FFFFFFE),
    ],
)
def test_windows_wrap(client: Client, next_incoming_id: int, window: int, expected: int) -> None:
    """The arithmetic of transfer ids is modulo 2^32; a window behind us is shut."""
    session = client.receiver().session
    session.next_outgoing_id = 0
    client.send(Flow(next_incoming_id, window, 0, 1))
    assert session.remote_window == expected


def test_frames_of_a_detached_link_do_not_wait(client: Client) -> None:
    """What a link had not sent is dropped with it, the frames of other links stay."""
    link, other = client.receiver(2), client.receiver(3)
    client.flow(2, 10, incoming_window=0)
    link.send(b"gone", tag=b"t", settled=True)
    other.send(b"stays", tag=b"t", settled=True)
    client.send(Detach(2, True))
    client.received()
    client.send(Flow(0, 10, 0, 1))
    assert [payload for _, payload in client.received()] == [b"stays"]


def test_credit_of_a_sending_peer_means_nothing(client: Client) -> None:
    """A client announces credit on links it sends on itself; that changes nothing, and may be echoed."""
    link = client.sender(1)
    assert client.flow(1, 10000, delivery_count=0) == []
    assert link.credit == 1000
    assert client.received() == []
    client.flow(1, 10000, delivery_count=0, echo=True)
    (answer,) = client.received()
    assert (answer.handle, answer.link_credit, answer.delivery_count) == (1, 1000, 0)


# -- dispositions ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "state", [ACCEPTED, RELEASED, Rejected(Error("a:b", None, {"k": "v"})), Modified(True, False)]
)
def test_outcomes_are_told_by_delivery(client: Client, state: Outcome) -> None:
    """An unsettled outcome names delivery id and tag, and is confirmed with a settled disposition."""
    link = client.receiver()
    link.send(b"", tag=b"tag-0", settled=False)
    link.send(b"", tag=b"tag-1", settled=False)
    client.received()
    assert client.settle(1, settled=False, state=state) == [Settled(link, [(1, b"tag-1")], state, False, [])]
    link.confirm(1, 1, type(state)())
    assert client.received() == [Disposition(False, 1, None, True, type(state)(), False)]


def test_settled_outcomes_need_no_answer(client: Client) -> None:
    """A settled outcome is final: the engine forgets the delivery, a second one is about nothing."""
    link = client.receiver()
    link.send(b"", tag=b"t", settled=False)
    client.received()
    assert client.settle(0, settled=True, state=RELEASED) == [Settled(link, [(0, b"t")], RELEASED, True, [])]
    assert client.settle(0, settled=True, state=RELEASED) == []
    assert client.received() == []


def test_a_delivery_can_be_settled_without_outcome(client: Client) -> None:
    """Settled without a state is told as None."""
    link = client.receiver()
    link.send(b"", tag=b"t", settled=False)
    assert client.settle(0, settled=True) == [Settled(link, [(0, b"t")], None, True, [])]


def test_unknown_deliveries_are_told(client: Client) -> None:
    """An unsettled outcome for a delivery that is gone is told, so that the peer gets an answer."""
    link = client.receiver()
    link.send(b"", tag=b"t", settled=False)
    client.received()
    client.settle(0, settled=False, state=ACCEPTED)
    link.confirm(0, 0, ACCEPTED)
    assert client.settle(0, settled=False, state=ACCEPTED) == [Settled(link, [], ACCEPTED, False, [0])]
    link.confirm(0, 0, Rejected(Error("com.microsoft:message-lock-lost", "gone")))
    assert client.received() == [
        Disposition(False, 0, None, True, ACCEPTED, False),
        Disposition(False, 0, None, True, Rejected(Error("com.microsoft:message-lock-lost", "gone")), False),
    ]


def test_ranges_are_told_by_link(client: Client) -> None:
    """A range over the deliveries of two links is one event for each, the unknown ids with the first."""
    link, other = client.receiver(2), client.receiver(3)
    for target in (link, other, link):
        target.send(b"", tag=target.name.encode(), settled=False)
    other.send(b"", tag=b"", settled=True)
    assert client.settle(0, 4, settled=False, state=ACCEPTED) == [
        Settled(link, [(0, b"link-2"), (2, b"link-2")], ACCEPTED, False, [3, 4]),
        Settled(other, [(1, b"link-3")], ACCEPTED, False, []),
    ]
    client.settle(0, 4, settled=True, state=ACCEPTED)
    assert link.session.unsettled == {}


def test_ranges_wrap(client: Client) -> None:
    """Delivery ids go on with zero, also within a range."""
    link = client.receiver()
    link.session.next_delivery_id = 0xFFFFFFFF
    assert link.send(b"", tag=b"a", settled=False) == 0xFFFFFFFF
    assert link.send(b"", tag=b"b", settled=False) == 0
    (event,) = client.settle(0xFFFFFFFF, 0, settled=False, state=ACCEPTED)
    assert isinstance(event, Settled)
    assert event.deliveries == [(0xFFFFFFFF, b"a"), (0, b"b")]
    client.received()
    link.confirm(0xFFFFFFFF, 0, ACCEPTED)
    assert client.received() == [Disposition(False, 0xFFFFFFFF, 0, True, ACCEPTED, False)]
    assert link.session.unsettled == {}


def test_huge_ranges_cost_nothing(client: Client) -> None:
    """A range of billions settles what there is and lists nothing else."""
    link = client.receiver()
    link.send(b"", tag=b"a", settled=False)
    assert client.settle(0, 0x70000000, settled=False, state=ACCEPTED) == [
        Settled(link, [(0, b"a")], ACCEPTED, False, [])
    ]
    assert client.settle(1, 0x70000000, settled=False, state=ACCEPTED) == []


def test_backward_ranges_close_the_connection(client: Client) -> None:
    """A range that ends before it begins is no range."""
    client.receiver()
    events = client.settle(5, 4, settled=True, state=ACCEPTED)
    assert isinstance(events[-1], Closed)
    assert isinstance(client.received()[-1], Close)


def test_dispositions_of_nothing_close_the_connection(client: Client) -> None:
    """A disposition must say for which delivery it is, in the short form too."""
    fields = [True, None, None, False, ACCEPTED, None]
    parts = [value.encode() if value is ACCEPTED else encode(value) for value in fields]
    (closed,) = client.feed(frame(1, b"\x00\x53\x15" + encode_fields(parts)))
    assert isinstance(closed, Closed)
    assert closed.error is not None
    assert closed.error.condition == "amqp:decode-error"


def test_dispositions_without_news_are_ignored(client: Client) -> None:
    """Nothing is told for the peer's own deliveries, for `received`, or for an open state."""
    client.receiver().send(b"", tag=b"a", settled=False)
    assert client.send(Disposition(False, 0, None, True, ACCEPTED)) == []
    assert client.settle(0, settled=False, state=Received(0, 0)) == []
    assert client.settle(0, settled=False) == []
    assert not client.server.closed


def test_unknown_deliveries_without_a_sending_link_are_ignored(client: Client) -> None:
    """When no link of the session sends there is nobody to answer for."""
    client.sender(1)
    assert client.settle(0, settled=False, state=ACCEPTED) == []


def test_detached_links_take_their_deliveries_along(client: Client) -> None:
    """After a detach its deliveries are unknown; those of other links are not touched."""
    link, other = client.receiver(2), client.receiver(3)
    link.send(b"", tag=b"a", settled=False)
    other.send(b"", tag=b"b", settled=False)
    client.send(Detach(2, True))
    assert client.settle(0, 1, settled=False, state=ACCEPTED) == [
        Settled(other, [(1, b"b")], ACCEPTED, False, [0])
    ]


def test_unsettled_deliveries_are_limited(wire: Wire) -> None:
    """A peer that never settles makes the engine forget the oldest deliveries, not grow."""
    client = Client(wire, Limits(max_unsettled=3))
    client.open()
    link = client.receiver(credit=10)
    for index in range(5):
        link.send(b"", tag=b"%d" % index, settled=False)
    assert list(link.session.unsettled) == [2, 3, 4]


def test_outcomes_leave_together(client: Client) -> None:
    """Consecutive ids with the same outcome are one disposition; anything else begins a new one."""
    link = client.sender(1)
    for delivery_id, state in enumerate([ACCEPTED, ACCEPTED, RELEASED, RELEASED, ACCEPTED]):
        link.outcome(delivery_id, state)
    link.outcome(9, ACCEPTED.encode())
    link.outcome(8, ACCEPTED)
    assert [(d.first, d.last, d.state) for d in client.received()] == [
        (0, 1, ACCEPTED),
        (2, 3, RELEASED),
        (4, None, ACCEPTED),
        (9, None, ACCEPTED),
        (8, None, ACCEPTED),
    ]


def test_outcomes_follow_the_transfers_they_were_given_with(client: Client) -> None:
    """A response leaves before the disposition of its request."""
    sender, receiver = client.sender(1), client.receiver(2)
    sender.outcome(0, ACCEPTED)
    receiver.send(b"response", tag=b"t", settled=True)
    assert [type(answer) for answer in client.received()] == [tuple, Disposition]


def test_confirmations_leave_together(client: Client) -> None:
    """Confirmations of consecutive ids are one frame, apart from the answers to received deliveries."""
    sender, receiver = client.sender(1), client.receiver(2)
    for _ in range(3):
        receiver.send(b"", tag=b"t", settled=False)
    client.received()
    for delivery_id in range(3):
        receiver.confirm(delivery_id, delivery_id, ACCEPTED)
        sender.outcome(delivery_id, ACCEPTED)
    receiver.confirm(3, 5, ACCEPTED)
    receiver.confirm(7, 7, ACCEPTED)
    assert client.received() == [
        Disposition(False, 0, 5, True, ACCEPTED, False),
        Disposition(True, 0, 2, True, ACCEPTED, False),
        Disposition(False, 7, None, True, ACCEPTED, False),
    ]


def test_nothing_gathered_is_lost_at_the_end(client: Client) -> None:
    """Outcomes given before a detach, an end or a close leave before it."""
    for last, channel in ((Detach(1, True), 1), (End(), 1), (Close(), 0)):
        if client.server.sessions:
            client.send(End())
        client.begin(1)
        link = client.sender(1)
        link.outcome(0, ACCEPTED)
        client.send(last, channel=channel)
        assert [type(answer) for answer in client.received()] == [Disposition, type(last)]


def test_a_link_reports_itself(client: Client) -> None:
    """Attached carries the link as the peer wants it; Credited the credit it has now."""
    (event,) = client.send(Attach("l", 0, True, 1, 0, Source("q"), Target("t"), properties={}))
    assert isinstance(event, Attached)
    link = event.link
    assert (link.name, link.role_is_sender, link.snd_settle_mode, link.rcv_settle_mode) == ("l", True, 1, 0)
    assert link.source == Source("q")
    assert client.flow(0, 5) == [Credited(link, 5, False, False)]
