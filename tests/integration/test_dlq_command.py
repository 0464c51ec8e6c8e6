"""`sbrpc dlq` as a person runs it: a process of its own against the emulator."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator

import pytest
from azure.servicebus import ServiceBusMessage

from sbrpc._sdk import connect
from sbrpc.emulator import Emulator
from tests import forked


@pytest.fixture
async def emulator() -> AsyncIterator[Emulator]:
    """A queue with two dead letters."""
    async with Emulator(queues=["orders"]) as running:
        async with connect(running.connection_string) as client:
            async with client.get_queue_sender("orders") as sender:
                await sender.send_messages(
                    [ServiceBusMessage(f"body {n}", subject="order") for n in range(2)]
                )
            async with client.get_queue_receiver("orders") as receiver:
                for n, message in enumerate(await receiver.receive_messages(2, max_wait_time=5)):
                    await receiver.dead_letter_message(
                        message, reason=f"reason {n}", error_description="[bad]"
                    )
        yield running


async def dlq(emulator: Emulator, *arguments: str, status: int = 0) -> str:
    """Run the command; its output, standard error included."""
    environment = {
        **os.environ,
        "SERVICEBUS_CONNECTION_STRING": emulator.connection_string,
        "COLUMNS": "200",
    }
    process = await forked.run_aside("-m", "sbrpc", "dlq", *arguments, env=environment, together=True)
    output = process.stdout.decode()
    assert process.returncode == status, output
    return output


async def test_dead_letters_from_the_command_line(emulator: Emulator) -> None:
    """List, show, replay and purge do what they say, and a dry run nothing."""
    listed = await dlq(emulator, "list", "orders")
    assert "reason 0" in listed
    assert "[bad]" in listed
    assert "body 1" in await dlq(emulator, "show", "orders", "2")
    letters = json.loads(await dlq(emulator, "list", "orders", "--json"))
    assert [(each["sequence_number"], each["reason"], each["body"]) for each in letters] == [
        (1, "reason 0", "body 0"),
        (2, "reason 1", "body 1"),
    ]
    assert json.loads(await dlq(emulator, "show", "orders", "2", "--json")) == letters[1]
    would = json.loads(await dlq(emulator, "purge", "orders", "--dry-run", "--json"))
    assert would == {"done": [1, 2], "skipped": []}
    assert "2 would be replayed" in await dlq(emulator, "replay", "orders", "--dry-run")
    assert "1 replayed" in await dlq(emulator, "replay", "orders", "--reason", "reason 0")
    assert "1 deleted" in await dlq(emulator, "purge", "orders", "--yes", "-n", "2")
    assert "no dead letters" in await dlq(emulator, "list", "orders")
    assert emulator.broker.runtime("orders").active == 1


async def test_the_connection_may_be_given_as_an_option(emulator: Emulator) -> None:
    """As for every other command; it stands above what the environment says."""
    elsewhere = {**os.environ, "SERVICEBUS_CONNECTION_STRING": "Endpoint=sb://nowhere.invalid/"}
    given = ("--connection-string", emulator.connection_string)
    for command in (["list"], ["show", "1"], ["replay", "--dry-run"], ["purge", "--dry-run"]):
        name, *rest = command
        done = await forked.run_aside("-m", "sbrpc", "dlq", name, "orders", *rest, *given, env=elsewhere)
        assert done.returncode == 0, done.stderr.decode()
    both = (*given, "--namespace", "x.servicebus.windows.net")
    assert "not both" in await dlq(emulator, "list", "orders", *both, status=2)


async def test_mistakes_are_named(emulator: Emulator) -> None:
    """What does not exist and what is no time end with one line and a status."""
    assert "sbrpc: dead letters of queue 'nothing'" in await dlq(emulator, "list", "nothing", status=6)
    assert "15m" in await dlq(emulator, "list", "orders", "--older-than", "soon", status=2)
    assert "TOPIC/SUBSCRIPTION" in await dlq(emulator, "list", "orders/", status=2)
    subscription = await dlq(emulator, "list", "orders/Subscriptions/all", status=6)
    assert "subscription 'all' of topic 'orders'" in subscription
