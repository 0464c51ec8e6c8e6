"""Calls that share a message, through the real SDK: what they cost, and that each stays by itself."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace

import pytest
from azure.servicebus.aio import ServiceBusClient
from azure.servicebus.amqp import AmqpAnnotatedMessage

from sbrpc import _sdk
from sbrpc.context import CallInfo
from sbrpc.contract import Contract, method
from sbrpc.emulator import Emulator
from sbrpc.errors import DeadlineExceeded, NotFound
from sbrpc.server import RpcServer

from .laboratory import QUEUES, Bench, Ends, Item, Lab, Raw, Wait, make_client, make_server, status, text

CALLS = 48


@dataclass
class World(Ends):
    raw: Raw
    bus: ServiceBusClient

    def messages(self) -> int:
        """How many messages the request queue has taken so far."""
        return self.emulator.books["lab"].sends


@pytest.fixture(scope="module")
async def world() -> AsyncIterator[World]:
    bench = Bench()
    queues = [replace(queue, lock_duration=30) if queue.name == "lab" else queue for queue in QUEUES]
    async with AsyncExitStack() as stack:
        emulator = await stack.enter_async_context(Emulator(queues=[*queues, "drained"]))
        bus = await stack.enter_async_context(_sdk.connect(emulator.connection_string))
        server = make_server(
            emulator.connection_string, bench, reply_queues=["*.replies", "lab.replies"], concurrency=64
        )
        client = make_client(emulator.connection_string)
        await stack.enter_async_context(server)
        await stack.enter_async_context(client)
        client.of(Lab)
        await client.ready(timeout=60)
        await server.ready(timeout=60)
        yield World(emulator, bench, server, client, Raw(bus, stack), bus)


@pytest.fixture(autouse=True)
async def acquainted(world: World) -> None:
    """The first reply says that the service understands bundles."""
    assert await world.lab.echo(Item(id=0)) == Item(id=0)


async def test_calls_that_wait_anyway_share_messages(world: World) -> None:
    """Many calls, few messages, and each call has its own answer."""
    before = world.messages()
    answers = await asyncio.gather(*(world.lab.echo(Item(id=number)) for number in range(CALLS)))
    assert [answer.id for answer in answers] == list(range(CALLS))
    assert world.messages() - before < CALLS / 4


async def test_errors_and_results_do_not_mix(world: World) -> None:
    """A call that fails fails alone, with its own code and details."""
    calls = [world.lab.fail("NOT_FOUND") if n % 3 == 0 else world.lab.echo(Item(id=n)) for n in range(CALLS)]
    for number, outcome in enumerate(await asyncio.gather(*calls, return_exceptions=True)):
        if number % 3 == 0:
            assert isinstance(outcome, NotFound)
            assert outcome.details == [{"field": "x", "problem": "y"}]
        else:
            assert outcome == Item(id=number)


async def test_metadata_belongs_to_one_call(world: World) -> None:
    """As do the call id and the deadline."""
    infos = await asyncio.gather(*(world.lab.info(None, metadata={"n": str(n)}) for n in range(CALLS)))
    assert [info["metadata"] for info in infos] == [{"n": str(n)} for n in range(CALLS)]
    assert len({info["call_id"] for info in infos}) == CALLS
    remaining = await asyncio.gather(*(world.lab.remaining(None, timeout=10 + n) for n in range(CALLS)))
    assert all(9 + n < left <= 10 + n for n, left in enumerate(remaining))


async def test_a_deadline_ends_one_call_of_a_bundle(world: World) -> None:
    """The others are answered, though the message is settled only when all are done."""
    slow = [world.lab.wait(Wait(seconds=30, tag=f"slow {n}"), timeout=0.5) for n in range(4)]
    quick = [world.lab.echo(Item(id=n)) for n in range(16)]
    outcomes = await asyncio.gather(*slow, *quick, return_exceptions=True)
    assert all(isinstance(outcome, DeadlineExceeded) for outcome in outcomes[:4])
    assert outcomes[4:] == [Item(id=n) for n in range(16)]
    await world.bench.until(lambda: not world.bench.running)


async def test_parts_of_streams_share_messages_too(world: World) -> None:
    """They arrive in order, for less."""
    before = world.emulator.books["lab.replies"].sends
    assert [item.id async for item in world.lab.count(200)] == list(range(200))
    assert world.emulator.books["lab.replies"].sends - before < 200


async def test_large_calls_fill_no_message_beyond_its_limit(world: World) -> None:
    """What does not fit travels in the next one."""
    texts = ["x" * 60_000 + str(number) for number in range(16)]
    answers = await asyncio.gather(*(world.lab.echo(Item(id=0, text=each)) for each in texts))
    assert [answer.text for answer in answers] == texts


async def test_a_bundle_that_is_delivered_again_is_given_back(world: World) -> None:
    """Its callers send each call by itself, and those that were answered already are left alone."""
    tags = [f"again {number}" for number in range(8)]
    calls = [asyncio.create_task(world.lab.wait(Wait(seconds=0.4, tag=tag), timeout=20)) for tag in tags]
    await world.bench.until(lambda: world.bench.running >= set(tags))
    world.emulator.faults.lose_locks(entity="lab")
    assert await asyncio.gather(*calls) == tags
    for tag in tags:
        assert world.bench.seen.count(f"started {tag}") == 2


async def test_a_bundle_that_loses_its_lock_again_and_again_kills_no_call(world: World) -> None:
    """However often it comes, it is given back: none of its calls has been tried as often as that."""
    tags = [f"unlucky {number}" for number in range(8)]
    with world.emulator.faults.lose_locks(entity="lab", count=6):
        calls = [world.lab.wait(Wait(seconds=0.4, tag=tag), timeout=20) for tag in tags]
        assert await asyncio.gather(*calls) == tags


@pytest.mark.parametrize("off", ["method", "client", "server"])
async def test_bundles_can_be_switched_off(world: World, off: str) -> None:
    """For a method, by a client, or by a server."""

    class Others(Contract, name="other"):
        @method(bundle=off != "method")
        async def number(self, request: int) -> int:
            raise NotImplementedError

    server = RpcServer(
        world.emulator.connection_string, Others, reply_queues=["lab.replies"], bundle=off != "server"
    )

    @server.method(Others.number)
    async def number(request: int) -> int:
        return request

    async with server, make_client(world.emulator.connection_string, bundle=off != "client") as client:
        await client.ready(60)
        await server.ready(60)
        others = client.of(Others)
        assert await others.number(1) == 1
        before = world.emulator.books["other"].sends
        assert await asyncio.gather(*(others.number(n) for n in range(12))) == list(range(12))
        assert world.emulator.books["other"].sends - before == 12


async def test_a_service_that_knows_no_bundles_gets_none(world: World) -> None:
    """Whoever answers without saying so is spoken to in single messages."""

    async def by_hand() -> None:
        for _ in range(9):
            request = await world.raw.receive("other")
            assert request.content_type == "application/json"
            await world.raw.send(
                "lab.replies",
                text(request),
                session_id=request.reply_to_session_id,
                correlation_id=request.message_id,
                application_properties={"sbrpc-status": "OK"},
            )

    class Others(Contract, name="other"):
        @method
        async def number(self, request: int) -> int:
            raise NotImplementedError

    answering = asyncio.create_task(by_hand())
    others = world.client.of(Others, timeout=20)
    assert await others.number(1) == 1
    assert await asyncio.gather(*(others.number(n) for n in range(8))) == list(range(8))
    await answering


async def test_a_caller_that_knows_no_bundles_gets_none(world: World) -> None:
    """Its replies come one by one, however many are under way."""
    for number in range(6):
        await world.raw.send(
            "lab",
            json.dumps({"id": number}),
            subject="echo",
            message_id=str(number),
            reply_to="lab.replies",
            reply_to_session_id="by hand",
        )
    came = [await world.raw.receive("lab.replies", "by hand") for _ in range(6)]
    assert sorted(str(message.correlation_id) for message in came) == [str(n) for n in range(6)]
    assert {status(message) for message in came} == {"OK"}


async def test_a_bundle_by_hand_is_served(world: World) -> None:
    """What the wire contract says is enough to write one."""
    bundle = AmqpAnnotatedMessage(
        data_body=b'[{"id":"a","length":8,"subject":"echo","timeout-ms":5000},'
        b'{"id":"b","length":4,"subject":"nothing"}]\n{"id":1}null',
        properties={
            "content_type": "application/vnd.sbrpc.bundle.v1",
            "message_id": "bundle-1",
            "reply_to": "lab.replies",
            "reply_to_group_id": "bundler",
        },
    )
    async with world.bus.get_queue_sender("lab") as sender:
        await sender.send_messages(bundle)
    seen: dict[str, str] = {}
    while len(seen) < 2:
        message = await world.raw.receive("lab.replies", "bundler")
        if message.content_type == "application/vnd.sbrpc.bundle.v1":
            line, _, _ = b"".join(message.body).partition(b"\n")
            seen |= {header["id"]: header.get("status", "OK") for header in json.loads(line)}
        else:
            seen[str(message.correlation_id)] = status(message)
    assert seen == {"a": "OK", "b": "UNIMPLEMENTED"}


async def test_a_malformed_bundle_is_put_aside(world: World) -> None:
    """With a reason that says what is wrong with it."""
    await world.raw.send(
        "lab",
        "no header",
        content_type="application/vnd.sbrpc.bundle.v1",
        reply_to="lab.replies",
        reply_to_session_id="x",
    )
    dead = await world.raw.dead_letter("lab")
    assert dead.dead_letter_reason == "MalformedBundle"
    assert "a JSON array of headers" in str(dead.dead_letter_error_description)


async def test_a_draining_server_hands_its_bundles_on(world: World) -> None:
    """What it has begun and cannot finish in time another server finishes."""

    class Others(Contract, name="drained"):
        @method
        async def slow(self, request: int) -> str:
            raise NotImplementedError

    attempts: list[int] = []

    def serving(name: str, seconds: float) -> RpcServer:
        server = RpcServer(world.emulator.connection_string, Others, reply_queues=["lab.replies"], grace=0.2)

        @server.method(Others.slow)
        async def slow(request: int, info: CallInfo) -> str:
            attempts.append(request)
            await asyncio.sleep(seconds if request else 0)
            return name

        return server

    others = world.client.of(Others, timeout=30)
    async with serving("first", 60) as first:
        await first.ready(60)
        assert await others.slow(0) == "first"
        calls = [asyncio.create_task(others.slow(number)) for number in range(1, 9)]
        await world.bench.until(lambda: len(attempts) == 9)
    async with serving("second", 0) as second:
        await second.ready(60)
        assert await asyncio.gather(*calls) == ["second"] * 8
