"""The outgoing half of a session: windows, delivery ids, unsettled deliveries, gathered dispositions.

This module owns what is sent within a session and when. It knows nothing of what comes in.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from .endpoint import Peer
from .frames import MASK, disposition, flow
from .performatives import End, Error

__all__ = ["Channel"]


class _Run:
    """Dispositions for consecutive ids with the same outcome: one frame."""

    __slots__ = ("first", "last", "state")

    def __init__(self, first: int, last: int, state: bytes) -> None:
        self.first = first
        self.last = last
        self.state = state


class Channel:
    """A session as its links see it. `number` is the channel of both directions."""

    def __init__(self, connection: Peer, number: int) -> None:
        self.connection = connection
        self.number = number
        self.mapped = True
        # What we send: transfers are counted in frames, deliveries in messages.
        self.next_outgoing_id = 0
        self.next_delivery_id = 0
        self.remote_window = 0
        self.queue: deque[tuple[object, bytes, bytes]] = deque()
        """(link, head, payload) of transfer frames that wait for the peer's window."""
        self.unsettled: dict[int, tuple[Any, bytes]] = {}
        """delivery id -> (link, tag), oldest first."""
        # What we receive.
        self.next_incoming_id = 0
        self.incoming_left = connection.limits.incoming_window
        self._answers: _Run | None = None
        self._confirmations: _Run | None = None

    # -- transfers ------------------------------------------------------------------------------------

    def transmit(self, link: object, head: bytes, payload: bytes) -> None:
        """Send a transfer frame, or keep it until the peer's window opens."""
        if self.remote_window > 0 and not self.queue:
            self.remote_window -= 1
            self.next_outgoing_id = (self.next_outgoing_id + 1) & MASK
            self.connection.out += (head, payload)
        else:
            self.queue.append((link, head, payload))

    def opened_window(self, next_incoming_id: int | None, incoming_window: int) -> None:
        """The peer's window, as a flow of it says; frames that waited for it go out."""
        # Without a next-incoming-id the peer has seen nothing of ours yet; our ids begin with 0.
        limit = (next_incoming_id or 0) + incoming_window
        window = (limit - self.next_outgoing_id) & MASK
        # Behind us in serial arithmetic: the peer shrank its window below what is under way.
        self.remote_window = window if window < 0x80000000 or incoming_window >= 0x80000000 else 0
        queue, out = self.queue, self.connection.out
        while queue and self.remote_window > 0:
            _, head, payload = queue.popleft()
            self.remote_window -= 1
            self.next_outgoing_id = (self.next_outgoing_id + 1) & MASK
            out += (head, payload)

    def forget_link(self, link: object) -> None:
        """A link is gone: what it had not sent or settled goes with it."""
        if self.queue:
            self.queue = deque(entry for entry in self.queue if entry[0] is not link)
        gone = [delivery_id for delivery_id, entry in self.unsettled.items() if entry[0] is link]
        for delivery_id in gone:
            del self.unsettled[delivery_id]

    # -- flows ----------------------------------------------------------------------------------------

    def flow(self, link: tuple[int, int, int, int] | None = None, drain: bool = False) -> None:
        """Send the state of the session, and of a link: (handle, delivery count, credit, available)."""
        limits = self.connection.limits
        self.incoming_left = limits.incoming_window
        session = (
            self.next_incoming_id,
            limits.incoming_window,
            self.next_outgoing_id,
            limits.outgoing_window,
        )
        self.connection.out.append(flow(self.number, session, link, drain))

    # -- dispositions -----------------------------------------------------------------------------------

    def answer(self, delivery_id: int, state: bytes) -> None:
        """The outcome of a delivery from the peer. Gathered until bytes are taken."""
        run = self._answers
        if run is not None:
            if (run.last + 1) & MASK == delivery_id and run.state == state:
                run.last = delivery_id
                return
            self.connection.out.append(disposition(self.number, True, run.first, run.last, run.state))
        elif self._confirmations is None:
            self.connection.pending.append(self.flush)
        self._answers = _Run(delivery_id, delivery_id, state)

    def confirm(self, first: int, last: int, state: bytes) -> None:
        """The settlement of deliveries to the peer, which told their outcome unsettled. Gathered likewise."""
        self.unsettled.pop(first, None)
        if last != first:
            for offset in range(1, ((last - first) & MASK) + 1):
                self.unsettled.pop((first + offset) & MASK, None)
        run = self._confirmations
        if run is not None:
            if (run.last + 1) & MASK == first and run.state == state:
                run.last = last
                return
            self.connection.out.append(disposition(self.number, False, run.first, run.last, run.state))
        elif self._answers is None:
            self.connection.pending.append(self.flush)
        self._confirmations = _Run(first, last, state)

    def flush(self) -> None:
        """Put the gathered dispositions where bytes are taken from. Called before anything ends, too."""
        run = self._answers
        if run is not None:
            self._answers = None
            self.connection.out.append(disposition(self.number, True, run.first, run.last, run.state))
        run = self._confirmations
        if run is not None:
            self._confirmations = None
            self.connection.out.append(disposition(self.number, False, run.first, run.last, run.state))

    # -- the end --------------------------------------------------------------------------------------

    def end(self, error: Error | None = None) -> None:
        """Send END; nothing is sent on this session after it."""
        if self.mapped:
            self.flush()
            self.mapped = False
            self.queue.clear()
            self.unsettled.clear()
            self.connection.write(self.number, End(error))
