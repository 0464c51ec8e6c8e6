"""The requests an AMQP client makes to `$management` and `$cbs`: parsed, carried out, answered.

Owns the operations table and the encoding of requests and responses (protocol: Service Bus
request-response operations over AMQP). Speaks AMQP values and broker calls; knows no link and no
connection, and `now` comes in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sbrpc.emulator import content
from sbrpc.emulator.amqp import sections
from sbrpc.emulator.amqp.types import Array, Described, Int, Long, Symbol, Timestamp, ULong
from sbrpc.emulator.broker import (
    Abandon,
    Broker,
    BrokerError,
    Complete,
    DeadLetter,
    Defer,
    Incoming,
    Mode,
    Outcome,
)
from sbrpc.topology import CorrelationFilter, FalseFilter, Rule, SqlFilter, TrueFilter

__all__ = ["SENDERS_MAY", "Request", "cbs_response", "error_response", "handle", "parse_request"]

_VENDOR = "com.microsoft:"
SENDERS_MAY = frozenset({_VENDOR + "schedule-message", _VENDOR + "cancel-scheduled-message"})
# Responses carry an HTTP-like code; these conditions have one of their own, everything else is a bad request.
_STATUS = {
    "amqp:not-found": 404,
    _VENDOR + "message-not-found": 404,
    _VENDOR + "session-not-found": 404,
    _VENDOR + "entity-already-exists": 409,
    _VENDOR + "message-lock-lost": 410,
    _VENDOR + "session-lock-lost": 410,
    "amqp:unauthorized-access": 401,
    "amqp:resource-limit-exceeded": 403,
    _VENDOR + "server-busy": 503,
    "amqp:not-implemented": 501,
}
_ARGUMENT = _VENDOR + "argument-error"
# `get-message-sessions` with a time of the year 10000 asks for sessions with messages, whatever their state.
_ALL_SESSIONS = 253_402_300_800.0


@dataclass
class Request:
    """A request as it came in."""

    message_id: Any
    reply_to: str | None
    properties: dict[str, Any]
    body: Any

    def argument(self, name: str, kind: type | tuple[type, ...], default: Any = ...) -> Any:
        """One entry of the request's map, checked for its type."""
        value = self.body.get(name) if isinstance(self.body, Mapping) else None
        if value is None:
            if default is not ...:
                return default
            raise BrokerError(_ARGUMENT, f"The request has no '{name}'.")
        if not isinstance(value, kind):
            raise BrokerError(
                _ARGUMENT, f"'{name}' of the request has the wrong type {type(value).__name__}."
            )
        return value


def parse_request(payload: bytes) -> Request:
    """A request from a transfer's payload; raises `ValueError` when it is not one."""
    message = content.parse_message(payload)
    amqp = message.content
    assert isinstance(amqp, content.AmqpContent)
    reply_to = amqp.system("reply_to")
    return Request(
        message_id=message.message_id,
        reply_to=str(reply_to) if reply_to is not None else None,
        properties=dict(amqp.user()),
        body=sections.split(payload).value(),
    )


# -- responses --------------------------------------------------------------------------------------------


def _response(request: Request, properties: Mapping[Any, Any], body: Any) -> bytes:
    # correlation-id must have the very type of the request's message-id: clients compare them as values.
    return (
        sections.Properties(correlation_id=request.message_id).encode()
        + sections.encode_application_properties(properties)
        + sections.encode_value(body)
    )


def cbs_response(request: Request, code: int, description: str) -> bytes:
    """The answer to a put-token."""
    return _response(request, {"status-code": Int(code), "status-description": description}, None)


def _ok(request: Request, body: Mapping[str, Any], code: int = 200) -> bytes:
    return _response(request, {"statusCode": Int(code), "statusDescription": "OK"}, dict(body))


def error_response(request: Request, error: BrokerError) -> bytes:
    """The answer to a request that the broker refused."""
    code = _STATUS.get(error.condition, 400)
    properties = {
        "statusCode": Int(code),
        "statusDescription": error.description,
        "errorCondition": Symbol(error.condition),
    }
    return _response(request, properties, {})


# -- operations -------------------------------------------------------------------------------------------

Operation = Callable[[Broker, str, Request, float], "tuple[int, dict[str, Any]]"]
_EMPTY: tuple[int, dict[str, Any]] = (204, {})


def handle(broker: Broker, address: str, request: Request, now: float) -> bytes:
    """Carry out one request on an entity; raises `BrokerError`, which `error_response` encodes."""
    name = str(request.properties.get("operation") or "")
    operation = _OPERATIONS.get(name.removeprefix(_VENDOR)) if name.startswith(_VENDOR) else None
    if operation is None:
        raise BrokerError("amqp:not-implemented", f"The operation '{name}' is not supported.")
    if not isinstance(request.body, Mapping):
        raise BrokerError(_ARGUMENT, f"The body of '{name}' must be a map.")
    code, body = operation(broker, address, request, now)
    return _ok(request, body, code)


def _millis(seconds: float) -> Timestamp:
    return Timestamp(int(seconds * 1000))


def _session(request: Request) -> str | None:
    session: str | None = request.argument("session-id", str, None)
    return session


def _tokens(request: Request) -> list[UUID]:
    tokens = request.argument("lock-tokens", list)
    if not all(isinstance(token, UUID) for token in tokens):
        raise BrokerError(_ARGUMENT, "'lock-tokens' must be uuids.")
    return list(tokens)


def _sequence_numbers(request: Request) -> list[int]:
    numbers = request.argument("sequence-numbers", list)
    if not all(isinstance(number, int) for number in numbers):
        raise BrokerError(_ARGUMENT, "'sequence-numbers' must be longs.")
    return [int(number) for number in numbers]


def _renew_lock(broker: Broker, address: str, request: Request, now: float) -> tuple[int, dict[str, Any]]:
    expirations = [_millis(broker.renew_lock(address, token, now)) for token in _tokens(request)]
    return 200, {"expirations": Array(Timestamp, expirations)}


def _renew_session(broker: Broker, address: str, request: Request, now: float) -> tuple[int, dict[str, Any]]:
    until = broker.renew_session(address, request.argument("session-id", str), now)
    return 200, {"expiration": _millis(until)}


def _peek(broker: Broker, address: str, request: Request, now: float) -> tuple[int, dict[str, Any]]:
    first = int(request.argument("from-sequence-number", int))
    count = int(request.argument("message-count", int))
    messages = broker.peek(address, first, count, _session(request), now)
    if not messages:
        return _EMPTY
    return 200, {"messages": [{"message": content.encode_peeked(message)} for message in messages]}


def _receive_deferred(
    broker: Broker, address: str, request: Request, now: float
) -> tuple[int, dict[str, Any]]:
    mode = (
        Mode.PEEK_LOCK if request.argument("receiver-settle-mode", int, 1) == 1 else Mode.RECEIVE_AND_DELETE
    )
    messages = broker.receive_deferred(address, _sequence_numbers(request), _session(request), mode, now)
    found = [
        {
            "message": content.encode_deferred(message),
            "lock-token": message.lock_token or UUID(int=message.sequence_number),
        }
        for message in messages
    ]
    return 200, {"messages": found}


def _schedule(broker: Broker, address: str, request: Request, now: float) -> tuple[int, dict[str, Any]]:
    incoming: list[Incoming] = []
    for entry in request.argument("messages", list):
        encoded = entry.get("message") if isinstance(entry, Mapping) else None
        if not isinstance(encoded, bytes):
            raise BrokerError(_ARGUMENT, "'messages' must be maps with a binary 'message'.")
        try:
            incoming.append(content.parse_message(encoded))
        except ValueError as error:
            raise BrokerError(_ARGUMENT, f"A scheduled message cannot be decoded: {error}") from error
    numbers = [Long(number) for number in broker.schedule(address, incoming, now)]
    return 200, {"sequence-numbers": Array(Long, numbers)}


def _cancel(broker: Broker, address: str, request: Request, now: float) -> tuple[int, dict[str, Any]]:
    broker.cancel_scheduled(address, _sequence_numbers(request), now)
    return 200, {}


def _update_disposition(
    broker: Broker, address: str, request: Request, now: float
) -> tuple[int, dict[str, Any]]:
    status = request.argument("disposition-status", str)
    changes = content.plain_properties(request.argument("properties-to-modify", dict, {}))
    outcomes: dict[str, Outcome] = {
        "completed": Complete(),
        "abandoned": Abandon(changes),
        "defered": Defer(changes),  # spelled so on the wire
        "suspended": DeadLetter(
            request.argument("deadletter-reason", str, None),
            request.argument("deadletter-description", str, None),
            changes,
        ),
    }
    outcome = outcomes.get(status)
    if outcome is None:
        raise BrokerError(_ARGUMENT, f"'{status}' is not a disposition status.")
    for token in _tokens(request):
        broker.settle(address, token, outcome, now, session_id=_session(request))
    return 200, {}


def _get_state(broker: Broker, address: str, request: Request, now: float) -> tuple[int, dict[str, Any]]:
    return 200, {"session-state": broker.get_state(address, request.argument("session-id", str), now)}


def _set_state(broker: Broker, address: str, request: Request, now: float) -> tuple[int, dict[str, Any]]:
    state = request.argument("session-state", bytes, None)
    broker.set_state(address, request.argument("session-id", str), state, now)
    return 200, {}


def _list_sessions(broker: Broker, address: str, request: Request, now: float) -> tuple[int, dict[str, Any]]:
    since: float | None = request.argument("last-updated-time", int) / 1000
    if since is not None and since >= _ALL_SESSIONS:
        since = None
    skip = int(request.argument("skip", int, 0))
    found = broker.list_sessions(address, since, skip, int(request.argument("top", int, 100)), now)
    if not found:
        return _EMPTY
    return 200, {"skip": Int(skip + len(found)), "sessions-ids": Array(str, found)}


def _delete_batch(broker: Broker, address: str, request: Request, now: float) -> tuple[int, dict[str, Any]]:
    before = request.argument("enqueued-time-utc", int, None)
    deleted = broker.delete_batch(
        address,
        int(request.argument("message-count", int)),
        None if before is None else before / 1000,
        _session(request),
        now,
    )
    return (200, {"message-count": Int(deleted)}) if deleted else _EMPTY


# -- rules ------------------------------------------------------------------------------------------------

# Descriptors of rules and their parts as clients decode them.
_RULE, _NO_ACTION, _SQL_ACTION = ULong(0x13700000004), ULong(0x13700000005), ULong(0x13700000006)
_SQL, _TRUE, _FALSE, _CORRELATION = (
    ULong(0x1370000006),
    ULong(0x1370000007),
    ULong(0x1370000008),
    ULong(0x1370000009),
)
_SQL_LEVEL = Int(20)
_CORRELATION_FIELDS = (
    ("correlation-id", "correlation_id"),
    ("message-id", "message_id"),
    ("to", "to"),
    ("reply-to", "reply_to"),
    ("label", "subject"),
    ("session-id", "session_id"),
    ("reply-to-session-id", "reply_to_session_id"),
    ("content-type", "content_type"),
)


def _subscription(address: str) -> tuple[str, str]:
    topic, found, name = address.replace("/subscriptions/", "/Subscriptions/").partition("/Subscriptions/")
    if not found:
        raise BrokerError("amqp:not-allowed", f"'{address}' is not a subscription; only those have rules.")
    return topic, name


def _add_rule(broker: Broker, address: str, request: Request, now: float) -> tuple[int, dict[str, Any]]:
    topic, name = _subscription(address)
    broker.add_rule(topic, name, _rule_from(request), now)
    return 200, {}


def _rule_from(request: Request) -> Rule:
    name = request.argument("rule-name", str)
    description = request.argument("rule-description", Mapping)
    action = description.get("sql-rule-action")
    expression = action.get("expression") if isinstance(action, Mapping) else None
    if isinstance(sql := description.get("sql-filter"), Mapping):
        return Rule(name, SqlFilter(str(sql.get("expression") or "")), expression)
    if isinstance(wanted := description.get("correlation-filter"), Mapping):
        fields = {ours: wanted.get(theirs) for theirs, ours in _CORRELATION_FIELDS}
        properties = content.plain_properties(wanted.get("properties"))
        return Rule(name, CorrelationFilter(**fields, properties=properties), expression)
    return Rule(name, TrueFilter(), expression)


def _remove_rule(broker: Broker, address: str, request: Request, now: float) -> tuple[int, dict[str, Any]]:
    topic, name = _subscription(address)
    broker.remove_rule(topic, name, request.argument("rule-name", str), now)
    return 200, {}


def _enumerate_rules(
    broker: Broker, address: str, request: Request, now: float
) -> tuple[int, dict[str, Any]]:
    topic, name = _subscription(address)
    skip, top = int(request.argument("skip", int, 0)), int(request.argument("top", int, 100))
    rules = broker.rules(topic, name)[skip : skip + top]
    if not rules:
        return _EMPTY
    return 200, {"rules": [{"rule-description": _encode_rule(rule, now)} for rule in rules]}


def _encode_rule(rule: Rule, now: float) -> Described:
    wanted = rule.filter
    if isinstance(wanted, SqlFilter):
        described = Described(_SQL, [wanted.expression, _SQL_LEVEL])
    elif isinstance(wanted, CorrelationFilter):
        fields = [getattr(wanted, ours) for _, ours in _CORRELATION_FIELDS]
        described = Described(_CORRELATION, [*fields, dict(wanted.properties)])
    elif isinstance(wanted, FalseFilter):
        described = Described(_FALSE, [])
    else:
        described = Described(_TRUE, [])
    action = Described(_SQL_ACTION, [rule.action, _SQL_LEVEL]) if rule.action else Described(_NO_ACTION, [])
    return Described(_RULE, [described, action, rule.name, _millis(now)])


_OPERATIONS: dict[str, Operation] = {
    "renew-lock": _renew_lock,
    "renew-session-lock": _renew_session,
    "peek-message": _peek,
    "receive-by-sequence-number": _receive_deferred,
    "schedule-message": _schedule,
    "cancel-scheduled-message": _cancel,
    "update-disposition": _update_disposition,
    "set-session-state": _set_state,
    "get-session-state": _get_state,
    "get-message-sessions": _list_sessions,
    "batch-delete-messages": _delete_batch,
    "add-rule": _add_rule,
    "remove-rule": _remove_rule,
    "enumerate-rules": _enumerate_rules,
}
