"""What each program of the example needs of a namespace, for `sbrpc export`. Nothing here runs.

sbrpc export bicep movies.deployment:service movies.deployment:events movies.deployment:api
"""

from __future__ import annotations

from sbrpc import EventBus, Queue, RpcClient, RpcServer

from .contract import (
    LANES,
    REPLY_QUEUE,
    SUBSCRIPTION,
    TOPIC,
    MovieCreated,
    MovieDeleted,
    MovieEvent,
    Movies,
    MovieUpdated,
)

NOWHERE = ""  # a connection that nobody opens

# Short locks: when a service dies, another one soon has its calls.
service = [
    RpcServer(NOWHERE, Movies),
    EventBus(NOWHERE, topic=TOPIC, source="/movies"),
    MovieCreated,
    MovieUpdated,
    MovieDeleted,
    Queue("movies", lock_duration=5),
]
events = EventBus(NOWHERE, topic=TOPIC)
api = [RpcClient(NOWHERE, reply_queue=REPLY_QUEUE), Movies]


@events.on(
    MovieCreated,
    MovieUpdated,
    MovieDeleted,
    subscription=SUBSCRIPTION,
    max_concurrent_sessions=LANES,
    batch=100,
)
async def project(events: list[MovieEvent]) -> None:
    """Stands for what `events.py` does."""
