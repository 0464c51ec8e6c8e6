"""Leaves nothing of an earlier run in a namespace that outlives the suite."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from azure.servicebus import ServiceBusMessageState, ServiceBusReceiveMode, ServiceBusSubQueue
from azure.servicebus.aio import ServiceBusClient

from .scenarios import Scenario

__all__ = ["clean"]

_AT_ONCE = 12


def clean(connection_string: str, scenarios: Iterable[Scenario]) -> None:
    """Empty the scenarios' queues, subscriptions, dead-letter queues and sessions."""
    asyncio.run(_clean(connection_string, list(scenarios)))


async def _clean(connection_string: str, scenarios: list[Scenario]) -> None:
    slots = asyncio.Semaphore(_AT_ONCE)
    async with ServiceBusClient.from_connection_string(connection_string) as client:
        sources: list[tuple[bool, tuple[str, ...]]] = []
        for scenario in scenarios:
            sources += [
                (queue.requires_session, (queue.name,)) for queue in scenario.queues if not queue.forward_to
            ]
            sources += [
                (subscription.requires_session, (topic.name, subscription.name))
                for topic in scenario.topics
                for subscription in topic.subscriptions
                if not subscription.forward_to
            ]

        async def one(sessions: bool, source: tuple[str, ...]) -> None:
            async with slots:
                if sessions:
                    await _empty_sessions(client, source)
                else:
                    await _empty(client, source)
                await _empty(client, source, sub_queue=ServiceBusSubQueue.DEAD_LETTER)

        await asyncio.gather(*(one(sessions, source) for sessions, source in sources))


def _receiver(client: ServiceBusClient, source: tuple[str, ...], **options: Any) -> Any:
    get: Any = client.get_queue_receiver if len(source) == 1 else client.get_subscription_receiver
    return get(*source, receive_mode=ServiceBusReceiveMode.RECEIVE_AND_DELETE, **options)


async def _empty(client: ServiceBusClient, source: tuple[str, ...], **options: Any) -> None:
    async with _receiver(client, source, **options) as receiver:
        while found := await receiver.peek_messages(100, sequence_number=1):
            by_state = {
                state: [each.sequence_number for each in found if each.state == state]
                for state in ServiceBusMessageState
            }
            if by_state[ServiceBusMessageState.DEFERRED]:
                await receiver.receive_deferred_messages(by_state[ServiceBusMessageState.DEFERRED])
            if by_state[ServiceBusMessageState.SCHEDULED]:
                async with client.get_queue_sender(source[0]) as sender:
                    await sender.cancel_scheduled_messages(by_state[ServiceBusMessageState.SCHEDULED])
            if by_state[ServiceBusMessageState.ACTIVE] and not await receiver.receive_messages(
                100, max_wait_time=5
            ):
                return  # what is left is locked by somebody, and comes back to nobody's harm


async def _empty_sessions(client: ServiceBusClient, source: tuple[str, ...]) -> None:
    listing: Any = client.list_queue_sessions if len(source) == 1 else client.list_subscription_sessions
    async for name in listing(*source):
        await _empty(client, source, session_id=name)
        async with _receiver(client, source, session_id=name) as receiver:
            await receiver.session.set_state(None)
