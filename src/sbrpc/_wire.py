"""The wire contract: requests, replies and control messages to and from Service Bus messages.

Pure functions over the SDK's own value types. Property names and their meaning live here and nowhere else;
docs/wire-contract.md says the same in prose. Reading never raises for what a peer sent: what is wrong with a
message is part of what was read.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from secrets import token_hex
from typing import Any, NamedTuple

from azure.servicebus import ServiceBusMessage, ServiceBusReceivedMessage
from azure.servicebus.amqp import AmqpAnnotatedMessage, AmqpMessageBodyType, AmqpMessageProperties

from .context import NO_METADATA
from .contract import ErrorSpec
from .errors import DecodeError, ErrorCode, RpcError, error_for

__all__ = [
    "Address",
    "Reply",
    "Request",
    "check_metadata",
    "compose",
    "control_message",
    "envelope_of",
    "error_body",
    "error_of",
    "new_reply_id",
    "ping_message",
    "properties_of",
    "read_reply",
    "read_request",
    "reply_message",
    "request_message",
    "size_of",
    "text",
    "time_to_live",
]

JSON = "application/json"
OK = "OK"

STATUS = "sbrpc-status"
TIMEOUT = "sbrpc-timeout-ms"
FINGERPRINT = "sbrpc-fingerprint"
SEQUENCE = "sbrpc-seq"
END = "sbrpc-end"
WINDOW = "sbrpc-window"
"""In a request: how many replies may come unasked, and that the caller asks for more. In a credit: how many
may come in total."""
CANCELLABLE = "sbrpc-cancellable"
BUNDLE = "sbrpc-bundle"
"""In a request: the caller understands bundles. In a reply: how many calls the server likes in one."""
ALONE = "sbrpc-alone"
CONTROL = "sbrpc-control"
"""In a reply: the queue that takes credit and cancel messages for this call."""
CONTROL_SESSION = "sbrpc-control-session"
RESERVED = "sbrpc-"

# How the SDK hands out the names that are in most messages.
_NAMES: Mapping[str | bytes, str] = {
    name.encode(): name
    for name in (STATUS, TIMEOUT, FINGERPRINT, SEQUENCE, END, WINDOW, CANCELLABLE, BUNDLE, ALONE)
}

PING = "sbrpc.ping"
CREDIT = "sbrpc.credit"
CANCEL = "sbrpc.cancel"

REPLY_QUEUES = ("*.replies",)
"""Where servers send replies to, unless they say otherwise."""

LONGEST_ID = 128

_LONGEST_TIME_TO_LIVE = 0xFFFF_FFFF

# Integers up to here are floats as well, without loss.
_EXACT = 2**53

# Time to live is a backstop: a request may outlive its deadline by no more than this, a
# reply stays long enough for a caller that lost its link and drains the old session.
REQUEST_MARGIN = 1.0
REPLY_MARGIN = 30.0

# Header, properties section, annotations and framing of a message, estimated from above.
ENVELOPE = 512
_PER_PROPERTY = 12

_OURS = f"{token_hex(8)}-"
_count = itertools.count(1)

_NO_PROPERTIES = AmqpMessageProperties()


class Address(NamedTuple):
    """A session on a queue, or the queue itself."""

    queue: str
    session: str | None


@dataclass(slots=True)
class Request:
    """A call as it stands in a message. `timeout` alone changes: to what is left when it leaves."""

    subject: str
    body: bytes
    call_id: str
    reply_to: str | None = None
    reply_to_session_id: str | None = None
    timeout: float | None = None
    """Seconds that were left when it was sent."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    session_id: str | None = None
    fingerprint: str | None = None
    window: int | None = None
    cancellable: bool = False
    bundles: bool = False
    """The caller understands bundled replies, and wants to know whether the server takes bundles."""
    time_to_live: float | None = None
    problem: str | None = None
    """What is wrong with the envelope, for an `INVALID_ARGUMENT` reply."""
    delivery_count: int = 0
    sequence_number: int = 0
    enqueued_at: datetime | None = None
    locked_until: datetime | None = None


@dataclass(slots=True)
class Reply:
    """An answer, or one part of a streamed answer, as it stands in a message."""

    call_id: str
    status: str | None
    """`OK` or the name of an error; None for a notice: a control address, or that it is to come `alone`."""
    body: bytes = b""
    sequence: int | None = None
    end: bool = False
    control: Address | None = None
    window: int | None = None
    """In a credit message: how many replies may come in total."""
    session_id: str | None = None
    bundle: int | None = None
    """How many calls the server likes to be given in one message."""
    alone: bool = False
    """The bundle came to nothing; the caller is to send the call again, by itself."""
    subject: str | None = None
    enqueued_at: datetime | None = None
    """Of a message of its own; of a bundle nobody asks."""


# -- writing -------------------------------------------------------------------------------------------


def request_message(request: Request) -> AmqpAnnotatedMessage:
    """The message of a call."""
    properties: dict[str, Any] = {}
    properties.update(request.metadata)
    if request.timeout is not None:
        properties[TIMEOUT] = max(0, int(request.timeout * 1000))
    if request.fingerprint:
        properties[FINGERPRINT] = request.fingerprint
    if request.window is not None:
        properties[WINDOW] = request.window
    if request.cancellable:
        properties[CANCELLABLE] = True
    if request.bundles:
        properties[BUNDLE] = True
    return compose(
        request.body,
        properties,
        time_to_live(request.timeout, REQUEST_MARGIN),
        subject=request.subject,
        content_type=JSON,
        message_id=request.call_id,
        reply_to=request.reply_to,
        reply_to_group_id=request.reply_to_session_id,
        group_id=request.session_id,
    )


def reply_message(reply: Reply, remaining: float | None) -> AmqpAnnotatedMessage:
    """The message of an answer. `remaining` is what is left of the call's deadline, in seconds."""
    properties: dict[str, Any] = {}
    if reply.status is not None:
        properties[STATUS] = reply.status
    if reply.sequence is not None:
        properties[SEQUENCE] = reply.sequence
        properties[END] = reply.end
    if reply.control is not None:
        properties[CONTROL] = reply.control.queue
        properties[CONTROL_SESSION] = reply.control.session or ""
    if reply.bundle is not None:
        properties[BUNDLE] = reply.bundle
    if reply.alone:
        properties[ALONE] = True
    return compose(
        reply.body,
        properties,
        time_to_live(remaining, REPLY_MARGIN),
        subject=reply.subject,
        content_type=JSON,
        message_id=new_reply_id(),
        correlation_id=reply.call_id or None,
        group_id=reply.session_id,
    )


def new_reply_id() -> str:
    """The id of a message with replies: matched by nothing, but no other message has it."""
    # Counted: asking the system for randomness takes as long as building the message.
    return f"{_OURS}{next(_count):x}"


def control_message(kind: str, call_id: str, to: Address, window: int = 0) -> AmqpAnnotatedMessage:
    """A credit or a cancel, to the server instance that works on a call."""
    return compose(
        b"",
        {WINDOW: window} if kind == CREDIT else {},
        60_000,
        subject=kind,
        message_id=token_hex(16),
        correlation_id=call_id,
        group_id=to.session,
    )


def ping_message(ping_id: str, session_id: str) -> AmqpAnnotatedMessage:
    """A message to one's own reply session; coming back, it proves that the path works."""
    return compose(
        b"", {}, 60_000, subject=PING, message_id=ping_id, correlation_id=ping_id, group_id=session_id
    )


def compose(
    body: bytes, application: dict[str, Any], lifetime: int | None, **properties: Any
) -> AmqpAnnotatedMessage:
    """A message with one data section. `lifetime` is in milliseconds."""
    # The SDK's plain message class spends more time on being built than on being encoded, and cuts off the
    # milliseconds of a time to live.
    return AmqpAnnotatedMessage(
        data_body=body,
        header={"time_to_live": lifetime} if lifetime is not None else None,
        properties=properties,
        application_properties=application or None,
    )


def time_to_live(remaining: float | None, margin: float) -> int | None:
    """Milliseconds; AMQP has 32 bits for them."""
    if remaining is None or math.isinf(remaining):
        return None
    return int(min((max(remaining, 0.0) + margin) * 1000, _LONGEST_TIME_TO_LIVE))


def error_body(error: RpcError, declared: Mapping[str, ErrorSpec] | None = None) -> bytes:
    """The body of an error reply. The data of an error that the contract declares is its first detail."""
    details: list[Any] = list(error.details)
    name = type(error).__name__
    spec = (declared or {}).get(name)
    if spec is not None and isinstance(error, spec.kind):
        first: dict[str, Any] = {"error": name}
        if spec.data is not None:
            first["data"] = spec.data.to_json_value(error.data)
        details.insert(0, first)
    document = {"code": error.code.value, "message": error.message, "details": details}
    return json.dumps(document, separators=(",", ":"), default=str).encode()


def error_of(reply: Reply, declared: Mapping[str, ErrorSpec] | None = None) -> RpcError:
    """The exception that an error reply stands for; a reply that makes no sense is an `Unknown`."""
    error = _error_in(reply, declared or {})
    error.call_id = reply.call_id or None
    return error


def _error_in(reply: Reply, declared: Mapping[str, ErrorSpec]) -> RpcError:
    code = reply.status or ErrorCode.UNKNOWN.value
    try:
        document = json.loads(reply.body) if reply.body else {}
    except (ValueError, RecursionError):
        document = {"message": reply.body[:200].decode("utf-8", "replace")}
    if not isinstance(document, dict):
        document = {"message": str(document)[:200]}
    message = str(document.get("message") or "")
    raw = document.get("details")
    details = [dict(d) for d in raw if isinstance(d, dict)] if isinstance(raw, list) else []
    spec = declared.get(str(details[0].get("error"))) if details else None
    if spec is not None and spec.kind.default_code is not None and spec.kind.default_code.value == code:
        first = details.pop(0)
        try:
            data = spec.data.from_json_value(first.get("data")) if spec.data is not None else None
        except DecodeError as error:
            return error_for(
                code, f"{message} (its data does not fit {spec.kind.__name__}: {error})", [first]
            )
        return spec.kind(message, details=details, data=data)
    return error_for(code, message, details)


def check_metadata(metadata: Mapping[str, str]) -> Mapping[str, str]:
    """The metadata unchanged; raises `ValueError` for what cannot travel."""
    for key, value in metadata.items():
        if not isinstance(key, str) or not key or key.startswith(RESERVED):
            raise ValueError(
                f'{key!r} cannot be a metadata key: it must be a string that does not begin with "{RESERVED}"'
            )
        if not isinstance(value, str):
            raise ValueError(f"the metadata value of {key!r} must be a string, not {value!r}")
    return metadata


# -- reading -------------------------------------------------------------------------------------------


def read_request(message: ServiceBusReceivedMessage) -> Request:
    """The call in a message, whoever sent it."""
    # The SDK's own properties look at the whole section each time; reading past them is ten times faster.
    raw = message.raw_amqp_message
    envelope = envelope_of(raw)
    properties = properties_of(raw.application_properties)
    problems: list[str] = []
    timeout = number(properties, TIMEOUT, problems)
    window = number(properties, WINDOW, problems)
    body = _body(message, problems)
    subject = text(envelope.subject) or ""
    if not subject:
        problems.append("the message has no subject; put the method's name there")
    lifetime = raw.header.time_to_live if raw.header is not None else None
    return Request(
        subject=subject,
        body=body,
        call_id=text(envelope.message_id) or "",
        reply_to=text(envelope.reply_to) or None,
        reply_to_session_id=text(envelope.reply_to_group_id) or None,
        timeout=timeout / 1000 if timeout is not None else None,
        metadata=_metadata(properties),
        session_id=text(envelope.group_id) or None,
        fingerprint=text(properties.get(FINGERPRINT)),
        window=int(window) if window is not None and window >= 1 else None,
        cancellable=properties.get(CANCELLABLE) is True,
        bundles=properties.get(BUNDLE) is True,
        time_to_live=lifetime / 1000 if lifetime else None,
        problem="; ".join(problems) or None,
        delivery_count=message.delivery_count or 0,
        sequence_number=message.sequence_number or 0,
        enqueued_at=message.enqueued_time_utc,
        locked_until=message.locked_until_utc,
    )


def read_reply(message: ServiceBusReceivedMessage) -> Reply:
    """The answer in a message that arrived on a reply session, or a control message."""
    raw = message.raw_amqp_message
    envelope = envelope_of(raw)
    properties = properties_of(raw.application_properties)
    ignored: list[str] = []
    sequence = number(properties, SEQUENCE, ignored)
    window = number(properties, WINDOW, ignored)
    queue = text(properties.get(CONTROL))
    control = Address(queue, text(properties.get(CONTROL_SESSION)) or None) if queue else None
    status = text(properties.get(STATUS))
    alone = properties.get(ALONE) is True
    if status is None and control is None and not alone:
        status = ErrorCode.UNKNOWN.value
    bundle = number(properties, BUNDLE, ignored)
    return Reply(
        call_id=text(envelope.correlation_id) or "",
        status=status,
        body=_body(message, ignored),
        sequence=int(sequence) if sequence is not None else None,
        end=properties.get(END) is True,
        control=control,
        window=int(window) if window is not None else None,
        session_id=text(envelope.group_id),
        bundle=int(bundle) if bundle is not None else None,
        alone=alone,
        subject=text(envelope.subject),
        enqueued_at=message.enqueued_time_utc,
    )


def _metadata(properties: Mapping[str, Any]) -> Mapping[str, str]:
    found = {k: _plain(v) for k, v in properties.items() if not k.startswith(RESERVED)}
    return found or NO_METADATA


def envelope_of(message: AmqpAnnotatedMessage) -> AmqpMessageProperties:
    """The properties of a message, empty where it has none."""
    # To ask whether they are true is to look at each of them.
    return message.properties if message.properties is not None else _NO_PROPERTIES


def properties_of(raw: Mapping[str | bytes, Any] | None) -> dict[str, Any]:
    """Application properties by string key; the SDK hands out keys and strings as bytes."""
    if not raw:
        return {}
    properties: dict[str, Any] = {}
    for key, value in raw.items():
        if type(value) is bytes:
            value = value.decode("utf-8", "replace")
        properties[_NAMES.get(key) or _plain(key)] = value
    return properties


def _body(message: ServiceBusReceivedMessage, problems: list[str]) -> bytes:
    raw = message.raw_amqp_message
    body: Any = raw.body
    if raw.body_type is AmqpMessageBodyType.DATA:
        return b"".join(body)
    if body is None:
        return b""
    if isinstance(body, bytes):
        return body
    if isinstance(body, str):
        return body.encode()
    try:
        parts = list(body) if isinstance(body, Iterable) and not isinstance(body, Mapping) else [body]
        return b"".join(parts)
    except TypeError:
        problems.append("the body is an AMQP value; send JSON as bytes (an AMQP data section)")
        return b""


def number(properties: Mapping[str, Any], name: str, problems: list[str]) -> float | None:
    """A number among the properties of a call, or None with the reason among its problems."""
    value = properties.get(name)
    if value is None:
        return None
    if type(value) is int and -_EXACT <= value <= _EXACT:
        return value
    try:
        found = float(value)
    except (TypeError, ValueError, OverflowError):
        found = math.nan
    if not math.isfinite(found):
        problems.append(f"{name} must be a number, not {value!r:.40}")
        return None
    return found


def text(value: Any) -> str | None:
    """What the SDK hands out for a string, which may be bytes, as one; None stays None."""
    if value is None or type(value) is str:
        return value
    return _plain(value)


def _plain(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


# -- sizes ---------------------------------------------------------------------------------------------


def size_of(message: ServiceBusMessage | AmqpAnnotatedMessage) -> int:
    """How many bytes a message takes, estimated from above, without encoding it."""
    raw = message.raw_amqp_message if isinstance(message, ServiceBusMessage) else message
    body: Any = raw.body
    size = ENVELOPE
    if isinstance(body, bytes | str):
        size += len(body)
    elif body is not None:
        size += sum(len(part) + 8 for part in body)
    if raw.properties is not None:
        size += sum(_longest(value) for value in raw.properties.values())
    for values in (raw.application_properties, raw.annotations):
        for key, value in (values or {}).items():
            size += _longest(key) + _longest(value) + _PER_PROPERTY
    return size


def _longest(value: Any) -> int:
    if isinstance(value, str):
        return len(value) if value.isascii() else len(value.encode())
    return len(value) if isinstance(value, bytes) else 8
