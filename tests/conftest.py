"""Fixtures every test may use, and the order of the tests when they are spread over several processes."""

from __future__ import annotations

import gc
import signal
import warnings
from collections.abc import Generator, Iterable
from functools import cache
from pathlib import Path, PurePath
from typing import Any
from zlib import crc32

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

# What begins first with several workers, being one after the other in itself, and what comes last. Between,
# tests that wait most of the time take turns with those that compute: files that stay together first, and
# neighbours, which are alike, apart. The faults keep hundreds of calls in flight and watch the clock: they
# come when hardly anything else runs.
FIRST = ("conformance", "integration/test_rpc_faults", "browser", "examples")
WAITING = ("integration", "docs")
LAST = ("faults",)
# The files that stay in one process: what they prepare serves all of their tests, or these take milliseconds.
TOGETHER = ("conformance", "benchmarks", "unit")


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """The Azure SDK runs on asyncio, so the tests do."""
    return "asyncio"


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Spare the garbage collector what is there to stay, modules and tests: here, and when tests call it."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.freeze()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Order the tests for pytest-xdist's workers; a run in one process stays as it is."""
    if hasattr(config, "workerinput"):
        turns = _turns({shared(item.nodeid): None for item in items})
        items.sort(key=lambda item: turns[shared(item.nodeid)])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> Generator[None, bool, bool]:
    """Have what the SDK leaves of links that broke complain unheard, not in the next test."""
    result = yield
    if _leaves(item) and not (nextitem and _leaves(nextitem)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            gc.collect()
    return result


def pytest_unconfigure() -> None:
    """End what served the tests of this process."""
    forked.end()


def _turns(scopes: Iterable[str]) -> dict[str, tuple[int, float]]:
    """When each of what is handed to a worker as one begins: the stage of the run, and how far into it."""
    groups: dict[tuple[int, bool], list[str]] = {}
    for scope in scopes:
        path = scope.removeprefix("tests/")
        first = (stage for stage, begins in enumerate(FIRST) if path.startswith(begins))
        stage = len(FIRST) + 1 if path.startswith(LAST) else next(first, len(FIRST))
        groups.setdefault((stage, path.startswith(WAITING)), []).append(scope)
    return {
        scope: (stage, place / len(group))
        for (stage, _), group in groups.items()
        for place, scope in enumerate(sorted(group, key=lambda scope: ("::" in scope, crc32(scope.encode()))))
    }


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
