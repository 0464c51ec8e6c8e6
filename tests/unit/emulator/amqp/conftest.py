"""Fixtures of the engine's tests."""

from __future__ import annotations

import pytest

from .peer import Client, Wire, byte_by_byte, whole


@pytest.fixture(params=[whole, byte_by_byte])
def wire(request: pytest.FixtureRequest) -> Wire:
    """How bytes travel: all at once, and one by one."""
    wire: Wire = request.param
    return wire


@pytest.fixture
def client(wire: Wire) -> Client:
    """A client with an open connection and a session on channel 1."""
    client = Client(wire)
    client.open()
    return client
