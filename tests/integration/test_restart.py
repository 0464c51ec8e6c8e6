"""Drain and restart: clients go, the state stays."""

from __future__ import annotations

import pytest
from azure.servicebus import ServiceBusMessage
from azure.servicebus.aio import ServiceBusClient
from azure.servicebus.exceptions import ServiceBusError

from sbrpc.emulator import Emulator


async def test_what_was_stored_outlives_a_drain_and_a_restart() -> None:
    """Clients are sent away, new ones are refused until the restart, and then find every message."""
    async with Emulator(queues=["q"]) as emulator:
        address = emulator.connection_string
        async with ServiceBusClient.from_connection_string(address, retry_total=0) as client:
            async with client.get_queue_sender("q") as sender:
                await sender.send_messages([ServiceBusMessage(str(number)) for number in range(3)])
                assert await emulator.drain() == 0
                with pytest.raises(ServiceBusError):
                    await sender.send_messages(ServiceBusMessage("too late"))
            await emulator.restart()
            assert emulator.connection_string == address
            async with client.get_queue_receiver("q") as receiver:
                bodies = []
                while len(bodies) < 3:
                    received = await receiver.receive_messages(max_message_count=3, max_wait_time=5)
                    assert received
                    for message in received:
                        bodies.append(str(message))
                        await receiver.complete_message(message)
        assert bodies == ["0", "1", "2"]


async def test_draining_twice_and_stopping_afterwards_is_fine() -> None:
    """There is nobody left to send away, and nothing left to close."""
    async with Emulator(queues=["q"]) as emulator:
        assert await emulator.drain() == 0
        assert await emulator.drain() == 0
