"""Many calls, or many replies, in one message.

A bundle is a line of JSON, which has of each call or reply what would otherwise be properties of a message,
and the bodies behind it, one after the other. What all have in common stands in the message: the callers'
reply session, or the session replied to. Pure, like `_wire`; a message that is no bundle after all is a
`DecodeError`. When calls travel together is decided elsewhere.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from hashlib import blake2b
from typing import Any

from azure.servicebus import ServiceBusReceivedMessage
from azure.servicebus.amqp import AmqpAnnotatedMessage
from pydantic_core import from_json

from ._outgoing import Outgoing
from ._wire import (
    ENVELOPE,
    LONGEST_ID,
    OK,
    REPLY_MARGIN,
    REQUEST_MARGIN,
    RESERVED,
    Address,
    Reply,
    Request,
    compose,
    envelope_of,
    new_reply_id,
    number,
    reply_message,
    request_message,
    text,
    time_to_live,
)
from .context import Deadline
from .errors import DecodeError

__all__ = [
    "BUNDLE_TYPE",
    "MOST_IN_A_BUNDLE",
    "CallPart",
    "ReplyPart",
    "is_bundle",
    "read_replies",
    "read_requests",
]

BUNDLE_TYPE = "application/vnd.sbrpc.bundle.v1"
BUNDLE_SUBJECT = "sbrpc.bundle"

# What a reader takes from one message; writers stay below a quarter of it.
_MOST_PARTS = 1024

MOST_IN_A_BUNDLE = 128

# Names of entities have at most 260 characters, and so much for what JSON makes of them.
_LONGEST_NAME = 512

# Several times faster than a JSON encoder, for objects of three known keys.
_quoted = json.encoder.encode_basestring_ascii


class CallPart(Outgoing):
    """A call on its way out. `alone`: it does not share a message."""

    __slots__ = ("request",)

    def __init__(self, request: Request, deadline: Deadline, *, alone: bool = False) -> None:
        # In a message of its own or in a bundle, estimated from above.
        size = ENVELOPE + 4 * LONGEST_ID + len(request.body) + len(request.reply_to or "")
        if request.metadata:
            size += sum(_longest(k) + _longest(v) + 16 for k, v in request.metadata.items())
        key = None if alone else request.reply_to_session_id
        super().__init__(size, deadline, group=request.session_id, key=key)
        self.request = request

    def messages(self) -> Sequence[AmqpAnnotatedMessage]:
        """It by itself, as what is left of its deadline now."""
        self._stamp()
        return (request_message(self.request),)

    def together(self, parts: Sequence[CallPart]) -> AmqpAnnotatedMessage:
        """One message with all the parts, this one among them."""
        first = self.request
        lone = len(parts) == 1
        if lone and first.metadata:
            # Among it are traces, which people look for in the properties of messages.
            return self.messages()[0]
        return compose(
            _joined([part._header() for part in parts], [part.request.body for part in parts]),
            {},
            time_to_live(_longest_left([part.deadline for part in parts]), REQUEST_MARGIN),
            subject=first.subject if lone else BUNDLE_SUBJECT,
            content_type=BUNDLE_TYPE,
            # The same calls make the same id, so that duplicate detection recognises what is sent again.
            message_id=first.call_id if lone else _digest(part.request.call_id for part in parts),
            reply_to=first.reply_to,
            reply_to_group_id=first.reply_to_session_id,
        )

    def _stamp(self) -> None:
        if not self.deadline.is_never:
            self.request.timeout = self.deadline.remaining()

    def _header(self) -> str:
        self._stamp()
        request = self.request
        header = (
            f'{{"id":{_quoted(request.call_id)},"length":{len(request.body)},'
            f'"subject":{_quoted(request.subject)}'
        )
        if request.timeout is not None:
            header += f',"timeout-ms":{max(0, int(request.timeout * 1000))}'
        if request.fingerprint:
            header += f',"fingerprint":{_quoted(request.fingerprint)}'
        if request.cancellable:
            header += ',"cancellable":true'
        if request.metadata:
            header += f',"metadata":{json.dumps(dict(request.metadata))}'
        return header + "}"


class ReplyPart(Outgoing):
    """A reply on its way out. `alone`: it does not share a message.

    `lasts` is the deadline of the call; `deadline`, until when sending is tried, may lie behind it.
    """

    __slots__ = ("lasts", "reply")

    def __init__(
        self, reply: Reply, lasts: Deadline, *, deadline: Deadline | None = None, alone: bool = False
    ) -> None:
        # In a message of its own or in a bundle, estimated from above.
        size = ENVELOPE + 4 * LONGEST_ID + len(reply.body)
        if reply.control is not None:
            size += 2 * _LONGEST_NAME
        session = reply.session_id
        super().__init__(size, deadline or lasts, group=session, key=None if alone else session)
        self.reply = reply
        self.lasts = lasts

    def messages(self) -> Sequence[AmqpAnnotatedMessage]:
        """It by itself."""
        return (reply_message(self.reply, _left(self.lasts)),)

    def together(self, parts: Sequence[ReplyPart]) -> AmqpAnnotatedMessage:
        """One message with all the parts, this one among them."""
        first = self.reply
        return compose(
            _joined([part._header() for part in parts], [part.reply.body for part in parts]),
            {},
            time_to_live(_longest_left([part.lasts for part in parts]), REPLY_MARGIN),
            subject=BUNDLE_SUBJECT,
            content_type=BUNDLE_TYPE,
            message_id=new_reply_id(),
            group_id=first.session_id,
        )

    def _header(self) -> str:
        reply = self.reply
        header = f'{{"id":{_quoted(reply.call_id)},"length":{len(reply.body)}'
        if reply.status is None:
            header += ',"notice":"alone"' if reply.alone else ',"notice":"control"'
        elif reply.status != OK:
            header += f',"status":{_quoted(reply.status)}'
        if reply.sequence is not None:
            header += f',"seq":{reply.sequence},"end":{"true" if reply.end else "false"}'
        if reply.control is not None:
            header += f',"control":{json.dumps(reply.control)}'
        if reply.bundle is not None:
            header += f',"bundle":{reply.bundle}'
        return header + "}"


def _joined(headers: list[str], bodies: list[bytes]) -> bytes:
    # One data section for all: the SDK takes longer to write a section than a call takes otherwise.
    return b"[%b]\n%b" % (",".join(headers).encode(), b"".join(bodies))


def _left(deadline: Deadline) -> float | None:
    return None if deadline.is_never else deadline.remaining()


def _longest_left(deadlines: Sequence[Deadline]) -> float | None:
    return _left(max(deadlines))


def _digest(ids: Any) -> str:
    return blake2b("|".join(ids).encode(), digest_size=16).hexdigest()


def _longest(value: str) -> int:
    # JSON escapes a control character with six bytes and a quotation mark with two.
    return len(value) if value.isalnum() and value.isascii() else 6 * len(value)


# -- reading -------------------------------------------------------------------------------------------


def is_bundle(message: ServiceBusReceivedMessage) -> bool:
    """Whether a message claims to carry many."""
    properties = message.raw_amqp_message.properties
    return properties is not None and text(properties.content_type) == BUNDLE_TYPE


def read_requests(message: ServiceBusReceivedMessage) -> list[Request]:
    """The calls in a bundle.

    Raises:
        DecodeError: one of them cannot be told from the others, or they have no address to reply to.
    """
    raw = message.raw_amqp_message
    envelope = envelope_of(raw)
    reply_to = text(envelope.reply_to)
    session = text(envelope.reply_to_group_id)
    if not reply_to or not session:
        raise DecodeError("the bundle has no reply session; calls without one travel by themselves")
    sequence_number = message.sequence_number or 0
    delivery_count = message.delivery_count or 0
    enqueued_at, locked_until = message.enqueued_time_utc, message.locked_until_utc
    lifetime = raw.header.time_to_live if raw.header is not None else None
    requests = []
    for header, body in _parts(message):
        problems: list[str] = []
        timeout = number(header, "timeout-ms", problems)
        given = header.get("metadata")
        metadata = _metadata(given, problems) if given is not None else {}
        fingerprint, subject = header.get("fingerprint"), header.get("subject")
        if type(fingerprint) is not str:
            fingerprint = _string(header, "fingerprint", problems)
        if type(subject) is not str:
            subject = _string(header, "subject", problems)
        if not subject:
            problems.append("the call has no subject; put the method's name there")
        requests.append(
            Request(
                subject=subject or "",
                body=body,
                call_id=header["id"],
                reply_to=reply_to,
                reply_to_session_id=session,
                timeout=timeout / 1000 if timeout is not None else None,
                metadata=metadata,
                fingerprint=fingerprint,
                cancellable=header.get("cancellable") is True,
                bundles=True,
                time_to_live=lifetime / 1000 if lifetime else None,
                problem="; ".join(problems) or None,
                delivery_count=delivery_count,
                sequence_number=sequence_number,
                enqueued_at=enqueued_at,
                locked_until=locked_until,
            )
        )
    return requests


def _metadata(given: Any, problems: list[str]) -> Mapping[str, str]:
    if not isinstance(given, dict):
        problems.append(f"the metadata of the call must be an object, not {given!r:.40}")
        return {}
    return {k: str(v) for k, v in given.items() if not k.startswith(RESERVED)}


def _string(header: Mapping[str, Any], name: str, problems: list[str]) -> str | None:
    value = header.get(name)
    if value is None or isinstance(value, str):
        return value
    problems.append(f"{name} must be a string, not {value!r:.40}")
    return None


def read_replies(message: ServiceBusReceivedMessage) -> list[Reply]:
    """The replies in a bundle.

    Raises:
        DecodeError: one of them cannot be told from the others.
    """
    session = text(envelope_of(message.raw_amqp_message).group_id)
    replies = []
    for header, body in _parts(message):
        if len(header) == 2:  # nearly all of them: an id and a length, so a result and nothing else
            replies.append(Reply(header["id"], OK, body, session_id=session))
            continue
        notice = header.get("notice")
        sequence = header.get("seq")
        control = header.get("control")
        advice = number(header, "bundle", [])
        replies.append(
            Reply(
                call_id=header["id"],
                status=None if notice is not None else str(header.get("status", OK)),
                body=body,
                sequence=sequence if isinstance(sequence, int) else None,
                end=header.get("end") is True,
                control=_address(control),
                session_id=session,
                bundle=int(advice) if advice is not None else None,
                alone=notice == "alone",
            )
        )
    return replies


def _address(value: Any) -> Address | None:
    match value:
        case [str() as queue, str() | None as session] if queue:
            return Address(queue, session)
    return None


def _parts(message: ServiceBusReceivedMessage) -> Iterator[tuple[dict[str, Any], bytes]]:
    """The header and the body of each call or reply."""
    sections: Any = message.body
    if isinstance(sections, str | Mapping) or sections is None:
        raise DecodeError("the body of a bundle is AMQP data")
    found: list[bytes] = list(sections)
    if not all(isinstance(section, bytes) for section in found):
        raise DecodeError("the body of a bundle is AMQP data and nothing else")
    data = found[0] if len(found) == 1 else b"".join(found)
    position = data.find(b"\n") + 1
    try:
        headers = from_json(data[: position - 1], cache_strings="keys") if position else None
    except (ValueError, RecursionError) as error:
        raise DecodeError(f"the first line of the bundle is not JSON: {error}") from error
    if not isinstance(headers, list):
        raise DecodeError("the bundle does not begin with a line that is a JSON array of headers")
    if len(headers) > _MOST_PARTS:
        raise DecodeError(
            f"the bundle has {len(headers)} calls or replies; at most {_MOST_PARTS} may be in one"
        )
    for index, header in enumerate(headers):
        try:
            call_id, length = header["id"], header["length"]
        except (TypeError, KeyError):
            raise DecodeError(f"header {index} of the bundle has no id or no length") from None
        if type(call_id) is not str or not 0 < len(call_id) <= LONGEST_ID:
            raise DecodeError(f"header {index} of the bundle has no usable call id")
        if type(length) is not int or not 0 <= length <= len(data) - position:
            raise DecodeError(
                f"header {index} of the bundle has a length that the body has not: {length!r:.40}"
            )
        start, position = position, position + length
        yield header, data[start:position]
    if position != len(data):
        raise DecodeError(f"{len(data) - position} bytes of the bundle belong to no header")
