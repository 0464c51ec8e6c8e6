"""What an entity looks like from outside at a moment: counts, sizes and times.

Owns values only; the broker fills them in.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Runtime", "SessionInfo"]


@dataclass(frozen=True, slots=True)
class Runtime:
    """Counts of messages, bytes, and times in seconds since 1970."""

    active: int = 0
    """Messages to be had, locked ones among them."""
    dead_letter: int = 0
    scheduled: int = 0
    deferred: int = 0
    transfer: int = 0
    transfer_dead_letter: int = 0
    size: int = 0
    created_at: float = 0.0
    updated_at: float = 0.0
    accessed_at: float = 0.0
    consumers: int = 0
    sessions: int = 0
    subscriptions: int = 0


@dataclass(frozen=True, slots=True)
class SessionInfo:
    """One session."""

    session_id: str
    messages: int
    """In whatever state."""
    locked: bool
    locked_until: float
    state_size: int | None
