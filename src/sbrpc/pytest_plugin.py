"""The pytest plugin: a bench that all tests of a session share, and that each test gets empty.

    async def test_a_movie_is_found(sbrpc_bench: Bench) -> None:
        async with sbrpc_bench.service_for(Movies, MovieService(database)) as movies:
            ...

Fixtures only; what they do is in `sbrpc.testing`, which is imported inside them: pytest loads this module in
every run of everybody who has sbrpc installed.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from sbrpc.testing import Bench

_SCOPE = """\
sbrpc_bench keeps its links for the whole session, so all tests that use it have to run in one event loop.
For that the fixture anyio_backend needs the session as its scope; put this into conftest.py:

    @pytest.fixture(scope="session")
    def anyio_backend() -> str:
        return "asyncio"
"""

_NO_PLUGIN = """\
sbrpc_bench is for async tests, all in one event loop. With anyio, which is installed with sbrpc, put this
into conftest.py:

    @pytest.fixture(scope="session")
    def anyio_backend() -> str:
        return "asyncio"

and anyio_mode = "auto" under [tool.pytest.ini_options] in pyproject.toml, or a test at a time:

    pytestmark = pytest.mark.anyio

With pytest-asyncio, it is asyncio_default_test_loop_scope = "session" there.
"""


@pytest.fixture(scope="session")
def sbrpc_new_bench() -> Bench:
    """The bench that the session is going to use, not open yet; override it for a bench of your own."""
    from sbrpc.testing import Bench

    return Bench()


@pytest.fixture
def sbrpc_bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    """A Service Bus, a client, and the means to run services and buses on them; empty for each test."""
    bench: Bench = request.getfixturevalue("sbrpc_new_bench")
    _open(request)
    yield bench
    bench.reset()


def _open(request: pytest.FixtureRequest) -> None:
    """Open the bench, if no test has yet, in the loop of the plugin that runs this one."""
    if "anyio_backend" in request.fixturenames:
        backend = request.getfixturevalue("anyio_backend")
        name = backend if isinstance(backend, str) else backend[0]
        if name != "asyncio":
            pytest.fail(f"the Azure SDK runs on asyncio, this test on {name}", pytrace=False)
        try:
            request.getfixturevalue("_sbrpc_bench_anyio")
        except pytest.fail.Exception as failure:
            if "ScopeMismatch" not in str(failure):
                raise
            pytest.fail(_SCOPE, pytrace=False)
    elif request.config.pluginmanager.has_plugin("asyncio"):
        request.getfixturevalue("_sbrpc_bench_asyncio")
    else:
        pytest.fail(_NO_PLUGIN, pytrace=False)


@pytest.fixture(scope="session")
async def _sbrpc_bench_anyio(anyio_backend: Any, sbrpc_new_bench: Bench) -> AsyncIterator[None]:
    async with sbrpc_new_bench:
        yield


def pytest_configure(config: pytest.Config) -> None:
    """Have the bench opened by pytest-asyncio where that is what runs the tests."""
    if config.pluginmanager.has_plugin("asyncio"):
        config.pluginmanager.register(_for_pytest_asyncio(), "sbrpc-asyncio")


def _for_pytest_asyncio() -> object:
    # By name: sbrpc does not depend on it, so type checkers need not have it either.
    fixture: Any = import_module("pytest_asyncio").fixture

    async def _sbrpc_bench_asyncio(sbrpc_new_bench: Bench) -> AsyncIterator[None]:
        async with sbrpc_new_bench:
            yield

    fixtures = ModuleType("sbrpc_asyncio_fixtures")
    made = fixture(scope="session", loop_scope="session")(_sbrpc_bench_asyncio)
    vars(fixtures)["_sbrpc_bench_asyncio"] = made
    return fixtures
