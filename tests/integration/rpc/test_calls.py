"""Calls through the real SDK and a real socket: their answers, errors and deadlines."""

from __future__ import annotations

import json
import logging
import math
from contextlib import AsyncExitStack
from typing import Any

import anyio
import pytest

from sbrpc.context import deadline
from sbrpc.errors import (
    DeadlineExceeded,
    EntityNotFound,
    ErrorCode,
    Internal,
    InvalidArgument,
    MessageTooLarge,
    ResourceExhausted,
    RpcError,
    Unavailable,
)
from tests.integration.laboratory import (
    Bench,
    Item,
    Lab,
    Stale,
    Version,
    Wait,
    make_client,
    make_server,
    status,
)

from .world import World

# -- calls ---------------------------------------------------------------------------------------------


async def test_a_call_is_answered(world: World) -> None:
    """A typed request goes out, a typed reply comes back."""
    assert await world.lab.echo(Item(id=7, text="žluťoučký")) == Item(id=7, text="žluťoučký")


async def test_many_calls_get_their_own_answers(world: World) -> None:
    """However many are on their way at once."""

    async def call(number: int) -> None:
        assert (await world.lab.echo(Item(id=number))).id == number

    async with anyio.create_task_group() as tasks:
        for number in range(200):
            tasks.start_soon(call, number)
    assert world.client.pending == 0


async def test_the_handler_knows_its_message(world: World) -> None:
    """Method, id, metadata, delivery count and the rest are in the second argument."""
    lab = world.client.of(Lab, metadata={"tenant": "a", "user": "u"})
    info = await lab.info(None, metadata={"user": "v"})
    assert info["metadata"] == {"tenant": "a", "user": "v"}
    assert (info["method"], info["delivery_count"], info["reply_to"]) == ("info", 0, "lab.replies")
    assert info["enqueued"]
    assert info["fencing_token"] > 0
    assert 16 < len(info["call_id"]) <= 128
    assert (await lab.info(None))["fencing_token"] > info["fencing_token"]


async def test_a_method_without_result_answers_too(world: World) -> None:
    """A one-way command is delivered to the handler, and the caller goes on."""
    await world.lab.note("hello")
    await world.bench.until(lambda: "hello" in world.bench.seen)


async def test_synchronous_handlers_run_in_threads(world: World) -> None:
    """Ten that block for a while do not block one another, nor anything else."""
    async with anyio.create_task_group() as tasks:
        for _ in range(10):
            tasks.start_soon(world.lab.block, Wait(seconds=0.3))
        assert await world.lab.echo(Item(id=1)) == Item(id=1)


async def test_the_path_of_replies_is_proven(world: World) -> None:
    """Readiness means that a message came back; its round trip and the clocks' difference are known."""
    replies = world.client.replies
    assert world.client.is_ready
    assert world.server.is_ready
    assert world.server.is_live
    assert replies.round_trip is not None
    assert replies.clock_skew is not None
    assert abs(replies.clock_skew) < 5


async def test_a_thousand_calls_over_two_clients_and_two_servers(world: World) -> None:
    """64 at a time: every caller gets its own answer, and every server does some of the work."""
    string = world.emulator.connection_string
    benches = [Bench(), Bench()]
    answered: list[int] = []
    async with AsyncExitStack() as stack:
        for bench in benches:
            server = make_server(string, bench, queue="other", concurrency=8)
            await stack.enter_async_context(server)
            await server.ready(60)
        clients = [await stack.enter_async_context(make_client(string)) for _ in range(2)]
        labs = [client.of(Lab, queue="other") for client in clients]
        limit = anyio.CapacityLimiter(64)

        async def call(number: int) -> None:
            async with limit:
                reply = await labs[number % 2].echo_again(Item(id=number))
                assert reply.id == number
                answered.append(number)

        async with anyio.create_task_group() as tasks:
            for number in range(1000):
                tasks.start_soon(call, number)
        assert [client.pending for client in clients] == [0, 0]
    assert sorted(answered) == list(range(1000))
    assert all(len(bench.seen) > 100 for bench in benches)
    assert len(benches[0].seen) + len(benches[1].seen) == 1000


# -- errors --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", list(ErrorCode))
async def test_every_error_arrives_as_itself(world: World, code: ErrorCode) -> None:
    """Class, message and details are the same on both ends."""
    with pytest.raises(RpcError) as caught:
        await world.lab.fail(code.value)
    assert caught.value.code is code
    assert type(caught.value) is not RpcError
    assert caught.value.message == "as told"
    assert caught.value.details == [{"field": "x", "problem": "y"}]


async def test_a_declared_error_arrives_with_its_data(world: World) -> None:
    """The class that the contract names, with a typed value."""
    with pytest.raises(Stale) as caught:
        await world.lab.conflict(3)
    assert caught.value.data == Version(expected=3, actual=4)


async def test_an_unexpected_exception_leaks_nothing(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """The caller gets INTERNAL, the server's log the traceback with the call's id."""
    with caplog.at_level(logging.ERROR, "sbrpc.server"), pytest.raises(Internal) as caught:
        await world.lab.fail("crash")
    assert "12345" not in str(caught.value)
    assert caught.value.details == []
    assert "12345" in caplog.text
    assert "lab.fail failed for call" in caplog.text


async def test_a_handler_that_waits_for_what_is_cancelled_has_failed(world: World) -> None:
    """Nobody cancelled the call: it is answered like any other that failed, and holds nothing up."""
    with pytest.raises(Internal):
        await world.lab.fail("wait for what is cancelled")
    assert await world.lab.echo(Item(id=1)) == Item(id=1)
    await world.bench.until(lambda: world.server.running == 0)


async def test_a_handler_that_returns_nonsense_is_internal(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """A result that is not of the declared type never reaches the caller."""
    with caplog.at_level(logging.ERROR, "sbrpc.server"), pytest.raises(Internal):
        await world.lab.wrong(None)


async def test_a_wrong_request_is_not_sent(world: World) -> None:
    """The caller learns at once which field is wrong."""
    wrong: Any = {"id": "x"}
    with pytest.raises(InvalidArgument, match="id") as caught:
        await world.lab.echo(wrong)
    assert caught.value.details[0]["field"] == "id"


async def test_too_large_a_request_is_not_sent(world: World) -> None:
    """Size and limit are said before anything is on the wire."""
    with pytest.raises(MessageTooLarge) as caught:
        await world.lab.echo(Item(id=1, text="x" * 300_000))
    assert caught.value.limit == 256 * 1024
    assert caught.value.size > 300_000


async def test_too_large_a_reply_is_an_error(world: World) -> None:
    """Never a silent timeout."""
    assert len(await world.lab.big(200_000)) == 200_000
    with pytest.raises(ResourceExhausted, match="bytes"):
        await world.lab.big(300_000)


async def test_idempotent_calls_are_repeated(world: World) -> None:
    """When the service says that it is unavailable; each attempt is a call of its own."""
    world.bench.flaky = 2
    assert await world.lab.echo_again(Item(id=77)) == Item(id=77)
    assert world.bench.seen.count("echo 77") == 3
    world.bench.flaky = 100
    with pytest.raises(Unavailable):
        await world.lab.echo_again(Item(id=78), timeout=3)
    world.bench.flaky = 0
    assert world.bench.seen.count("echo 78") == 4


async def test_a_service_that_does_not_exist(world: World) -> None:
    """The queue's name is in the error, and the next call fails at once."""
    lab = world.client.of(Lab, queue="nowhere")
    for _ in range(2):
        with pytest.raises(EntityNotFound, match="nowhere"):
            await lab.echo(Item(id=1), timeout=10)
    world.client._senders.pop("nowhere").stop()


# -- deadlines -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("timeout", [0.3, 1.2])
async def test_a_deadline_ends_caller_and_handler(world: World, timeout: float) -> None:
    """The caller stops waiting, and the handler is cancelled without being told."""
    with pytest.raises(DeadlineExceeded, match=r"lab\.wait"):
        await world.lab.wait(Wait(seconds=60, tag=f"deadline {timeout}"), timeout=timeout)
    await world.bench.until(lambda: f"cancelled deadline {timeout}" in world.bench.seen)


async def test_the_nearest_deadline_counts(world: World) -> None:
    """Of the contract, the stub, the call and the enclosing scope; the server sees what is left."""
    assert 25 < await world.lab.remaining(None) <= 30
    assert 3 < await world.client.of(Lab, timeout=5).remaining(None) <= 5
    assert 1 < await world.client.of(Lab, timeout=5).remaining(None, timeout=3) <= 3
    assert 3 < await world.client.of(Lab, timeout=5).remaining(None, timeout=9) <= 5
    with deadline(2):
        assert 0 < await world.lab.remaining(None, timeout=9) <= 2
    assert await world.lab.remaining(None, timeout=math.inf) == -1
    with pytest.raises(DeadlineExceeded):
        await world.lab.short(5, timeout=10)


async def test_a_passed_deadline_sends_nothing(world: World) -> None:
    """A call made too late fails before it costs anything."""
    with deadline(-1), pytest.raises(DeadlineExceeded):
        await world.lab.wait(Wait(seconds=0, tag="too late"))
    assert await world.lab.echo(Item(id=1))
    assert "started too late" not in world.bench.seen


async def test_expired_work_is_answered_and_not_started(world: World) -> None:
    """By the broker's own clock: half a minute passes in the queue there, and not a second for the server."""
    bench = Bench()
    async with make_server(world.emulator.connection_string, bench, queue="other", concurrency=1) as server:
        lab = world.client.of(Lab, queue="other")
        await server.ready(60)
        await lab.echo(Item(id=1))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lab.wait, Wait(seconds=1, tag="busy"))
            await bench.until(lambda: "busy" in bench.running)
            for number in range(3):  # more than the server takes ahead
                await world.raw.send(
                    "other",
                    json.dumps({"seconds": 0, "tag": f"expired {number}"}),
                    subject="wait",
                    message_id=f"expired-{number}",
                    reply_to="plain.replies",
                    application_properties={"sbrpc-timeout-ms": 20_000},
                )
            await world.emulator.advance(30)
        replies = [await world.raw.receive("plain.replies") for _ in range(3)]
        assert status(replies[2]) == "DEADLINE_EXCEEDED"
        assert "started expired 2" not in bench.seen


async def test_a_blocked_thread_can_see_the_deadline(world: World) -> None:
    """It cannot be interrupted, so it may look; the caller does not wait for it."""
    with pytest.raises(DeadlineExceeded):
        await world.lab.block(Wait(seconds=30), timeout=0.3)
