"""Fixtures every test may use, and the order of the tests when they are spread over several processes."""

from __future__ import annotations

import gc
import signal
import warnings
from collections.abc import Generator
from functools import cache
from pathlib import Path, PurePath
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests import forked

# How long an example takes, or is in the making, says more about the machine than about the code.
settings.register_profile("sbrpc", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("sbrpc")

ROOT = Path(__file__).parent.parent

# In the background of a shell Ctrl-C is ignored, and so it would be by the programs that the tests interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# What begins first and what comes last with several workers; everything else between, in its usual order.
# What has to be run one after the other begins before what has not. The faults keep hundreds of calls in
# flight and watch the clock: they wait until hardly anything else runs.
FIRST = ("conformance", "integration/test_rpc_faults", "browser", "examples", "integration")
LAST = ("faults",)
# The files that stay in one process: what they prepare serves all of their tests, or these take milliseconds.
TOGETHER = ("conformance", "benchmarks", "unit")


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """The Azure SDK runs on asyncio, so the tests do."""
    return "asyncio"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Order the tests for pytest-xdist's workers; a run in one process stays as it is."""
    if hasattr(config, "workerinput"):
        items.sort(key=_turn)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> Generator[None, bool, bool]:
    """Have what the SDK leaves of links that broke complain unheard, not in the next test."""
    result = yield
    if nextitem is not None and _leaves(item) and not _leaves(nextitem):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            gc.collect()
    return result


def pytest_unconfigure() -> None:
    """End what served the tests of this process."""
    forked.end()


def _turn(item: pytest.Item) -> int:
    if _directory(item.nodeid) in LAST:
        return len(FIRST) + 1
    begins = (turn for turn, path in enumerate(FIRST) if item.nodeid.startswith(f"tests/{path}"))
    return next(begins, len(FIRST))


def _leaves(item: pytest.Item) -> bool:
    """Whether a test ignores resources that are not closed. Some complain only when its loop is gone."""
    return any(
        "ResourceWarning" in ignored for mark in item.iter_markers("filterwarnings") for ignored in mark.args
    )


def _directory(nodeid: str) -> str:
    return PurePath(nodeid.partition("::")[0]).parts[1]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Hand tests to workers by what they share: as few together as keep what they prepare in one process."""
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return shared(nodeid)

    return Scheduling(config, log)


def shared(nodeid: str) -> str:
    """What a test shares with those for which this is the same: a file, a group named after `@`, nothing."""
    file, _, case = nodeid.partition("::")
    if _directory(nodeid) in TOGETHER or _prepares(file):
        return file
    return file + case[case.rindex("@") :] if "@" in case else nodeid


@cache
def _prepares(file: str) -> bool:
    return 'scope="module"' in (ROOT / file).read_text(encoding="utf-8")
