"""Replies that are kept for redelivered requests."""

from __future__ import annotations

from sbrpc.store import CachedReply, MemoryReplyStore


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


async def test_a_reply_is_kept_for_its_time() -> None:
    """It is there until the time is over, and then gone."""
    clock = Clock()
    store = MemoryReplyStore(clock=clock)
    await store.put("a", CachedReply("OK", b"1"), ttl=10)
    clock.now = 9.9
    assert await store.get("a") == CachedReply("OK", b"1")
    clock.now = 10
    assert await store.get("a") is None
    assert len(store) == 0


async def test_the_number_is_bounded() -> None:
    """The oldest give way."""
    store = MemoryReplyStore(most=3)
    for name in "abcd":
        await store.put(name, CachedReply("OK", b""), ttl=60)
    assert [await store.get(name) is not None for name in "abcd"] == [False, True, True, True]


async def test_the_size_is_bounded() -> None:
    """By all bodies together; one that would push out everything else is not kept at all."""
    store = MemoryReplyStore(most_bytes=100)
    for name in "abcdef":
        await store.put(name, CachedReply("OK", b"x" * 20), ttl=60)
    assert len(store) == 5
    await store.put("huge", CachedReply("OK", b"x" * 26), ttl=60)
    assert await store.get("huge") is None
    assert len(store) == 5


async def test_what_is_over_is_cleared_away() -> None:
    """Nobody has to ask for it: the next reply pushes it out."""
    clock = Clock()
    store = MemoryReplyStore(clock=clock)
    await store.put("a", CachedReply("OK", b"1"), ttl=10)
    clock.now = 20
    await store.put("b", CachedReply("OK", b"2"), ttl=10)
    assert len(store) == 1


async def test_a_second_reply_replaces_the_first() -> None:
    """Its size counts once."""
    store = MemoryReplyStore(most_bytes=100)
    for _ in range(50):
        await store.put("a", CachedReply("OK", b"x" * 20), ttl=60)
    assert len(store) == 1
    await store.put("b", CachedReply("OK", b"x" * 20), ttl=60)
    assert len(store) == 2


async def test_what_is_not_to_be_kept_at_all_is_not() -> None:
    """Nor is it in the way of what comes later."""
    store = MemoryReplyStore(clock=Clock())
    await store.put("a", CachedReply("OK", b"1"), ttl=0)
    assert await store.get("a") is None
    await store.put("b", CachedReply("OK", b"2"), ttl=1)
    assert await store.get("b") == CachedReply("OK", b"2")


async def test_a_reply_that_is_replaced_takes_the_place_of_the_newest() -> None:
    """What was kept before under its key does not push it out when its turn to go has come."""
    store = MemoryReplyStore(most=3)
    for name in "abcab":
        await store.put(name, CachedReply("OK", name.encode()), ttl=60)
    assert [await store.get(name) is not None for name in "abc"] == [True, True, True]
    await store.put("c", CachedReply("OK", b"x" * 5_000_000), ttl=60)
    assert await store.get("c") is None
