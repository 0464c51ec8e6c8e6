"""The one hook on both sides: code that runs around every call.

    async def authorise(request: Any, info: CallInfo, call_next: Next) -> Any:
        return await call_next(request, replace(info, metadata={**info.metadata, "authorization": token()}))

    RpcClient(connection, reply_queue="gateway.replies", middleware=[authorise])

On the client it sees the request before it is encoded and the reply after it is decoded; what it puts into
`info.metadata` travels. On the server it stands between decoding and the handler. It may answer by itself,
raise an `RpcError`, or change what passes. A streaming method results in an async iterator. The first of
the list is the outermost.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from .context import CallInfo

__all__ = ["Middleware", "Next", "chain"]

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
