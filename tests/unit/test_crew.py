"""Messages side by side: how many at a time, whose turn it is, and what one leaves behind for the next."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from contextvars import ContextVar
from datetime import datetime, timedelta, timezone
from typing import Any, cast

import anyio
import anyio.lowlevel
import pytest
from azure.servicebus import ServiceBusReceivedMessage

from sbrpc._competing import portions
from sbrpc._crew import Crew
from sbrpc._receiver import Receiver
from sbrpc._receiving import Delivery, Handle, Pause, Stopping
from sbrpc.event import CloudEvent

from .test_subscriptions import received

NOW = datetime(2026, 3, 1, tzinfo=timezone.utc)


def message(number: int, *, age: float = 0.0, lock: float = 60.0) -> ServiceBusReceivedMessage:
    """One that was enqueued so long ago, and locked at once."""
    enqueued_at = datetime.now(timezone.utc) - timedelta(seconds=age)
    return received(
        CloudEvent(f"e-{number}", "/s", "happened", b"{}", time=NOW),
        **{
            "x-opt-sequence-number": number,
            "x-opt-enqueued-time": enqueued_at,
            "x-opt-locked-until": enqueued_at + timedelta(seconds=lock),
        },
    )


@asynccontextmanager
async def crew(handle: Handle, concurrency: int) -> AsyncIterator[tuple[Crew, Callable[..., None]]]:
    """A crew that works, and what gives it a message that nobody settles."""
    # Nothing is settled or renewed, so there is nothing for the SDK to do.
    receiver = Receiver(cast(Any, None), "a queue", on_message=lambda message: None)
    made = Crew(handle, what="a queue", concurrency=concurrency, stopping=Stopping(), on_change=lambda: None)

    def take(number: int, **options: float) -> None:
        made.take(receiver, message(number, **options))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(made.run)
        await anyio.wait_all_tasks_blocked()
        yield made, take
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("concurrency", "asked"),
    [(1, [1]), (7, [1]), (8, [1, 4]), (16, [1, 8]), (31, [1, 8]), (64, [1, 8, 8, 8, 8])],
)
def test_links_for_handlers(concurrency: int, asked: list[int]) -> None:
    """All links together ask for no more than what may be handled, and few handlers for one at a time."""
    assert portions(concurrency) == asked
    assert sum(asked) <= concurrency


async def test_so_many_are_handled_at_a_time() -> None:
    """What finds no place waits for one, and begins in its turn."""
    begun: list[int | None] = []
    gates = [anyio.Event() for _ in range(4)]

    async def handle(deliveries: Sequence[Delivery], pause: Pause) -> None:
        number = deliveries[0].message.sequence_number
        begun.append(number)
        await gates[number or 0].wait()

    async with crew(handle, 2) as (made, take):
        assert made.places == 2
        for number in range(4):
            take(number)
        await anyio.wait_all_tasks_blocked()
        assert begun == [0, 1]
        assert (made.places, made.held) == (-2, 4)
        gates[1].set()
        await anyio.wait_all_tasks_blocked()
        assert begun == [0, 1, 2]
        for gate in gates:
            gate.set()
        await anyio.wait_all_tasks_blocked()
        assert begun == [0, 1, 2, 3]
        assert (made.places, made.held) == (2, 0)


async def test_pause_between_attempts_makes_room() -> None:
    """While one waits for its next attempt, another one is handled."""
    begun: list[int | None] = []

    async def handle(deliveries: Sequence[Delivery], pause: Pause) -> None:
        begun.append(deliveries[0].message.sequence_number)
        await pause(3600)

    async with crew(handle, 1) as (_, take):
        take(1)
        take(2)
        await anyio.wait_all_tasks_blocked()
        assert begun == [1, 2]


async def test_handlers_see_nothing_of_each_others_context() -> None:
    """What one sets of context variables is gone for the next, whichever task handles it."""
    variable = ContextVar("variable", default=0)
    seen: list[int] = []

    async def handle(deliveries: Sequence[Delivery], pause: Pause) -> None:
        seen.append(variable.get())
        variable.set(1)
        await anyio.lowlevel.checkpoint()
        seen.append(variable.get())

    async with crew(handle, 1) as (_, take):
        for number in range(3):
            take(number)
        await anyio.wait_all_tasks_blocked()
    assert seen == [0, 1, 0, 1, 0, 1]


async def test_failure_of_one_leaves_the_next_alone() -> None:
    """A handler that fails unexpectedly, or cancels itself, ends itself and nothing else."""
    handled: list[int | None] = []

    async def handle(deliveries: Sequence[Delivery], pause: Pause) -> None:
        number = deliveries[0].message.sequence_number
        if number == 1:
            raise RuntimeError
        if number == 2:
            with anyio.CancelScope() as scope:
                scope.cancel()
                await anyio.sleep_forever()
        handled.append(number)

    async with crew(handle, 1) as (made, take):
        for number in (1, 2, 3):
            take(number)
        await anyio.wait_all_tasks_blocked()
        assert handled == [2, 3]
        assert made.held == 0


async def test_message_whose_lock_ran_out_is_left() -> None:
    """One that lay somewhere for longer than its lock lasts is with somebody else, and not handled here."""
    handled: list[int | None] = []

    async def handle(deliveries: Sequence[Delivery], pause: Pause) -> None:
        handled.append(deliveries[0].message.sequence_number)

    async with crew(handle, 2) as (made, take):
        take(1, lock=5)
        take(2, lock=5, age=4)
        take(3, lock=5, age=6)
        await anyio.wait_all_tasks_blocked()
        assert handled == [1, 2]
        assert made.held == 0
