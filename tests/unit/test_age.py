"""How long a message was with the broker, whatever the clocks say."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from sbrpc._age import BrokerAge

T = datetime(2026, 3, 1, tzinfo=timezone.utc)


class World:
    """A broker and a server whose clocks disagree by a constant nobody knows."""

    def __init__(self, offset: float, lock: float = 60.0) -> None:
        self.offset = offset
        self.lock = lock
        self.ages = BrokerAge()

    def receive(self, *, enqueued: float, locked: float, now: float | None = None) -> float:
        """The estimate, in seconds of the broker's clock; `now` is later than `locked` if it waited here."""
        locked_until = T + timedelta(seconds=locked + self.lock)
        received = (locked if now is None else now) + self.offset
        return self.ages.age(T + timedelta(seconds=enqueued), locked_until, received)


@pytest.mark.parametrize("offset", [0.0, 1e9, -1e9, 3600.0])
def test_clocks_need_not_agree(offset: float) -> None:
    """After one fresh message every age comes out right, however far apart the clocks are."""
    world = World(offset)
    assert world.receive(enqueued=0, locked=0) == pytest.approx(0, abs=1e-3)
    assert world.receive(enqueued=0, locked=7) == pytest.approx(7, abs=1e-3)
    assert world.receive(enqueued=10, locked=10.5) == pytest.approx(0.5, abs=1e-3)


def test_an_age_is_never_overestimated() -> None:
    """A server that starts with a backlog knows less, but takes nothing for older than it is."""
    world = World(offset=-500)
    assert world.receive(enqueued=0, locked=30) == 0
    assert world.receive(enqueued=10, locked=31) == 0
    assert world.receive(enqueued=2, locked=32) == pytest.approx(9, abs=1e-3)
    assert world.receive(enqueued=33, locked=33) == 0
    assert world.receive(enqueued=3, locked=33) == pytest.approx(30, abs=1e-3)


def test_the_brokers_clock_may_jump() -> None:
    """The lock tells the age by the broker's clock alone, so a jump of that clock counts as what it is."""
    world = World(offset=0)
    world.receive(enqueued=0, locked=0)
    jumped = world.ages.age(T + timedelta(seconds=1), T + timedelta(seconds=301 + 60), now=2)
    assert jumped == pytest.approx(300, abs=1e-3)


def test_waiting_here_counts() -> None:
    """Time in the SDK's buffer, after the lock was taken, is part of the age."""
    world = World(offset=100)
    world.receive(enqueued=0, locked=0)
    assert world.receive(enqueued=5, locked=5, now=9) == pytest.approx(4, abs=1e-3)


def test_without_a_lock_the_monotonic_clock_serves() -> None:
    """A receive-and-delete message has no lock."""
    ages = BrokerAge()
    ages.age(T, None, now=1000)
    assert ages.age(T, None, now=1003) == pytest.approx(3)


def test_what_was_learned_is_forgotten_in_time() -> None:
    """Clocks drift; a bound from twenty minutes ago does not count any more."""
    world = World(offset=0)
    world.receive(enqueued=0, locked=0)
    world.offset = 5  # the clocks have drifted apart by five seconds meanwhile
    assert world.receive(enqueued=100, locked=100) == pytest.approx(5, abs=1e-3)
    for second in range(700, 2400, 100):
        world.receive(enqueued=second, locked=second)
    assert world.receive(enqueued=2400, locked=2400) == pytest.approx(0, abs=1e-3)


def test_a_lock_that_ran_out_while_its_message_waited_is_stale() -> None:
    """A message that was received and lay here for as long as its lock lasts is delivered again."""
    ages = BrokerAge()
    locked_until = T + timedelta(seconds=30)
    assert ages.of(T, locked_until, now=1000) == (pytest.approx(0), False)
    assert ages.of(T, locked_until, now=1029) == (pytest.approx(29), False)
    assert ages.of(T, locked_until, now=1030) == (pytest.approx(30), True)
    assert ages.of(T, None, now=1090) == (pytest.approx(90), False)
    assert ages.of(None, None, now=1090) == (0, False)
