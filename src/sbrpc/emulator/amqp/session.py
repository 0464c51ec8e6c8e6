"""The incoming half of a session: which frame may come, and to which link it goes.

This module owns the handles of a session and the meaning of flow, transfer and disposition. It knows nothing
of connections beyond what `Peer` says.
"""

from __future__ import annotations

from typing import Any

from .channel import Channel
from .endpoint import Peer, SessionViolation, Violation
from .events import Attached, Credited, Detached, Event, Received, Settled
from .frames import MASK, serial_less
from .link import Link, LinkState
from .performatives import (
    ACCEPTED,
    RECEIVER,
    Attach,
    Begin,
    Coordinator,
    Detach,
    Disposition,
    Error,
    Flow,
    Outcome,
)

__all__ = ["Session"]

# Ids in one disposition that the session does not know and still reports one by one. Nobody settles more
# at once than fit a credit; a range of billions must not become a list of billions.
MAX_UNKNOWN = 5000

_PADDING = (None,) * 11


class Session(Channel):
    """A session that the peer has begun; `number` is its channel."""

    def __init__(self, connection: Peer, number: int, begin: Begin) -> None:
        super().__init__(connection, number)
        self.remote_window = begin.incoming_window
        self.next_incoming_id = begin.next_outgoing_id
        self.handles: dict[int, Link] = {}
        self._past: set[int] = set()
        """Handles whose links both sides have detached: stragglers for them mean nothing."""
        limits = connection.limits
        self.answer_begin = Begin(
            remote_channel=number,
            next_outgoing_id=0,
            incoming_window=limits.incoming_window,
            outgoing_window=limits.outgoing_window,
            handle_max=limits.handle_max,
        )

    @property
    def links(self) -> list[Link]:
        """The links that are attached or wait for an answer."""
        return [link for link in self.handles.values() if link.live]

    def vanish(self, error: Error | None, events: list[Event]) -> None:
        """The session is over: one Detached for each live link."""
        self.mapped = False
        self.connection.link_count -= len(self.handles)
        events += [Detached(link, False, error) for link in self.handles.values() if link.vanish()]
        self.handles.clear()
        self.queue.clear()
        self.unsettled.clear()

    # -- frames ---------------------------------------------------------------------------------------

    def on_transfer(self, fields: list[Any], payload: bytes, events: list[Event]) -> None:
        """A message or a part of one has come."""
        self.next_incoming_id = (self.next_incoming_id + 1) & MASK
        self.incoming_left -= 1
        if self.incoming_left < self.connection.limits.incoming_window >> 1:
            self.flow()
        if len(fields) < 6:
            fields.extend(_PADDING[: 6 - len(fields)])
        handle = fields[0]
        if type(handle) is not int:
            raise Violation("amqp:decode-error", f"{handle!r} is no handle")
        link = self.handles.get(handle)
        if link is None:
            self._straggler(handle)
        elif link.state is not LinkState.DETACHING:
            delivery = link.receive(fields, payload)
            if delivery is not None:
                events.append(Received(link, *delivery))

    def on_disposition(self, fields: list[Any], events: list[Event]) -> None:
        """The peer tells outcomes. Those of its own deliveries mean nothing: we settle them at once."""
        state: Outcome | None
        if len(fields) == 6 and fields[4] is ACCEPTED and fields[0] is True and fields[2] is None:
            first, settled, state = fields[1], fields[3] is True, ACCEPTED
            if type(first) is not int:
                raise Violation("amqp:decode-error", "the first delivery-id of a disposition is no uint")
            last = first
        else:
            told = Disposition.of(fields)
            if told.role is not RECEIVER:
                return
            first, settled = told.first, told.settled is True
            last = first if told.last is None else told.last
            # `received` only tells how much has arrived.
            state = told.state if isinstance(told.state, Outcome) else None
            if state is None and not settled:
                return
        if first == last:
            entry = self.unsettled.pop(first, None) if settled else self.unsettled.get(first)
            if entry is not None:
                link, tag = entry
                events.append(Settled(link, [(first, tag)], state, settled, []))
                return
        self._settle_range(first, last, state, settled, events)

    def _settle_range(self, first: int, last: int, state: Any, settled: bool, events: list[Event]) -> None:
        """Sort the ids of a range by link, and find those nobody knows."""
        if serial_less(last, first):
            raise Violation("amqp:invalid-field", f"a disposition for deliveries {first} to {last}")
        count = ((last - first) & MASK) + 1
        unsettled = self.unsettled
        unknown: list[int] = []
        if count <= MAX_UNKNOWN:
            ids = [(first + offset) & MASK for offset in range(count)]
            known = [delivery_id for delivery_id in ids if delivery_id in unsettled]
            if not settled:
                unknown = [delivery_id for delivery_id in ids if delivery_id not in unsettled]
        else:
            known = [delivery_id for delivery_id in unsettled if (delivery_id - first) & MASK < count]
        by_link: dict[Any, list[tuple[int, bytes]]] = {}
        for delivery_id in known:
            link, tag = unsettled[delivery_id]
            by_link.setdefault(link, []).append((delivery_id, tag))
            if settled:
                del unsettled[delivery_id]
        if unknown and not by_link:
            sender = next((link for link in self.handles.values() if link.role_is_sender and link.live), None)
            if sender is not None:
                by_link[sender] = []
        for link, deliveries in by_link.items():
            events.append(Settled(link, deliveries, state, settled, unknown))
            unknown = []

    def on_flow(self, fields: list[Any], events: list[Event]) -> None:
        """The peer's windows, and with a handle a link's credit."""
        told = Flow.of(fields)
        self.opened_window(told.next_incoming_id, told.incoming_window)
        if told.handle is None:
            if told.echo:
                self.flow()
            return
        link = self.handles.get(told.handle)
        if link is None:
            self._straggler(told.handle)
        elif link.state is LinkState.DETACHING:
            return
        elif link.role_is_sender:
            link.credited(told.delivery_count, told.link_credit)
            drain = told.drain is True
            if told.echo and not drain:
                link.echo()
            events.append(Credited(link, link.credit, drain, told.echo is True))
        elif told.echo:
            # The credit in it means nothing: it is ours to give, and one client announces its own idea of it.
            link.echo()

    def on_attach(self, fields: list[Any], events: list[Event]) -> None:
        """The peer wants a link."""
        attach = Attach.of(fields)
        limits = self.connection.limits
        if attach.handle > limits.handle_max:
            raise Violation(
                "amqp:connection:framing-error",
                f"handle {attach.handle} is above handle-max {limits.handle_max}",
            )
        previous = self.handles.get(attach.handle)
        if previous is not None and previous.live:
            raise SessionViolation(
                "amqp:session:handle-in-use", f"handle {attach.handle} is in use by {previous.name!r}"
            )
        # A link that we have detached may be replaced: some clients take their handle back without answering.
        if previous is None:
            if self.connection.link_count >= limits.max_links:
                raise Violation(
                    "amqp:resource-limit-exceeded", f"a connection may have {limits.max_links} links"
                )
            self.connection.link_count += 1
        link = Link(self, attach)
        self.handles[attach.handle] = link
        if isinstance(attach.target, Coordinator):
            link.refuse("amqp:not-implemented", "transactions are not supported")
        else:
            events.append(Attached(link))

    def on_detach(self, fields: list[Any], events: list[Event]) -> None:
        """The peer detaches a link, or confirms that we did."""
        told = Detach.of(fields)
        link = self.handles.pop(told.handle, None)
        if link is None:
            self._straggler(told.handle)
            return
        self._past.add(told.handle)
        self.connection.link_count -= 1
        if link.peer_detached(told.closed is True):
            events.append(Detached(link, told.closed is True, told.error))

    def _straggler(self, handle: int) -> None:
        if handle not in self._past:
            raise SessionViolation(
                "amqp:session:unattached-handle", f"no link was ever attached to handle {handle}"
            )
