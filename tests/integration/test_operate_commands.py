"""`sbrpc plan`, `apply`, `publish`, `tail` and what commands an emulator, in processes of their own."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.abc import Process
from azure.servicebus import ServiceBusMessage

from sbrpc import Queue, Subscription, Topic, connect
from sbrpc.emulator import Emulator
from tests import forked

ROOT = Path(__file__).resolve().parents[2]
PROCESSES = ("tests.exported:service", "tests.exported:events")


@pytest.fixture(scope="module")
async def emulator() -> AsyncIterator[Emulator]:
    """An emulator with a topic and two queues, for all tests of this file."""
    entities = [Queue("orders"), Queue("kept", requires_session=True)]
    topic = Topic("news", subscriptions=(Subscription("all"), Subscription("ordered", requires_session=True)))
    async with Emulator(queues=entities, topics=[topic], http_port=0) as running:
        yield running


def environment(emulator: Emulator) -> dict[str, str]:
    """What the commands find there."""
    return {
        **os.environ,
        "SERVICEBUS_CONNECTION_STRING": emulator.connection_string,
        "SBRPC_EMULATOR_URL": emulator.http_url,
        "COLUMNS": "200",
        "NO_COLOR": "1",
    }


async def sbrpc(emulator: Emulator, *arguments: str, status: int = 0) -> tuple[str, str]:
    """Run the command without a terminal; its output and its errors."""
    done = await forked.run_aside("-m", "sbrpc", *arguments, env=environment(emulator))
    out, err = done.stdout.decode(), done.stderr.decode()
    assert done.returncode == status, out + err
    assert "Traceback" not in err
    return out, " ".join(err.replace("│", " ").split())


@contextmanager
def ended(process: Process) -> Iterator[None]:
    """A process that has not ended by itself is killed, so that nobody waits for it."""
    try:
        yield
    finally:
        if process.returncode is None:
            process.kill()


# -- plan and apply ------------------------------------------------------------------------------------


async def test_a_plan_is_shown_and_applied(emulator: Emulator) -> None:
    """What is missing is said, made without a question only with --yes, and then nothing is missing."""
    at = (
        *PROCESSES,
        "--connection-string",
        emulator.admin_connection_string,
        "--ca-file",
        emulator.certificate_file,
    )
    out, _ = await sbrpc(emulator, "plan", *at, "--check", status=1)
    assert "+ create queue movies\n" in out
    assert "- remove rule $Default of movie-events/views\n" in out
    _, err = await sbrpc(emulator, "apply", *at, status=2)
    assert "give --yes" in err
    assert "movies" not in {queue.name for queue in emulator.broker.queues()}
    out, err = await sbrpc(emulator, "apply", *at, "--yes", "--json")
    rows = json.loads(out)
    assert {"action": "create", "kind": "queue", "name": "movies"}.items() <= rows[0].items()
    assert err == f"{len(rows)} changes made"
    assert "movies" in {queue.name for queue in emulator.broker.queues()}
    out, _ = await sbrpc(emulator, "plan", *at, "--check")
    assert out == "nothing to change\n"


async def test_what_keeps_a_plan_from_being_made(emulator: Emulator) -> None:
    """A certificate nobody vouches for, and a module that is not there, each have a code and a remedy."""
    at = ("--connection-string", emulator.admin_connection_string)
    _, err = await sbrpc(emulator, "plan", *PROCESSES, *at, status=5)
    assert "--ca-file" in err
    _, err = await sbrpc(emulator, "plan", "tests.nothing:app", status=2)
    assert "there is no module" in err


# -- a running emulator --------------------------------------------------------------------------------


async def test_faults_come_and_go(emulator: Emulator) -> None:
    """Added, listed, removed and cleared; what the emulator does not understand is said by it."""
    faults = ("emulator", "faults")
    out, _ = await sbrpc(emulator, *faults, "add", "busy", "entity=2024", "operations=send,attach", "count=3")
    number = out.strip()
    out, _ = await sbrpc(emulator, *faults, "list", "--json")
    (listed,) = json.loads(out)
    assert listed["entity"] == "2024"
    assert listed["operations"] == ["send", "attach"]
    assert listed["count"] == 3
    out, _ = await sbrpc(emulator, *faults, "list")
    assert "operations=send,attach" in out
    await sbrpc(emulator, *faults, "remove", number)
    _, err = await sbrpc(emulator, *faults, "remove", number, status=1)
    assert err == f"sbrpc: No fault '{number}' is in force."
    await sbrpc(emulator, *faults, "add", "refuse")
    await sbrpc(emulator, *faults, "clear")
    assert emulator.faults.list() == []
    _, err = await sbrpc(emulator, *faults, "add", "busy", "count=0", status=2)
    assert "count" in err
    _, err = await sbrpc(emulator, *faults, "add", "busy", "count", status=2)
    assert "NAME=VALUE" in err


async def test_time_and_books(emulator: Emulator) -> None:
    """The time moves ahead by what is said; the books are a table, JSON, or begun anew."""
    before = emulator.clock.ahead
    await sbrpc(emulator, "emulator", "advance", "90")
    assert emulator.clock.ahead == pytest.approx(before + 90, abs=1)
    async with connect(emulator.connection_string) as client, client.get_queue_sender("orders") as sender:
        await sender.send_messages(ServiceBusMessage("x"))
    out, _ = await sbrpc(emulator, "emulator", "books")
    assert "total" in out
    out, _ = await sbrpc(emulator, "emulator", "books", "--json")
    assert json.loads(out)["orders"]["sends"] == 1
    await sbrpc(emulator, "emulator", "books", "--reset")
    assert emulator.books["orders"].sends == 0


async def test_an_emulator_that_is_not_there(emulator: Emulator) -> None:
    """Exit code 5, with the address; an address that is none is wrong usage."""
    _, err = await sbrpc(emulator, "emulator", "books", "--url", "http://127.0.0.1:1", status=5)
    assert "http://127.0.0.1:1" in err
    await sbrpc(emulator, "emulator", "books", "--url", "127.0.0.1", status=2)


# -- publish and tail ----------------------------------------------------------------------------------


async def test_what_is_published_is_seen(emulator: Emulator) -> None:
    """An event has its attributes; looking takes nothing away; a session is looked at by its key."""
    created = ("publish", "news", "movies.movie.created.v1")
    out, _ = await sbrpc(emulator, *created, '{"id": 7}', "--source", "/shop", "--subject", "7", "--key", "k")
    first = out.strip()
    await sbrpc(emulator, *created, '{"id": "8"}', "--event", "tests.exported:MovieCreated")
    for _ in range(2):
        out, _ = await sbrpc(emulator, "tail", "news", "all", "--count", "2", "--json")
        one, two = (json.loads(line) for line in out.splitlines())
    assert one["message_id"] == one["properties"]["cloudEvents_id"] == first
    assert one["type"] == "movies.movie.created.v1"
    assert one["body"] == {"id": 7}
    assert one["session_id"] == "k"
    assert one["properties"]["cloudEvents_source"] == "/shop"
    assert two["body"] == {"id": 8}
    assert two["session_id"] == "8"
    out, _ = await sbrpc(emulator, "tail", "news", "ordered", "--session", "8", "--count", "1")
    assert out.endswith(' movies.movie.created.v1 8 {"id": 8}\n')
    assert emulator.broker.runtime("news/Subscriptions/all").active == 2
    _, err = await sbrpc(emulator, "tail", "news", "ordered", status=1)
    assert "--session" in err


async def test_tail_follows_until_it_is_interrupted(emulator: Emulator) -> None:
    """What comes later is shown when it comes; Ctrl-C ends it with 130."""
    command = [sys.executable, "-m", "sbrpc", "tail", "--queue", "orders", "--json", "--interval", "0.05"]
    async with (
        await anyio.open_process(command, cwd=ROOT, env=environment(emulator)) as process,
        connect(emulator.connection_string) as client,
        client.get_queue_sender("orders") as sender,
    ):
        assert process.stdout is not None
        assert process.stderr is not None
        seen: list[Any] = []
        with ended(process), anyio.fail_after(60):
            for text in ("one", "two"):
                await sender.send_messages(ServiceBusMessage(text))
                while text not in seen:
                    lines = (await process.stdout.receive()).splitlines()
                    seen += [json.loads(line)["body"] for line in lines]
            process.send_signal(signal.SIGINT)
            await process.wait()
        assert seen.index("one") < seen.index("two")
        assert b"Traceback" not in b"".join([chunk async for chunk in process.stderr])
        assert process.returncode == 130


async def test_mistakes_of_publishing_and_looking(emulator: Emulator) -> None:
    """Each has its exit code and says what is wrong."""
    _, err = await sbrpc(emulator, "publish", "nothing", "a.b.v1", status=6)
    assert "nothing" in err
    _, err = await sbrpc(emulator, "publish", "news", "a.b.v1", "{", status=2)
    assert "the event is not JSON" in err
    _, err = await sbrpc(
        emulator,
        "publish",
        "news",
        "movies.movie.created.v1",
        "--event",
        "tests.exported:MovieCreated",
        status=2,
    )
    assert "id: Field required" in err
    _, err = await sbrpc(emulator, "publish", "news", "a.b.v1", "--key", "", status=2)
    assert "128" in err
    _, err = await sbrpc(emulator, "tail", "news", status=2)
    assert "--queue" in err
    await sbrpc(emulator, "tail", "--queue", "nothing", status=6)
