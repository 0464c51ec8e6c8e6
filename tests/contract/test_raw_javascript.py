"""The Azure SDK for JavaScript as caller, written from docs/wire-contract.md alone."""

from __future__ import annotations

import json
from pathlib import Path

import anyio
import pytest

from tests.conformance.drivers import JavaScript, Unavailable

from .service import movies_service

CALLER = Path(__file__).parent / "js" / "caller.mjs"


async def test_a_caller_in_javascript_gets_values_and_errors() -> None:
    """Replies, typed errors, streams and dead letters, for one who knows the page and nothing else."""
    try:
        node = (await anyio.to_thread.run_sync(JavaScript)).node
    except Unavailable as reason:
        pytest.skip(str(reason))
    forgotten: list[int] = []
    async with movies_service(forgotten) as emulator:
        with anyio.fail_after(60):
            done = await anyio.run_process([node, str(CALLER), emulator.connection_string], check=False)
    assert done.returncode == 0, done.stderr.decode()
    got = json.loads(done.stdout)
    assert got["value"] == {"status": "OK", "body": {"id": 1, "title": "Alien"}}
    assert got["metadata"] == {"status": "OK", "body": {"id": 1, "title": "Brazil"}}
    errors = {name: got[name]["status"] for name in ("typed", "malformed", "wrong", "unknown", "late")}
    assert errors == {
        "typed": "NOT_FOUND",
        "malformed": "INVALID_ARGUMENT",
        "wrong": "INVALID_ARGUMENT",
        "unknown": "UNIMPLEMENTED",
        "late": "DEADLINE_EXCEEDED",
    }
    assert all(got[name]["body"]["code"] == code for name, code in errors.items())
    assert [detail["field"] for detail in got["wrong"]["body"]["details"]] == ["id"]
    assert got["plain"] == {"id": 3, "title": "Alien"}
    assert (got["forbidden"], got["mute"]) == ("ForbiddenReplyTo", "MalformedRequest")
    assert got["stream"] == [0, 1, 2]
    assert forgotten == [5]
