"""AsyncAPI 3.1.0: what a system offers, calls, publishes and handles, for tools in any language.

Request and reply are one operation with an Operation Reply Object, whose address is what the request says.
There is no AsyncAPI binding for Service Bus, and that of AMQP 1.0 is empty, so what only Service Bus has
(sessions, locks, times to live) stands under `x-servicebus-`. Properties of messages: docs/wire-contract.md.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from sbrpc.contract import Contract, MethodKind, MethodSpec
from sbrpc.errors import ErrorCode
from sbrpc.event import Event
from sbrpc.server import RpcServer
from sbrpc.topology import Queue, Subscription, Topic

from ._schemas import contracts_of, described_in, events_of, schemas_of
from ._system import System
from ._text import SUFFIX, properties_of

__all__ = ["asyncapi", "asyncapi_document"]

_REPLIES = "replies"
_TEXT = {"type": "string"}

_REQUEST_HEADERS: dict[str, Any] = {
    "message_id": {**_TEXT, "description": "The call's id, at most 128 characters."},
    "reply_to": {**_TEXT, "description": "The queue that the reply is sent to."},
    "reply_to_session_id": {**_TEXT, "description": "The caller's session on that queue."},
    "sbrpc-timeout-ms": {
        "type": "number",
        "description": "Milliseconds that were left of the deadline when it was sent.",
    },
}
_STREAM_HEADERS: dict[str, Any] = {
    "sbrpc-seq": {"type": "integer", "minimum": 0, "description": "The number of this part."},
    "sbrpc-end": {"type": "boolean", "description": "True for what comes last, which has no body."},
}


def asyncapi(system: System, *, title: str = "sbrpc", version: str = "1.0.0") -> str:
    """The document as JSON text."""
    document = asyncapi_document(system, title=title, version=version)
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def asyncapi_document(system: System, *, title: str = "sbrpc", version: str = "1.0.0") -> dict[str, Any]:
    """The document; `title` and `version` are those of what it describes."""
    return _Writer(system).document(title, version)


class _Writer:
    """Collects channels and operations, in the order in which they are to stand."""

    def __init__(self, system: System) -> None:
        self.system = system
        schemas, shared = schemas_of(described_in(system), "#/components/schemas/{model}")
        self.schemas = {name: _plain(schema) for name, schema in schemas.items()}
        self.shared = {name: _plain(schema) for name, schema in shared.items()}
        self.entities = {entity.name: entity for entity in system.entities()}
        self.channels: dict[str, dict[str, Any]] = {}
        self.operations: dict[str, dict[str, Any]] = {}

    def document(self, title: str, version: str) -> dict[str, Any]:
        for process in self.system.processes:
            for server in process.servers:
                for contract in server.contracts:
                    self.serves(server, contract)
            for client in process.clients:
                for contract in process.calls:
                    self.calls(client.reply_queue, contract)
            for bus in process.publishers():
                if process.publishes:
                    self.publishes(bus.topic, process.publishes)
            for bus in process.buses:
                for name, subscribed in bus.subscriptions.items():
                    self.handles(bus.topic, name, [e for each in subscribed.handlers for e in each.events])
        about = " ".join(filter(None, (_doc(contract) for contract in contracts_of(self.system))))
        return {
            "asyncapi": "3.1.0",
            "info": {"title": title, "version": version, **({"description": about} if about else {})},
            "defaultContentType": "application/json",
            "servers": {
                "servicebus": {
                    "host": f"{{namespace}}.{SUFFIX}",
                    "protocol": "amqps",
                    "protocolVersion": "1.0",
                    "description": "An Azure Service Bus namespace; Microsoft Entra ID says who may do what.",
                    "variables": {"namespace": {"description": "The name of the namespace."}},
                }
            },
            "channels": dict(sorted(self.channels.items())),
            "operations": dict(sorted(self.operations.items())),
            "components": {"schemas": self.shared},
        }

    # -- calls -------------------------------------------------------------------------------------------

    def serves(self, server: RpcServer, contract: type[Contract]) -> None:
        channel = self.channel(server.queue, _doc(contract))
        for spec in contract.contract_methods.values():
            operation = self.call(channel, spec, "receive")
            if spec.kind is not MethodKind.ONE_WAY:
                replies = self.channels.setdefault(
                    _REPLIES,
                    {
                        "address": None,
                        "title": "Replies",
                        "description": "The queue that a request names as reply_to.",
                        "messages": {},
                        "x-servicebus-allowed-reply-queues": list(server.reply_queues),
                    },
                )
                operation["reply"] = {
                    "address": {
                        "location": "$message.header#/reply_to",
                        "description": "The request says where its reply goes.",
                    },
                    **self.reply(_REPLIES, replies, spec),
                }
            self.operations[f"{spec.contract}.{spec.subject}"] = operation

    def calls(self, reply_queue: str, contract: type[Contract]) -> None:
        channel = self.channel(self.system.request_queues_of(contract)[0], _doc(contract))
        for spec in contract.contract_methods.values():
            operation = self.call(channel, spec, "send")
            if spec.kind is not MethodKind.ONE_WAY:
                replies = self.channels[self.channel(reply_queue, "Replies to calls.")]
                operation["reply"] = self.reply(reply_queue, replies, spec)
            self.operations[f"call.{spec.contract}.{spec.subject}"] = operation

    def call(self, channel: str, spec: MethodSpec, action: str) -> dict[str, Any]:
        headers = dict(_REQUEST_HEADERS)
        required = ["subject", "message_id"]
        if spec.kind is MethodKind.ONE_WAY:
            del headers["reply_to"], headers["reply_to_session_id"]
        else:
            required.append("reply_to")
        self.channels[channel]["messages"][spec.subject] = {
            "name": spec.subject,
            "title": f"Request of {spec.contract}.{spec.subject}",
            "contentType": "application/json",
            "correlationId": {"location": "$message.header#/message_id"},
            "headers": _headers({"subject": {"const": spec.subject}, **headers}, required),
            "payload": self.schemas[f"{spec.contract}.{spec.subject}.request"],
        }
        summary = _doc_of_method(spec, contracts_of(self.system))
        facts: dict[str, Any] = {"x-sbrpc-kind": spec.kind.value, "x-sbrpc-idempotent": spec.idempotent}
        if spec.timeout is not None:
            facts["x-sbrpc-timeout-seconds"] = spec.timeout
        if spec.cancellable:
            facts["x-sbrpc-cancellable"] = True
        return {
            "action": action,
            "channel": _ref("channels", channel),
            "title": f"{spec.contract}.{spec.subject}",
            **({"summary": summary} if summary else {}),
            "messages": [_ref("channels", channel, "messages", spec.subject)],
            **facts,
        }

    def reply(self, name: str, channel: dict[str, Any], spec: MethodSpec) -> dict[str, Any]:
        call = f"{spec.contract}.{spec.subject}"
        stream = spec.kind is MethodKind.STREAM
        headers = {
            "correlation_id": {**_TEXT, "description": "The request's message_id."},
            "session_id": {**_TEXT, "description": "The request's reply_to_session_id."},
            "sbrpc-status": {"const": "OK"},
        }
        messages = channel["messages"]
        messages[f"{call}.reply"] = {
            "name": f"{call}.reply",
            "title": f"{'A part of the reply' if stream else 'Reply'} to {call}",
            "contentType": "application/json",
            "correlationId": {"location": "$message.header#/correlation_id"},
            "headers": _headers({**headers, **(_STREAM_HEADERS if stream else {})}, ["correlation_id"]),
            "payload": self.schemas[f"{call}.reply"],
        }
        names = [f"{call}.reply", "error"]
        messages["error"] = _error("error", "An error instead of a reply", headers, {"enum": _CODES}, {})
        for error, declared in sorted(spec.errors.items()):
            code = declared.kind.default_code
            first: dict[str, Any] = {"error": {"const": error}}
            if declared.data is not None:
                first["data"] = self.schemas[f"{call}.{error}"]
            messages[f"{call}.{error}"] = _error(
                f"{call}.{error}",
                f"The error {error} of {call}",
                headers,
                {"const": code.value if code is not None else "UNKNOWN"},
                first,
            )
            names.append(f"{call}.{error}")
        return {
            "channel": _ref("channels", name),
            "messages": [_ref("channels", name, "messages", each) for each in names],
        }

    # -- events ------------------------------------------------------------------------------------------

    def publishes(self, topic: str, events: Iterable[type[Event]]) -> None:
        self._events(self.channel(topic, f"The events of {topic}."), f"{topic}.publish", "send", events)

    def handles(self, topic: str, subscription: str, events: Iterable[type[Event]]) -> None:
        name = f"{topic}.{subscription}"
        found = self.entities[topic]
        assert isinstance(found, Topic)
        entity = next(each for each in found.subscriptions if each.name == subscription)
        self.channels.setdefault(
            name,
            {
                "address": f"{topic}/Subscriptions/{subscription}",
                "title": f"{subscription} of {topic}",
                "messages": {},
                **_facts(entity),
            },
        )
        self._events(name, f"{name}.handle", "receive", events)

    def _events(self, channel: str, operation: str, action: str, events: Iterable[type[Event]]) -> None:
        known = events_of(self.system)
        names = sorted(str(event.__event_type__) for event in events)
        for name in names:
            event = known[name][0]
            summary = _doc(event)
            self.channels[channel]["messages"][name] = {
                "name": name,
                "title": event.__name__,
                **({"summary": summary} if summary else {}),
                "contentType": "application/json",
                "headers": _headers(
                    _cloud_event(name, event), ["subject", "cloudEvents_type", "cloudEvents_id"]
                ),
                "payload": self.schemas[name],
            }
        self.operations[operation] = {
            "action": action,
            "channel": _ref("channels", channel),
            "title": operation,
            "messages": [_ref("channels", channel, "messages", name) for name in names],
        }

    def channel(self, entity: str, description: str) -> str:
        found = self.entities.get(entity)
        self.channels.setdefault(
            entity,
            {
                "address": entity,
                "title": entity,
                **({"description": description} if description else {}),
                "messages": {},
                **(_facts(found) if found is not None else {}),
            },
        )
        return entity


_CODES = [code.value for code in ErrorCode]


def _cloud_event(name: str, event: type[Event]) -> dict[str, Any]:
    """The properties of an event: CloudEvents 1.0 in AMQP binary mode."""
    key = event.__event_key__
    what = f"The value of {key}: events of the same are handled in order." if key else "What keeps order."
    return {
        "subject": {"const": name},
        "session_id": {**_TEXT, "description": what},
        "cloudEvents_specversion": {"const": "1.0"},
        "cloudEvents_type": {"const": name},
        "cloudEvents_id": {**_TEXT, "description": "Unique within its source."},
        "cloudEvents_source": {**_TEXT, "description": "Who published it."},
        "cloudEvents_time": {**_TEXT, "format": "date-time"},
    }


def _error(
    name: str, title: str, headers: Mapping[str, Any], code: dict[str, Any], first: dict[str, Any]
) -> dict[str, Any]:
    details: dict[str, Any] = {"type": "array", "items": {"type": "object"}}
    if first:
        detail = {"type": "object", "properties": first, "required": list(first)}
        details = {"type": "array", "items": [detail], "minItems": 1}
    return {
        "name": name,
        "title": title,
        "contentType": "application/json",
        "correlationId": {"location": "$message.header#/correlation_id"},
        "headers": _headers({**headers, "sbrpc-status": code}, ["correlation_id", "sbrpc-status"]),
        "payload": {
            "type": "object",
            "properties": {"code": code, "message": _TEXT, "details": details},
            "required": ["code", "message", "details"],
        },
    }


def _headers(properties: dict[str, Any], required: list[str]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": required}


def _facts(entity: Queue | Topic | Subscription) -> dict[str, Any]:
    """What only Service Bus has, in the words of Resource Manager: `x-servicebus-lock-duration`."""
    facts = {
        "x-servicebus-" + re.sub("([A-Z])", r"-\1", name).lower(): value
        for name, value in properties_of(entity).items()
    }
    kind = type(entity).__name__.lower()
    return {"x-servicebus-entity": kind, **facts}


def _ref(*path: str) -> dict[str, str]:
    escaped = (part.replace("~", "~0").replace("/", "~1") for part in path)
    return {"$ref": "#/" + "/".join(escaped)}


def _plain(schema: Any) -> Any:
    """A schema as AsyncAPI takes it: draft 7, and a discriminator that is the name of a property."""
    if isinstance(schema, list):
        return [_plain(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    plain = {name: _plain(each) for name, each in schema.items()}
    discriminator = plain.get("discriminator")
    if isinstance(discriminator, dict) and "propertyName" in discriminator:
        plain["discriminator"] = discriminator["propertyName"]
    if isinstance(plain.get("prefixItems"), list):
        rest = plain.pop("items", None)
        plain["items"] = plain.pop("prefixItems")
        if rest is not None:
            plain["additionalItems"] = rest
    return plain


def _doc(thing: type) -> str:
    """What a class says of itself, and nothing that it inherits."""
    return _first_paragraph(thing.__doc__)


def _doc_of_method(spec: MethodSpec, contracts: Iterable[type[Contract]]) -> str:
    for contract in contracts:
        if contract.contract_methods.get(spec.name) is spec:
            return _first_paragraph(getattr(contract, spec.name).__doc__)
    return ""


def _first_paragraph(doc: str | None) -> str:
    return " ".join(inspect.cleandoc(doc or "").split("\n\n")[0].split())
