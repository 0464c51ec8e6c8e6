"""`sbrpc.testing.application`: programs in processes of their own, for a test from end to end."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from sbrpc import RpcClient
from sbrpc.testing import application

from .run_apps import Shop

ROOT = Path(__file__).resolve().parents[2]
APPS = "tests.integration.run_apps"


async def test_an_application_is_up_inside_and_gone_behind() -> None:
    """Its programs can be called inside, each line is told, and what is left at the end is stopped."""
    told: list[str] = []
    apps = f"{APPS}:managed", f"{APPS}:caller"
    async with application(*apps, cwd=ROOT, tell=told.append) as running:
        async with RpcClient(running.connection_string, reply_queue="shop.replies") as client:
            assert await client.of(Shop).double(21) == 42
        assert running.process.returncode is None
    assert running.process.returncode == 0
    assert {"opened", "closed", running.connection_string} <= {*running.said}
    assert told == [*running.said]


async def test_an_application_may_be_stopped_or_killed_inside() -> None:
    """With the signal that the test is about; leaving then has nothing to do."""
    async with application(f"{APPS}:app", cwd=ROOT) as running:
        assert await running.stop(signal.SIGINT) == 0
    async with application(f"{APPS}:app", cwd=ROOT) as running:
        os.kill(running.process.pid, signal.SIGKILL)
    assert running.process.returncode == -signal.SIGKILL


async def test_what_a_test_raises_comes_out_as_it_is() -> None:
    """No group of exceptions is put around it."""
    with pytest.raises(LookupError, match="a film"):
        async with application(f"{APPS}:app", cwd=ROOT):
            raise LookupError("a film")


async def test_an_application_that_does_not_come_up_says_why() -> None:
    """The error has the exit code and all that was said, or that patience ran out."""
    with pytest.raises(RuntimeError, match=r"(?s)run_apps:nothing: it ended with 2\n.*has nothing to run"):
        async with application(f"{APPS}:nothing", cwd=ROOT):
            raise AssertionError
    nowhere = {
        "SERVICEBUS_CONNECTION_STRING": "Endpoint=sb://127.0.0.1:9;SharedAccessKeyName=n;SharedAccessKey=k"
    }
    with pytest.raises(RuntimeError, match=r"run_apps:app: it was not ready after 0.1 s"):
        async with application(f"{APPS}:app", cwd=ROOT, emulator=False, env=nowhere, timeout=0.1):
            raise AssertionError
