"""The scenarios in Python, written once for both SDKs: the bench makes the blocking one awaitable."""

from . import browsing, deferring, forwarding, messages, receiving, sending, sessions, settling, times, topics
from .registry import REGISTRY

__all__ = [
    "REGISTRY",
    "browsing",
    "deferring",
    "forwarding",
    "messages",
    "receiving",
    "sending",
    "sessions",
    "settling",
    "times",
    "topics",
]
