"""The wire contract: what is written is what stands there, what is read survives any sender."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime, timezone
from typing import Any

import pytest
from azure.servicebus import ServiceBusMessage, ServiceBusReceivedMessage
from azure.servicebus.amqp import AmqpAnnotatedMessage
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from sbrpc import _wire
from sbrpc._codec import Codec
from sbrpc._wire import (
    Address,
    Reply,
    Request,
    check_metadata,
    control_message,
    error_body,
    error_of,
    ping_message,
    read_reply,
    read_request,
    reply_message,
    request_message,
    size_of,
)
from sbrpc.contract import ErrorSpec
from sbrpc.emulator.amqp.sections import (
    Header,
    Properties,
    encode_annotations,
    encode_application_properties,
    encode_data,
    encode_value,
)
from sbrpc.emulator.amqp.types import Long, Symbol, Timestamp
from sbrpc.errors import (
    Aborted,
    DataLoss,
    ErrorCode,
    InvalidArgument,
    NotFound,
    RpcError,
    Unknown,
    error_for,
)

ENQUEUED = datetime(2026, 3, 1, 12, tzinfo=timezone.utc)
LOCKED = datetime(2026, 3, 1, 12, 1, tzinfo=timezone.utc)


def milliseconds(moment: datetime) -> Timestamp:
    return Timestamp(int(moment.timestamp() * 1000))


def received(
    message: AmqpAnnotatedMessage, *, delivery_count: int = 0, body: bytes | None = None
) -> ServiceBusReceivedMessage:
    """The message as a receiver gets it: encoded as by a broker, decoded by the SDK."""
    properties = message.properties
    header = message.header
    fields = {} if properties is None else {k: v for k, v in properties.items() if v is not None}
    known = {k: fields[k] for k in Properties.__slots__ if k in fields}
    data = body if body is not None else encode_data(b"".join(message.body))
    annotations = {
        Symbol("x-opt-sequence-number"): Long(42),
        Symbol("x-opt-enqueued-time"): milliseconds(ENQUEUED),
        Symbol("x-opt-locked-until"): milliseconds(LOCKED),
    }
    application: dict[Any, Any] = dict(message.application_properties or {})
    return ServiceBusReceivedMessage.from_bytes(
        Header(ttl=header.time_to_live if header else None, delivery_count=delivery_count).encode()
        + encode_annotations(annotations)
        + Properties(**known).encode()
        + encode_application_properties(application)
        + data
    )


REQUEST = Request(
    subject="get_movie",
    body=b'{"id": 7}',
    call_id="call-1",
    reply_to="gateway.replies",
    reply_to_session_id="gateway-1.3",
    timeout=12.5,
    metadata={"tenant": "a", "traceparent": "00-x"},
    session_id="7",
    fingerprint="0123456789abcdef",
    window=32,
    cancellable=True,
)


def test_a_request_stands_in_standard_properties() -> None:
    """Whoever sees the message without sbrpc finds everything where Service Bus has a place for it."""
    message = request_message(REQUEST)
    assert message.properties is not None
    assert message.header is not None
    fields = {k: v for k, v in message.properties.items() if v is not None}
    assert fields == {
        "subject": "get_movie",
        "content_type": "application/json",
        "message_id": "call-1",
        "reply_to": "gateway.replies",
        "reply_to_group_id": "gateway-1.3",
        "group_id": "7",
    }
    assert message.application_properties == {
        "sbrpc-timeout-ms": 12500,
        "sbrpc-fingerprint": "0123456789abcdef",
        "sbrpc-window": 32,
        "sbrpc-cancellable": True,
        "tenant": "a",
        "traceparent": "00-x",
    }
    assert message.header.time_to_live == 13500
    assert list(message.body) == [b'{"id": 7}']


def test_a_request_comes_back() -> None:
    """What one peer writes the other reads, with what the broker knows about it."""
    read = read_request(received(request_message(REQUEST), delivery_count=2))
    assert read.problem is None
    assert (read.delivery_count, read.sequence_number) == (2, 42)
    assert (read.enqueued_at, read.locked_until) == (ENQUEUED, LOCKED)
    assert read.time_to_live == 13.5
    for name in ("subject", "body", "call_id", "reply_to", "reply_to_session_id", "timeout", "session_id"):
        assert getattr(read, name) == getattr(REQUEST, name)
    assert (read.metadata, read.fingerprint, read.window, read.cancellable) == (
        REQUEST.metadata,
        REQUEST.fingerprint,
        32,
        True,
    )


def test_the_least_request_is_enough() -> None:
    """A subject and a body make a one-way call; nothing of ours is needed."""
    read = read_request(received(AmqpAnnotatedMessage(data_body=b"1", properties={"subject": "ping"})))
    assert read == Request("ping", b"1", "", sequence_number=42, enqueued_at=ENQUEUED, locked_until=LOCKED)


def test_a_deadline_that_never_passes_is_not_written() -> None:
    """Then there is no time to live either."""
    message = request_message(Request("m", b"", "1"))
    assert message.header is None
    assert message.application_properties is None


def test_other_senders_use_other_types() -> None:
    """A timeout as a string, ids that are numbers, metadata of any type: understood or passed on as text."""
    message = AmqpAnnotatedMessage(
        data_body=b"1",
        properties={"subject": "m", "message_id": 5},
        application_properties={"sbrpc-timeout-ms": "2500", "n": 1, "yes": True, "f": 1.5},
    )
    read = read_request(received(message))
    assert read.timeout == 2.5
    assert read.call_id == "5"
    assert read.metadata == {"n": "1", "yes": "True", "f": "1.5"}


@pytest.mark.parametrize(
    ("message", "body", "says"),
    [
        (AmqpAnnotatedMessage(data_body=b"", properties={"message_id": "1"}), None, "no subject"),
        (
            AmqpAnnotatedMessage(
                data_body=b"",
                properties={"subject": "m"},
                application_properties={"sbrpc-timeout-ms": "soon"},
            ),
            None,
            "sbrpc-timeout-ms must be a number, not 'soon'",
        ),
        (
            AmqpAnnotatedMessage(data_body=b"", properties={"subject": "m"}),
            encode_value({"id": 7}),
            "AMQP data section",
        ),
        (AmqpAnnotatedMessage(data_body=b"", properties={"subject": "m"}), encode_value(7), "data section"),
    ],
)
def test_a_malformed_envelope_is_a_problem_not_an_exception(
    message: AmqpAnnotatedMessage, body: bytes | None, says: str
) -> None:
    """The server answers it; nothing is raised where it is read."""
    assert says in (read_request(received(message, body=body)).problem or "")


def test_a_string_body_is_read() -> None:
    """Some senders put JSON text into an AMQP value."""
    message = AmqpAnnotatedMessage(data_body=b"", properties={"subject": "m"})
    assert read_request(received(message, body=encode_value('{"id": 7}'))).body == b'{"id": 7}'


@pytest.mark.parametrize(
    "reply",
    [
        Reply("call-1", "OK", b'{"id":7}', session_id="s"),
        Reply("call-1", "NOT_FOUND", b"{}", session_id="s"),
        Reply("call-1", "OK", b"1", sequence=0, session_id="s", control=Address("q", "c.1")),
        Reply("call-1", "OK", b"", sequence=9, end=True, session_id="s"),
        Reply("call-1", None, b"", session_id="s", control=Address("q", "c.1")),
    ],
)
def test_a_reply_comes_back(reply: Reply) -> None:
    """Status, sequence, end and control address survive the way."""
    read = read_reply(received(reply_message(reply, 5)))
    assert read == replace(reply, enqueued_at=ENQUEUED)


def test_a_reply_lives_until_the_caller_is_gone() -> None:
    """Long enough to be drained from an old session, not for ever; without a deadline as the queue says."""
    message = reply_message(Reply("1", "OK"), 5)
    assert message.header is not None
    assert message.header.time_to_live == 35_000
    assert reply_message(Reply("1", "OK"), None).header is None
    longest = reply_message(Reply("1", "OK"), 1e308)
    assert longest.header is not None
    assert longest.header.time_to_live == 2**32 - 1
    late = reply_message(Reply("1", "OK"), -3)
    assert late.header is not None
    assert late.header.time_to_live == 30_000


def test_a_reply_without_status_is_an_error() -> None:
    """A peer that forgets the status did not say that it succeeded."""
    read = read_reply(received(AmqpAnnotatedMessage(data_body=b"x", properties={"correlation_id": "1"})))
    assert read.status == "UNKNOWN"


def test_credits_and_cancels_are_read_as_replies() -> None:
    """They arrive on a session like replies do, and carry a call id and a total."""
    read = read_reply(received(control_message(_wire.CREDIT, "call-1", Address("q", "c.1"), 96)))
    assert (read.subject, read.call_id, read.window, read.session_id) == (_wire.CREDIT, "call-1", 96, "c.1")
    read = read_reply(received(control_message(_wire.CANCEL, "call-1", Address("q", "c.1"))))
    assert (read.subject, read.window) == (_wire.CANCEL, None)


def test_a_ping_is_recognised() -> None:
    """By its subject, and by its id among the other pings."""
    read = read_reply(received(ping_message("p-1", "s.1")))
    assert (read.subject, read.call_id, read.session_id) == (_wire.PING, "p-1", "s.1")


class Version(BaseModel):
    expected: int
    actual: int


class Stale(Aborted):
    data: Version


DECLARED = {"Stale": ErrorSpec(Stale, Codec(Version)), "NotFound": ErrorSpec(NotFound, None)}


def test_every_code_arrives_as_its_class() -> None:
    """Code, message and details of an error are the same on both ends."""
    for code in ErrorCode:
        error = error_for(code, "why", [{"field": "id", "problem": "gone"}])
        came = error_of(Reply("1", code.value, error_body(error)))
        assert type(came) is type(error)
        assert (came.code, came.message, came.details) == (error.code, error.message, error.details)


def test_a_declared_error_arrives_with_its_data() -> None:
    """The contract's own error class, with a typed value."""
    error = Stale("conflict", data=Version(expected=1, actual=2), details=[{"hint": "read again"}])
    came = error_of(Reply("1", "ABORTED", error_body(error, DECLARED)), DECLARED)
    assert type(came) is Stale
    assert came.data == Version(expected=1, actual=2)
    assert came.details == [{"hint": "read again"}]


def test_a_declared_error_is_an_ordinary_one_elsewhere() -> None:
    """A caller whose contract does not know it still gets code and message."""
    body = error_body(Stale("conflict", data=Version(expected=1, actual=2)), DECLARED)
    came = error_of(Reply("1", "ABORTED", body))
    assert type(came) is Aborted
    assert came.message == "conflict"
    assert came.details[0]["data"] == {"expected": 1, "actual": 2}


def test_an_undeclared_subclass_travels_as_its_code() -> None:
    """Without a declaration only code, message and details leave the server."""
    document = json.loads(error_body(Stale("x", data=Version(expected=1, actual=2))))
    assert document == {"code": "ABORTED", "message": "x", "details": []}


def test_data_that_does_not_fit_is_said() -> None:
    """Instead of a broken value, the plain error with the reason."""
    body = json.dumps({"message": "x", "details": [{"error": "Stale", "data": {"expected": "?"}}]}).encode()
    came = error_of(Reply("1", "ABORTED", body), DECLARED)
    assert type(came) is Aborted
    assert "does not fit Stale" in came.message


@pytest.mark.parametrize(
    ("status", "body", "kind", "message"),
    [
        ("DATA_LOSS", b"", DataLoss, ""),
        ("INVALID_ARGUMENT", b"not json", InvalidArgument, "not json"),
        ("INVALID_ARGUMENT", b'"text"', InvalidArgument, "text"),
        ("INVALID_ARGUMENT", b'{"details": "x", "message": null}', InvalidArgument, ""),
        ("TEAPOT", b'{"message": "short"}', Unknown, "TEAPOT: short"),
        ("DATA_LOSS", b"[" * 100_000, DataLoss, "[" * 200),
    ],
)
def test_strange_error_replies_are_errors(
    status: str, body: bytes, kind: type[RpcError], message: str
) -> None:
    """Whatever a peer sends, the caller gets an exception that says what is known."""
    came = error_of(Reply("1", status, body), DECLARED)
    assert type(came) is kind
    assert came.message == message


@given(st.binary(max_size=200), st.text(max_size=20))
def test_no_error_body_breaks_reading(body: bytes, status: str) -> None:
    """Reading an error reply always ends in an `RpcError`."""
    assert isinstance(error_of(Reply("1", status, body), DECLARED), RpcError)


@pytest.mark.parametrize("metadata", [{"sbrpc-x": "1"}, {"": "1"}, {1: "1"}, {"a": 1}, {"a": None}])
def test_metadata_that_cannot_travel_is_refused(metadata: Any) -> None:
    """The error names the key."""
    with pytest.raises(ValueError, match="metadata"):
        check_metadata(metadata)


@given(st.text(max_size=50), st.binary(max_size=300), st.dictionaries(st.text(min_size=1), st.text()))
def test_sizes_are_estimated_from_above(subject: str, body: bytes, metadata: dict[str, str]) -> None:
    """No message is larger than what it was taken for before it was sent."""
    request = Request(subject, body, "x" * 32, "q", "s", 1.0, metadata)
    message = request_message(request)
    assert message.properties is not None
    fields = {k: v for k, v in message.properties.items() if v is not None}
    known = {k: fields[k] for k in Properties.__slots__ if k in fields}
    encoded = (
        Header(ttl=2000).encode()
        + Properties(**known).encode()
        + encode_application_properties(dict(message.application_properties or {}))
        + encode_data(body)
    )
    assert len(encoded) <= size_of(message)


def test_the_size_of_the_sdks_own_messages_is_known_too() -> None:
    """Events are built with the SDK's class."""
    message = ServiceBusMessage(b"x" * 1000, subject="s", application_properties={"k": "v" * 100})
    assert 1100 < size_of(message) < 2000
    assert size_of(ServiceBusMessage(None)) > 0
