"""The load generator against the emulator it is made for."""

from __future__ import annotations

import anyio
import pytest
from benchmarks.rawamqp import RawReceiver, RawSender, sdk_message

from sbrpc.emulator import Emulator


@pytest.mark.parametrize("batch", [1, 50])
@pytest.mark.parametrize("ranges", [False, True])
async def test_what_is_sent_is_received_and_completed(batch: int, ranges: bool) -> None:
    """Every message is accepted, delivered and completed, one by one and in batches and ranges."""
    async with Emulator(queues=["load"]) as emulator:
        address = (emulator.host, emulator.port)

        def load() -> None:
            sender, receiver = RawSender(address, "load"), RawReceiver(address, "load")
            try:
                sender.send([sdk_message()], 300, batch=batch)
                receiver.receive(300, ranges=ranges)
            finally:
                sender.close()
                receiver.close()

        await anyio.to_thread.run_sync(load)

        counts = emulator.broker.runtime("load")
        assert counts.active == 0
        assert emulator.books["load"].sends == emulator.books["load"].receives == 300


async def test_a_refused_link_is_an_error() -> None:
    """A load on a queue that does not exist says so instead of measuring nothing."""
    async with Emulator(queues=["load"]) as emulator:
        address = (emulator.host, emulator.port)
        with pytest.raises(ConnectionError, match="refused"):
            await anyio.to_thread.run_sync(lambda: RawSender(address, "missing"))
