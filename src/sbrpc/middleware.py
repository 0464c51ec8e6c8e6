"""The one hook on both sides: code that runs around every call.

    async def authorise(request: Any, info: CallInfo, call_next: Next) -> Any:
        return await call_next(request, replace(info, metadata={**info.metadata, "authorization": token()}))

    RpcClient(connection, reply_queue="gateway.replies", middleware=[authorise])

On the client it sees the request before it is encoded and the reply after it is decoded; what it puts into
`info.metadata` travels. On the server it stands between decoding and the handler. It may answer by itself,
raise an `RpcError`, or change what passes. A streaming method results in an async iterator. The first of
the list is the outermost.

Around events stands an `EventMiddleware`: around what a bus publishes, and around each attempt of a handler.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from .context import CallInfo

if TYPE_CHECKING:  # a program that only calls and serves need not load what events are made of
    from .event import CloudEvent, Event, EventInfo

__all__ = [
    "Delivered",
    "EventMiddleware",
    "Middleware",
    "Next",
    "Publication",
    "chain",
    "handling",
    "publishing",
]

Next = Callable[[Any, CallInfo], Awaitable[Any]]
"""What a middleware calls to go on: the next one, or the call itself."""

Middleware = Callable[[Any, CallInfo, Next], Awaitable[Any]]
"""Code around a call: request, what is known about the call, and how to go on."""


def chain(middleware: Sequence[Middleware], endpoint: Next) -> Next:
    """The endpoint with all of the middleware around it."""
    for layer in reversed(middleware):
        endpoint = _around(layer, endpoint)
    return endpoint


def _around(layer: Middleware, inner: Next) -> Next:
    def call(request: Any, info: CallInfo) -> Awaitable[Any]:
        return layer(request, info, inner)

    return call


@dataclass(frozen=True)
class Publication:
    """Events that are about to be sent to a topic, together."""

    topic: str
    events: tuple[CloudEvent, ...]
    operation: Literal["send", "schedule"] = "send"
    as_is: bool = False
    """Whether they were made earlier, and kept, for instance by an outbox."""


@dataclass(frozen=True)
class Delivered:
    """Events that a handler is about to get: one, or a batch."""

    topic: str
    subscription: str
    events: tuple[Event, ...]
    infos: tuple[EventInfo, ...]


class EventMiddleware:
    """Code around events; override what is needed. `EventBus(..., middleware=[...])`, the first outermost."""

    async def publish(
        self, publication: Publication, call_next: Callable[[Publication], Awaitable[Any]]
    ) -> Any:
        """Around sending; what is passed on is what is sent. Hands back what `call_next` results in."""
        return await call_next(publication)

    async def handle(self, delivered: Delivered, call_next: Callable[[], Awaitable[None]]) -> None:
        """Around one attempt of a handler, in the handler's context. To raise is to fail the attempt."""
        await call_next()


def publishing(
    middleware: Sequence[EventMiddleware], send: Callable[[Publication], Awaitable[Any]]
) -> Callable[[Publication], Awaitable[Any]]:
    """Sending with all of the middleware around it."""
    for layer in reversed(middleware):
        send = partial(_publish, layer, send)
    return send


def _publish(
    layer: EventMiddleware, send: Callable[[Publication], Awaitable[Any]], publication: Publication
) -> Awaitable[Any]:
    return layer.publish(publication, send)


def handling(
    middleware: Sequence[EventMiddleware], delivered: Delivered, call: Callable[[], Awaitable[None]]
) -> Callable[[], Awaitable[None]]:
    """One attempt with all of the middleware around it."""
    for layer in reversed(middleware):
        call = partial(layer.handle, delivered, call)
    return call
