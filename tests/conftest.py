"""Fixtures every test may use."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """The Azure SDK runs on asyncio, so the tests do."""
    return "asyncio"
