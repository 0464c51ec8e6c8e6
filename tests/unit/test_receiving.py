"""How much a pump asks for, and how it stops."""

from __future__ import annotations

import anyio
import anyio.lowlevel
import pytest

from sbrpc._receiving import Appetite, Stopped, Stopping


def asks(appetite: Appetite, answers: list[tuple[int, float]], room: int = 100) -> list[int]:
    asked = []
    for count, seconds in answers:
        asked.append(appetite.ask(room))
        appetite.got(min(count, asked[-1]), seconds, redelivered=False)
    return asked


def test_backlog_is_taken_in_growing_portions() -> None:
    """Prompt and full answers double what is asked for, up to the limit."""
    assert asks(Appetite(16), [(99, 0.02)] * 6) == [1, 2, 4, 8, 16, 16]


def test_messages_that_come_one_by_one_are_not_waited_for_together() -> None:
    """An answer that came when its message did, and not when it was asked, keeps the next one at one."""
    assert asks(Appetite(16), [(1, 0.002), (1, 0.2), (1, 3.0), (1, 0.2), (1, 0.2)]) == [1, 2, 1, 1, 1]


def test_end_of_the_backlog_goes_back_to_one() -> None:
    """An answer with less than asked for says that there is no more."""
    assert asks(Appetite(16), [(1, 0.01), (2, 0.01), (3, 0.2), (0, 1.0), (1, 0.01)]) == [1, 2, 4, 1, 1]


def test_only_free_places_are_asked_for() -> None:
    """Nothing is received that could not start at once."""
    assert asks(Appetite(16), [(99, 0.01)] * 4, room=3) == [1, 2, 3, 3]


def test_redelivered_message_stays_alone() -> None:
    """Next to a message that may kill the process, nothing else is taken."""
    appetite = Appetite(16)
    for _ in range(3):
        assert appetite.ask(8) == 1
        appetite.got(1, 0.01, redelivered=True)


async def test_stopping_interrupts_what_waits_for_more() -> None:
    """A block that only waits for more ends when stopping begins, and one entered later at once."""
    stopping = Stopping()
    ended = []

    async def wait() -> None:
        with stopping.interrupts():
            await anyio.sleep_forever()
        ended.append(1)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait)
        tasks.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        stopping.set()
        tasks.start_soon(wait)
    assert len(ended) == 3


async def test_pause_ends_early_when_stopping() -> None:
    """Whoever pauses between attempts learns that there will be no other one."""
    stopping = Stopping()
    await stopping.pause(0)
    stopping.set()
    with pytest.raises(Stopped):
        await stopping.pause(3600)
