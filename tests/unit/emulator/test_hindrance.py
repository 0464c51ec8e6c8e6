"""Silence, delay and cuts for one connection, with a loop whose time is moved by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sbrpc.emulator.faults import BlackHole, Cut, Delay, Faults
from sbrpc.emulator.hindrance import DelayLine, Hindrance


class Timer:
    """What a loop gives for a call at a time."""

    def __init__(self, when: float, call: Callable[[], None]) -> None:
        self.when, self.call, self.cancelled = when, call, False

    def cancel(self) -> None:
        self.cancelled = True


class Loop:
    """The two methods of a loop that are used, over a time that only the test moves."""

    def __init__(self) -> None:
        self.now = 100.0
        self.timers: list[Timer] = []

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, call: Callable[[], None]) -> Timer:
        self.timers.append(Timer(when, call))
        return self.timers[-1]

    def advance(self, seconds: float) -> None:
        self.now += seconds
        while due := [timer for timer in self.timers if not timer.cancelled and timer.when <= self.now]:
            first = min(due, key=lambda timer: timer.when)
            self.timers.remove(first)
            first.call()


class Connection:
    """A connection that writes down what happens to it."""

    container_id = "c"

    def __init__(self, faults: Faults, most_waiting: int = 100) -> None:
        self.loop = Loop()
        self.seen: list[Any] = []
        loop: Any = self.loop
        self.hindrance = Hindrance(
            self,
            faults,
            loop,
            feed=lambda data: self.seen.append(("fed", data)),
            write=lambda data: self.seen.append(("written", data)),
            cut=lambda: self.seen.append("cut"),
            most_waiting=most_waiting,
        )

    def entities(self) -> list[str]:
        return ["movies"]

    def unfinished(self) -> bytes:
        return b""


def test_without_a_fault_everything_passes() -> None:
    """A connection that no fault concerns notices nothing."""
    connection = Connection(Faults())
    connection.hindrance.incoming(b"a")
    connection.hindrance.outgoing(b"b")
    assert connection.seen == [("fed", b"a"), ("written", b"b")]


def test_silence_swallows_both_ways_until_its_end_cuts() -> None:
    """In a black hole nothing passes; what was lost cannot be made good, so its end is the connection's."""
    faults = Faults()
    connection = Connection(faults)
    entry = faults.add(BlackHole(entity="movies"), 0.0)
    connection.hindrance.incoming(b"a")
    connection.hindrance.outgoing(b"b")
    connection.hindrance.review()
    assert connection.seen == []
    faults.remove(entry.id)
    connection.hindrance.review()
    assert connection.seen == ["cut"]
    connection.hindrance.incoming(b"late")
    assert connection.seen == ["cut"]


def test_delay_keeps_order_when_it_changes() -> None:
    """What comes after a delay has ended still waits for what came before."""
    faults = Faults()
    connection = Connection(faults)
    entry = faults.add(Delay(incoming=2.0), 0.0)
    connection.hindrance.incoming(b"slow")
    faults.remove(entry.id)
    connection.hindrance.incoming(b"fast")
    connection.loop.advance(1.9)
    assert connection.seen == []
    connection.loop.advance(0.2)
    assert connection.seen == [("fed", b"slow"), ("fed", b"fast")]


def test_delayed_output_counts_as_waiting() -> None:
    """A connection is not closed before what it still has to say has left."""
    faults = Faults()
    connection = Connection(faults)
    faults.add(Delay(outgoing=1.0), 0.0)
    connection.hindrance.outgoing(b"bye")
    assert connection.hindrance.waiting
    connection.loop.advance(1.0)
    assert (connection.seen, connection.hindrance.waiting) == ([("written", b"bye")], False)


def test_too_much_waiting_ends_the_connection() -> None:
    """A delay does not make memory grow without limit, in neither direction."""
    for direction in ("incoming", "outgoing"):
        faults = Faults()
        faults.add(Delay(incoming=1.0, outgoing=1.0), 0.0)
        connection = Connection(faults, most_waiting=3)
        getattr(connection.hindrance, direction)(b"abc")
        getattr(connection.hindrance, direction)(b"d")
        assert connection.seen == ["cut"]
        connection.loop.advance(5)
        assert connection.seen == ["cut"]


def test_cut_lets_the_last_frame_in_and_nothing_out() -> None:
    """The frame that is still allowed is processed, the answer to it is not sent."""
    faults = Faults()
    connection = Connection(faults)
    faults.add(Cut(after=1), 0.0)
    connection.hindrance.incoming(b"\x00\x00\x00\x08\x02\x00\x00\x00" * 2)
    connection.hindrance.outgoing(b"answer")
    assert connection.seen == [("fed", b"\x00\x00\x00\x08\x02\x00\x00\x00"), "cut"]


def test_a_line_can_be_fed_while_it_hands_on() -> None:
    """What is put in while a piece is handed on comes behind what waits already."""
    loop: Any = Loop()
    seen: list[bytes] = []

    def hand_on(data: bytes) -> None:
        seen.append(data)
        if data == b"1":
            line.put(b"3", 0.0)

    line = DelayLine(loop, hand_on)
    line.put(b"1", 1.0)
    line.put(b"2", 1.0)
    loop.advance(1.0)
    assert seen == [b"1", b"2", b"3"]
    assert line.size == 0
