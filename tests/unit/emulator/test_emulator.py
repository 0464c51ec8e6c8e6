"""The emulator as one object, before it runs: what it can say, and what it refuses."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from sbrpc.emulator import Emulator
from sbrpc.emulator.broker import BrokerError
from sbrpc.topology import Queue, Topic


@pytest.mark.parametrize(
    "ask",
    [
        lambda emulator: emulator.connection_string,
        lambda emulator: emulator.admin_connection_string,
        lambda emulator: emulator.http_url,
    ],
)
def test_an_address_is_known_only_while_it_runs(ask: Callable[[Emulator], str]) -> None:
    """Before, the port is not; the error says what is missing."""
    with pytest.raises(RuntimeError, match=r"not running|does not listen for HTTP"):
        ask(Emulator())


@pytest.mark.parametrize("seconds", [-1.0, math.inf, math.nan])
async def test_time_goes_ahead_by_a_number_of_seconds(seconds: float) -> None:
    """Neither back nor for ever, and nothing has moved where it cannot."""
    emulator = Emulator()
    with pytest.raises(ValueError, match="moved ahead"):
        await emulator.advance(seconds)
    assert emulator.clock.ahead == 0
    before = emulator.clock.now()
    await emulator.advance(5)
    assert emulator.clock.now() >= before + 5


def test_names_stand_for_entities_with_azures_defaults() -> None:
    """Beside those that say more."""
    emulator = Emulator(queues=["a", Queue("b", lock_duration=5)], topics=["t"])
    assert emulator.broker.queues() == [Queue("a"), Queue("b", lock_duration=5)]
    assert emulator.broker.topics() == [Topic("t")]


def test_a_name_alone_is_no_list_of_names() -> None:
    """Its letters would each be a queue."""
    with pytest.raises(TypeError, match=r"queues=\['movies'\]"):
        Emulator(queues="movies")


def test_all_entities_are_made_or_none() -> None:
    """One that cannot be takes the others with it."""
    emulator = Emulator(queues=["a"])
    with pytest.raises(BrokerError, match="'A' already exists"):
        emulator.create(Queue("b"), Queue("A"))
    assert [queue.name for queue in emulator.broker.queues()] == ["a"]
