"""CloudEvents 1.0 on a Service Bus message: the AMQP binding, both ways.

Binary mode goes out (`cloudEvents_` application properties, the data as the body); binary mode with either
separator and structured JSON come in. Knows the value types of the SDK; no handlers, no models, no I/O.
The binding: github.com/cloudevents/spec, cloudevents/bindings/amqp-protocol-binding.md.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from types import MappingProxyType
from typing import Any, TypeVar

from azure.servicebus import ServiceBusMessage
from azure.servicebus.amqp import AmqpMessageBodyType
from pydantic import TypeAdapter, ValidationError

from .errors import DecodeError
from .event import CloudEvent, is_extension_name

__all__ = ["body_of", "from_message", "in_batches", "published", "to_message", "trace_of", "type_in"]

_PREFIX = "cloudEvents_"
_PREFIXES = (_PREFIX, "cloudEvents:")  # of one length
_STRUCTURED = "application/cloudevents"
_STRUCTURED_JSON = "application/cloudevents+json"
_SPEC_VERSION = "1.0"
_TIMESTAMP = TypeAdapter(datetime)
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)

# Together with their envelope, the messages of a batch must stay below what the service takes at once.
_BATCH_ENVELOPE = 1024
_MOST_IN_BATCH = 1000

T = TypeVar("T")


def published(event: CloudEvent, time_to_live: timedelta | None = None) -> ServiceBusMessage:
    """The message by which a topic gets an event, in the session of its key."""
    key = event.extensions.get("partitionkey")
    # Without a key there is no order to keep, but a subscription that requires sessions takes no message
    # without one. A session of its own lets it be handled beside all others.
    return to_message(event, session_id=key if isinstance(key, str) else event.id, time_to_live=time_to_live)


def in_batches(items: Sequence[T], size: Callable[[T], int], limit: int) -> Iterable[list[T]]:
    """What is sent, in its order, in as few batches as Service Bus takes. What fits nowhere is alone."""
    batch: list[T] = []
    total = 0
    for item in items:
        more = size(item)
        if batch and (total + more > limit - _BATCH_ENVELOPE or len(batch) == _MOST_IN_BATCH):
            yield batch
            batch, total = [], 0
        batch.append(item)
        total += more
    if batch:
        yield batch


def to_message(
    event: CloudEvent, *, session_id: str | None = None, time_to_live: timedelta | None = None
) -> ServiceBusMessage:
    """The event in binary mode; its type is also the message's subject, so that a rule can route by it."""
    attributes: dict[str, Any] = {
        "specversion": _SPEC_VERSION,
        "id": event.id,
        "source": event.source,
        "type": event.type,
        "subject": event.subject,
        "time": event.time,
        "dataschema": event.dataschema,
        **event.extensions,
    }
    properties: dict[str | bytes, Any] = {
        _PREFIX + name: value for name, value in attributes.items() if value is not None
    }
    properties.update(_trace_beside(event))
    return ServiceBusMessage(
        event.data,
        application_properties=properties,
        content_type=event.datacontenttype,
        message_id=event.id,
        subject=event.type,
        session_id=session_id,
        time_to_live=time_to_live,
    )


def _trace_beside(event: CloudEvent) -> dict[str | bytes, Any]:
    # Also where those look who know messages and no CloudEvents: the Azure SDKs and monitoring tools.
    traceparent, tracestate = (event.extensions.get(name) for name in ("traceparent", "tracestate"))
    if traceparent is None:
        return {}
    trace: dict[str | bytes, Any] = {"traceparent": traceparent, "Diagnostic-Id": traceparent}
    return trace if tracestate is None else {**trace, "tracestate": tracestate}


def trace_of(message: ServiceBusMessage) -> dict[str, str]:
    """The W3C trace context beside the event: `traceparent` and, where there is one, `tracestate`."""
    properties: Mapping[Any, Any] = message.application_properties or {}

    def text(name: str) -> str | None:
        value = _text(properties.get(name.encode(), properties.get(name)))
        return value if isinstance(value, str) else None

    traceparent, tracestate = text("traceparent") or text("Diagnostic-Id"), text("tracestate")
    if traceparent is None:
        return {}
    trace = {"traceparent": traceparent}
    return trace if tracestate is None else {**trace, "tracestate": tracestate}


def from_message(message: ServiceBusMessage) -> CloudEvent:
    """The event in a message, whichever mode it came in.

    Raises:
        DecodeError: not a CloudEvent 1.0; `details` names each attribute that is missing or wrong.
    """
    content_type = message.content_type or ""
    if content_type.lower().startswith(_STRUCTURED):
        return _from_structured(content_type, body_of(message))
    attributes: dict[str, Any] = {}
    for key, value in (message.application_properties or {}).items():
        name = _text(key)
        if value is not None and isinstance(name, str) and name.startswith(_PREFIXES):
            attributes[name[len(_PREFIX) :]] = _text(value)
    if content_type:
        attributes["datacontenttype"] = content_type
    else:
        attributes.pop("datacontenttype", None)
    return _build(attributes, body_of(message))


def type_in(properties: Mapping[str, Any]) -> Any:
    """The type of the event whose message has these properties, None if it is none in binary mode."""
    return next((kind for prefix in _PREFIXES if (kind := properties.get(f"{prefix}type"))), None)


def body_of(message: ServiceBusMessage) -> bytes:
    """The body as bytes, also where another SDK sent it as an AMQP string."""
    body: Any = message.body
    if message.body_type is AmqpMessageBodyType.DATA:
        return b"".join(part.encode() if isinstance(part, str) else bytes(part) for part in body)
    if body is None:
        return b""
    if isinstance(body, str):
        return body.encode()
    if isinstance(body, bytes):
        return body
    raise DecodeError(
        f"the message body is an AMQP {message.body_type.name.lower()} of type {type(body).__name__}; "
        "send bytes or a string"
    )


def _text(value: Any) -> Any:
    # The SDK hands out received keys and strings as bytes and those of a message built here as str. It
    # does not tell an AMQP string from AMQP binary, so bytes that are not UTF-8 stay what they are.
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return value
    return value


def _from_structured(content_type: str, body: bytes) -> CloudEvent:
    if content_type.partition(";")[0].strip().lower() != _STRUCTURED_JSON:
        raise DecodeError(
            f"events in the format {content_type!r} are not understood; "
            f"send binary mode or {_STRUCTURED_JSON}"
        )
    try:
        attributes = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise DecodeError(f"the structured event is not JSON: {error}") from None
    if not isinstance(attributes, dict):
        raise DecodeError(f"the structured event is a JSON {type(attributes).__name__}, not an object")
    attributes = {name: value for name, value in attributes.items() if value is not None or name == "data"}
    encoded = attributes.pop("data_base64", None)
    if encoded is not None:
        if "data" in attributes:
            raise DecodeError("the structured event has both data and data_base64")
        try:
            return _build(attributes, base64.b64decode(encoded, validate=True))
        except (binascii.Error, TypeError, ValueError) as error:
            raise DecodeError(f"data_base64 of the structured event is not base64: {error}") from None
    if "data" not in attributes:
        return _build(attributes, b"")
    data = attributes.pop("data")
    media_type = attributes.get("datacontenttype")
    if (
        isinstance(data, str)
        and media_type
        and not CloudEvent("-", "-", "-", datacontenttype=media_type).is_json
    ):
        return _build(attributes, data.encode())
    return _build(attributes, json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode())


def _build(attributes: Mapping[str, Any], data: bytes) -> CloudEvent:
    problems: list[dict[str, Any]] = []

    def text(name: str, *, required: bool = False) -> Any:
        value = attributes.get(name)
        if value is None:
            if required:
                problems.append({"field": name, "problem": "is missing"})
            return None
        if not isinstance(value, str) or not value:
            problems.append({"field": name, "problem": f"must be a non-empty string, not {value!r}"})
            return None
        return value

    version = text("specversion", required=True)
    if version is not None and version != _SPEC_VERSION:
        problems.append({"field": "specversion", "problem": f"must be {_SPEC_VERSION!r}, not {version!r}"})
    event_id, source, kind = (
        text("id", required=True),
        text("source", required=True),
        text("type", required=True),
    )
    subject, schema, media_type = text("subject"), text("dataschema"), text("datacontenttype")
    time = None
    if "time" in attributes:
        try:
            time = _time(attributes["time"])
        except ValueError as error:
            problems.append({"field": "time", "problem": str(error)})
    if problems:
        listed = "; ".join(f"{problem['field']} {problem['problem']}" for problem in problems)
        raise DecodeError(f"the message is not a CloudEvent {_SPEC_VERSION}: {listed}", details=problems)
    # A name outside the specification's alphabet cannot be one of an event's attributes; other systems do
    # send some. What they mean is unknown here, so they are left out instead of failing the event.
    extensions = {name: value for name, value in attributes.items() if is_extension_name(name)}
    return CloudEvent(
        id=event_id,
        source=source,
        type=kind,
        data=data,
        time=time,
        subject=subject,
        datacontenttype=media_type,
        dataschema=schema,
        extensions=MappingProxyType(extensions),
    )


def _time(value: object) -> datetime:
    """A timestamp, native (the SDK hands out milliseconds since 1970) or as an RFC 3339 string."""
    if isinstance(value, datetime):
        return value if value.tzinfo else value.replace(tzinfo=timezone.utc)
    if isinstance(value, int) and not isinstance(value, bool):
        try:
            return _EPOCH + timedelta(milliseconds=value)
        except OverflowError:
            raise ValueError(f"{value} ms since 1970 is not a time") from None
    if isinstance(value, str) and "T" in value.upper():
        try:
            time = _TIMESTAMP.validate_python(value)
        except ValidationError:
            pass
        else:
            if time.tzinfo is not None:
                return time
    raise ValueError(f"must be a timestamp or an RFC 3339 string with an offset, not {value!r}")
