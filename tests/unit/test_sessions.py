"""When the session pump looks for sessions, and when it gives one back."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace
from typing import Any, cast

import anyio
import anyio.lowlevel
import pytest

from sbrpc._sessions import Demand, SessionPump, gives_way


@pytest.mark.parametrize(
    ("wanted", "idle", "turn", "expected"),
    [
        (False, 5, 100, False),  # nobody wants its place: keep it, the next message may come soon
        (False, 30, 100, True),  # not for good
        (True, 0.1, 5, False),  # busy, and its turn is not over
        (True, 0.2, 5, True),  # nothing to do: make way
        (True, 0, 30, True),  # busy for long: take turns
    ],
)
def test_session_makes_way_for_others(wanted: bool, idle: float, turn: float, expected: bool) -> None:
    """A session is given back when its place is wanted, and not needlessly."""
    assert gives_way(wanted=wanted, idle=idle, turn=turn) is expected


def test_sessions_that_wait_are_looked_for_by_more_and_more() -> None:
    """While each session is had as soon as it is asked for, the number of those who look doubles."""
    demand, looking = Demand(8), []
    for seconds in (0.5, 0.6, 0.5, 0.7, 0.5):
        demand.took(seconds)
        looking.append(demand.looking)
    assert looking == [2, 4, 8, 8, 8]


def test_sessions_that_come_one_by_one_are_looked_for_by_one() -> None:
    """A session that had to be waited for, or did not come, says that no other one waits."""
    demand = Demand(8)
    demand.took(0.5)
    demand.took(0.5)
    demand.took(7.0)
    assert demand.looking == 1
    demand.took(0.5)
    assert demand.looking == 2
    demand.nothing()
    assert demand.looking == 1


def test_slow_connections_do_not_look_like_waiting() -> None:
    """Where opening a connection takes long, that is the measure of promptness."""
    demand = Demand(8)
    for seconds in (2.0, 2.5, 3.0):
        demand.took(seconds)
    assert demand.looking == 8


class Receiver:
    """A session of the SDK, as far as the pump looks at it, in which so many messages wait each time."""

    def __init__(self, waiting: list[int]) -> None:
        self.session = self
        self.session_id = "7"
        self.locked_until_utc = datetime.now(timezone.utc) + timedelta(hours=1)
        self.waiting = waiting
        self.asked: list[int] = []

    async def receive_messages(self, max_message_count: int, max_wait_time: float) -> list[Any]:
        self.asked.append(max_message_count)
        message = SimpleNamespace(delivery_count=0, enqueued_time_utc=datetime.now(timezone.utc))
        return [message] * min(max_message_count, self.waiting.pop(0))


@pytest.mark.parametrize(
    ("waiting", "asked"),
    [
        ([1, 1, 0, 1], [1, 2, 1, 1]),  # a lone event is not held back until others come
        ([99, 99, 99, 99, 99], [1, 2, 4, 8, 10]),  # a backlog is taken in batches, up to their size
    ],
)
async def test_batches_are_as_large_as_what_waits(waiting: list[int], asked: list[int]) -> None:
    """The SDK holds messages back for 0.2 s until all that were asked for are there; so few are asked for
    while few come."""
    handled: list[int] = []

    async def handle(deliveries: Sequence[object], _: object) -> None:
        handled.append(len(deliveries))
        if not receiver.waiting:
            pump.stop()

    receiver = Receiver(waiting)
    pump = SessionPump(lambda: cast(Any, receiver), handle, what="events", sessions=1, size=10)
    await pump._serve_until_released(cast(Any, receiver), "session 7")
    assert receiver.asked == asked
    assert max(handled) <= 10


async def test_while_nobody_can_be_reached_one_slot_asks_and_says_so_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Thirty-two slots that each try three times a second would make a hundred connections a second."""
    asked: list[str] = []
    gone = SimpleNamespace(close=anyio.lowlevel.checkpoint)

    def connect() -> Any:
        task = anyio.get_current_task().name or ""
        if asked.count(task) == 3:
            pump.stop()
        asked.append(task)
        return gone  # opening it fails, as it has nothing to open

    async def handle(deliveries: Sequence[object], _: object) -> None:
        raise AssertionError("there is nothing to handle")

    pump = SessionPump(connect, handle, what="events", sessions=32)
    with anyio.fail_after(30):
        await pump.run()
    assert len(set(asked)) == 32
    assert len(asked) == 32 + 3
    (said,) = [record for record in caplog.records if "taking a session" in record.message]
    assert said.levelname == "WARNING"
