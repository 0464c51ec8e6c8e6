"""A request that kills whatever process serves it."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from sbrpc.errors import Aborted

from .children import child
from .rig import rigged
from .service import Ask, Work

pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


async def test_poison_is_isolated(tmp_path: Path) -> None:
    """After it has killed as many servers as it may be delivered to, it is dead-lettered with the reason, its
    caller is told, and calls made meanwhile are answered."""
    async with rigged(tmp_path / "journal", processes=1) as rig, AsyncExitStack() as stack:
        work = rig.client.of(Work)
        poison = asyncio.ensure_future(work.kill(Ask(value="poison"), timeout=120))
        serving = rig.children[0]
        for _ in range(2):
            assert await serving.ended() == 9
            rig.load.plain("G10", 20)
            await rig.emulator.advance(rig.lock_duration + 0.2)
            serving = await stack.enter_async_context(
                child(
                    "faults.service", [rig.emulator.connection_string, str(rig.journal), "--deliveries", "2"]
                )
            )
        with pytest.raises(Aborted, match="2 times"):
            await poison
        await rig.load.ended()
        assert rig.load.tallies["G10"].answered
        assert list((await rig.dead_lettered()).values()) == ["MaxDeliveriesExceeded"]
