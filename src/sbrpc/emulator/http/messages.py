"""A request and a response, the only words between the server and what answers.

Owns the two values and nothing else: no socket, no routing, no meaning.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["JSON", "Handler", "Request", "Response", "json_response", "plain_response"]

JSON = "application/json"


@dataclass(frozen=True, slots=True)
class Request:
    """What came in. The path is as it was sent, percent-encoded; header names are in lower case."""

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    scheme: str = "http"

    @property
    def host(self) -> str:
        """The authority the client used, with port."""
        return self.headers.get("host", "")

    @property
    def base(self) -> str:
        """Scheme and authority, as links in answers begin."""
        return f"{self.scheme}://{self.host}"


@dataclass(frozen=True, slots=True)
class Response:
    """What goes out; length and date are added by the server."""

    status: int
    body: bytes = b""
    content_type: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


Handler = Callable[[Request], Awaitable[Response]]


def json_response(value: Any, status: int = 200) -> Response:
    """A response with a JSON document that no cache keeps."""
    body = json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "replace")
    return Response(status, body, JSON, {"Cache-Control": "no-store"})


def plain_response(text: str, status: int) -> Response:
    """A response with one line for a person."""
    return Response(status, text.encode() + b"\n", "text/plain; charset=utf-8")
