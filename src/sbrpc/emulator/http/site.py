"""Which path leads where: health, page, JSON API, certificate, and everything else to the management API.

Owns routing and the checks that keep other web sites out: a browser on this machine can reach the emulator,
so a page from elsewhere must not be able to use it. Knows nothing of what the parts answer.
"""

from __future__ import annotations

import base64
import hashlib
import ipaddress
import re
from collections.abc import Awaitable, Callable
from functools import cache
from importlib import resources
from urllib.parse import urlsplit

from sbrpc.emulator.http.messages import Request, Response, json_response, plain_response
from sbrpc.emulator.http.tls import Certificate, TlsUnavailable

__all__ = ["Site"]

Part = Callable[[Request], Awaitable[Response]]

_HEALTHY = {"status": "healthy", "message": "Service is healthy."}
_UNHEALTHY = {
    "status": "unhealthy",
    "message": "Service not available. Please try after some time.",
}


class Site:
    """One emulator's web site. With `local`, only requests to a loopback name are answered."""

    def __init__(
        self, *, manage: Part, api: Part, certificate: Certificate, ready: Callable[[], bool], local: bool
    ) -> None:
        self._manage = manage
        self._api = api
        self._certificate = certificate
        self._ready = ready
        self._local = local

    async def handle(self, request: Request) -> Response:
        """Answer a request."""
        managed = "api-version" in request.query
        if request.path == "/health" and not managed:
            healthy = self._ready()
            return json_response(_HEALTHY if healthy else _UNHEALTHY, 200 if healthy else 503)
        if self._local and not _is_local(request.host):
            # A name that somebody else's DNS leads to this machine: the browser believes to be at their site.
            return plain_response(
                f"This emulator answers requests to localhost only, not to '{request.host}'.", 421
            )
        if managed:
            # Clients of the management API always say its version, so that entities may have any name.
            return await self._manage(request)
        if request.path == "/api" or request.path.startswith("/api/"):
            return self._foreign(request) or await self._api(request)
        if request.path in ("/", "/certificate.pem"):
            if request.method not in ("GET", "HEAD"):
                return plain_response("Only GET is possible here.", 405)
            return _page() if request.path == "/" else self._certificate_file()
        return await self._manage(request)

    def _foreign(self, request: Request) -> Response | None:
        """The refusal of a request that a page from another site makes."""
        origin = request.headers.get("origin")
        elsewhere = origin is not None and urlsplit(origin).netloc.lower() != request.host.lower()
        if elsewhere or request.headers.get("sec-fetch-site") in ("cross-site", "same-site"):
            return json_response({"error": "Pages from other sites may not use this API."}, 403)
        return None

    def _certificate_file(self) -> Response:
        try:
            return Response(200, self._certificate.file.read_bytes(), "application/x-pem-file")
        except TlsUnavailable as error:
            return plain_response(str(error), 404)


def _is_local(host: str) -> bool:
    name = urlsplit(f"//{host}").hostname or ""
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


@cache
def _page() -> Response:
    """The page, with a policy that lets it run its own script and style and nothing else."""
    body = resources.files(__package__).joinpath("page.html").read_bytes()

    def hashed(tag: bytes) -> str:
        found = re.search(b"<%b>(.*?)</%b>" % (tag, tag), body, re.DOTALL)
        assert found is not None
        return f"'sha256-{base64.b64encode(hashlib.sha256(found.group(1)).digest()).decode()}'"

    policy = (
        f"default-src 'none'; script-src {hashed(b'script')}; style-src {hashed(b'style')}; "
        "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    headers = {
        "Cache-Control": "no-cache",
        "Content-Security-Policy": policy,
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
    }
    return Response(200, body, "text/html; charset=utf-8", headers)
