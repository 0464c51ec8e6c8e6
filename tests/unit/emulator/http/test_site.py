"""Which path leads where, and who is kept out."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from sbrpc.emulator.http.messages import Request, Response
from sbrpc.emulator.http.site import Site
from sbrpc.emulator.http.tls import Certificate


class Parts:
    """A site whose parts answer with their name."""

    def __init__(self, *, local: bool = True) -> None:
        self.ready = True
        self.certificate = Certificate()
        self.site = Site(
            manage=self.manage,
            api=self.api,
            certificate=self.certificate,
            ready=lambda: self.ready,
            local=local,
        )

    async def manage(self, request: Request) -> Response:
        return Response(200, b"management")

    async def api(self, request: Request) -> Response:
        return Response(200, b"api")

    async def get(self, path: str, method: str = "GET", **headers: str) -> Response:
        path, _, query = path.partition("?")
        given = {
            "host": "127.0.0.1:5300",
            **{name.replace("_", "-"): value for name, value in headers.items()},
        }
        return await self.site.handle(
            Request(method, path, dict.fromkeys(query.split("&"), "1") if query else {}, given)
        )


@pytest.mark.parametrize(
    ("path", "part"),
    [
        ("/api/state", b"api"),
        ("/api", b"api"),
        ("/q", b"management"),
        ("/$Resources/queues", b"management"),
        ("/?api-version", b"management"),
        ("/health?api-version", b"management"),
        ("/api/state?api-version", b"management"),
        ("/apis", b"management"),
    ],
)
async def test_routes(path: str, part: bytes) -> None:
    """Requests of management clients, which name their version, never meet anything else."""
    assert (await Parts().get(path)).body == part


async def test_health() -> None:
    """Health is told as the official emulator tells it, to anybody."""
    parts = Parts()
    response = await parts.get("/health", host="somewhere.example")
    assert (response.status, json.loads(response.body)) == (
        200,
        {"status": "healthy", "message": "Service is healthy."},
    )
    parts.ready = False
    response = await parts.get("/health")
    assert (response.status, json.loads(response.body)) == (
        503,
        {"status": "unhealthy", "message": "Service not available. Please try after some time."},
    )


@pytest.mark.parametrize(
    "host", ["localhost:5300", "127.0.0.1", "[::1]:1", "emulator.localhost", "127.9.9.9:1"]
)
async def test_loopback_names_are_answered(host: str) -> None:
    """Every name that means this machine is fine."""
    assert (await Parts().get("/api/state", host=host)).status == 200


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "10.0.0.1", "", "[::2]", "a b"])
async def test_other_names_are_not(host: str) -> None:
    """A name that somebody else's DNS leads here gets no answer, unless the emulator listens for others."""
    response = await Parts().get("/api/state", host=host)
    assert (response.status, b"localhost only" in response.body) == (421, True)
    assert (await Parts(local=False).get("/api/state", host=host)).status == 200


async def test_pages_of_other_sites_cannot_use_the_api() -> None:
    """Browsers say where a request comes from; only the emulator's own page may ask."""
    parts = Parts()
    assert (await parts.get("/api/state", origin="http://127.0.0.1:5300")).status == 200
    assert (await parts.get("/api/state", origin="http://evil.example")).status == 403
    assert (await parts.get("/api/state", origin="null")).status == 403
    assert (await parts.get("/api/state", sec_fetch_site="cross-site")).status == 403
    assert (await parts.get("/api/state", sec_fetch_site="same-origin")).status == 200


async def test_the_page_runs_its_own_script_and_no_other() -> None:
    """The page's policy names its own script and style, and the page needs nothing else."""
    response = await Parts().get("/")
    page = response.body.decode()
    policy = response.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert len(re.findall(r"'sha256-[\w+/=]{44}'", policy)) == 2
    assert not re.findall(r'(?:src|href)="(?!data:|#)', page)
    assert not re.findall(r"\son\w+=\"|\sstyle=\"|@import|url\(", page)
    assert (await Parts().get("/", "HEAD")).status == 200
    assert (await Parts().get("/", "POST")).status == 405


async def test_certificate(monkeypatch: pytest.MonkeyPatch) -> None:
    """The authority's certificate can be fetched; without the package that makes it, the answer says so."""
    parts = Parts()
    response = await parts.get("/certificate.pem")
    with open(parts.certificate.file, "rb") as file:
        assert response.body == file.read()
    assert response.body.startswith(b"-----BEGIN CERTIFICATE-----")
    parts.certificate.remove()
    without_cryptography(monkeypatch)
    response = await parts.get("/certificate.pem")
    assert (response.status, b"sbrpc[emulator-tls]" in response.body) == (404, True)


def without_cryptography(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the package were not installed."""
    modules: Any = __import__("sys").modules
    monkeypatch.setitem(modules, "cryptography", None)
    monkeypatch.delitem(modules, "sbrpc.emulator.http.certificate", raising=False)
