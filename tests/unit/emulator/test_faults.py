"""Faults as decisions: whom they concern, how often, how long. No clock, no socket."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from sbrpc.emulator.faults import (
    BlackHole,
    Busy,
    Cut,
    Delay,
    Detach,
    Duplicate,
    Fail,
    Fault,
    Faults,
    FrameCounter,
    LoseLock,
    LoseSession,
    Refuse,
    Throttle,
    parse_fault,
)


class Connection:
    """A connection as faults see it."""

    def __init__(self, container_id: str = "SBSender-1", *entities: str, unfinished: bytes = b"") -> None:
        self.container_id = container_id
        self._entities = entities
        self._unfinished = unfinished

    def entities(self) -> tuple[str, ...]:
        return self._entities

    def unfinished(self) -> bytes:
        return self._unfinished


def frame(size: int = 8) -> bytes:
    return size.to_bytes(4, "big") + b"\x02\x00\x00\x00" + b"x" * (size - 8)


def send(
    faults: Faults, address: str = "movies", now: float = 0.0, spent: int = 0, **more: Any
) -> str | None:
    """The condition that a send fails with, if it does."""
    failure = faults.operation(
        more.get("kind", "send"), address, more.get("container_id", "c"), now, lambda: spent
    )
    return None if failure is None else failure.condition


# -- whom a fault concerns ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entity", "address", "meant"),
    [
        (None, "movies", True),
        ("movies", "Movies", True),
        ("MOVIES", "movies", True),
        ("movies", "movies2", False),
        ("movies", "movies/$DeadLetterQueue", True),
        ("events", "events/Subscriptions/all", True),
        ("*.replies", "gateway.replies", True),
        ("m?vies", "movies", True),
        ("*/subscriptions/all", "events/Subscriptions/all", True),
    ],
)
def test_entities_are_patterns(entity: str | None, address: str, meant: bool) -> None:
    """A pattern matches in any case, and what is below the entity too."""
    assert Fail(entity=entity).concerns(address, "c") is meant
    assert BlackHole(entity=entity).meets(Connection("c", "other", address)) is meant


def test_container_ids_are_patterns() -> None:
    """A fault may be limited to some clients; with an entity it needs both."""
    fault = BlackHole(entity="movies", container_id="SBReceiver-*")
    assert fault.meets(Connection("SBReceiver-1", "movies"))
    assert not fault.meets(Connection("SBSender-1", "movies"))
    assert not fault.meets(Connection("SBReceiver-1"))
    assert BlackHole().meets(Connection())


# -- the list -----------------------------------------------------------------------------------------------


def test_instant_faults_are_not_kept() -> None:
    """A fault without occasions strikes now and is never in force; with occasions it is."""
    faults = Faults()
    for fault in (Cut(), Detach(), LoseLock(), LoseSession()):
        assert faults.add(fault, 0.0).id not in faults.active
        assert faults.add(fault.model_copy(update={"count": 1}), 0.0).id in faults.active


def test_faults_end_by_time_number_or_altogether() -> None:
    """Each way of ending a fault ends it, and the next end is known."""
    faults = Faults()
    first, second = faults.add(Refuse(seconds=10), 100.0), faults.add(Refuse(seconds=5), 100.0)
    third = faults.add(Refuse(), 100.0)
    assert (first.until, third.until) == (110.0, None)
    assert faults.next_timer() == 105.0
    assert not faults.handle_timer(104.9)
    assert faults.handle_timer(105.0)
    assert list(faults.active) == [first.id, third.id]
    assert (faults.remove(first.id), faults.remove(second.id)) == (True, False)
    assert faults.next_timer() is None
    faults.clear()
    assert faults.accepts()


def test_after_and_count() -> None:
    """So many occasions pass, so many are struck, and then the fault is over."""
    faults = Faults()
    entry = faults.add(Refuse(after=2, count=2), 0.0)
    assert [faults.accepts() for _ in range(6)] == [True, True, False, False, True, True]
    assert (entry.fired, entry.id in faults.active) == (2, False)


# -- connections --------------------------------------------------------------------------------------------


def test_silence() -> None:
    """A black hole concerns the connections it names while it is in force."""
    faults = Faults()
    movies, orders = Connection("c", "movies"), Connection("c", "orders")
    entry = faults.add(BlackHole(entity="movies"), 0.0)
    assert (faults.silent(movies), faults.silent(orders)) == (True, False)
    faults.remove(entry.id)
    assert not faults.silent(movies)


def test_delays_add_up_per_direction() -> None:
    """Each direction waits for the sum of what concerns the connection."""
    faults = Faults()
    faults.add(Delay(incoming=1.0, outgoing=0.5), 0.0)
    faults.add(Delay(incoming=2.0, entity="movies"), 0.0)
    assert faults.incoming(Connection("c", "movies"), b"x").delay == 3.0
    assert faults.incoming(Connection("c", "orders"), b"x").delay == 1.0
    assert faults.outgoing_delay(Connection("c", "movies")) == 0.5


def test_cut_after_frames_keeps_those_before() -> None:
    """The frames that are allowed arrive whole, what is behind them does not, and the connection ends."""
    faults = Faults()
    connection = Connection("c", "movies")
    entry = faults.add(Cut(entity="movies", after=2, count=1), 0.0)
    assert faults.incoming(connection, frame(10) + frame(20)[:5]) == (frame(10) + frame(20)[:5], 0.0, False)
    assert faults.incoming(connection, frame(20)[5:] + frame(9)) == (frame(20)[5:], 0.0, True)
    assert (entry.fired, entry.id in faults.active) == (1, False)


def test_cut_counts_per_connection_from_when_it_is_concerned() -> None:
    """Each connection has its own count, which begins in the middle of a frame if need be."""
    faults = Faults()
    entry = faults.add(Cut(entity="movies", after=1), 0.0)
    late = Connection("c", "movies", unfinished=frame(30)[:12])
    passage = faults.incoming(late, frame(30)[12:] + frame(8))
    assert (passage.data, passage.cut) == (frame(30)[12:], True)
    assert not faults.incoming(Connection("c", "orders"), frame() * 5).cut
    assert faults.incoming(Connection("c", "movies"), frame() * 5).cut
    assert entry.fired == 2
    faults.forget(late)
    faults.remove(entry.id)
    assert faults.incoming(late, frame() * 5) == (frame() * 5, 0.0, False)


@given(
    sizes=st.lists(st.integers(8, 40), min_size=1, max_size=8),
    header=st.booleans(),
    allowed=st.integers(0, 9),
    cuts=st.lists(st.integers(0, 300), max_size=6),
)
def test_frames_are_counted_wherever_the_stream_is_cut(
    sizes: list[int], header: bool, allowed: int, cuts: list[int]
) -> None:
    """However the bytes arrive, the count ends exactly at the end of the last frame allowed."""
    frames = [b"AMQP\x00\x01\x00\x00"] if header else []
    frames += [frame(size) for size in sizes]
    stream = b"".join(frames)
    counter = FrameCounter(allowed)
    taken = b""
    borders = sorted({0, len(stream), *(cut % (len(stream) + 1) for cut in cuts)})
    for start, end in pairwise(borders):
        piece = stream[start:end]
        used = counter.take(piece)
        taken += piece[:used]
        if used < len(piece):
            break
    assert taken == b"".join(frames[:allowed])
    assert counter.left == max(0, allowed - len(frames))


# -- operations ---------------------------------------------------------------------------------------------


def test_failing_operations() -> None:
    """Only the operations that are named fail, with the given condition."""
    faults = Faults()
    faults.add(Fail(entity="movies", condition="amqp:not-allowed", operations=("send", "attach")), 0.0)
    assert send(faults) == "amqp:not-allowed"
    assert send(faults, kind="attach") == "amqp:not-allowed"
    assert send(faults, kind="management") is None
    assert send(faults, "orders") is None


def test_busy_has_the_code_of_the_service() -> None:
    """Clients look for 50009 in the description."""
    faults = Faults()
    faults.add(Busy(count=1), 0.0)
    failure = faults.operation("management", "movies", "c", 0.0, lambda: 0)
    assert failure is not None
    assert (failure.condition, "50009" in failure.description, failure.stored) == (
        "com.microsoft:server-busy",
        True,
        False,
    )
    assert send(faults) is None


def test_throttle_looks_at_credits_per_second() -> None:
    """Once the credits of a second are spent operations are refused until the next one begins."""
    faults = Faults()
    entry = faults.add(Throttle(rate=10), 0.0)
    seen = [(5.0, 100), (5.1, 109), (5.2, 110), (5.9, 110), (6.0, 110), (6.5, 119), (6.6, 125), (8.0, 125)]
    refused = [send(faults, now=now, spent=spent) is not None for now, spent in seen]
    assert refused == [False, False, True, True, False, False, True, False]
    assert entry.fired == 3


def test_throttle_survives_new_books() -> None:
    """When the accounts are begun anew in the middle of a second, the count begins anew as well."""
    faults = Faults()
    faults.add(Throttle(rate=10), 0.0)
    assert [send(faults, now=5.0, spent=spent) for spent in (100, 0, 9)] == [None, None, None]
    assert send(faults, now=5.0, spent=10) is not None


# -- messages -----------------------------------------------------------------------------------------------


def message(faults: Faults, *, delivery: bool = True, session: str | None = None) -> list[Fault]:
    return faults.message("movies", "c", delivery=delivery, session=session)


def test_what_happens_to_messages() -> None:
    """Deliveries can lose locks and sessions and come twice; sends can only lose their link."""
    faults = Faults()
    lock, detach, twice = LoseLock(count=1), Detach(after=1, count=1), Duplicate(count=2)
    for fault in (lock, detach, twice):
        faults.add(fault, 0.0)
    assert message(faults, delivery=False) == []
    assert message(faults) == [lock, detach, twice]
    assert message(faults) == [twice]
    assert message(faults) == []


def test_sessions_are_lost_by_name() -> None:
    """A fault for one session leaves the others alone, and messages without one."""
    faults = Faults()
    fault = LoseSession(session_id="s1", after=0)
    faults.add(fault, 0.0)
    assert message(faults, session=None) == []
    assert message(faults, session="s2") == []
    assert message(faults, session="s1") == [fault]


# -- faults as JSON values ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [
        Cut(entity="movies", after=5, count=1),
        Refuse(seconds=5),
        BlackHole(container_id="SB*"),
        Delay(incoming=0.5),
        Detach(condition="amqp:not-found"),
        LoseLock(count=1),
        LoseSession(session_id="s"),
        Throttle(rate=5),
        Busy(operations=("attach",)),
        Duplicate(count=1),
        Fail(stored=True),
    ],
    ids=lambda fault: fault.kind,
)
def test_faults_survive_json(fault: Fault) -> None:
    """What is written for a fault is understood as the same fault."""
    assert parse_fault(fault.model_dump(mode="json", exclude_none=True)) == fault


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ({}, "kind"),
        ({"kind": "magic"}, "magic"),
        ({"kind": "cut", "aftr": 5}, "aftr"),
        ({"kind": "refuse", "count": 0}, "count"),
        ({"kind": "refuse", "entity": "movies"}, "entity"),
        ({"kind": "delay"}, "say how long"),
        ({"kind": "throttle", "rate": 0}, "rate"),
        ({"kind": "busy", "operations": ["receive"]}, "operations"),
        ({"kind": "black_hole", "seconds": -1}, "seconds"),
        ([], "dict"),
    ],
)
def test_mistakes_are_named(value: object, problem: str) -> None:
    """A fault that means nothing is refused, and the message says what is wrong."""
    with pytest.raises(ValidationError, match=problem):
        parse_fault(value)
