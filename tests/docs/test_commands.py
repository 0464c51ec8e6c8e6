"""The commands that the documentation shows for a shell, run one after the other beside what they name.

They are the real `sbrpc`, on an emulator that has what they ask for. What goes on until Ctrl-C gets one.
Tools of others are stood in for by what passes on their input. Installing is tried with the packages.
"""

from __future__ import annotations

import os
import pty
import re
import shutil
import signal
import sys
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import anyio
import anyio.abc
import pytest
from azure.servicebus import ServiceBusMessage
from azure.servicebus.aio import ServiceBusClient

from sbrpc import Queue, Subscription, Topic, connect
from sbrpc.emulator import Emulator
from sbrpc.testing import free_port

from .pages import BLOCKS, ROOT, Block
from .programs.shop.service import app

pytestmark = [pytest.mark.applications]

HANGS = 90

CONSOLE = [block for block in BLOCKS if block.language == "console"]

REPLIES = ("gateway.replies", "bench.replies", "emulator.replies")
QUEUES = [
    *(Queue(name) for name in ("movies", "shop", "bench", "orders")),
    *(Queue(name, requires_session=True) for name in REPLIES),
]
SUBSCRIPTIONS = (
    Subscription("movie-event-handler"),
    Subscription("everything"),
    Subscription("views", requires_session=True),
)

ENDLESS = re.compile(r"sbrpc (run\b|tail\b(?!.*--count)|emulator( --config \S+)?$)")
"""What goes on until it is interrupted."""

TOOLS = {
    "sbrpc": 'exec "{python}" -m sbrpc "$@"',
    "jq": 'for last; do :; done; if [ -f "$last" ]; then exec cat "$last"; else exec cat; fi',
    "curl": 'for last; do :; done; exec "{python}" -c "{get}" "$last"',
}
GET = "import sys, urllib.request as r; sys.stdout.write(r.urlopen(sys.argv[1]).read().decode())"


def commands(block: Block) -> list[tuple[str, list[str]]]:
    """Each command of a block, with the lines of output that are shown for it."""
    found: list[tuple[str, list[str]]] = []
    for line in block.code.replace("\\\n", "").splitlines():
        if line.startswith("$ "):
            found.append((re.sub(r"\s+# .*", "", line[2:]), []))
        else:
            found[-1][1].append(line)
    return found


class Shell:
    """A shell in a directory, which remembers `cd` and `export`."""

    def __init__(self, emulator: Emulator, work: Path, tools: Path) -> None:
        self._work = work
        self._remembered = ["set -euo pipefail"]
        self._emulator = emulator
        self._env = {
            **os.environ,
            "PATH": f"{tools}:{os.environ['PATH']}",
            "SERVICEBUS_CONNECTION_STRING": emulator.connection_string,
            "SBRPC_EMULATOR_URL": emulator.http_url,
            "SBRPC_SOURCE": "/movies",
            "MOVIES_PORT": str(free_port()),
            "COLUMNS": "200",
        }

    async def run(self, command: str, shown: list[str]) -> None:
        """Run a command as a page has it; it must end well, and show what the page shows."""
        if command.startswith("pip install "):
            installs(command)
        elif command.startswith("make "):
            assert f"\n{command.split()[1]}: " in (ROOT / "Makefile").read_text(encoding="utf-8")
        elif command.startswith(("cd ", "export ")):
            self._remembered.append(self._here(command))
        else:
            endless = ENDLESS.match(command) is not None
            said = await self._ended(self._here(command), endless)
            assert [line for line in shown if line not in said] == []

    def _here(self, command: str) -> str:
        """The same on this emulator, whose ports are not those that the page can know."""
        string, url = self._emulator.connection_string, self._emulator.http_url
        ours = {
            "Endpoint=sb://…": string,
            "http://127.0.0.1:5300": url,
            "/5672/5300": f"/{port_of(string)}/{port_of(url)}",
            "--health 8080": f"--health {free_port()}",
        }
        for theirs, mine in ours.items():
            command = command.replace(theirs, mine)
        if command.startswith(("sbrpc plan ", "sbrpc apply ")) and "--ca-file" not in command:
            # On Azure it is the same address, with a certificate that everybody trusts.
            admin, trusted = self._emulator.admin_connection_string, self._emulator.certificate_file
            return f"SERVICEBUS_CONNECTION_STRING='{admin}' REQUESTS_CA_BUNDLE={trusted} {command}"
        return re.sub(r"sbrpc emulator( --config \S+)?$", r"\g<0> --port 0 --http-port 0", command)

    async def _ended(self, command: str, endless: bool) -> list[str]:
        """What it prints, once it has ended; with Ctrl-C after its first line if it is endless."""
        terminal, stdin = pty.openpty()
        os.write(terminal, b"y\n")
        script = "; ".join([*self._remembered, command])
        process = await anyio.open_process(
            ["bash", "-c", script], stdin=stdin, cwd=self._work, env=self._env, start_new_session=True
        )
        out, err = bytearray(), bytearray()
        alone = re.search(r"sbrpc run (?!.*--(apart|workers|reload))", command)

        async def read(stream: anyio.abc.ByteReceiveStream, into: bytearray, sign: bytes | None) -> None:
            async for chunk in stream:
                into += chunk
                if sign is not None and sign in into:
                    sign = None
                    with suppress(ProcessLookupError):
                        os.killpg(process.pid, signal.SIGINT)

        try:
            with anyio.fail_after(HANGS):
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(read, process.stdout, out, b"\n" if endless and not alone else None)
                    tasks.start_soon(read, process.stderr, err, b": ready: " if alone else None)
                code = await process.wait()
        finally:
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)
                await process.wait()
            os.close(terminal)
            os.close(stdin)
        said = err.decode()
        assert "Traceback" not in said
        assert code in right_ends(command, endless), f"{command} ended with {code}: {said}"
        return out.decode().splitlines()


def right_ends(command: str, endless: bool) -> set[int]:
    """The exit codes that are right, by the table on the page about the command line."""
    if "contoso" in command:
        return {5, 7}  # it is nobody's, or somebody else's
    if "| head" in command:
        return {0, 141}  # nobody reads on
    return {0, 130} if endless else {0}


def installs(command: str) -> None:
    """Whether what is installed is this package, with extras that it has."""
    (extras,) = re.fullmatch(r'pip install "?(?:sbrpc|\.)(?:\[([\w,-]+)\])?"?', command).groups()
    known = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert all(
        re.search(rf"^{extra} = \[", known, re.MULTILINE) for extra in (extras or "").split(",") if extra
    )


def port_of(address: str) -> str:
    """The port in a URL or in a connection string."""
    return re.search(r":(\d+)", address)[1]


async def leave_messages(connection: ServiceBusClient) -> None:
    """What the commands look at: letters and dead ones, and ten events of one key."""
    async with connection.get_queue_sender("movies") as sender:
        await sender.send_messages([ServiceBusMessage('{"id": 1}', subject="get_movie") for _ in range(43)])
    async with connection.get_queue_receiver("movies") as receiver:
        for _ in range(43):
            (message,) = await receiver.receive_messages(1, max_wait_time=5)
            reasons = {42: "MalformedRequest", 43: "MaxDeliveriesExceeded"}
            if reason := reasons.get(message.sequence_number):
                await receiver.dead_letter_message(message, reason=reason)
            else:
                await receiver.complete_message(message)
    async with connection.get_queue_sender("orders") as sender:
        await sender.send_messages(ServiceBusMessage('{"id": 1}'))
    async with connection.get_topic_sender("movie-events") as sender:
        await sender.send_messages([ServiceBusMessage("{}", session_id="1") for _ in range(10)])
    async with connection.get_subscription_receiver("movie-events", "movie-event-handler") as receiver:
        (message,) = await receiver.receive_messages(1, max_wait_time=5)
        await receiver.dead_letter_message(message, reason="ValueError")


@pytest.mark.parametrize("block", CONSOLE, ids=str)
async def test_commands_in_the_documentation_work(block: Block, programs: Path, tmp_path: Path) -> None:
    """Each ends well, as far as it ends by itself, and prints what the page says it does."""
    tools = tmp_path / "tools"
    tools.mkdir()
    for name, does in TOOLS.items():
        (tools / name).write_text(f"#!/bin/sh\n{does.format(python=sys.executable, get=GET)}\n")
        (tools / name).chmod(0o755)
    shutil.copytree(ROOT / "examples", programs / "examples")
    shutil.copy(ROOT / "examples" / "movies" / "Config.json", programs)
    # What is to be made is not there yet.
    lacking = "sbrpc plan" in block.code
    topic = Topic("movie-events", subscriptions=() if lacking else SUBSCRIPTIONS)
    queues = [] if lacking else QUEUES
    async with AsyncExitStack() as stack:
        emulator = await stack.enter_async_context(Emulator(queues=queues, topics=[topic], http_port=0))
        if re.search(r"sbrpc (dlq|tail) ", block.code):
            async with connect(emulator.connection_string) as connection:
                await leave_messages(connection)
            await emulator.advance(3600)
        if re.search(r"sbrpc (call|stream|send) ", block.code):
            for server in app(emulator.connection_string):
                await stack.enter_async_context(server)
        shell = Shell(emulator, programs, tools)
        for command, shown in commands(block):
            await shell.run(command, shown)
