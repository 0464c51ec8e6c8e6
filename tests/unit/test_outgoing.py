"""What leaves together, and in how many messages."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Sequence
from typing import Any

from azure.servicebus import ServiceBusMessage
from hypothesis import given
from hypothesis import strategies as st

from sbrpc._outgoing import Messages, Operation, Outgoing, Waiting, pack, take_together
from sbrpc.context import Deadline


def item(size: int = 10, group: str | None = None, **options: Any) -> Outgoing:
    message = ServiceBusMessage(b"x")
    return Messages((message,), size, Deadline.never(), lambda error: None, group=group, **options)


def waiting(*items: Outgoing) -> Waiting:
    queue: Waiting = OrderedDict()
    for each in items:
        queue.setdefault(each.group, deque()).append(each)
    return queue


def test_a_lone_item_leaves_alone() -> None:
    """And nothing is left of its group."""
    only = item()
    queue = waiting(only)
    assert take_together(queue) == [only]
    assert not queue


def test_what_gathered_leaves_together() -> None:
    """In the order in which it came."""
    items = [item() for _ in range(5)]
    assert take_together(waiting(*items)) == items


def test_count_and_size_are_limited() -> None:
    """By whichever limit is reached first."""
    items = [item(size=40) for _ in range(10)]
    assert len(take_together(waiting(*items), most=3)) == 3
    assert len(take_together(waiting(*items), most_bytes=100)) == 2
    assert len(take_together(waiting(item(size=500), item()), most_bytes=100)) == 1


def test_groups_do_not_mix_and_take_turns() -> None:
    """Sessions have batches of their own, and a busy one does not starve another."""
    a, b = [item(group="a") for _ in range(5)], [item(group="b")]
    queue = waiting(*a, *b)
    assert take_together(queue, most=2) == a[:2]
    assert take_together(queue, most=2) == b
    assert take_together(queue, most=2) == a[2:4]
    assert take_together(queue, most=2) == a[4:]
    assert not queue


def test_some_things_travel_alone() -> None:
    """A batch that belongs together, and operations that are no messages."""

    async def nothing(sender: Any) -> None:
        pass

    one, batch, two = item(), item(whole=True), item()
    operation = Operation(nothing, Deadline.never(), lambda error: None)
    queue = waiting(one, batch, operation, two)
    assert [take_together(queue) for _ in range(4)] == [[one], [batch], [operation], [two]]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 60)), max_size=40))
def test_everything_leaves_once_and_in_order(kinds: list[tuple[str, int]]) -> None:
    """Whatever waits: nothing is lost or doubled, and each group keeps its order."""
    items = [item(size, group) for group, size in kinds]
    queue = waiting(*items)
    left: list[Outgoing] = []
    while queue:
        batch = take_together(queue, most=5, most_bytes=100)
        assert 1 <= len(batch) <= 5
        assert len(batch) == 1 or sum(each.size for each in batch) <= 100
        assert len({each.group for each in batch}) == 1
        left += batch
    assert len(left) == len(items)
    for group in "abc":
        assert [i for i in left if i.group == group] == [i for i in items if i.group == group]


class Piece(Outgoing):
    """Its messages are lists of what is in them."""

    def __init__(self, name: str, key: str | None = "k") -> None:
        super().__init__(10, Deadline.never(), key=key)
        self.name = name

    def messages(self) -> Any:
        return [[self.name]]

    def together(self, items: Sequence[Piece]) -> Any:
        return [item.name for item in items]


def test_parts_of_one_key_share_a_message() -> None:
    """Up to so many; what has no key, or another one, has a message of its own."""
    parts = [Piece("a"), Piece("b"), Piece("c"), Piece("d", "other"), Piece("e", None), Piece("f", None)]
    assert pack(parts, 2) == [["a", "b"], ["c"], ["d"], ["e"], ["f"]]
    assert pack(parts, 1) == [["a"], ["b"], ["c"], ["d"], ["e"], ["f"]]


def test_messages_stand_between_parts_where_they_stood() -> None:
    """Order is kept, so a message parts its neighbours."""
    plain = item()
    assert pack([Piece("a"), plain, Piece("b"), Piece("c")], 9) == [["a"], *plain.messages(), ["b", "c"]]


@given(st.lists(st.tuples(st.sampled_from(["x", "y", None]), st.booleans()), max_size=30), st.integers(1, 9))
def test_packing_loses_and_doubles_nothing(kinds: list[tuple[str | None, bool]], most: int) -> None:
    """And keeps the order of everything."""
    items = [Piece(str(n), key) if is_part else item() for n, (key, is_part) in enumerate(kinds)]
    packed = pack(items, most)
    assert all(len(message) <= most for message in packed if isinstance(message, list))
    flat = [piece for m in packed for piece in (m if isinstance(m, list) else [m])]
    assert flat == [i.name if isinstance(i, Piece) else i.messages()[0] for i in items]


def test_only_what_is_wanted_is_live() -> None:
    """Abandoned and late items are not worth sending."""
    one = item()
    assert one.live()
    one.abandoned = True
    assert not one.live()
    late = Outgoing(0, Deadline.after(-1))
    assert not late.live()
