"""Replies that are kept for a while, so that a request that comes twice is answered twice and run once.

Service Bus delivers at least once: a server that dies between replying and settling gets the request again.
`sbrpc.sql.ReplyStore` keeps replies in a database; one of your own has the two methods of `ReplyStore` here.
Knows call ids and encoded replies, nothing else.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import NamedTuple, Protocol

__all__ = ["CachedReply", "MemoryReplyStore", "ReplyStore"]


class CachedReply(NamedTuple):
    """A reply as it was sent: status and body."""

    status: str
    body: bytes


class ReplyStore(Protocol):
    """Where replies are kept. One that all instances of a service share survives the death of any of them.

    Both methods are called for many calls at a time. While one raises, or takes more than 5 seconds, after
    which it is cancelled, calls are served as if there were no store, and the log says so.
    """

    async def get(self, key: str) -> CachedReply | None:
        """The reply to a call, if it was answered. `key` has at most 518 characters."""
        ...

    async def put(self, key: str, reply: CachedReply, ttl: float) -> None:
        """Keep a reply for at least `ttl` seconds."""
        ...


# Until when, status, body and key. A plain tuple of plain values: the garbage collector does not look at
# those again and again.
_Kept = tuple[float, str, bytes, str]


class MemoryReplyStore:
    """Keeps replies in this process, the newest ones up to a number and a size in bytes."""

    def __init__(
        self,
        *,
        most: int = 10_000,
        most_bytes: int = 16 * 1024 * 1024,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._clock = clock
        self._replies: dict[str, _Kept] = {}
        # In the order of their coming; what was replaced since stays in line until it is its turn.
        self._line: deque[_Kept] = deque()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._replies)

    async def get(self, key: str) -> CachedReply | None:
        """The reply to a call, if it was answered and is still kept."""
        return self.kept(key)

    async def put(self, key: str, reply: CachedReply, ttl: float) -> None:
        """Keep a reply for up to `ttl` seconds, less if newer ones need the room."""
        self.keep(key, reply, ttl)

    def kept(self, key: str) -> CachedReply | None:
        """What `get` says, without being awaited."""
        kept = self._replies.get(key)
        if kept is None:
            return None
        until, status, body, _ = kept
        if self._clock() >= until:
            del self._replies[key]
            return None
        return CachedReply(status, body)

    def keep(self, key: str, reply: CachedReply, ttl: float) -> None:
        """What `put` does, without being awaited."""
        status, body = reply
        if len(body) > self._most_bytes // 4:
            self._replies.pop(key, None)
            return
        now = self._clock()
        kept = (now + ttl, status, body, key)
        line = self._line
        self._replies[key] = kept
        line.append(kept)
        self._bytes += len(body)
        # The oldest go: what is too much, and what need not be kept any more.
        while line and (len(line) > self._most or self._bytes > self._most_bytes or line[0][0] <= now):
            oldest = line.popleft()
            self._bytes -= len(oldest[2])
            if self._replies.get(oldest[3]) is oldest:
                del self._replies[oldest[3]]
