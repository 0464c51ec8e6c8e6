"""Many processes on one request queue and one reply queue: each reply reaches its own call."""

from __future__ import annotations

import json
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from sbrpc.emulator import Emulator
from sbrpc.topology import Queue

from .children import child
from .service import QUEUE, REPLIES

pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

CALLERS, SERVERS, CALLS = 3, 2, 1002


async def test_replies_do_not_cross(tmp_path: Path) -> None:
    """3 clients and 2 servers in processes of their own, 1,000 calls at once, handlers that finish in any
    order, every request and every reply delivered twice: each call gets its own answer, once."""
    queues = [Queue(QUEUE), Queue(REPLIES, requires_session=True, lock_duration=300)]
    async with Emulator(queues=queues) as emulator, AsyncExitStack() as stack:
        connection = emulator.connection_string
        servers = [
            await stack.enter_async_context(child("faults.service", [connection, str(tmp_path / "journal")]))
            for _ in range(SERVERS)
        ]
        callers = [
            await stack.enter_async_context(child("faults.caller", [connection, str(CALLS // CALLERS)]))
            for _ in range(CALLERS)
        ]
        for each in (*servers, *callers):
            await each.line("ready")
        before = emulator.books[QUEUE].sends
        requests, replies = (emulator.faults.duplicate(entity=queue) for queue in (QUEUE, REPLIES))
        for caller in callers:
            await caller.tell("go")
        for caller in callers:
            tally = json.loads((await caller.line("done")).removeprefix("done"))
            assert not tally["crossed"]
            assert not tally["lost"]
            assert tally["right"] == tally["made"] == CALLS // CALLERS
        assert requests.fired >= emulator.books[QUEUE].sends - before
        assert replies.fired
