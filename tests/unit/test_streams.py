"""Streamed answers: order, flow control, and what happens to a stream that breaks."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sbrpc._streams import Inflow, Outflow
from sbrpc._wire import Address, Reply
from sbrpc.errors import Aborted, DeadlineExceeded, ResourceExhausted

CONTROL = Address("q", "control.1")


def part(sequence: int | None, *, end: bool = False, status: str | None = "OK", body: bytes = b"x") -> Reply:
    return Reply("call", status, body, sequence=sequence, end=end, control=CONTROL)


async def drained(inflow: Inflow) -> list[int | None]:
    """The sequence numbers handed out until the end."""
    found = []
    while (reply := await inflow.next()) is not None:
        found.append(reply.sequence)
    return found


@given(st.permutations(range(8)), st.lists(st.integers(0, 7), max_size=8))
def test_parts_come_out_in_order_once(order: Sequence[int], again: list[int]) -> None:
    """However they arrive and however often, each part is handed out once and in its place."""
    inflow = Inflow(8)
    parts = {n: part(n) for n in range(7)} | {7: part(7, end=True, body=b"")}
    finished = [inflow.push(parts[n]) for n in [*order, *again]]
    assert any(finished)
    assert asyncio.run(drained(inflow)) == list(range(7))


async def test_an_end_may_carry_a_value_or_an_error() -> None:
    """What stands in the last part is handed out like any other, unless it is empty."""
    inflow = Inflow(8)
    inflow.push(part(0))
    assert inflow.push(part(1, end=True))
    assert await drained(inflow) == [0, 1]
    inflow = Inflow(8)
    assert inflow.push(part(0, end=True, status="NOT_FOUND"))
    assert (await inflow.next()) is not None


async def test_a_plain_reply_ends_a_stream() -> None:
    """A server that refuses the call answers it with one reply that has no sequence."""
    inflow = Inflow(8)
    assert inflow.push(part(None, status="INVALID_ARGUMENT"))
    reply = await inflow.next()
    assert reply is not None
    assert reply.status == "INVALID_ARGUMENT"
    assert await inflow.next() is None


async def test_a_notice_only_tells_the_address() -> None:
    """It is no part of the stream."""
    inflow = Inflow(8)
    assert not inflow.push(part(None, status=None))
    assert inflow.control == CONTROL
    inflow.push(part(0))
    inflow.push(part(1, end=True, body=b""))
    assert await drained(inflow) == [0]


async def test_more_is_granted_as_parts_are_taken() -> None:
    """The total grows by what was consumed, in steps of half a window, and not after the end."""
    inflow = Inflow(8)
    grants = []
    for n in range(20):
        inflow.push(part(n))
        await inflow.next()
        grants.append(inflow.grant())
    assert [g for g in grants if g is not None] == [12, 16, 20, 24, 28]
    inflow.push(part(20, end=True, body=b""))
    assert inflow.grant() is None


async def test_a_slow_consumer_grants_nothing() -> None:
    """So that at most a window of parts is kept, however fast the server is."""
    inflow = Inflow(8)
    for n in range(8):
        inflow.push(part(n))
    assert inflow.grant() is None


async def test_a_server_that_ignores_the_window_is_cut_off() -> None:
    """Memory does not grow because a peer misbehaves."""
    inflow = Inflow(8)
    ended = [inflow.push(part(n)) for n in range(12)]
    assert any(ended)
    with pytest.raises(ResourceExhausted, match="more replies than it was granted"):
        await drained(inflow)


async def test_a_second_server_does_not_continue_the_first() -> None:
    """Its parts belong to another run of the handler."""
    inflow = Inflow(8)
    inflow.push(part(0))
    assert inflow.push(Reply("call", "OK", b"x", sequence=0, control=Address("q", "control.2")))
    assert (await inflow.next()) is not None
    with pytest.raises(Aborted, match="replaced in the middle"):
        await inflow.next()


async def test_a_failure_from_outside_ends_a_stream() -> None:
    """What arrived before it is still handed out; what the server said last is not overruled."""
    inflow = Inflow(8)
    inflow.push(part(0))
    inflow.fail(DeadlineExceeded("late"))
    assert (await inflow.next()) is not None
    with pytest.raises(DeadlineExceeded):
        await inflow.next()
    ended = Inflow(8)
    ended.push(part(0, end=True, body=b""))
    ended.fail(DeadlineExceeded("late"))
    assert await ended.next() is None


async def test_outflow_counts_and_blocks() -> None:
    """The server sends what was granted and not one more; credits only raise the total."""
    outflow = Outflow(2)
    assert [outflow.take(), outflow.take()] == [0, 1]
    assert outflow.blocked
    outflow.grant(2)
    outflow.grant(1)
    assert outflow.blocked
    outflow.grant(3)
    assert not outflow.blocked
    outflow.take()
    assert not await outflow.wait(0)


async def test_a_credit_ends_the_wait() -> None:
    """Whoever waits for leave goes on when it comes."""
    outflow = Outflow(1)
    outflow.take()
    waiting = asyncio.ensure_future(outflow.wait(60))
    await asyncio.sleep(0)
    outflow.grant(5)
    assert await waiting


async def test_without_a_window_nothing_blocks() -> None:
    """A caller that is not sbrpc may not know flow control; it gets everything."""
    outflow = Outflow(None)
    for _ in range(1000):
        outflow.take()
    outflow.grant(1)
    assert not outflow.blocked
