"""What is logged, at any level: calls by their ids and traces, and nothing that is secret."""

from __future__ import annotations

import logging
import traceback
from contextlib import AsyncExitStack

import anyio
import pytest
from azure.servicebus import ServiceBusMessage
from azure.servicebus.aio import ServiceBusClient
from pydantic import BaseModel
from tenacity import AsyncRetrying, stop_after_attempt

from sbrpc import Contract, Event, EventBus, Queue, RpcClient, RpcServer, Topic, method
from sbrpc.emulator import AccessKey, Emulator, Right
from sbrpc.errors import Internal, InvalidArgument, NotFound, SbrpcError
from sbrpc.topology import Subscription

pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # links are cut, and the SDK leaves sockets behind
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

PAYLOAD = "marker-in-the-payload"
TOKEN = "marker-in-the-metadata"
KEY = "bWFya2VyLWluLXRoZS1rZXk="
WRONG = "bWFya2VyLWluLWEtd3Jvbmcta2V5"
SECRETS = [PAYLOAD, TOKEN, KEY, WRONG, "SharedAccessKey=", "SharedAccessSignature", "sig="]

ROOT = AccessKey("root", KEY, frozenset({Right.MANAGE}))
TRACE = "0af7651916cd43dd8448eb211c80319c"
METADATA = {"authorization": TOKEN, "traceparent": f"00-{TRACE}-b7ad6b7169203331-01"}


class Note(BaseModel):
    text: str
    number: int = 0


class Notes(Contract, name="notes"):
    @method
    async def write(self, request: Note) -> Note:
        raise NotImplementedError

    @method(one_way=True)
    async def drop(self, request: Note) -> None:
        raise NotImplementedError


class Written(Event, type="test.note.written.v1"):
    text: str
    number: int = 0


def everything(caplog: pytest.LogCaptureFixture, errors: list[BaseException]) -> str:
    """All that a handler of logs could write down, and all that a caller could."""
    lines = []
    for record in caplog.records:
        if record.name.split(".")[0] == "sbrpc":
            lines += [record.getMessage(), repr(vars(record))]
            if record.exc_info and record.exc_info[1] is not None:
                lines += traceback.format_exception(record.exc_info[1])
    for error in errors:
        lines += [*traceback.format_exception(error), repr(error), str(vars(error))]
    return "\n".join(lines)


async def test_nothing_secret_is_logged_or_raised(caplog: pytest.LogCaptureFixture) -> None:
    """Errors, bad input, refused keys and lost links, with all that sbrpc can say about them."""
    caplog.set_level(logging.DEBUG, logger="sbrpc")
    errors: list[BaseException] = []
    topic = Topic("notes-events", subscriptions=(Subscription("reader"),))
    queues = [Queue("notes"), Queue("notes.replies", requires_session=True)]
    async with AsyncExitStack() as stack:
        emulator = await stack.enter_async_context(
            Emulator(queues=queues, topics=[topic], access_keys=[ROOT])
        )
        connection = emulator.connection_string
        assert KEY in connection
        server = RpcServer(connection, Notes, grace=1)
        bus = EventBus(connection, topic="notes-events", source="/notes", grace=1)
        client = RpcClient(connection, reply_queue="notes.replies", timeout=10)

        @server.method(Notes.write)
        async def write(request: Note) -> Note:
            if request.number == 1:
                raise NotFound("there is no such note")
            if request.number == 2:
                raise RuntimeError("the disk is full")
            await bus.publish(Written(text=request.text, number=request.number))
            return request

        @server.method(Notes.drop)
        async def drop(request: Note) -> None:
            raise RuntimeError("the disk is full")

        @bus.on(
            Written, subscription="reader", ordered=False, retry=AsyncRetrying(stop=stop_after_attempt(2))
        )
        async def read(event: Written) -> None:
            if event.number == 3:
                raise RuntimeError("the disk is full")

        await stack.enter_async_context(bus)
        await stack.enter_async_context(server)
        await stack.enter_async_context(client)
        notes = client.of(Notes, metadata=METADATA)
        await client.ready(60)
        await server.ready(60)
        await bus.ready(60)

        assert (await notes.write(Note(text=PAYLOAD, number=3))).text == PAYLOAD
        for number, expected in [(1, NotFound), (2, Internal)]:
            with pytest.raises(expected) as caught:
                await notes.write(Note(text=PAYLOAD, number=number))
            errors.append(caught.value)
        with pytest.raises(InvalidArgument) as refused:
            await notes.write({"text": [PAYLOAD], "number": PAYLOAD})  # type: ignore[arg-type]
        errors.append(refused.value)
        await notes.drop(Note(text=PAYLOAD))

        raw = await stack.enter_async_context(ServiceBusClient.from_connection_string(connection))
        await send_rubbish(raw)
        with anyio.fail_after(30):
            while (  # noqa: ASYNC110 - the broker tells nobody that it has become empty
                bus.counts["dead_lettered"] < 2 or emulator.broker.runtime("notes").active
            ):
                await anyio.sleep(0.05)

        emulator.faults.cut()
        with anyio.fail_after(60):
            while True:
                try:
                    await notes.write(Note(text=PAYLOAD))
                    break
                except SbrpcError as error:
                    errors.append(error)
        errors.append(await refusal(emulator.connection_string_for("root", WRONG)))

    said = everything(caplog, errors)
    assert "the disk is full" in said
    assert [line for line in said.splitlines() if any(secret in line for secret in SECRETS)] == []
    told = [record for record in caplog.records if getattr(record, "call_id", None)]
    assert any(getattr(record, "trace_id", None) == TRACE for record in told)
    assert any(getattr(record, "event_id", None) for record in caplog.records)
    # Whoever logs as JSON can rely on them: a record that names a call in its text has its fields, too.
    for record in caplog.records:
        if record.name == "sbrpc.server" and " call " in record.getMessage():
            assert hasattr(record, "call_id"), record.getMessage()
            assert hasattr(record, "trace_id"), record.getMessage()


async def send_rubbish(bus: ServiceBusClient) -> None:
    """Requests and an event that do not decode, some of which have nobody to tell."""
    async with bus.get_queue_sender("notes") as sender:
        await sender.send_messages(
            [
                ServiceBusMessage(f'{{"text": "{PAYLOAD}"', subject="write", message_id="r1"),
                ServiceBusMessage(f'{{"text": ["{PAYLOAD}"]}}', subject="write", message_id="r2"),
                ServiceBusMessage(PAYLOAD, subject="nothing", message_id="r3"),
                ServiceBusMessage(PAYLOAD, subject="write", message_id="r4", reply_to="elsewhere"),
            ]
        )
    async with bus.get_topic_sender("notes-events") as sender:
        await sender.send_messages(
            ServiceBusMessage(
                f'{{"text": ["{PAYLOAD}"]}}',
                subject="test.note.written.v1",
                content_type="application/json",
                application_properties={
                    "cloudEvents_specversion": "1.0",
                    "cloudEvents_id": "e1",
                    "cloudEvents_source": "/raw",
                    "cloudEvents_type": "test.note.written.v1",
                },
            )
        )


async def refusal(connection: str) -> BaseException:
    """What a caller with a wrong key gets to see."""
    async with RpcClient(connection, reply_queue="notes.replies", timeout=5) as client:
        with pytest.raises(SbrpcError) as refused:
            await client.of(Notes).write(Note(text=PAYLOAD))
    return refused.value
