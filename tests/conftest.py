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
# The files that stay in one process: what they prepare serves all of their tests, or these take milliseconds.
TOGETHER = ("conformance", "faults", "benchmarks", "unit")


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """The Azure SDK runs on asyncio, so the tests do."""
    return "asyncio"


# Before pytest-xdist's own, which reads the marks.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Order and group the tests for pytest-xdist's workers; a run in one process stays as it is."""
    if hasattr(config, "workerinput"):
        items.sort(key=_turn)
        for item in items:
            if _directory(item) in TOGETHER or _shares(item):
                item.add_marker(pytest.mark.xdist_group(item.nodeid.partition("::")[0]))


def _directory(item: pytest.Item) -> str:
    return PurePath(item.nodeid.partition("::")[0]).parts[1]


def _turn(item: pytest.Item) -> int:
    directory = _directory(item)
    if directory in LAST:
        return len(FIRST) + 1
    return FIRST.index(directory) if directory in FIRST else len(FIRST)


def _shares(item: pytest.Item) -> bool:
    """Whether a test uses what is made once for all tests of its file."""
    if not isinstance(item, pytest.Function):
        return True
    return any(each[-1].scope == "module" for each in item._fixtureinfo.name2fixturedefs.values())
