"""Fixtures every test may use, and which tests stay together when they are spread over several processes."""

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
# Directories whose tests share what takes long to make; elsewhere those of one file do.
TOGETHER = ("conformance", "browser", "faults")


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """The Azure SDK runs on asyncio, so the tests do."""
    return "asyncio"


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist looks for the groups
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Group and order the tests for `--dist loadgroup`; a run in one process stays as it is."""
    if not hasattr(config, "workerinput"):
        return
    items.sort(key=_turn)
    for item in items:
        path = PurePath(item.nodeid.partition("::")[0])
        group = path.parts[1] if path.parts[1] in TOGETHER else path.as_posix()
        item.add_marker(pytest.mark.xdist_group(group))


def _turn(item: pytest.Item) -> int:
    directory = PurePath(item.nodeid.partition("::")[0]).parts[1]
    if directory in LAST:
        return len(FIRST) + 1
    return FIRST.index(directory) if directory in FIRST else len(FIRST)
