"""A bench for the tests of a file."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from sbrpc import Queue, Topic
from sbrpc.testing import Bench


@pytest.fixture(scope="module")
async def shared() -> AsyncIterator[Bench]:
    """One bench for all tests of a file."""
    async with Bench(Queue("raw"), Topic("movie-events")) as bench:
        yield bench


@pytest.fixture
def bench(shared: Bench) -> Bench:
    """The bench as a test gets it: empty."""
    shared.reset()
    return shared
