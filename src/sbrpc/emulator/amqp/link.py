"""One link: its state, its credit, and everything the server does with it.

This module owns the life of a link and the sending of its deliveries. It knows nothing of other links, and
nothing of what an address means.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any

from .channel import Channel
from .endpoint import Violation
from .frames import MASK, transfer_layout
from .performatives import RECEIVER, SENDER, Attach, Detach, Error, Outcome, Rejected, Source, Target

__all__ = ["Link", "LinkState"]


class LinkState(Enum):
    """The life of a link."""

    PENDING = "pending"
    """The peer has attached, we have not answered."""
    ATTACHED = "attached"
    DETACHING = "detaching"
    """We have detached, the peer has not answered: what still comes from it is ignored."""
    DETACHED = "detached"


_NEXT: dict[LinkState, set[LinkState]] = {
    LinkState.PENDING: {LinkState.ATTACHED, LinkState.DETACHING, LinkState.DETACHED},
    LinkState.ATTACHED: {LinkState.DETACHING, LinkState.DETACHED},
    LinkState.DETACHING: {LinkState.DETACHED},
    LinkState.DETACHED: set(),
}


Delivery = tuple[int, bytes, int, bool]
"""A whole delivery: its id, payload, message format, and whether its sender has settled it."""


def _aborted(fields: list[Any]) -> bool:
    return len(fields) > 9 and fields[9] is True


class Link:
    """A link that a peer has attached or wants to attach.

    Methods that send are no-ops once the link is gone: what the peer did while its earlier frames were being
    acted on is in the events that follow.
    """

    def __init__(self, session: Channel, attach: Attach) -> None:
        self.session = session
        self.connection = session.connection
        self.name = attach.name
        self.handle = attach.handle
        """The peer's handle for the link, and ours."""
        self.role_is_sender = attach.role is RECEIVER
        """Whether this side, the server, is the one that sends."""
        self.source = attach.source
        self.target = attach.target if isinstance(attach.target, Target) else None
        self.properties: dict[Any, Any] = attach.properties or {}
        self.snd_settle_mode = 2 if attach.snd_settle_mode is None else attach.snd_settle_mode
        self.rcv_settle_mode = attach.rcv_settle_mode or 0
        self.user: Any = None
        """The gateway's slot."""
        self.credit = 0
        """How many deliveries may still be sent on the link, by whichever side sends."""
        self.delivery_count = 0 if self.role_is_sender else attach.initial_delivery_count or 0
        self.auto_credit = 1000
        """What the engine tops a sending peer's credit up to, at half of it; with 0 only `grant` does."""
        self.max_message_size = self.connection.limits.max_message_size
        self.state = LinkState.PENDING
        self._partial: list[bytes] | None = None
        self._partial_size = 0
        self._received = 0
        self._partial_head: tuple[int, int, bool] = (0, 0, False)
        self._layout: Callable[[int, int, bytes], bytes] | None = None
        self._layout_key: tuple[int, int, bool] = (-1, 0, False)
        self._room = 0

    def __repr__(self) -> str:
        role = "sender" if self.role_is_sender else "receiver"
        return f"<Link {self.name!r} {role} {self.state.value}, credit {self.credit}>"

    @property
    def live(self) -> bool:
        """Whether the peer still counts on the link: it is attached, or waits for our answer."""
        return self.state is LinkState.ATTACHED or self.state is LinkState.PENDING

    def _become(self, state: LinkState) -> None:
        """The one place where a link changes its state."""
        if state not in _NEXT[self.state]:
            raise RuntimeError(f"{self!r} cannot become {state.value}")
        self.state = state
        if state is LinkState.DETACHING or state is LinkState.DETACHED:
            self.session.forget_link(self)
            self._drop_partial()

    # -- attaching and detaching --------------------------------------------------------------------------

    def accept(
        self,
        source: Source | None = None,
        target: Target | None = None,
        properties: dict[Any, Any] | None = None,
        max_message_size: int | None = None,
        initial_credit: int | None = None,
    ) -> None:
        """Answer the peer's attach. What is not given is echoed; a link that receives gets its first credit.

        `max_message_size` (bytes, default the connection's limit) is announced and enforced on links that
        receive. Raises RuntimeError when the link is answered already.
        """
        if self.state is LinkState.DETACHING or self.state is LinkState.DETACHED:
            return
        self._become(LinkState.ATTACHED)
        self.source = source or self.source or Source()
        self.target = target or self.target or Target()
        if max_message_size is not None:
            self.max_message_size = min(
                max_message_size or self.max_message_size, self.connection.limits.max_message_size
            )
        self._send_attach(self.source, self.target, properties)
        if not self.role_is_sender:
            self.grant(self.auto_credit if initial_credit is None else initial_credit)

    def refuse(self, condition: str, description: str = "") -> None:
        """Answer the peer's attach with an attach without terminus and a closing detach with the error."""
        if self.state is LinkState.PENDING:
            self.detach(condition, description)

    def detach(self, condition: str | None = None, description: str = "", closed: bool = True) -> None:
        """Detach the link, with an error if `condition` is given; no Detached event follows.

        What still comes from the peer is ignored until it answers.
        """
        if self.state is LinkState.PENDING:
            self._send_attach(None, None, None)
        if self.live:
            self.session.flush()
            self._become(LinkState.DETACHING)
            error = None if condition is None else Error(condition, description)
            self.connection.write(self.session.number, Detach(self.handle, closed, error))

    def _send_attach(
        self, source: Source | None, target: Target | None, properties: dict[Any, Any] | None
    ) -> None:
        sender = self.role_is_sender
        answer = Attach(
            name=self.name,
            handle=self.handle,
            role=SENDER if sender else RECEIVER,
            snd_settle_mode=self.snd_settle_mode,
            rcv_settle_mode=self.rcv_settle_mode,
            source=source,
            target=target,
            initial_delivery_count=self.delivery_count if sender else None,
            max_message_size=None if sender or source is None else self.max_message_size,
            properties=properties,
        )
        self.connection.write(self.session.number, answer)

    def peer_detached(self, closed: bool) -> bool:
        """The peer has detached: answer unless we detached first. Says whether the link was live."""
        was_live = self.live
        if self.state is LinkState.PENDING:
            self._send_attach(None, None, None)
        if self.live:
            self.session.flush()
            self.connection.write(self.session.number, Detach(self.handle, closed))
        self.vanish()
        return was_live

    def vanish(self) -> bool:
        """The session or the connection is gone. Says whether the link was live."""
        was_live = self.live
        if self.state is not LinkState.DETACHED:
            self._become(LinkState.DETACHED)
        return was_live

    # -- links on which we receive -------------------------------------------------------------------------

    def grant(self, credit: int) -> None:
        """Let the peer send that many deliveries from now on."""
        if self.state is LinkState.ATTACHED and not self.role_is_sender:
            self.credit = credit
            self._send_flow()

    def outcome(self, delivery_id: int, state: Outcome | bytes) -> None:
        """Settle a delivery from the peer. Answers for consecutive ids leave in one frame."""
        if self.state is LinkState.ATTACHED:
            self.session.answer(delivery_id, state if isinstance(state, bytes) else state.encode())

    def receive(self, fields: list[Any], payload: bytes) -> Delivery | None:
        """Take a transfer frame of at least six fields; gives a delivery once it is whole."""
        if self.role_is_sender:
            raise Violation(
                "amqp:not-allowed", f"a transfer came on link {self.name!r}, on which the server sends"
            )
        if self._partial is None:
            delivery_id = fields[1]
            message_format = fields[3] or 0
            if (
                type(delivery_id) is not int
                or type(message_format) is not int
                or type(fields[2]) is not bytes
            ):
                raise Violation(
                    "amqp:invalid-field",
                    "the first transfer of a delivery needs an id, a tag and a message format of their types",
                )
            self.delivery_count = (self.delivery_count + 1) & MASK
            self.credit -= 1
            if self.credit < (self.auto_credit + 1) >> 1 and self.auto_credit:
                self.grant(self.auto_credit)
            settled = fields[4] is True
            if fields[5] is not True and len(payload) <= self.max_message_size and not _aborted(fields):
                return delivery_id, payload, message_format, settled
            self._partial = []
            self._received = 0
            self._partial_head = (delivery_id, message_format, settled)
        return self._continue(fields, payload)

    def _continue(self, fields: list[Any], payload: bytes) -> Delivery | None:
        """A frame of a delivery that takes several, or that is aborted or too large."""
        delivery_id, message_format, settled = self._partial_head
        if fields[1] is not None and fields[1] != delivery_id:
            raise Violation(
                "amqp:not-allowed", f"delivery {fields[1]!r} came before delivery {delivery_id} was complete"
            )
        partial = self._partial
        assert partial is not None
        if _aborted(fields):
            self._drop_partial()
            return None
        settled = settled or fields[4] is True
        self._received += len(payload)
        if self._received > self.max_message_size:
            # The rest is read and forgotten, and the delivery rejected at its end. A detach in the middle
            # would be standard too, but clients take it for a passing fault and send the megabytes again.
            partial.clear()
            self._uncount()
            if fields[5] is not True:
                self._drop_partial()
                if not settled:
                    self.outcome(delivery_id, Rejected(self._too_large()))
            return None
        partial.append(payload)
        self._partial_size += len(payload)
        self.connection.partial_size += len(payload)
        if self.connection.partial_size > self.connection.limits.max_partial_size:
            raise Violation(
                "amqp:resource-limit-exceeded", "too much of incomplete deliveries on one connection"
            )
        if fields[5] is True:
            return None
        whole = b"".join(partial)
        self._drop_partial()
        return delivery_id, whole, message_format, settled

    def _too_large(self) -> Error:
        return Error(
            "amqp:link:message-size-exceeded",
            f"The message has {self._received} bytes, more than the {self.max_message_size} bytes that the "
            "link takes.",
        )

    def _drop_partial(self) -> None:
        self._uncount()
        self._partial = None

    def _uncount(self) -> None:
        self.connection.partial_size -= self._partial_size
        self._partial_size = 0

    # -- links on which we send ------------------------------------------------------------------------------

    def send(self, payload: bytes, *, tag: bytes, settled: bool, message_format: int = 0) -> int:
        """Send one delivery and return its id, by which Settled events name it; -1 if the link is gone.

        It is split into frames as the peer wants, and waits inside the session while the peer's window is
        shut. Credit is the caller's business: it is counted here, not enforced.
        """
        if self.state is not LinkState.ATTACHED:
            return -1
        session = self.session
        delivery_id = session.next_delivery_id
        session.next_delivery_id = (delivery_id + 1) & MASK
        self.delivery_count = (self.delivery_count + 1) & MASK
        if self.credit:
            self.credit -= 1
        if not settled:
            unsettled = session.unsettled
            unsettled[delivery_id] = (self, tag)
            if len(unsettled) > self.connection.limits.max_unsettled:
                del unsettled[next(iter(unsettled))]
        key = (len(tag), message_format, settled)
        layout = self._layout
        if layout is None or key != self._layout_key:
            layout, overhead = transfer_layout(session.number, self.handle, *key, more=False)
            self._layout, self._layout_key = layout, key
            self._room = self.connection.frame_size - overhead
        if len(payload) <= self._room:
            session.transmit(self, layout(len(payload), delivery_id, tag), payload)
        else:
            begin, _ = transfer_layout(session.number, self.handle, *key, more=True)
            last = (len(payload) - 1) // self._room * self._room
            for start in range(0, last, self._room):
                session.transmit(
                    self, begin(self._room, delivery_id, tag), payload[start : start + self._room]
                )
            session.transmit(self, layout(len(payload) - last, delivery_id, tag), payload[last:])
        return delivery_id

    def confirm(self, first: int, last: int, outcome: Outcome | bytes) -> None:
        """Settle deliveries first..last, whose outcome the peer told unsettled."""
        if self.session.mapped:
            self.session.confirm(first, last, outcome if isinstance(outcome, bytes) else outcome.encode())

    def credited(self, delivery_count: int | None, link_credit: int | None) -> None:
        """The peer's flow for a link on which we send."""
        limit = (delivery_count or 0) + (link_credit or 0)
        credit = (limit - self.delivery_count) & MASK
        # More is under way than the peer grants now: in serial arithmetic the limit lies behind us.
        self.credit = credit if credit < 0x80000000 or (link_credit or 0) >= 0x80000000 else 0

    def drained(self) -> None:
        """Tell a peer that asked to drain that there is no more: the rest of its credit is used up."""
        if self.state is LinkState.ATTACHED and self.role_is_sender:
            self.delivery_count = (self.delivery_count + self.credit) & MASK
            self.credit = 0
            self._send_flow(drain=True)

    def echo(self) -> None:
        """Tell the peer how we see the link."""
        if self.state is LinkState.ATTACHED:
            self._send_flow()

    def _send_flow(self, drain: bool = False) -> None:
        self.session.flow((self.handle, self.delivery_count, max(self.credit, 0), 0), drain)
