"""The wire contract: requests, replies and control messages to and from Service Bus messages.

Pure functions over the SDK's own value types. Property names and their meaning live here and nowhere else;
docs/wire-contract.md says the same in prose. Reading never raises for what a peer sent: what is wrong with a
message is part of what was read.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import uuid4

from azure.servicebus import ServiceBusMessage, ServiceBusReceivedMessage

from .contract import ErrorSpec
from .errors import DecodeError, ErrorCode, RpcError, error_for

__all__ = [
    "Address",
    "Reply",
    "Request",
    "check_metadata",
    "control_message",
    "error_body",
    "error_of",
    "ping_message",
    "read_reply",
    "read_request",
    "reply_message",
    "request_message",
    "size_of",
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
CONTROL = "sbrpc-control"
"""In a reply: the queue that takes credit and cancel messages for this call."""
CONTROL_SESSION = "sbrpc-control-session"
RESERVED = "sbrpc-"

PING = "sbrpc.ping"
CREDIT = "sbrpc.credit"
CANCEL = "sbrpc.cancel"

LONGEST_ID = 128

# Time to live is a backstop, in whole seconds: a request may outlive its deadline by no more than this, a
# reply stays long enough for a caller that lost its link and drains the old session.
_REQUEST_MARGIN = 1.0
_REPLY_MARGIN = 30.0

# Header, properties section, annotations and framing of a message, estimated from above.
_ENVELOPE = 512
_PER_PROPERTY = 12


class Address(NamedTuple):
    """A session on a queue, or the queue itself."""

    queue: str
    session: str | None


@dataclass(frozen=True)
class Request:
    """A call as it stands in a message."""

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
    time_to_live: float | None = None
    problem: str | None = None
    """What is wrong with the envelope, for an `INVALID_ARGUMENT` reply."""
    delivery_count: int = 0
    sequence_number: int = 0
    enqueued_at: datetime | None = None
    locked_until: datetime | None = None


@dataclass(frozen=True)
class Reply:
    """An answer, or one part of a streamed answer, as it stands in a message."""

    call_id: str
    status: str | None
    """`OK` or the name of an error; None for a notice that only carries a control address."""
    body: bytes = b""
    sequence: int | None = None
    end: bool = False
    control: Address | None = None
    window: int | None = None
    """In a credit message: how many replies may come in total."""
    session_id: str | None = None
    subject: str | None = None
    enqueued_at: datetime | None = None


# -- writing -------------------------------------------------------------------------------------------


def request_message(request: Request) -> ServiceBusMessage:
    """The message of a call."""
    properties: dict[str | bytes, Any] = {}
    properties.update(request.metadata.items())
    if request.timeout is not None:
        properties[TIMEOUT] = max(0, int(request.timeout * 1000))
    if request.fingerprint:
        properties[FINGERPRINT] = request.fingerprint
    if request.window is not None:
        properties[WINDOW] = request.window
    if request.cancellable:
        properties[CANCELLABLE] = True
    return ServiceBusMessage(
        request.body,
        subject=request.subject,
        content_type=JSON,
        message_id=request.call_id,
        reply_to=request.reply_to,
        reply_to_session_id=request.reply_to_session_id,
        session_id=request.session_id,
        time_to_live=_time_to_live(request.timeout, _REQUEST_MARGIN),
        application_properties=properties,
    )


def reply_message(reply: Reply, remaining: float | None) -> ServiceBusMessage:
    """The message of an answer. `remaining` is what is left of the call's deadline, in seconds."""
    properties: dict[str | bytes, Any] = {}
    if reply.status is not None:
        properties[STATUS] = reply.status
    if reply.sequence is not None:
        properties[SEQUENCE] = reply.sequence
        properties[END] = reply.end
    if reply.control is not None:
        properties[CONTROL] = reply.control.queue
        properties[CONTROL_SESSION] = reply.control.session or ""
    return ServiceBusMessage(
        reply.body,
        subject=reply.subject,
        content_type=JSON,
        message_id=uuid4().hex,
        correlation_id=reply.call_id or None,
        session_id=reply.session_id,
        time_to_live=_time_to_live(remaining, _REPLY_MARGIN),
        application_properties=properties,
    )


def control_message(kind: str, call_id: str, to: Address, window: int = 0) -> ServiceBusMessage:
    """A credit or a cancel, to the server instance that works on a call."""
    return ServiceBusMessage(
        b"",
        subject=kind,
        message_id=uuid4().hex,
        correlation_id=call_id,
        session_id=to.session,
        time_to_live=timedelta(seconds=60),
        application_properties={WINDOW: window} if kind == CREDIT else {},
    )


def ping_message(ping_id: str, session_id: str) -> ServiceBusMessage:
    """A message to one's own reply session; coming back, it proves that the path works."""
    return ServiceBusMessage(
        b"",
        subject=PING,
        message_id=ping_id,
        correlation_id=ping_id,
        session_id=session_id,
        time_to_live=timedelta(seconds=60),
    )


def _time_to_live(remaining: float | None, margin: float) -> timedelta | None:
    if remaining is None or math.isinf(remaining):
        return None
    # The SDK cuts off what is not a whole second.
    return timedelta(seconds=math.ceil(max(remaining, 0.0) + margin))


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
    code = reply.status or ErrorCode.UNKNOWN.value
    try:
        document = json.loads(reply.body) if reply.body else {}
    except ValueError:
        document = {"message": reply.body[:200].decode("utf-8", "replace")}
    if not isinstance(document, dict):
        document = {"message": str(document)[:200]}
    message = str(document.get("message") or "")
    raw = document.get("details")
    details = [dict(d) for d in raw if isinstance(d, dict)] if isinstance(raw, list) else []
    spec = (declared or {}).get(str(details[0].get("error"))) if details else None
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
    properties = _properties(message)
    problems: list[str] = []
    timeout = _number(properties, TIMEOUT, problems)
    window = _number(properties, WINDOW, problems)
    body = _body(message, problems)
    subject = _text(message.subject) or ""
    if not subject:
        problems.append("the message has no subject; put the method's name there")
    return Request(
        subject=subject,
        body=body,
        call_id=_text(message.message_id) or "",
        reply_to=_text(message.reply_to) or None,
        reply_to_session_id=_text(message.reply_to_session_id) or None,
        timeout=timeout / 1000 if timeout is not None else None,
        metadata={k: _plain(v) for k, v in properties.items() if not k.startswith(RESERVED)},
        session_id=_text(message.session_id) or None,
        fingerprint=_text(properties.get(FINGERPRINT)),
        window=int(window) if window is not None and window >= 1 else None,
        cancellable=properties.get(CANCELLABLE) is True,
        time_to_live=message.time_to_live.total_seconds() if message.time_to_live else None,
        problem="; ".join(problems) or None,
        delivery_count=message.delivery_count or 0,
        sequence_number=message.sequence_number or 0,
        enqueued_at=message.enqueued_time_utc,
        locked_until=message.locked_until_utc,
    )


def read_reply(message: ServiceBusReceivedMessage) -> Reply:
    """The answer in a message that arrived on a reply session."""
    properties = _properties(message)
    ignored: list[str] = []
    sequence = _number(properties, SEQUENCE, ignored)
    window = _number(properties, WINDOW, ignored)
    queue = _text(properties.get(CONTROL))
    control = Address(queue, _text(properties.get(CONTROL_SESSION)) or None) if queue else None
    status = _text(properties.get(STATUS))
    if status is None and control is None:
        status = ErrorCode.UNKNOWN.value
    return Reply(
        call_id=_text(message.correlation_id) or "",
        status=status,
        body=_body(message, ignored),
        sequence=int(sequence) if sequence is not None else None,
        end=properties.get(END) is True,
        control=control,
        window=int(window) if window is not None else None,
        session_id=_text(message.session_id),
        subject=_text(message.subject),
        enqueued_at=message.enqueued_time_utc,
    )


def _properties(message: ServiceBusReceivedMessage) -> dict[str, Any]:
    """Application properties by string key; the SDK hands out keys and strings as bytes."""
    raw = message.application_properties or {}
    return {_plain(key): value.decode("utf-8", "replace") if isinstance(value, bytes) else value
            for key, value in raw.items()}  # fmt: skip


def _body(message: ServiceBusReceivedMessage, problems: list[str]) -> bytes:
    body: Any = message.body
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


def _number(properties: Mapping[str, Any], name: str, problems: list[str]) -> float | None:
    value = properties.get(name)
    if value is None:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        problems.append(f"{name} must be a number, not {value!r:.40}")
        return None
    return number


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return _plain(value)


def _plain(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


# -- sizes ---------------------------------------------------------------------------------------------


def size_of(message: ServiceBusMessage) -> int:
    """How many bytes a message takes, estimated from above, without encoding it."""
    body: Any = message.body
    if isinstance(body, bytes | str):
        size = len(body)
    else:
        size = sum(len(part) for part in body) if body is not None else 0
    for text in (
        message.subject,
        message.message_id,
        message.correlation_id,
        message.session_id,
        message.reply_to,
        message.reply_to_session_id,
        message.content_type,
        message.to,
    ):
        size += len(text) * 3 if text else 0
    for key, value in (message.application_properties or {}).items():
        size += len(key) + _PER_PROPERTY + (len(value) * 3 if isinstance(value, str | bytes) else 8)
    return size + _ENVELOPE
