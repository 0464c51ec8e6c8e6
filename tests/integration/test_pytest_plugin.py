"""The pytest plugin, in a run of pytest of its own."""

from __future__ import annotations

from importlib.metadata import entry_points
from pathlib import Path

import pytest

import sbrpc

pytest_plugins = ["pytester"]

TESTS = """
import pytest
from sbrpc import Contract, method
from sbrpc.errors import Internal

class Movies(Contract, name="movies"):
    @method
    async def get_movie(self, request: int) -> str:
        raise NotImplementedError

seen = []

@pytest.fixture
async def movies(sbrpc_bench):
    seen.append(sbrpc_bench)
    async with sbrpc_bench.service_for(Movies, {"get_movie": get_movie}) as movies:
        yield movies

async def get_movie(request):
    if request == 0:
        raise KeyError("the shelf is empty")
    return f"movie {request}"

async def test_first(movies):
    assert await movies.get_movie(1) == "movie 1"

async def test_second(movies, sbrpc_bench):
    assert sbrpc_bench is seen[0]
    assert await movies.get_movie(2) == "movie 2"

async def test_broken(movies):
    await movies.get_movie(0)
"""

LOOP = """
import pytest

@pytest.fixture(scope="session")
def anyio_backend():
    return "asyncio"
"""


NOTHING = """
import sys

def test_nothing_is_loaded():
    heavy = ("azure.servicebus", "sbrpc.emulator", "sbrpc.testing")
    assert [name for name in sys.modules if name.startswith(heavy)] == []
"""


@pytest.fixture(autouse=True)
def _found_by_subprocesses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where sbrpc is not installed, but named by a relative path."""
    monkeypatch.setenv("PYTHONPATH", str(Path(sbrpc.__file__).parent.parent))


def run(
    pytester: pytest.Pytester, *options: str, tests: str = TESTS, asyncio: bool = False
) -> pytest.RunResult:
    """Run tests with the plugin, whether or not sbrpc is installed with its entry point."""
    pytester.makepyfile(tests)
    installed = any(entry.value == "sbrpc.pytest_plugin" for entry in entry_points(group="pytest11"))
    plugin = [] if installed else ["-p", "sbrpc.pytest_plugin"]
    plugin += [] if asyncio else ["-p", "no:asyncio"]
    return pytester.runpytest_subprocess(*plugin, "-W", "error", *options, timeout=60)


def test_tests_share_a_bench(pytester: pytest.Pytester) -> None:
    """Fixtures may run services; what a handler raised is in the report of the test that called it."""
    pytester.makeconftest(LOOP)
    result = run(pytester, "-o", "anyio_mode=auto")
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(['*raise KeyError("the shelf is empty")', "*sbrpc.errors.Internal*"])


def test_a_loop_per_module_is_explained(pytester: pytest.Pytester) -> None:
    """With what to put where."""
    result = run(pytester, "-o", "anyio_mode=auto", "-k", "first and asyncio")
    result.stdout.fnmatch_lines(["*put this into conftest.py:*", '*@pytest.fixture(scope="session")'])


def test_a_missing_plugin_for_async_tests_is_explained(pytester: pytest.Pytester) -> None:
    """Before pytest says so in its own, more general words."""
    result = run(pytester, "-k", "second")
    result.stdout.fnmatch_lines(['*@pytest.fixture(scope="session")', '*anyio_mode = "auto"*'])


def test_other_loops_are_refused(pytester: pytest.Pytester) -> None:
    """The SDK runs on asyncio alone."""
    pytest.importorskip("trio", reason="trio is not installed")
    pytester.makeconftest(LOOP.replace("asyncio", "trio"))
    result = run(pytester, "-o", "anyio_mode=auto", "-k", "first")
    result.stdout.fnmatch_lines(["*the Azure SDK runs on asyncio, this test on trio*"])


def test_pytest_asyncio_will_do(pytester: pytest.Pytester) -> None:
    """If its tests run in one loop; fixtures begin and end in tasks of their own there."""
    pytest.importorskip("pytest_asyncio", reason="pytest-asyncio is not installed")
    scope = "asyncio_default_{}_loop_scope=session"
    result = run(
        pytester,
        *("-o", "asyncio_mode=auto", "-o", scope.format("test"), "-o", scope.format("fixture")),
        asyncio=True,
    )
    result.assert_outcomes(passed=2, failed=1)


def test_the_plugin_costs_nothing_where_it_is_not_used(pytester: pytest.Pytester) -> None:
    """Neither the SDK nor the emulator is imported."""
    run(pytester, tests=NOTHING).assert_outcomes(passed=1)
