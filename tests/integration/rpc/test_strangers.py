"""Callers with nothing but the SDK, other versions of a contract, and messages that make no sense."""

from __future__ import annotations

import json
from contextlib import aclosing

import pytest
from pydantic import BaseModel

from sbrpc.contract import Contract, method
from sbrpc.emulator import Emulator
from sbrpc.errors import DeadlineExceeded, DecodeError, FailedPrecondition
from sbrpc.topology import Queue
from tests.integration.laboratory import Item, Lab, make_client, status, text

from .world import World


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
