"""`sbrpc.testing.application`: programs in processes of their own, for a test from end to end."""

from __future__ import annotations

import os
import signal
import socket
import sys
from contextlib import ExitStack
from pathlib import Path

import anyio
import pytest

from sbrpc import RpcClient
from sbrpc.testing import application, free_port

from .run_apps import Shop

pytestmark = pytest.mark.applications

ROOT = Path(__file__).resolve().parents[2]
APPS = "tests.integration.run_apps"


def runs(process: int) -> bool:
    """Whether a process is there, and not merely waits for somebody to take note of its end."""
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes() != b""
    except FileNotFoundError:
        return False


async def test_an_application_is_up_inside_and_gone_behind() -> None:
    """Its programs can be called inside, each line is told, and what is left at the end is stopped."""
    told: list[str] = []
    apps = f"{APPS}:managed", f"{APPS}:caller"
    async with application(*apps, cwd=ROOT, tell=told.append) as running:
        async with RpcClient(running.connection_string, reply_queue="shop.replies") as client:
            assert await client.of(Shop).double(21) == 42
        assert running.process.returncode is None
    assert running.process.returncode == 0
    assert {"opened", running.connection_string} <= {*running.said}
    assert any(line.startswith("closed") for line in running.said)
    assert told == [*running.said]


async def test_an_application_may_be_stopped_or_killed_inside() -> None:
    """With the signal that the test is about; leaving then has nothing to do."""
    async with application(f"{APPS}:app", cwd=ROOT) as running:
        assert await running.stop(signal.SIGINT) == 0
    async with application(f"{APPS}:app", cwd=ROOT) as running:
        os.kill(running.process.pid, signal.SIGKILL)
    assert running.process.returncode == -signal.SIGKILL


async def test_an_application_ends_with_the_process_that_started_it() -> None:
    """A run of tests that is killed leaves nothing behind."""
    program = f"""
import asyncio, os, re, signal
from sbrpc.testing import application, free_port

async def main() -> None:
    async with application("{APPS}:app", options=["--log-level=debug"]) as running:
        workers = re.findall(r"is process (\\d+)", " ".join(running.said))
        print(running.process.pid, *workers, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""
    ended = await anyio.run_process([sys.executable, "-c", program], cwd=ROOT, check=False)
    processes = [int(process) for process in ended.stdout.split()]
    assert len(processes) == 2, ended.stderr.decode()
    with anyio.fail_after(60):
        for process in processes:
            while runs(process):  # noqa: ASYNC110 - another process
                await anyio.sleep(0.05)


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


def test_a_free_port_is_nobodys_who_asks_for_any() -> None:
    """It can be listened on, and is none of those that the system gives to others meanwhile."""
    ports = {free_port() for _ in range(20)}
    assert len(ports) > 10
    with ExitStack() as stack:
        for port in ports:
            stack.enter_context(socket.create_server(("127.0.0.1", port)))
        assert ports.isdisjoint(free_port() for _ in range(20))
        others = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(20)]
        assert max(ports) < min(other.getsockname()[1] for other in others)
