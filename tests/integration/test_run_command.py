"""`sbrpc run` as a person starts it: in processes of its own, against one emulator."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import pytest

from sbrpc import RpcClient
from sbrpc.emulator import Emulator
from sbrpc.testing import free_port
from sbrpc.topology import Queue
from tests import forked

from .run_apps import Shop

ROOT = Path(__file__).resolve().parents[2]
APPS = "tests.integration.run_apps"
HANGS = 90


@pytest.fixture(scope="module")
async def emulator() -> AsyncIterator[Emulator]:
    """What all tests of this file use."""
    async with Emulator(queues=["shop", Queue("test.replies", requires_session=True)]) as running:
        yield running


@asynccontextmanager
async def running(
    emulator: Emulator, *arguments: str, env: Mapping[str, str] | None = None
) -> AsyncIterator[anyio.abc.Process]:
    """The command in a process, ended whatever happens."""
    environment = {
        **os.environ,
        **(env or {}),
        "SERVICEBUS_CONNECTION_STRING": emulator.connection_string,
        "COLUMNS": "200",
    }
    process = await anyio.open_process(
        [sys.executable, "-m", "sbrpc", "run", *arguments],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stderr=subprocess.STDOUT,
    )
    try:
        with anyio.fail_after(HANGS):
            yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.aclose()


async def rest_of(process: anyio.abc.Process) -> str:
    """What a process still prints until it ends."""
    assert process.stdout is not None
    text = b"".join([chunk async for chunk in process.stdout])
    await process.wait()
    return text.decode()


async def health(port: int, what: str) -> tuple[int, Any]:
    """Status and body of a health page; status 0 while nobody listens."""

    def ask() -> tuple[int, Any]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health/{what}", timeout=10) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)
        except OSError:
            return 0, None

    return await anyio.to_thread.run_sync(ask)


async def until_ready(port: int) -> Any:
    """Wait until the command says that it is ready."""
    while (found := await health(port, "ready"))[0] != 200:  # noqa: ASYNC110 - another process
        await anyio.sleep(0.1)
    return found[1]


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
async def test_it_serves_until_a_signal(emulator: Emulator, how: signal.Signals) -> None:
    """What a factory opens is closed after the last call; health is as JSON; the exit code is 0."""
    port = free_port()
    async with running(emulator, f"{APPS}:managed", "--health", f"127.0.0.1:{port}") as process:
        assert (await until_ready(port))["parts"] == [{"name": "RpcServer shop", "ready": True}]
        assert (await health(port, "live"))[0] == 200
        async with RpcClient(emulator.connection_string, reply_queue="test.replies") as client:
            assert await client.of(Shop).double(21) == 42
        process.send_signal(how)
        output = await rest_of(process)
    assert process.returncode == 0, output
    assert "opened" in output
    # What was loaded is no business of the garbage collector's any more.
    assert "closed, frozen: True" in output
    assert "Traceback" not in output


async def test_a_worker_that_dies_is_replaced(emulator: Emulator) -> None:
    """Two workers, one killed: another takes its place, calls go on, and a signal ends all of them."""
    port = free_port()
    arguments = (f"{APPS}:app", "--workers", "2", "--health", f"127.0.0.1:{port}")
    async with running(emulator, *arguments) as process:

        async def both() -> list[int]:
            while True:
                _, state = await health(port, "ready")
                workers = state["workers"] if state else []
                if len(workers) == 2 and all(each["ready"] for each in workers):
                    return [each["process"] for each in workers]
                await anyio.sleep(0.1)

        first = await both()
        assert process.stdout is not None
        output = b""
        while b"ready\n" not in output.splitlines(keepends=True):
            output += await process.stdout.receive()
        os.kill(first[0], signal.SIGKILL)
        while first[0] in (second := await both()):  # noqa: ASYNC110 - another process
            await anyio.sleep(0.1)
        assert first[1] in second
        process.send_signal(signal.SIGTERM)
        rest = await rest_of(process)
    assert process.returncode == 0, rest
    output = output.decode() + rest
    assert re.search(r"worker \d ended with -9; starting another", output)
    for each in second:
        with pytest.raises(ProcessLookupError):
            os.kill(each, 0)


async def test_programs_run_apart_on_an_emulator_of_their_own(emulator: Emulator) -> None:
    """Each app has its processes, the emulator has what they need, and the connection string comes last;
    another emulator that the environment names is left alone."""
    port = free_port()
    programs = (f"{APPS}:app", f"{APPS}:app", f"{APPS}:caller")
    async with running(
        emulator, "--apart", "--emulator", "--health", f"127.0.0.1:{port}", *programs
    ) as process:
        assert process.stdout is not None
        output = b""
        while b"\nEndpoint=sb://" not in output or b"doubled: 42" not in output:
            output += await process.stdout.receive()
        workers = (await until_ready(port))["workers"]
        assert [each["apps"] for each in workers] == [[each] for each in programs]
        assert len({each["process"] for each in workers}) == 3
        process.send_signal(signal.SIGTERM)
        rest = await rest_of(process)
    assert process.returncode == 0, rest
    for each in workers:
        with pytest.raises(ProcessLookupError):
            os.kill(each["process"], 0)


async def test_a_service_alone_on_an_emulator_can_be_called(emulator: Emulator) -> None:
    """Where no app listens for replies there is a queue for whoever calls, and its name is said. What only
    declares may stand beside what runs."""
    async with running(emulator, "--emulator", f"{APPS}:app", f"{APPS}:nothing") as process:
        assert process.stdout is not None
        output = ""
        while not (found := re.search(r"^Endpoint=\S+\n", output, re.MULTILINE)):
            output += (await process.stdout.receive()).decode()
        assert "call with --reply-queue emulator.replies" in output
        async with RpcClient(found.group().strip(), reply_queue="emulator.replies") as client:
            assert await client.of(Shop).double(21) == 42
        process.send_signal(signal.SIGTERM)
        rest = await rest_of(process)
    assert process.returncode == 0, rest


async def test_a_port_that_is_taken_ends_all_of_it(emulator: Emulator) -> None:
    """It is said in one line, and not tried again, unless it was ours before."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        async with running(
            emulator, "--apart", "--emulator", f"{APPS}:app", f"{APPS}:web", env={"PORT": str(port)}
        ) as process:
            output = await rest_of(process)
    assert process.returncode == 2, output
    assert output.count(f"cannot listen on 127.0.0.1, port {port}: ") == 1
    assert "Traceback" not in output
    assert "Endpoint=sb://" not in output


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        ((f"{APPS}:missing",), 6, "'nowhere'"),
        ((f"{APPS}:missing", "--workers", "2"), 6, "'nowhere'"),
        ((f"{APPS}:app", f"{APPS}:missing", "--apart"), 6, "'nowhere'"),
        ((f"{APPS}:app", "--emulator", "--namespace", "x"), 2, "it is where Service Bus is"),
        ((f"{APPS}:nothing",), 2, "has nothing to run"),
        ((f"{APPS}:ap",), 2, "has no 'ap'; did you mean 'app'?"),
        (("tests.integration.no_such:app",), 2, "there is no module"),
        ((f"{APPS}:Shop.double",), 2, "cannot be served"),
        ((f"{APPS}:app", "--health", "here"), 2, "neither a port nor HOST:PORT"),
        ((f"{APPS}:app", "--log-level", "loud"), 2, "is none of debug"),
        (
            (f"{APPS}:app", "--connection-string", "Endpoint=sb://x;SharedAccessKey=s3cret"),
            2,
            "connection string",
        ),
    ],
)
async def test_what_cannot_run_is_said(
    emulator: Emulator, arguments: tuple[str, ...], status: int, said: str
) -> None:
    """In a few words, with the exit code of its kind, without a traceback and without a key."""
    env = {**os.environ, "SERVICEBUS_CONNECTION_STRING": emulator.connection_string, "COLUMNS": "200"}
    done = await forked.run_aside("-m", "sbrpc", "run", *arguments, cwd=ROOT, env=env)
    output = (done.stdout + done.stderr).decode()
    assert done.returncode == status, output
    assert said in " ".join(output.replace("│", " ").split())
    assert "Traceback" not in output
    assert "s3cret" not in output
