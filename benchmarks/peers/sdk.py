"""Request-reply written by hand over the SDK, one message at a time: what most teams have."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator
from typing import Any

from azure.servicebus import ServiceBusMessage
from azure.servicebus.aio import ServiceBusClient, ServiceBusReceiver

from benchmarks.models import GetMovie, Movie, MovieChanged, find
from benchmarks.peers import Journal

# Messages that the SDK may fetch ahead; without, every message costs a round trip for its credit.
PREFETCH = 100


class Client:
    def __init__(self, bus: ServiceBusClient) -> None:
        self.session = uuid.uuid4().hex
        self.sender = bus.get_queue_sender("movies")
        self.topic = bus.get_topic_sender("movie-events")
        self.receiver = bus.get_queue_receiver(
            "gateway.replies", session_id=self.session, prefetch_count=PREFETCH
        )
        self.waiting: dict[str, asyncio.Future[Movie]] = {}
        # The SDK's senders are not made for several tasks at once.
        self.lock = asyncio.Lock()

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
        try:
            async with self.lock:
                await self.sender.send_messages(message)
            return await asyncio.wait_for(future, 30)
        finally:
            self.waiting.pop(message_id, None)

    async def receive(self) -> None:
        async for message in self.receiver:
            future = self.waiting.get(str(message.correlation_id))
            if future is not None and not future.done():
                future.set_result(Movie.model_validate_json(b"".join(message.body)))
            await self.receiver.complete_message(message)

    async def publish(self, event: MovieChanged) -> None:
        message = ServiceBusMessage(event.model_dump_json(), subject="movie.changed")
        async with self.lock:
            await self.topic.send_messages(message)


@contextlib.asynccontextmanager
async def client(settings: dict[str, Any]) -> AsyncIterator[Client]:
    async with ServiceBusClient.from_connection_string(settings["url"]) as bus:
        caller = Client(bus)
        async with caller.sender, caller.receiver, caller.topic:
            receiving = asyncio.create_task(caller.receive())
            try:
                yield caller
            finally:
                receiving.cancel()
                await asyncio.wait([receiving], timeout=3)


async def serve(settings: dict[str, Any], journal: Journal) -> None:
    async with ServiceBusClient.from_connection_string(settings["url"]) as bus:
        requests = bus.get_queue_receiver("movies", prefetch_count=PREFETCH)
        events = bus.get_subscription_receiver("movie-events", "movie-event-handler", prefetch_count=PREFETCH)
        sender = bus.get_queue_sender("gateway.replies")
        async with requests, sender, events:
            following = asyncio.create_task(_follow(events, journal))
            journal.ready()
            try:
                async for message in requests:
                    request = GetMovie.model_validate_json(b"".join(message.body))
                    reply = ServiceBusMessage(
                        find(request.id).model_dump_json(),
                        session_id=message.reply_to_session_id,
                        correlation_id=message.message_id,
                        content_type="application/json",
                    )
                    await sender.send_messages(reply)
                    await requests.complete_message(message)
            finally:
                following.cancel()


async def _follow(events: ServiceBusReceiver, journal: Journal) -> None:
    async for message in events:
        journal.handled(MovieChanged.model_validate_json(b"".join(message.body)))
        await events.complete_message(message)
