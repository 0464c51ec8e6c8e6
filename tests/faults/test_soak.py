"""Very many calls in one process leave nothing behind."""

from __future__ import annotations

import asyncio
import gc
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from sbrpc import RpcClient
from sbrpc.emulator import Emulator
from sbrpc.topology import Queue

from .service import QUEUE, REPLIES, Service, Swell, Work, serving

pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

LONG = bool(os.environ.get("SBRPC_TEST_LONG"))
CALLS = 100_000 if LONG else 2_000
WARM = CALLS // 10
AT_ONCE = 100
# What memory may grow by once everything is warm: allocators round up, logs and caches fill.
GROWTH = 0.10 if LONG else 0.25


def resident() -> float:
    """Memory of this process, in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc")
async def test_nothing_grows(record_property: Callable[[str, object], None]) -> None:
    """Client, server and broker in one process: after a tenth of the calls its memory grows no more than
    allocators make it, and in the end no task, no call and no handler is left.

    `SBRPC_TEST_LONG=1` makes it 100,000 calls.
    """
    before = asyncio.all_tasks()
    queues = [Queue(QUEUE), Queue(REPLIES, requires_session=True, lock_duration=300)]
    async with Emulator(queues=queues) as emulator:
        connection = emulator.connection_string
        server = serving(connection, Service())
        async with server, RpcClient(connection, reply_queue=REPLIES) as client:
            await client.ready(30)
            work = client.of(Work)
            numbers = iter(range(CALLS))
            warm = 0.0

            async def caller() -> None:
                nonlocal warm
                for number in numbers:
                    answer = await work.swell(Swell(value=str(number), size=10))
                    assert answer.value == str(number)
                    if number == WARM:
                        gc.collect()
                        warm = resident()

            await asyncio.gather(*(caller() for _ in range(AT_ONCE)))
            gc.collect()
            end = resident()
            assert client.pending == 0
            assert server.running == 0
    record_property("rss_warm_mb", round(warm, 1))
    record_property("rss_end_mb", round(end, 1))
    print(f"{CALLS:,} calls: {warm:.1f} MB after {WARM:,}, {end:.1f} MB in the end")
    assert end < warm * (1 + GROWTH)
    left = {task for task in asyncio.all_tasks() - before if not task.done()}
    assert not left
