"""Request-reply written by hand over the SDK, with its batches: what a team arrives at that needs more calls.

Requests that gather while one batch is being sent leave in the next. The server takes what has arrived,
answers it with one batch and completes it.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator
from typing import Any

from azure.servicebus import ServiceBusMessage, ServiceBusReceivedMessage
from azure.servicebus.aio import ServiceBusClient, ServiceBusReceiver

from benchmarks.models import GetMovie, Movie, find
from benchmarks.peers import Journal

BATCH = 100
PREFETCH = 300


async def take(receiver: ServiceBusReceiver) -> list[ServiceBusReceivedMessage]:
    """What has arrived, at least one message.

    Asking for a hundred at once makes the SDK wait 0.2 s for more after the first one; asking for what else
    has been prefetched with hardly any time to wait does not.
    """
    messages = await receiver.receive_messages(max_message_count=1)
    if messages:
        messages += await receiver.receive_messages(max_message_count=BATCH - 1, max_wait_time=1e-6)
    return messages


class Client:
    def __init__(self, bus: ServiceBusClient) -> None:
        self.session = uuid.uuid4().hex
        self.sender = bus.get_queue_sender("movies")
        self.receiver = bus.get_queue_receiver(
            "gateway.replies", session_id=self.session, prefetch_count=PREFETCH
        )
        self.waiting: dict[str, asyncio.Future[Movie]] = {}
        self.outbox: list[ServiceBusMessage] = []
        self.filled = asyncio.Event()

    async def call(self, number: int) -> Movie:
        message_id = uuid.uuid4().hex
        future = self.waiting[message_id] = asyncio.get_running_loop().create_future()
        message = ServiceBusMessage(
            GetMovie(id=number).model_dump_json(),
            message_id=message_id,
            subject="get_movie",
            content_type="application/json",
            reply_to="gateway.replies",
            reply_to_session_id=self.session,
        )
        self.outbox.append(message)
        self.filled.set()
        try:
            return await asyncio.wait_for(future, 30)
        finally:
            self.waiting.pop(message_id, None)

    async def send(self) -> None:
        while True:
            await self.filled.wait()
            batch, self.outbox = self.outbox[:BATCH], self.outbox[BATCH:]
            if not self.outbox:
                self.filled.clear()
            await self.sender.send_messages(batch)

    async def receive(self) -> None:
        while True:
            messages = await take(self.receiver)
            for message in messages:
                future = self.waiting.get(str(message.correlation_id))
                if future is not None and not future.done():
                    future.set_result(Movie.model_validate_json(b"".join(message.body)))
            for message in messages:
                await self.receiver.complete_message(message)


@contextlib.asynccontextmanager
async def client(settings: dict[str, Any]) -> AsyncIterator[Client]:
    async with ServiceBusClient.from_connection_string(settings["url"]) as bus:
        caller = Client(bus)
        async with caller.sender, caller.receiver:
            tasks = [asyncio.create_task(caller.send()), asyncio.create_task(caller.receive())]
            try:
                yield caller
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.wait(tasks, timeout=3)


async def serve(settings: dict[str, Any], journal: Journal) -> None:
    async with ServiceBusClient.from_connection_string(settings["url"]) as bus:
        requests = bus.get_queue_receiver("movies", prefetch_count=PREFETCH)
        sender = bus.get_queue_sender("gateway.replies")
        async with requests, sender:
            journal.ready()
            while True:
                messages = await take(requests)
                # One batch carries one session's messages; here that is all of them.
                sessions: dict[str | None, list[ServiceBusMessage]] = {}
                for message in messages:
                    request = GetMovie.model_validate_json(b"".join(message.body))
                    reply = ServiceBusMessage(
                        find(request.id).model_dump_json(),
                        session_id=message.reply_to_session_id,
                        correlation_id=message.message_id,
                        content_type="application/json",
                    )
                    sessions.setdefault(message.reply_to_session_id, []).append(reply)
                for replies in sessions.values():
                    await sender.send_messages(replies)
                for message in messages:
                    await requests.complete_message(message)
