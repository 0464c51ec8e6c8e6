"""Leaves nothing of an earlier run in a namespace that outlives the suite."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from typing import Any

from azure.servicebus import ServiceBusMessageState, ServiceBusReceiveMode, ServiceBusSubQueue
from azure.servicebus.aio import ServiceBusClient
from azure.servicebus.exceptions import MessageNotFoundError

from sbrpc.topology import Queue, Subscription

from .scenarios import Scenario

__all__ = ["clean"]

_AT_ONCE = 32


def clean(connection_string: str, scenarios: Iterable[Scenario]) -> None:
    """Empty the scenarios' queues, subscriptions, dead-letter queues and sessions."""
    asyncio.run(_clean(connection_string, list(scenarios)))


async def _clean(connection_string: str, scenarios: list[Scenario]) -> None:
    slots = asyncio.Semaphore(_AT_ONCE)
    async with ServiceBusClient.from_connection_string(connection_string, retry_total=0) as client:
        sources: list[tuple[tuple[str, ...], Queue | Subscription]] = []
        for scenario in scenarios:
            sources += [((queue.name,), queue) for queue in scenario.queues if queue.status == "Active"]
            sources += [
                ((topic.name, subscription.name), subscription)
                for topic in scenario.topics
                for subscription in topic.subscriptions
            ]

        async def one(source: tuple[str, ...], entity: Queue | Subscription) -> None:
            async with slots:
                if entity.requires_session:
                    await _empty_sessions(client, source)
                elif not entity.forward_to:
                    await _empty(client, source)
                await _empty(client, source, sub_queue=ServiceBusSubQueue.DEAD_LETTER)

        await asyncio.gather(*(one(source, entity) for source, entity in sources))


def _receiver(client: ServiceBusClient, source: tuple[str, ...], **options: Any) -> Any:
    get: Any = client.get_queue_receiver if len(source) == 1 else client.get_subscription_receiver
    return get(*source, receive_mode=ServiceBusReceiveMode.RECEIVE_AND_DELETE, **options)


async def _empty(client: ServiceBusClient, source: tuple[str, ...], **options: Any) -> None:
    async with _receiver(client, source, **options) as receiver:
        before: list[int] = []
        while found := await receiver.peek_messages(100, sequence_number=1):
            numbers = [each.sequence_number for each in found]
            if numbers == before:
                return  # what is left is locked, by a scenario that failed a moment ago or by a stranger
            before = numbers
            await _remove(client, source, receiver, found)


async def _remove(client: ServiceBusClient, source: tuple[str, ...], receiver: Any, found: list[Any]) -> None:
    """Remove messages that were seen, in the way their state demands."""

    def in_state(state: ServiceBusMessageState) -> list[int]:
        return [each.sequence_number for each in found if each.state == state]

    if deferred := in_state(ServiceBusMessageState.DEFERRED):
        with contextlib.suppress(MessageNotFoundError):
            await receiver.receive_deferred_messages(deferred)
    if scheduled := in_state(ServiceBusMessageState.SCHEDULED):
        async with client.get_queue_sender(source[0]) as sender:
            await sender.cancel_scheduled_messages(scheduled)
    if active := in_state(ServiceBusMessageState.ACTIVE):
        await receiver.receive_messages(len(active), max_wait_time=2)


async def _empty_sessions(client: ServiceBusClient, source: tuple[str, ...]) -> None:
    listing: Any = client.list_queue_sessions if len(source) == 1 else client.list_subscription_sessions
    async for name in listing(*source):
        await _empty(client, source, session_id=name)
        async with _receiver(client, source, session_id=name) as receiver:
            await receiver.session.set_state(None)
