"""The health endpoint of `sbrpc run`: GET /health/live and /health/ready, as JSON."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import typer

__all__ = ["address_of", "answering"]

Report = Callable[[], tuple[bool, bool, Mapping[str, Any]]]
"""Whether it is live, whether it is ready, and what else there is to say."""


def address_of(given: str) -> tuple[str, int]:
    """Host and port of `PORT` or `HOST:PORT`; a port alone is open to all, as probes come from outside."""
    host, _, port = given.rpartition(":")
    if not port.isdigit() or int(port) > 65535:
        raise typer.BadParameter(f"{given!r} is neither a port nor HOST:PORT", param_hint="--health")
    return host.strip("[]") or "0.0.0.0", int(port)


@asynccontextmanager
async def answering(address: tuple[str, int] | None, report: Report) -> AsyncIterator[int | None]:
    """Answer inside the block, at the port that this gives; nothing happens where there is no address.

    Raises:
        OSError: the port is taken.
    """
    if address is None:
        yield None
        return
    from sbrpc.emulator.http.messages import Request, Response, json_response
    from sbrpc.emulator.http.server import HttpFront
    from sbrpc.emulator.http.tls import Certificate

    async def handle(request: Request) -> Response:
        live, ready, more = report()
        known = {"/health/live": ("live", live), "/health/ready": ("ready", ready)}
        if request.path not in known:
            return json_response({"error": f"there are {' and '.join(known)}"}, 404)
        word, holds = known[request.path]
        return json_response({"status": word if holds else f"not {word}", **more}, 200 if holds else 503)

    front = HttpFront(handle, certificate=Certificate(()))
    port = await front.listen(*address)
    try:
        yield port
    finally:
        await front.close()
