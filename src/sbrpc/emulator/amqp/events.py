"""What the engine reports: one class per fact, cheap to make because deliveries come by the ten thousand.

This module owns the events. It knows nothing of how they come about.

Events of one `feed` are in the order of the frames. By the time they are read the engine has processed all
of these frames: `link.credit` is the latest, and a link may have been detached by a later event.
"""

from __future__ import annotations

from dataclasses import dataclass

from .endpoint import Peer
from .link import Link
from .performatives import Error, Outcome

__all__ = ["Attached", "Closed", "Credited", "Detached", "Event", "Opened", "Received", "Settled"]


@dataclass(slots=True)
class Opened:
    """The peer has said who it is; sessions and links follow."""

    connection: Peer


@dataclass(slots=True)
class Attached:
    """The peer wants a link: answer with `link.accept()` or `link.refuse()`, now or later."""

    link: Link


@dataclass(slots=True)
class Received:
    """A whole delivery has arrived. Unless it is settled, answer with `link.outcome(delivery_id, …)`."""

    link: Link
    delivery_id: int
    payload: bytes
    message_format: int
    settled: bool


@dataclass(slots=True)
class Credited:
    """The peer says how many deliveries it takes on a link that we send on.

    With `drain`: send what there is, then call `link.drained()`. An `echo` without drain is answered already.
    """

    link: Link
    credit: int
    drain: bool
    echo: bool


@dataclass(slots=True)
class Settled:
    """The peer tells the outcome of deliveries: pairs of delivery id and tag.

    With `settled` the peer has forgotten them, and so has the engine. Without, the peer waits for
    `link.confirm(…)` for each, and for each of `unknown`: ids that are not (or no longer) unsettled. They
    belong to no link; `link` is then any link of that session that sends.
    """

    link: Link
    deliveries: list[tuple[int, bytes]]
    state: Outcome | None
    settled: bool
    unknown: list[int]


@dataclass(slots=True)
class Detached:
    """A link is gone: the peer detached it (answered already), or its session or connection ended."""

    link: Link
    closed: bool
    error: Error | None


@dataclass(slots=True)
class Closed:
    """The connection is over, by the peer or by a violation; no event follows."""

    error: Error | None


Event = Opened | Attached | Received | Credited | Settled | Detached | Closed
