"""Fixtures every test may use, and the order of the tests when they are spread over several processes."""

from __future__ import annotations

from pathlib import PurePath

import pytest
from hypothesis import settings

# How long an example takes says more about the machine than about the code.
settings.register_profile("sbrpc", deadline=None)
settings.load_profile("sbrpc")

# What begins first and what comes last with several workers; everything else between, in its usual order.
# The faults keep hundreds of calls in flight and watch the clock: they wait until hardly anything else runs.
FIRST = ("conformance", "examples", "browser", "integration")
LAST = ("faults",)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """The Azure SDK runs on asyncio, so the tests do."""
    return "asyncio"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Order the tests for pytest-xdist's workers; a run in one process stays as it is."""
    if hasattr(config, "workerinput"):
        items.sort(key=_turn)


def _turn(item: pytest.Item) -> int:
    directory = PurePath(item.nodeid.partition("::")[0]).parts[1]
    if directory in LAST:
        return len(FIRST) + 1
    return FIRST.index(directory) if directory in FIRST else len(FIRST)
