"""Timers: order of time, one live entry per item, and a heap that does not fill with stale ones."""

from __future__ import annotations

from sbrpc.emulator.broker.messages import NEVER
from sbrpc.emulator.broker.timers import Timers


class Item:
    """Something to be woken."""

    def __init__(self) -> None:
        self.timer = NEVER


def handler(item: object, now: float) -> None:
    return


def test_entries_come_out_in_the_order_of_their_times() -> None:
    """Whatever the order of arming, the earliest is due first."""
    timers, items = Timers(), [Item() for _ in range(3)]
    for item, when in zip(items, (3.0, 1.0, 2.0), strict=True):
        timers.arm(item, when, handler)
    found = []
    while (due := timers.pop_due(10.0)) is not None:
        found.append(due.item)
    assert found == [items[1], items[2], items[0]]


def test_entries_of_one_instant_come_out_as_they_were_armed() -> None:
    """Equal times keep the order of arming, and items are never compared."""
    timers, items = Timers(), [Item() for _ in range(5)]
    for item in items:
        timers.arm(item, 1.0, handler)
    assert [timers.pop_due(1.0).item for _ in items] == items  # type: ignore[union-attr]


def test_nothing_is_due_before_its_time() -> None:
    """An entry is handed out at its time and not a moment earlier."""
    timers, item = Timers(), Item()
    timers.arm(item, 5.0, handler)
    assert timers.pop_due(4.999) is None
    assert timers.pop_due(5.0) is not None
    assert timers.pop_due(5.0) is None


def test_an_earlier_time_replaces_a_later_one() -> None:
    """Armed twice, an item is woken once, at the earlier time."""
    timers, item = Timers(), Item()
    timers.arm(item, 5.0, handler)
    timers.arm(item, 2.0, handler)
    assert timers.next() == 2.0
    assert timers.pop_due(9.0) is not None
    assert timers.pop_due(9.0) is None


def test_a_later_time_leaves_an_earlier_one_in_place() -> None:
    """The promise is to wake at the latest by the time given."""
    timers, item = Timers(), Item()
    timers.arm(item, 2.0, handler)
    timers.arm(item, 5.0, handler)
    assert timers.next() == 2.0


def test_a_disarmed_item_is_not_woken() -> None:
    """After `disarm` nothing comes for the item, and `next` does not mention it."""
    timers, item, other = Timers(), Item(), Item()
    timers.arm(item, 1.0, handler)
    timers.arm(other, 2.0, handler)
    timers.disarm(item)
    assert timers.next() == 2.0
    assert timers.pop_due(9.0).item is other  # type: ignore[union-attr]


def test_an_item_can_be_armed_again_at_the_time_it_had_before() -> None:
    """A stale entry with the same time wakes nobody twice."""
    timers, item = Timers(), Item()
    timers.arm(item, 1.0, handler)
    timers.disarm(item)
    timers.arm(item, 1.0, handler)
    assert timers.pop_due(1.0) is not None
    assert timers.pop_due(1.0) is None


def test_stale_entries_do_not_pile_up() -> None:
    """Arming and disarming a hundred thousand items leaves a heap of the size of what lives, more or less."""
    timers = Timers()
    living = [Item() for _ in range(100)]
    for item in living:
        timers.arm(item, 1e9, handler)
    for when in range(100_000):
        passing = Item()
        timers.arm(passing, float(when), handler)
        timers.disarm(passing)
    assert len(timers) < 2000
    assert sum(1 for _ in iter(lambda: timers.pop_due(2e9), None)) == len(living)
