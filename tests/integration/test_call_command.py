"""`sbrpc call`, `stream` and `send` as a person runs them: in processes of their own, against one service."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from sbrpc.emulator import Emulator
from tests import forked

from .laboratory import QUEUES, Bench, make_server

ROOT = Path(__file__).resolve().parents[2]
CONTRACT = ("--contract", "tests.integration.laboratory:Lab")
REPLIES = ("--reply-queue", "lab.replies")


@pytest.fixture(scope="module")
async def world() -> AsyncIterator[tuple[Emulator, Bench]]:
    """An emulator with a service, for all tests of this file."""
    bench = Bench()
    async with Emulator(queues=QUEUES) as emulator, make_server(emulator.connection_string, bench) as server:
        await server.ready(60)
        yield emulator, bench


def environment(emulator: Emulator) -> dict[str, str]:
    """What the command finds there."""
    return {**os.environ, "SERVICEBUS_CONNECTION_STRING": emulator.connection_string, "COLUMNS": "200"}


async def sbrpc(emulator: Emulator, *arguments: str, status: int = 0, given: bytes = b"") -> tuple[str, str]:
    """Run the command; its output and its errors."""
    done = await forked.run_aside("-m", "sbrpc", *arguments, env=environment(emulator), given=given)
    out, err = done.stdout.decode(), done.stderr.decode()
    assert done.returncode == status, out + err
    assert "Traceback" not in err
    return out, " ".join(err.replace("│", " ").split())


async def test_call(world: tuple[Emulator, Bench], tmp_path: Path) -> None:
    """With a contract or without; the request from the argument, a file or standard input."""
    emulator, _ = world
    file = tmp_path / "request.json"
    file.write_text('{"id": 2}')
    echo = ("call", "lab", "echo")
    out, _ = await sbrpc(emulator, *echo, '{"id": 1, "text": "é"}', *REPLIES)
    assert json.loads(out) == {"id": 1, "text": "é"}
    assert out.count("\n") == 1
    out, _ = await sbrpc(emulator, *echo, f"@{file}", *REPLIES, *CONTRACT)
    assert json.loads(out) == {"id": 2, "text": ""}
    out, _ = await sbrpc(emulator, *echo, "-", *REPLIES, given=b'{"id": 3}')
    assert json.loads(out)["id"] == 3
    out, _ = await sbrpc(emulator, "call", "lab", "info", *REPLIES, "-m", "tenant=a=b")
    assert json.loads(out)["metadata"] == {"tenant": "a=b"}


async def test_a_missing_queue_is_said_once(world: tuple[Emulator, Bench]) -> None:
    """One line, and not what the library logs on its way there."""
    emulator, _ = world
    out, err = await sbrpc(emulator, "call", "lab", "echo", "--reply-queue", "no.replies", status=6)
    assert out == ""
    assert err.startswith("sbrpc: ")
    assert err.count("could not be found") == 1


async def test_errors_of_calls(world: tuple[Emulator, Bench]) -> None:
    """Each kind has its exit code, and an error reply is shown with its details."""
    emulator, _ = world
    _, err = await sbrpc(emulator, "call", "lab", "fail", '"NOT_FOUND"', *REPLIES, status=3)
    assert err == 'sbrpc: NOT_FOUND: as told {"field": "x", "problem": "y"}'
    _, err = await sbrpc(emulator, "call", "lab", "echo", "{}", *REPLIES, status=3)
    assert "INVALID_ARGUMENT" in err
    _, err = await sbrpc(emulator, "call", "lab", "echo", "{}", *REPLIES, *CONTRACT, status=2)
    assert "does not fit Lab.echo" in err or "does not fit lab.echo" in err
    slow = ("call", "lab", "wait", '{"seconds": 60}', *REPLIES, "-t", "3")
    await sbrpc(emulator, *slow, status=4)
    _, err = await sbrpc(emulator, "call", "nowhere", "echo", "1", *REPLIES, status=6)
    assert "nowhere" in err
    _, err = await sbrpc(emulator, "call", "lab", "echo", "{id", *REPLIES, status=2)
    assert "is not JSON" in err


async def test_send(world: tuple[Emulator, Bench]) -> None:
    """A one-way command arrives, and its id is printed."""
    emulator, bench = world
    out, _ = await sbrpc(emulator, "send", "lab", "note", '"from the shell"')
    assert len(out.strip()) == 32
    await bench.until(lambda: "from the shell" in bench.seen)
    await sbrpc(emulator, "send", "nowhere", "note", status=6)


async def test_stream(world: tuple[Emulator, Bench]) -> None:
    """Replies come line by line; Ctrl-C ends the handler as well, and prints nothing."""
    emulator, bench = world
    out, _ = await sbrpc(emulator, "stream", "lab", "count", "3", *REPLIES, *CONTRACT)
    assert [json.loads(line)["id"] for line in out.splitlines()] == [0, 1, 2]
    bench.seen.clear()
    process = await anyio.open_process(
        [sys.executable, "-m", "sbrpc", "stream", "lab", "count", "100000000", *REPLIES],
        cwd=ROOT,
        env=environment(emulator),
        stdin=subprocess.DEVNULL,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        with anyio.fail_after(60):
            await process.stdout.receive()
            process.send_signal(signal.SIGINT)
            async for _ in process.stdout:
                pass
            errors = b"".join([chunk async for chunk in process.stderr])
            assert await process.wait() == 130, errors
            assert errors == b""
            await bench.until(lambda: "stopped counting" in bench.seen)
    finally:
        if process.returncode is None:
            process.kill()
        await process.aclose()
