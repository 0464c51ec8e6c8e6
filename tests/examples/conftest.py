"""The example is a package in `examples`, run from there and imported from there."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sbrpc.testing import Bench
from tests.databases import database, postgres_url

__all__ = ["database", "postgres_url", "sbrpc_bench"]

EXAMPLES = Path(__file__).parents[2] / "examples"
sys.path.insert(0, str(EXAMPLES))


@pytest.fixture(scope="module")
async def sbrpc_bench() -> AsyncIterator[Bench]:
    """In place of the plugin's, which is open until the last test: meanwhile tests without a loop cannot use
    `anyio.run` where sniffio is installed, as it is beside trio."""
    async with Bench() as bench:
        yield bench
