"""Scenarios of what a message says: that nothing of it is lost or changed on the way."""

from __future__ import annotations

import uuid
from datetime import datetime, timedelta, timezone
from typing import Any

from azure.servicebus import ServiceBusMessage
from azure.servicebus.amqp import AmqpAnnotatedMessage, AmqpMessageBodyType

from .bench import Bench, body, message
from .registry import scenario


async def _through(bench: Bench, *sent: Any) -> list[Any]:
    sender, receiver = await bench.pair()
    for each in sent:
        await sender.send_messages(each)
    return await bench.take_and_complete(receiver, len(sent))


@scenario
async def message_properties(bench: Bench) -> None:
    properties = {
        "message_id": bench.unique("id"),
        "correlation_id": "corr \u00e4\u4e16",
        "subject": "subject",
        "to": "to",
        "reply_to": "reply/to",
        "reply_to_session_id": "reply-session",
        "content_type": "application/json",
    }
    (received,) = await _through(bench, message("x", **properties))
    assert {name: getattr(received, name) for name in properties} == properties
    assert received.session_id is None
    assert received.scheduled_enqueue_time_utc is None


@scenario
async def application_properties(bench: Bench) -> None:
    moment = datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=timezone.utc)
    number = uuid.uuid4()
    sent = {
        "text": "t\u00e4xt \u4e16",
        "empty": "",
        "int": 7,
        "negative": -3,
        "large": 2**31 - 1,
        "float": 1.5,
        "true": True,
        "false": False,
        "uuid": number,
        "moment": moment,
        "none": None,
        "with space": "x",
        "long": "y" * 5000,
    }
    (received,) = await _through(bench, message("x", application_properties=sent))
    # The SDK hands keys and texts out as bytes, and moments as milliseconds.
    expected: dict[bytes, object] = {
        key.encode(): value.encode() if isinstance(value, str) else value for key, value in sent.items()
    }
    expected[b"moment"] = round(moment.timestamp() * 1000)
    found = received.application_properties
    assert found == expected
    assert found[b"true"] is True
    assert isinstance(found[b"float"], float)
    assert isinstance(found[b"int"], int)


@scenario
async def body_data(bench: Bench) -> None:
    contents = [b"", bytes(range(256)), "t\u00e4xt".encode()]
    received = await _through(bench, *(message(content) for content in contents))
    assert [body(each) for each in received] == contents


@scenario
async def body_sections(bench: Bench) -> None:
    (received,) = await _through(bench, AmqpAnnotatedMessage(data_body=[b"one", b"two", b""]))
    assert received.body_type == AmqpMessageBodyType.DATA
    assert list(received.body) == [b"one", b"two", b""]


@scenario
async def body_value(bench: Bench) -> None:
    values = [
        ({"name": "x", "list": [1, 2.5, None]}, {b"name": b"x", b"list": [1, 2.5, None]}),
        ("text", b"text"),
        (-12, -12),
        (True, True),
        ([1, [2, "three"]], [1, [2, b"three"]]),
    ]
    received = await _through(bench, *(AmqpAnnotatedMessage(value_body=sent) for sent, _ in values))
    assert all(each.body_type == AmqpMessageBodyType.VALUE for each in received)
    assert [each.body for each in received] == [expected for _, expected in values]


@scenario
async def body_sequence(bench: Bench) -> None:
    (received,) = await _through(bench, AmqpAnnotatedMessage(sequence_body=[[1, "two"], [3.5]]))
    assert received.body_type == AmqpMessageBodyType.SEQUENCE
    assert list(received.body) == [[1, b"two"], [3.5]]


@scenario
async def time_to_live_shown(bench: Bench) -> None:
    plain, limited = await _through(
        bench, message("plain"), ServiceBusMessage("limited", time_to_live=timedelta(hours=1))
    )
    assert plain.time_to_live is None or plain.time_to_live > timedelta(days=1)
    assert limited.time_to_live == timedelta(hours=1)
    assert limited.expires_at_utc == limited.enqueued_time_utc + timedelta(hours=1)
