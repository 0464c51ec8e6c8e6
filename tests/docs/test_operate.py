"""docs/how-to/operate.md, followed from its first command to its last.

Its shell blocks are run as one script, with the files that it shows, the real `sbrpc`, and an emulator that
has what the programs need. Only the tools of others are stood in for, by scripts that note what is asked.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from pathlib import Path

import anyio
import pycep
import pytest
from anyio.abc import SocketStream
from anyio.streams.buffered import BufferedByteReceiveStream
from azure.servicebus import ServiceBusMessage

from sbrpc import connect
from sbrpc.emulator import Emulator
from sbrpc.emulator.config import load
from tests import forked

from .pages import ROOT, on

PAGE = "docs/how-to/operate.md"

# What stands for a tool writes down what it is asked for, and answers a question with a word.
STAND_IN = """#!{bash}
echo "{name} $*" >> {log}
case "$*" in *--query*) echo "asked-for" ;; esac
"""


# What stands for `sbrpc` asks for it where the libraries are imported already.
ASK = """#!{python} -SE
import json, os, socket, sys

connection = socket.socket(socket.AF_UNIX)
connection.connect({socket!r})
with connection, connection.makefile("rwb") as stream:
    stream.write(json.dumps([os.getcwd(), dict(os.environ), sys.argv[1:]]).encode() + b"\\n")
    stream.flush()
    code, out, err = json.loads(stream.readline())
sys.stdout.write(out)
sys.stderr.write(err)
sys.exit(code)
"""


async def answer(stream: SocketStream) -> None:
    """Run the real command for whoever asks."""
    async with stream:
        request = await BufferedByteReceiveStream(stream).receive_until(b"\n", 2**20)
        cwd, env, arguments = json.loads(request)
        done = await forked.run_aside("-m", "sbrpc", *arguments, cwd=Path(cwd), env=env)
        said = [done.returncode, done.stdout.decode(), done.stderr.decode()]
        await stream.send(json.dumps(said).encode() + b"\n")


def test_files_that_are_shown_are_what_they_say() -> None:
    """The Bicep file parses, with one container app that knows its identity and cannot use the platform's."""
    (text,) = on(PAGE, "bicep")
    app = pycep.BicepParser().parse(text=text)["resources"]["app"]["config"]
    assert "lifecycle: 'None'" in text
    assert app["properties"]["template"]["terminationGracePeriodSeconds"] == 40
    assert on(PAGE, "dockerfile")[0].startswith("# Dockerfile\n")


@pytest.mark.applications
async def test_the_page_can_be_followed(tmp_path: Path) -> None:
    """No step uses a file, a variable or a command of sbrpc that was not defined before it."""
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("there is no bash here")
    work, tools, log = tmp_path / "examples", tmp_path / "tools", tmp_path / "log"
    shutil.copytree(ROOT / "examples", work)
    tools.mkdir()
    for name in ("az", "kubectl", "pip"):
        (tools / name).write_text(STAND_IN.format(bash=bash, name=name, log=log))
        (tools / name).chmod(0o755)
    (tools / "sbrpc").write_text(ASK.format(python=sys.executable, socket=str(tmp_path / "socket")))
    (tools / "sbrpc").chmod(0o755)
    for language in ("bicep", "dockerfile"):
        for text in on(PAGE, language):
            name = text.split("\n", 1)[0].lstrip("/# ")
            (work / name).write_text(text)
    script = tmp_path / "page.sh"
    script.write_text("set -euo pipefail\n" + "\n".join(on(PAGE, "sh")))
    wanted = load(work / "movies" / "Config.json")
    async with Emulator(queues=wanted.queues, topics=wanted.topics) as emulator:
        await leave_dead_letters(emulator)
        environment = {
            "PATH": f"{tools}:{os.environ['PATH']}",
            "HOME": str(tmp_path),
            "SERVICEBUS_CONNECTION_STRING": emulator.connection_string,
        }
        async with (
            await anyio.create_unix_listener(tmp_path / "socket") as listener,
            anyio.create_task_group() as group,
        ):
            group.start_soon(listener.serve, answer)
            with anyio.fail_after(180):
                done = await anyio.run_process([bash, str(script)], cwd=work, env=environment, check=False)
            group.cancel_scope.cancel()
    said = done.stdout.decode()
    assert done.returncode == 0, f"{said}\n{done.stderr.decode()}"
    assert "1 would be replayed" in said
    assert "1 replayed" in said
    assert "compatible" in said
    asked = log.read_text()
    for file in re.findall(r"--(?:template-)?file(?:name)? (\S+)", asked):
        assert (work / file).is_file(), file
    assert "servicePrincipalId=asked-for" in asked
    assert asked.count("az monitor metrics alert create") == 5
    bicep = (work / "deploy" / "servicebus.bicep").read_text()
    for parameter in re.findall(r"(\w+PrincipalId)=", asked):
        assert f"param {parameter} string" in bicep


async def leave_dead_letters(emulator: Emulator) -> None:
    """Two in the queue `movies`, as a service that dies of them would leave them."""
    async with connect(emulator.connection_string) as connection:
        async with connection.get_queue_sender("movies") as sender:
            await sender.send_messages([ServiceBusMessage("{}", subject="get_movie") for _ in range(2)])
        async with connection.get_queue_receiver("movies") as receiver:
            first, second = await receiver.receive_messages(2, max_wait_time=5)
            await receiver.dead_letter_message(first, reason="MaxDeliveriesExceeded")
            await receiver.dead_letter_message(second, reason="NOT_FOUND")
