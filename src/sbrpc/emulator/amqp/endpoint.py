"""What sessions and links know of the connection they belong to, and what they may throw at it.

This module owns the limits of a connection, the peer's facts, the bytes waiting to be sent and the two kinds
of violation. It knows no performative's meaning.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .composites import Composite
from .frames import frame

__all__ = ["MAX_DESCRIPTION", "Limits", "Peer", "SessionViolation", "Violation"]


@dataclass(frozen=True, slots=True)
class Limits:
    """What one peer may ask of us. Sizes in bytes."""

    max_frame_size: int = 65536
    max_message_size: int = 100 * 1024 * 1024
    """Of one delivery; a link may have a lower limit."""
    max_partial_size: int = 256 * 1024 * 1024
    """Of all deliveries that have begun to arrive and are not complete."""
    channel_max: int = 4999
    max_sessions: int = 1000
    handle_max: int = 4999
    max_links: int = 5000
    """In all sessions of the connection together."""
    max_unsettled: int = 100_000
    """Deliveries per session that the peer may leave unsettled; beyond it the oldest are forgotten."""
    incoming_window: int = 65536
    outgoing_window: int = 65536


MAX_DESCRIPTION = 300


class Violation(Exception):
    """The peer broke the protocol: its connection is closed with this error."""

    def __init__(self, condition: str, description: str) -> None:
        super().__init__(condition, description)
        self.condition = condition
        # It may quote the peer; the frame that tells it must stay small.
        self.description = description[:MAX_DESCRIPTION]


class SessionViolation(Violation):
    """The peer broke the protocol within a session: that session is ended with this error."""


class Peer(ABC):
    """The connection as its sessions and links see it."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        # After Opened: what the peer says about itself.
        self.container_id = ""
        self.hostname = ""
        self.properties: dict[Any, Any] = {}
        self.frame_size = 512
        """The largest frame we send: the smaller of what the peer takes and of our own limit."""
        self.partial_size = 0
        self.link_count = 0
        self.out: list[bytes] = []
        self.pending: list[Callable[[], None]] = []
        """Called when bytes are taken: sessions put their gathered dispositions into `out` then."""

    @property
    @abstractmethod
    def closed(self) -> bool:
        """Whether nothing more is said on the connection."""

    @abstractmethod
    def close(self, condition: str | None = None, description: str = "") -> None:
        """Close the connection, with an error if `condition` is given."""

    def write(self, channel: int, performative: Composite) -> None:
        """Send a performative; one that the peer's frame size cannot hold closes the connection."""
        if self.closed:
            return
        body = performative.encode()
        if len(body) + 8 > self.frame_size:
            self.close(
                "amqp:frame-size-too-small", f"a frame of {self.frame_size} bytes cannot hold the answer"
            )
            return
        self.out.append(frame(channel, body))
