"""Calls through the real SDK and a real socket: what callers, handlers and strangers meet."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import math
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, replace
from typing import Any

import anyio
import pytest
from pydantic import BaseModel

from sbrpc import _sdk
from sbrpc.context import CallInfo, deadline
from sbrpc.contract import Contract, method
from sbrpc.emulator import Emulator
from sbrpc.errors import (
    Aborted,
    Cancelled,
    DataLoss,
    DeadlineExceeded,
    DecodeError,
    EntityNotFound,
    ErrorCode,
    FailedPrecondition,
    Internal,
    InvalidArgument,
    MessageTooLarge,
    NotRunning,
    ResourceExhausted,
    RpcError,
    Unauthenticated,
    Unavailable,
)
from sbrpc.middleware import Next
from sbrpc.server import RpcServer
from sbrpc.topology import Queue

from .laboratory import (
    QUEUES,
    Bench,
    Ends,
    Item,
    Lab,
    Raw,
    Stale,
    Version,
    Wait,
    make_client,
    make_server,
    status,
    text,
)


class Endless(Contract, name="endless"):
    @method
    def count(self, request: int) -> AsyncIterator[Item]: ...  # type: ignore[empty-body]


@dataclass
class World(Ends):
    raw: Raw


@pytest.fixture(scope="module")
async def world() -> AsyncIterator[World]:
    """One emulator, one server and one client for all tests of this file: opening links takes a second."""
    bench = Bench()
    async with AsyncExitStack() as stack:
        emulator = await stack.enter_async_context(Emulator(queues=QUEUES))
        bus = await stack.enter_async_context(_sdk.connect(emulator.connection_string))
        server = make_server(emulator.connection_string, bench, reply_queues=["*.replies", "lab.replies"])
        client = make_client(emulator.connection_string, name="test")
        await stack.enter_async_context(server)
        await stack.enter_async_context(client)
        client.of(Lab)
        await client.ready(timeout=60)
        await server.ready(timeout=60)
        yield World(emulator, bench, server, client, Raw(bus, stack))


# -- calls -----------------------------------------------------------------------------------------------


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


# -- errors ----------------------------------------------------------------------------------------------


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


# -- deadlines -------------------------------------------------------------------------------------------


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


# -- cancellation ----------------------------------------------------------------------------------------


async def test_a_cancelled_caller_leaves_nothing_behind(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """No future, no task, no word about the late reply; which is counted."""
    before, late = len(asyncio.all_tasks()), world.client.replies.late
    with caplog.at_level(logging.INFO, "sbrpc"), anyio.move_on_after(0.2):
        await world.lab.wait(Wait(seconds=0.5, tag="given up"))
    assert world.client.pending == 0
    await world.bench.until(lambda: "ended given up" in world.bench.seen)
    await world.bench.until(lambda: world.client.replies.late == late + 1)
    assert not [record for record in caplog.records if record.name.startswith("sbrpc")]
    gc.collect()
    await world.bench.until(lambda: len(asyncio.all_tasks()) <= before)


async def test_a_cancellable_handler_is_stopped(world: World) -> None:
    """Where the method opted in, giving up reaches the server that works on the call."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(world.lab.wait_cancellable, Wait(seconds=60, tag="stop me"))
        await world.bench.until(lambda: "stop me" in world.bench.running)
        tasks.cancel_scope.cancel()
    await world.bench.until(lambda: "cancelled stop me" in world.bench.seen)
    assert world.client.pending == 0


async def test_a_cancellable_call_that_is_not_cancelled(world: World) -> None:
    """The notice about where to cancel is not taken for the reply."""
    assert await world.lab.wait_cancellable(Wait(seconds=0.05, tag="fine")) == "fine"


# -- streams ---------------------------------------------------------------------------------------------


async def test_a_stream_arrives_in_order(world: World) -> None:
    """Far more replies than its window, each once."""
    assert [item.id async for item in world.lab.count(100)] == list(range(100))
    assert [item async for item in world.lab.count(0)] == []


async def test_streams_run_side_by_side(world: World) -> None:
    """Over one session, without mixing."""

    async def consume(length: int) -> None:
        assert [item.id async for item in world.lab.count(length)] == list(range(length))

    async with anyio.create_task_group() as tasks:
        for length in (5, 17, 40, 3):
            tasks.start_soon(consume, length)


async def test_an_error_in_the_middle_of_a_stream(world: World) -> None:
    """What came before it is delivered, then it is raised."""
    got: list[int] = []

    async def consume() -> None:
        async for item in world.lab.count_and_fail(20):
            got.append(item.id)  # noqa: PERF401 - what was there when it failed is the point

    with pytest.raises(DataLoss, match="broken"):
        await consume()
    assert got == list(range(20))


async def test_breaking_off_stops_the_handler(world: World) -> None:
    """Leaving the loop early reaches the server; it does not go on to the end."""
    world.bench.seen.clear()
    async with aclosing(world.lab.count(10**9)) as items:
        async for item in items:
            if item.id == 20:
                break
    await world.bench.until(lambda: "stopped counting" in world.bench.seen)
    assert world.bench.produced < 100
    assert world.client.pending == 0


async def test_a_slow_consumer_holds_the_handler_back(world: World) -> None:
    """No more than a window is under way, so memory grows on neither side."""
    world.bench.seen.clear()
    async with aclosing(world.lab.count(10**9)) as items:
        assert (await anext(items)).id == 0
        for _ in range(20):  # of which each would have been time enough for some more
            await world.lab.echo(Item(id=1))
        assert world.bench.produced <= 8 + 4 + 1
    await world.bench.until(lambda: "stopped counting" in world.bench.seen)


async def test_a_stream_that_never_cleans_up_keeps_no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has a while for it; then it is ended once more, and the server can stop."""
    monkeypatch.setattr("sbrpc._serving._CLEANING_UP", 0.1)
    cleaning, ended = anyio.Event(), anyio.Event()

    async def count(request: int) -> AsyncIterator[Item]:
        try:
            while True:
                yield Item(id=request)
        finally:
            cleaning.set()
            try:
                await anyio.sleep_forever()
            finally:
                ended.set()

    async with Emulator(queues=QUEUES) as emulator, make_client(emulator.connection_string) as client:
        server = RpcServer(
            emulator.connection_string, Endless, reply_queues=["lab.replies"], grace=0, queue="other"
        )
        server.method(Endless.count)(count)
        async with server:
            await server.ready(20)
            await client.ready(20)
            async with aclosing(client.of(Endless, queue="other").count(1)) as items:
                assert await anext(items) == Item(id=1)
            await cleaning.wait()
    assert ended.is_set()


async def test_a_deadline_covers_the_whole_stream(world: World) -> None:
    """However many replies came before it."""
    with pytest.raises(DeadlineExceeded):
        async for _ in world.lab.count(10**9, timeout=0.7):
            pass
    await world.bench.until(lambda: world.server.running == 0)


async def test_a_stream_can_be_refused(world: World) -> None:
    """An error from before the stream began is an ordinary one."""
    wrong: Any = "x"
    with pytest.raises(InvalidArgument):
        async for _ in world.lab.count(wrong):
            pass


# -- strangers -------------------------------------------------------------------------------------------


async def test_a_caller_with_nothing_but_the_sdk(world: World) -> None:
    """Standard properties make a call; the reply is found by session and correlation id."""
    await world.raw.send(
        "lab",
        '{"id": 5}',
        subject="echo",
        message_id="raw-1",
        reply_to="lab.replies",
        reply_to_session_id="raw",
    )
    reply = await world.raw.receive("lab.replies", "raw")
    assert (reply.correlation_id, reply.session_id, status(reply)) == ("raw-1", "raw", "OK")
    assert json.loads(text(reply)) == {"id": 5, "text": ""}
    assert reply.content_type == "application/json"


async def test_a_caller_without_a_session(world: World) -> None:
    """A plain reply queue does as well."""
    await world.raw.send("lab", '{"id": 5}', subject="echo", message_id="raw-2", reply_to="plain.replies")
    reply = await world.raw.receive("plain.replies")
    assert (reply.correlation_id, status(reply)) == ("raw-2", "OK")


async def test_a_stream_without_flow_control(world: World) -> None:
    """A caller that does not know it gets all replies, numbered, and an end."""
    await world.raw.send("lab", "20", subject="count", message_id="raw-3", reply_to="plain.replies")
    replies = [await world.raw.receive("plain.replies") for _ in range(21)]
    properties = [reply.application_properties or {} for reply in replies]
    assert [p[b"sbrpc-seq"] for p in properties] == list(range(21))
    assert [p[b"sbrpc-end"] for p in properties] == [False] * 20 + [True]


@pytest.mark.parametrize(
    ("subject", "body", "code", "says"),
    [
        ("echo", "{", "INVALID_ARGUMENT", "Invalid JSON"),
        ("echo", b"\xff\xfe", "INVALID_ARGUMENT", "Invalid JSON"),
        (
            "echo",
            '{"text": 5}',
            "INVALID_ARGUMENT",
            "id: Field required; text: Input should be a valid string",
        ),
        ("echo", "[]", "INVALID_ARGUMENT", "object"),
        ("nothing", "{}", "UNIMPLEMENTED", "no method 'nothing'"),
        ("sbrpc.ping", "{}", "UNIMPLEMENTED", "no method"),
        (None, "{}", "INVALID_ARGUMENT", "no subject"),
    ],
)
async def test_bad_requests_are_answered(
    world: World, subject: str | None, body: str | bytes, code: str, says: str
) -> None:
    """With a code and what is wrong, field by field."""
    await world.raw.send("lab", body, subject=subject, message_id="bad", reply_to="plain.replies")
    reply = await world.raw.receive("plain.replies")
    document = json.loads(text(reply))
    assert status(reply) == document["code"] == code
    assert says in document["message"]


@pytest.mark.parametrize(
    ("subject", "body", "reason"),
    [
        ("echo", "{", "MalformedRequest"),
        ("nothing", "{}", "UnknownMethod"),
        (None, "{}", "MalformedRequest"),
        ("fail", '"NOT_FOUND"', "NOT_FOUND"),
        ("note", '"fail"', "ABORTED"),
    ],
)
async def test_without_a_reply_address_bad_requests_are_dead_lettered(
    world: World, subject: str | None, body: str, reason: str
) -> None:
    """With the reason, and a description for people."""
    await world.raw.send("lab", body, subject=subject, message_id=f"dead {reason}")
    letter = await world.raw.dead_letter("lab")
    assert letter.message_id == f"dead {reason}"
    assert letter.dead_letter_reason == reason
    assert letter.dead_letter_error_description


async def test_a_one_way_call_that_crashes_is_tried_again_and_given_up(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody is told, so it is not lost: after the last attempt it is dead-lettered."""
    world.bench.seen.clear()
    await world.raw.send("lab", '"crash"', subject="note", message_id="poison")
    letter = await world.raw.dead_letter("lab")
    assert letter.dead_letter_reason == "MaxDeliveriesExceeded"
    assert world.bench.seen.count("crash") == 5


async def test_a_forged_reply_address_is_dead_lettered(world: World) -> None:
    """The server sends nothing to queues that its list does not name."""
    await world.raw.send(
        "lab", '{"id": 1}', subject="echo", message_id="forged", reply_to="elsewhere", reply_to_session_id="s"
    )
    letter = await world.raw.dead_letter("lab")
    assert (letter.message_id, letter.dead_letter_reason) == ("forged", "ForbiddenReplyTo")
    description = letter.dead_letter_error_description or ""
    assert "'elsewhere'" in description
    assert "`reply_queues` are '*.replies'" in description


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("answers", "; replies go to 'answers', which a server refuses unless its `reply_queues` name it"),
        ("x.replies", ""),
    ],
)
async def test_a_late_call_names_a_reply_queue_that_servers_refuse_by_default(name: str, hint: str) -> None:
    """The error says what a server would only log; where the name is a usual one, there is nothing to say."""
    async with (
        Emulator(queues=["lab", Queue(name, requires_session=True)]) as emulator,
        make_client(emulator.connection_string, reply_queue=name) as client,
    ):
        lab = client.of(Lab)
        await client.ready(timeout=60)
        with pytest.raises(DeadlineExceeded) as late:
            await lab.echo(Item(id=1), timeout=0.2)
        assert str(late.value).partition(" in time")[2].partition(" (")[0] == hint
        async with aclosing(lab.count(1, timeout=0.2)) as stream:
            with pytest.raises(DeadlineExceeded) as late:
                await anext(stream)
        assert str(late.value).partition(" in time")[2].partition(" (")[0] == hint


async def test_a_reply_queue_that_does_not_exist_is_dead_lettered(world: World) -> None:
    """The work was done, but nobody can be told; an operator has to see that."""
    await world.raw.send("lab", '{"id": 1}', subject="echo", message_id="lost", reply_to="missing.replies")
    letter = await world.raw.dead_letter("lab")
    assert (letter.message_id, letter.dead_letter_reason) == ("lost", "ReplyQueueNotFound")
    assert "missing.replies" not in world.server._senders


async def test_foreign_replies_are_dropped(world: World) -> None:
    """What answers none of our calls changes nothing, whoever sends it to our session."""
    session = world.client.replies.epoch.session_id
    late = world.client.replies.late
    await world.raw.send(
        "lab.replies", "{}", session_id=session, correlation_id="no such call",
        application_properties={"sbrpc-status": "OK"},
    )  # fmt: skip
    await world.raw.send("lab.replies", b"\x00garbage", session_id=session)
    await world.bench.until(lambda: world.client.replies.late == late + 2)
    assert await world.lab.echo(Item(id=3)) == Item(id=3)


async def test_a_reply_that_does_not_fit_is_a_decode_error(world: World) -> None:
    """The field is named; the call is over."""

    class Odd(Contract, name="lab"):
        @method
        async def echo(self, request: Item) -> int:
            raise NotImplementedError

    with pytest.raises(DecodeError, match=r"reply of lab\.echo"):
        await world.client.of(Odd).echo(Item(id=1))


async def test_an_incompatible_contract_is_told_apart(world: World) -> None:
    """Not a validation error, but the difference between the two contracts in words."""

    class Older(BaseModel):
        number: int
        text: int = 0

    class Old(Contract, name="lab"):
        @method
        async def echo(self, request: Older) -> Item:
            raise NotImplementedError

    with pytest.raises(FailedPrecondition) as caught:
        await world.client.of(Old).echo(Older(number=1))
    message = caught.value.message
    assert "id: only there, required" in message
    assert "number: only here, required" in message
    assert "text: type is 'integer' here, 'string' there" in message


# -- settings --------------------------------------------------------------------------------------------


async def test_middleware_on_both_sides(world: World) -> None:
    """Metadata put in by the client's reaches the server's, which may refuse the call."""
    seen: list[str] = []

    async def sign(request: Any, info: CallInfo, call_next: Next) -> Any:
        reply = await call_next(request, replace(info, metadata={**info.metadata, "token": "secret"}))
        seen.append(f"client {info.method}")
        return reply

    async def check(request: Any, info: CallInfo, call_next: Next) -> Any:
        if info.metadata.get("token") != "secret":
            raise Unauthenticated("who are you?")
        seen.append(f"server {info.method}")
        return await call_next(request, info)

    string = world.emulator.connection_string
    async with (
        make_server(string, Bench(), queue="other", middleware=[check]) as server,
        make_client(string, middleware=[sign]) as client,
    ):
        await server.ready(60)
        assert await client.of(Lab, queue="other").echo(Item(id=1)) == Item(id=1)
        assert [i.id async for i in client.of(Lab, queue="other").count(3)] == [0, 1, 2]
        with pytest.raises(Unauthenticated, match="who are you"):
            await world.client.of(Lab, queue="other").echo(Item(id=1))
    assert sorted(seen) == ["client count", "client echo", "server count", "server echo"]


async def test_a_missing_handler_is_found_at_the_start(world: World) -> None:
    """Not by the first caller."""
    with pytest.raises(TypeError, match=r"no handler for lab\.echo"):
        async with RpcServer(world.emulator.connection_string, Lab):
            pass


async def test_nothing_works_outside_of_its_block(world: World) -> None:
    """The error says what to do."""
    client = make_client(world.emulator.connection_string)
    with pytest.raises(NotRunning, match="async with"):
        client.of(Lab)
    with pytest.raises(NotRunning, match="async with"):
        await make_server(world.emulator.connection_string, Bench()).ready()
    with pytest.raises(NotRunning, match="already running"):
        await world.client.__aenter__()


async def test_missing_queues_are_named(world: World) -> None:
    """By whoever waits for readiness, at once."""
    string = world.emulator.connection_string
    async with make_client(string, reply_queue="missing.replies") as client:
        with pytest.raises(EntityNotFound, match=r"missing\.replies"):
            await client.ready(60)
        with pytest.raises(EntityNotFound, match=r"missing\.replies"):
            await client.of(Lab).echo(Item(id=1))
    async with make_server(string, Bench(), queue="missing") as server:
        with pytest.raises(EntityNotFound, match="missing"):
            await server.ready(60)
        assert not server.is_ready
        assert server.is_live


async def test_calls_that_came_before_the_reply_queue_was_found_missing_fail_with_it() -> None:
    """When the client learns that nobody can answer them, not at the end of their time."""
    async with Emulator(queues=["lab"]) as emulator:
        string = emulator.connection_string
        async with make_client(string, reply_queue="missing.replies") as client:
            with pytest.raises(EntityNotFound, match=r"missing\.replies"):
                await client.of(Lab).echo(Item(id=1), timeout=3600)
        async with (
            make_client(string, reply_queue="missing.replies") as client,
            aclosing(client.of(Lab, timeout=3600).count(3)) as items,
        ):
            with pytest.raises(EntityNotFound, match=r"missing\.replies"):
                await anext(items)


async def test_a_queue_with_sessions_needs_the_option(world: World) -> None:
    """The error names it."""
    async with make_server(world.emulator.connection_string, Bench(), queue="ordered") as server:
        with pytest.raises(_sdk.MustNotRequireSessions, match="max_concurrent_sessions"):
            await server.ready(60)


async def test_an_exception_leaves_the_blocks_as_it_is(world: World) -> None:
    """Whoever writes `except Aborted` around the block gets just that."""
    string = world.emulator.connection_string
    with pytest.raises(Aborted, match="mine"):
        async with make_server(string, Bench(), queue="other"), make_client(string):
            raise Aborted("mine")


async def test_closing_ends_calls_that_wait(world: World) -> None:
    """They fail at once, and nothing is left."""
    client = make_client(world.emulator.connection_string)
    outcomes: list[BaseException] = []

    async def call(lab: Lab) -> None:
        try:
            await lab.wait(Wait(seconds=5, tag="closing"))
        except RpcError as error:
            outcomes.append(error)

    async with anyio.create_task_group() as tasks, client:
        tasks.start_soon(call, client.of(Lab))
        await world.bench.until(lambda: "closing" in world.bench.running)
    assert [type(outcome) for outcome in outcomes] == [Unavailable]


async def test_ordered_calls(world: World) -> None:
    """The calls of a key run one after the other, those of different keys side by side."""
    bench = Bench()
    string = world.emulator.connection_string
    async with make_server(string, bench, queue="ordered", max_concurrent_sessions=3) as server:
        await server.ready(60)
        lab = world.client.of(Lab, queue="ordered")

        async def call(key: str, number: int) -> None:
            info = await lab.wait(Wait(seconds=0.02, tag=f"{key}{number}"), key=key)
            assert info == f"{key}{number}"

        async with anyio.create_task_group() as tasks:
            for number in range(5):
                for key in "abc":
                    tasks.start_soon(call, key, number)
                    await anyio.sleep(0.005)
        for key in "abc":
            mine = [what for what in bench.seen if what.split()[1].startswith(key)]
            assert mine == [f"{verb} {key}{n}" for n in range(5) for verb in ("started", "ended")]
        assert (await lab.info(None, key="k"))["session_id"] == "k"


def test_cancelled_is_an_error_code_not_a_cancellation() -> None:
    """A server that answers CANCELLED raises an ordinary exception at the caller."""
    assert not issubclass(Cancelled, asyncio.CancelledError)
