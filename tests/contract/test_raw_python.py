"""The Azure SDK for Python as caller and as server, written from docs/wire-contract.md alone."""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any

import anyio
import pytest
from azure.servicebus import ServiceBusMessage, ServiceBusReceivedMessage
from azure.servicebus.aio import ServiceBusClient, ServiceBusReceiver, ServiceBusSender

from sbrpc import RpcClient
from sbrpc.errors import NotFound

from .service import GetMovie, Movie, Movies, movies_service

SESSION = "python-caller"


class Stranger:
    """A caller with its links open."""

    def __init__(self, connection_string: str, forgotten: list[int]) -> None:
        self.connection_string = connection_string
        self.forgotten = forgotten
        self.requests: ServiceBusSender
        self.replies: ServiceBusReceiver
        self.plain: ServiceBusReceiver
        self.dead: ServiceBusReceiver

    async def call(self, subject: str | None, body: bytes, **properties: Any) -> str:
        """Send a request; its id."""
        call_id = uuid.uuid4().hex
        fields: dict[str, Any] = {
            "reply_to": "gateway.replies",
            "reply_to_session_id": SESSION,
            "content_type": "application/json",
            "time_to_live": timedelta(seconds=30),
            **properties,
        }
        await self.requests.send_messages(
            ServiceBusMessage(body, subject=subject, message_id=call_id, **fields)
        )
        return call_id

    async def ask(self, subject: str | None, body: bytes, **properties: Any) -> tuple[str, Any]:
        """The status and the body of the reply to a request."""
        call_id = await self.call(subject, body, **properties)
        message = await taken(self.replies)
        assert (message.correlation_id, message.session_id) == (call_id, SESSION)
        assert message.content_type == "application/json"
        return str(field(message, "sbrpc-status")), json.loads(content(message))


async def taken(receiver: ServiceBusReceiver) -> ServiceBusReceivedMessage:
    """The next message, completed."""
    (message,) = await receiver.receive_messages(max_message_count=1, max_wait_time=10)
    await receiver.complete_message(message)
    return message


def content(message: ServiceBusReceivedMessage) -> bytes:
    return b"".join(message.body)


def field(message: ServiceBusReceivedMessage, name: str) -> Any:
    value = (message.application_properties or {}).get(name.encode())
    return value.decode() if isinstance(value, bytes) else value


@pytest.fixture(scope="module")
async def stranger() -> AsyncIterator[Stranger]:
    """One caller for all tests."""
    forgotten: list[int] = []
    async with AsyncExitStack() as stack:
        emulator = await stack.enter_async_context(movies_service(forgotten))
        sdk = await stack.enter_async_context(
            ServiceBusClient.from_connection_string(emulator.connection_string)
        )
        caller = Stranger(emulator.connection_string, forgotten)
        opened = stack.enter_async_context
        caller.requests = await opened(sdk.get_queue_sender("movies"))
        caller.replies = await opened(sdk.get_queue_receiver("gateway.replies", session_id=SESSION))
        caller.plain = await opened(sdk.get_queue_receiver("plain.replies"))
        caller.dead = await opened(sdk.get_queue_receiver("movies", sub_queue="deadletter"))
        yield caller


async def test_a_call_is_answered(stranger: Stranger) -> None:
    """With nothing but standard properties; metadata reaches the handler."""
    assert await stranger.ask("get_movie", b'{"id": 1}') == ("OK", {"id": 1, "title": "Alien"})
    properties = {"title": "Brazil", "sbrpc-timeout-ms": 5000}
    assert await stranger.ask("get_movie", b'{"id": 2}', application_properties=properties) == (
        "OK",
        {"id": 2, "title": "Brazil"},
    )


@pytest.mark.parametrize(
    ("subject", "body", "code"),
    [
        ("get_movie", b'{"id": 0}', "NOT_FOUND"),
        ("get_movie", b"{", "INVALID_ARGUMENT"),
        ("get_movie", b'{"id": "one"}', "INVALID_ARGUMENT"),
        ("no_such_method", b"{}", "UNIMPLEMENTED"),
        (None, b"{}", "INVALID_ARGUMENT"),
    ],
)
async def test_errors_are_documents(stranger: Stranger, subject: str | None, body: bytes, code: str) -> None:
    """The code stands in the property and in the body; details are a list of objects."""
    status, document = await stranger.ask(subject, body)
    assert (status, document["code"]) == (code, code)
    assert document["message"]
    assert all(isinstance(detail, dict) for detail in document["details"])
    if body == b'{"id": "one"}':
        assert [detail["field"] for detail in document["details"]] == ["id"]


async def test_a_deadline_that_has_passed_is_told(stranger: Stranger) -> None:
    """Without running the handler."""
    status, _ = await stranger.ask("get_movie", b'{"id": 1}', application_properties={"sbrpc-timeout-ms": 0})
    assert status == "DEADLINE_EXCEEDED"


async def test_a_queue_without_sessions_gets_replies_too(stranger: Stranger) -> None:
    """A caller may have a queue of its own."""
    call_id = await stranger.call(
        "get_movie", b'{"id": 3}', reply_to="plain.replies", reply_to_session_id=None
    )
    message = await taken(stranger.plain)
    assert (message.correlation_id, message.session_id) == (call_id, None)
    assert json.loads(content(message)) == {"id": 3, "title": "Alien"}


async def test_one_way_commands_are_not_answered(stranger: Stranger) -> None:
    """No `reply_to`, no reply; the work is done."""
    await stranger.call("forget", b'{"id": 4}', reply_to=None, reply_to_session_id=None)
    with anyio.fail_after(10):
        while 4 not in stranger.forgotten:  # noqa: ASYNC110
            await anyio.sleep(0.01)


@pytest.mark.parametrize(
    ("subject", "body", "reply_to", "reason"),
    [
        ("get_movie", b'{"id": 1}', "elsewhere", "ForbiddenReplyTo"),
        ("get_movie", b'{"id": 1}', "missing.replies", "ReplyQueueNotFound"),
        ("forget", b"{", None, "MalformedRequest"),
        ("no_such_method", b"{}", None, "UnknownMethod"),
        ("get_movie", b'{"id": 0}', None, "NOT_FOUND"),
    ],
)
async def test_requests_that_cannot_be_answered_are_dead_lettered(
    stranger: Stranger, subject: str, body: bytes, reply_to: str | None, reason: str
) -> None:
    """With the reason, for programs and for people."""
    call_id = await stranger.call(subject, body, reply_to=reply_to, reply_to_session_id=None)
    letter = await taken(stranger.dead)
    assert (letter.message_id, letter.dead_letter_reason) == (call_id, reason)
    assert letter.dead_letter_error_description


async def test_a_stream_is_read(stranger: Stranger) -> None:
    """Numbered parts, and an end without a value."""
    call_id = await stranger.call("export", b"3")
    parts = [await taken(stranger.replies) for _ in range(4)]
    parts.sort(key=lambda part: int(field(part, "sbrpc-seq")))
    assert {part.correlation_id for part in parts} == {call_id}
    assert [field(part, "sbrpc-end") for part in parts] == [False, False, False, True]
    assert [json.loads(content(part))["id"] for part in parts[:3]] == [0, 1, 2]
    assert (field(parts[3], "sbrpc-status"), content(parts[3])) == ("OK", b"")


# -- the other side ------------------------------------------------------------------------------------


async def serve(sdk: ServiceBusClient) -> None:
    """A server of `other-movies` in the SDK's own words."""
    async with (
        sdk.get_queue_receiver("elsewhere") as requests,
        sdk.get_queue_sender("gateway.replies") as out,
    ):
        async for request in requests:
            number = json.loads(content(request))
            answers: list[tuple[str, bytes, dict[str, Any]]] = []
            if request.subject == "export":
                for position in range(number):
                    body = json.dumps({"id": position, "title": "Raw"}).encode()
                    answers.append(("OK", body, {"sbrpc-seq": position, "sbrpc-end": False}))
                answers.append(("OK", b"", {"sbrpc-seq": number, "sbrpc-end": True}))
            elif number["id"] == 0:
                error = {"code": "NOT_FOUND", "message": "no such movie", "details": [{"id": 0}]}
                answers.append(("NOT_FOUND", json.dumps(error).encode(), {}))
            else:
                answers.append(("OK", json.dumps({"id": number["id"], "title": "Raw"}).encode(), {}))
            for status, body, more in answers:
                await out.send_messages(
                    ServiceBusMessage(
                        body,
                        content_type="application/json",
                        correlation_id=request.message_id,
                        session_id=request.reply_to_session_id,
                        application_properties={"sbrpc-status": status, **more},
                    )
                )
            await requests.complete_message(request)


async def test_a_server_by_hand_answers_a_client_of_ours(stranger: Stranger) -> None:
    """Values, errors and streams arrive as what they are."""
    async with (
        ServiceBusClient.from_connection_string(stranger.connection_string) as sdk,
        anyio.create_task_group() as tasks,
        RpcClient(stranger.connection_string, reply_queue="gateway.replies", timeout=20) as client,
    ):
        tasks.start_soon(serve, sdk)
        movies = client.of(Movies, queue="elsewhere")
        assert await movies.get_movie(GetMovie(id=7)) == Movie(id=7, title="Raw")
        with pytest.raises(NotFound, match="no such movie") as caught:
            await movies.get_movie(GetMovie(id=0))
        assert caught.value.details == [{"id": 0}]
        assert [movie.id async for movie in movies.export(3)] == [0, 1, 2]
        tasks.cancel_scope.cancel()
