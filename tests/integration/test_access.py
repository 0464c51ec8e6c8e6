"""Keys and claims, as the real SDK meets them."""

from __future__ import annotations

import pytest
from azure.servicebus import ServiceBusMessage
from azure.servicebus.aio import ServiceBusClient
from azure.servicebus.exceptions import ServiceBusAuthenticationError, ServiceBusAuthorizationError

from sbrpc.emulator import AccessKey, Emulator, Right

ROOT = AccessKey("root", "cm9vdC1zZWNyZXQ=", frozenset({Right.MANAGE}))
SENDER = AccessKey("sender", "c2VuZGVyLXNlY3JldA==", frozenset({Right.SEND}), entity="orders")


async def test_a_key_allows_what_it_says_and_nothing_else() -> None:
    """With Send on one queue one can send there; receiving and other queues are refused."""
    async with Emulator(queues=["orders", "other"], access_keys=[ROOT, SENDER]) as emulator:
        address = emulator.connection_string_for("sender", SENDER.key)
        async with ServiceBusClient.from_connection_string(address, retry_total=0) as client:
            async with client.get_queue_sender("orders") as sender:
                await sender.send_messages(ServiceBusMessage("allowed"))
            with pytest.raises(ServiceBusAuthorizationError, match="'Listen' claim"):
                async with client.get_queue_receiver("orders"):
                    pass
            with pytest.raises(ServiceBusAuthorizationError, match="'Send' claim"):
                async with client.get_queue_sender("other"):
                    pass
        root = emulator.connection_string
        async with (
            ServiceBusClient.from_connection_string(root) as client,
            client.get_queue_receiver("orders") as receiver,
        ):
            (message,) = await receiver.receive_messages(max_wait_time=5)
            assert str(message) == "allowed"
            await receiver.complete_message(message)


async def test_a_wrong_key_is_refused() -> None:
    """A token signed with another key does not authenticate."""
    async with Emulator(queues=["orders"], access_keys=[ROOT]) as emulator:
        address = emulator.connection_string_for("root", "d3Jvbmc=")
        async with ServiceBusClient.from_connection_string(address, retry_total=0) as client:
            with pytest.raises(ServiceBusAuthenticationError):
                async with client.get_queue_sender("orders"):
                    pass
