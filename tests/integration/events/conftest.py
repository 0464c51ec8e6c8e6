"""A namespace with a topic, and buses on it: the real SDK against the emulator on a socket."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from sbrpc.emulator import Emulator
from sbrpc.events import EventBus
from sbrpc.topology import Subscription, Topic


@pytest.fixture
async def emulator() -> AsyncIterator[Emulator]:
    """A namespace with one topic: subscriptions with sessions and without."""
    subscriptions = (
        Subscription("ordered", requires_session=True),
        Subscription("brief", requires_session=True, lock_duration=1),
        Subscription("parallel"),
        Subscription("fleeting", lock_duration=5),
        Subscription("other"),
    )
    async with Emulator(topics=[Topic("events", subscriptions=subscriptions)]) as running:
        yield running


@pytest.fixture
def new_bus(emulator: Emulator) -> Callable[..., EventBus]:
    """Makes buses on the topic."""

    def make(**options: Any) -> EventBus:
        return EventBus(emulator.connection_string, **{"topic": "events", "source": "/movies", **options})

    return make
