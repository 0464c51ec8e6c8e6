"""Replies that are kept for a while, so that a request that comes twice is answered twice and run once.

Service Bus delivers at least once: a server that dies between replying and settling gets the request again.
`sbrpc.sql.ReplyStore` keeps replies in a database; one of your own has the two methods of `ReplyStore` here.
Knows call ids and encoded replies, nothing else.
"""

from __future__ import annotations

from collections import OrderedDict
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
        # Plain tuples of plain values: the garbage collector does not look at those again and again.
        self._replies: OrderedDict[str, tuple[float, str, bytes]] = OrderedDict()
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
        until, status, body = kept
        if self._clock() >= until:
            self._forget(key)
            return None
        return CachedReply(status, body)

    def keep(self, key: str, reply: CachedReply, ttl: float) -> None:
        """What `put` does, without being awaited."""
        if key in self._replies:
            self._forget(key)
        if len(reply.body) > self._most_bytes // 4:
            return
        now = self._clock()
        self._replies[key] = (now + ttl, reply.status, reply.body)
        self._bytes += len(reply.body)
        oldest_until = next(iter(self._replies.values()))[0]
        if len(self._replies) > self._most or self._bytes > self._most_bytes or oldest_until <= now:
            self._make_room(now)

    def _make_room(self, now: float) -> None:
        """Forget the oldest: what is too much, and what need not be kept any more."""
        while self._replies:
            oldest, (until, _, _) = next(iter(self._replies.items()))
            if len(self._replies) <= self._most and self._bytes <= self._most_bytes and until > now:
                break
            self._forget(oldest)

    def _forget(self, key: str) -> None:
        kept = self._replies.pop(key, None)
        if kept is not None:
            self._bytes -= len(kept[2])
