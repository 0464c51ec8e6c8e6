"""Attempts on an event: retries, pauses, threads and what handlers see."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import datetime, timezone
from typing import Any

import anyio
import pytest
from azure.servicebus import ServiceBusReceivedMessage
from tenacity import AsyncRetrying, retry_if_not_exception_type, stop_after_attempt, wait_exponential

from sbrpc._handling import Handling, attempt
from sbrpc._receiving import Delivery, Stopped
from sbrpc._subscriptions import Failed, Handled, Handler, Interrupted, Job, Subscribed
from sbrpc.errors import DecodeError
from sbrpc.event import CloudEvent, Event, EventInfo, current_event

from .test_subscriptions import received

NOW = datetime(2026, 3, 1, tzinfo=timezone.utc)
RETRY = AsyncRetrying(
    stop=stop_after_attempt(4), wait=wait_exponential(), retry=retry_if_not_exception_type(DecodeError)
)


class Happened(Event, type="happened"):
    n: int = 1


def job(handler: Handler, n: int = 1) -> Job:
    info = EventInfo(f"e-{n}", "/s", "happened", NOW, None, None, None, None, None, None, 0, 0, n, NOW, n)
    return Job(Happened(n=n), info, handler)


async def run(
    function: Callable[..., Any],
    *,
    batch: int | None = None,
    count: int = 1,
    pause: Callable[[float], Awaitable[None]] | None = None,
) -> tuple[Any, list[float]]:
    pauses: list[float] = []

    async def record(seconds: float) -> None:
        pauses.append(seconds)

    handler = Handler(function, (Happened,), batch=batch, retry=RETRY)
    outcome = await attempt(
        handler, [job(handler, n + 1) for n in range(count)], pause or record, anyio.CapacityLimiter(4)
    )
    return outcome, pauses


class Settled:
    """What became of messages, by their numbers."""

    def __init__(self) -> None:
        self.completed: list[int | None] = []

    async def complete(self, message: ServiceBusReceivedMessage) -> None:
        self.completed.append(message.sequence_number)

    async def abandon(self, message: ServiceBusReceivedMessage) -> None:
        raise AssertionError("nothing is given back here")

    async def dead_letter(self, message: ServiceBusReceivedMessage, reason: str, description: str) -> None:
        raise AssertionError("nothing is dead-lettered here")


async def test_types_that_somebody_makes_up_take_no_memory(caplog: pytest.LogCaptureFixture) -> None:
    """They are counted and told of one by one up to a number of them, and together beyond."""
    counts: Counter[str] = Counter()
    settled = Settled()
    handling = Handling(Subscribed("s", unknown="complete"), counts, in_session=False)

    async def never(seconds: float) -> None:
        raise AssertionError("nothing is tried again here")

    for n in range(1500):
        message = received(CloudEvent(f"e-{n}", "/s", f"made.up.{n}", b"{}", time=NOW))
        await handling([Delivery(message, settled)], never)
    assert counts["unknown"] == len(settled.completed) == 1500
    assert len(counts) == 1000
    assert len(caplog.records) == 999


async def test_success_is_one_attempt() -> None:
    """A handler that returns is called once."""
    seen: list[Any] = []

    async def handle(event: Happened, info: EventInfo) -> None:
        seen.append((event.n, info.id, info.attempt))

    assert await run(handle) == (Handled(), [])
    assert seen == [(1, "e-1", 0)]


async def test_failure_is_retried_after_growing_pauses() -> None:
    """Each attempt knows its number; the pauses are the policy's."""
    seen: list[int] = []

    async def handle(event: Happened, info: EventInfo) -> None:
        seen.append(info.attempt)
        if len(seen) < 3:
            raise ValueError("not yet")

    assert await run(handle) == (Handled(), [1, 2])
    assert seen == [0, 1, 2]


async def test_last_failure_comes_out_with_its_attempts() -> None:
    """After the last attempt the handler's own exception is the outcome."""
    error = ValueError("never")

    async def handle(event: Happened) -> None:
        raise error

    assert await run(handle) == (Failed(error, 4), [1, 2, 4])


async def test_policy_decides_what_is_not_retried() -> None:
    """An exception the policy excludes ends it at once."""
    outcome, pauses = await run(lambda event: (_ for _ in ()).throw(DecodeError("bad")))
    assert isinstance(outcome, Failed)
    assert (outcome.attempts, pauses) == (1, [])


async def test_stopping_interrupts_the_pause() -> None:
    """Where the process stops between attempts, the event is interrupted and not failed."""

    async def handle(event: Happened) -> None:
        raise ValueError

    async def pause(seconds: float) -> None:
        raise Stopped

    assert await run(handle, pause=pause) == (Interrupted(), [])


async def test_cancellation_is_not_retried() -> None:
    """A cancelled handler is not called again, whatever the policy says."""
    calls = 0

    async def handle(event: Happened) -> None:
        nonlocal calls
        calls += 1
        await anyio.sleep_forever()

    with anyio.move_on_after(0.01) as scope:
        await run(handle)
    assert scope.cancelled_caught
    assert calls == 1


async def test_a_handler_that_waits_for_what_was_cancelled_has_failed() -> None:
    """Nobody has cancelled the handler itself; whoever runs it must not end as if somebody had."""

    async def handle(event: Happened) -> None:
        task = asyncio.ensure_future(anyio.sleep_forever())
        task.cancel()
        await task

    outcome, _ = await run(handle)
    assert isinstance(outcome, Failed)
    assert str(outcome.error) == "the handler waited for something that was cancelled"


async def test_sync_handler_runs_in_a_thread() -> None:
    """A plain function does not block the event loop, and still knows the event it works on."""
    seen: list[Any] = []

    def handle(event: Happened, info: EventInfo) -> None:
        seen.append((threading.current_thread() is threading.main_thread(), current_event.get() is info))

    assert await run(handle) == (Handled(), [])
    assert seen == [(False, True)]


async def test_function_that_returns_an_awaitable_is_awaited() -> None:
    """A lambda around a coroutine function works like the coroutine function."""
    seen: list[int] = []

    async def handle(event: Happened) -> None:
        seen.append(event.n)

    assert await run(lambda event: handle(event)) == (Handled(), [])
    assert seen == [1]


async def test_batch_handler_gets_lists() -> None:
    """A batch handler gets events and infos side by side, and no single cause is set."""
    seen: list[Any] = []

    async def handle(events: list[Happened], infos: list[EventInfo]) -> None:
        seen.append(([event.n for event in events], [info.id for info in infos], current_event.get()))

    assert await run(handle, batch=10, count=3) == (Handled(), [])
    assert seen == [([1, 2, 3], ["e-1", "e-2", "e-3"], None)]


async def test_cause_is_set_while_the_handler_runs() -> None:
    """What a handler publishes finds its cause; afterwards there is none."""
    seen: list[str] = []

    async def handle(event: Happened) -> None:
        info = current_event.get()
        assert info is not None
        seen.append(info.id)

    await run(handle)
    assert seen == ["e-1"]
    assert current_event.get() is None


@pytest.mark.parametrize("batch", [None, 1])
async def test_batch_of_one_is_still_a_list(batch: int | None) -> None:
    """Whether lists are given is declared, not a matter of how many came."""
    seen: list[bool] = []

    async def handle(event: object) -> None:
        seen.append(isinstance(event, list))

    await run(handle, batch=batch)
    assert seen == [batch is not None]
