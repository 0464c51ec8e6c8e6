"""What the formats share: durations, symbols, and the shape of queues, topics, subscriptions and rules.

Owns the words of Azure Resource Manager, which every tool for Azure follows under names of its own, and the
roles. Knows no format.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sbrpc.topology import (
    CorrelationFilter,
    FalseFilter,
    Queue,
    Rule,
    SqlFilter,
    Subscription,
    Topic,
    TrueFilter,
)

from ._system import Grant, Right, System

__all__ = [
    "ROLES",
    "SUFFIX",
    "Role",
    "by_process",
    "duration",
    "filter_of",
    "join",
    "names_of",
    "properties_of",
    "symbols_of",
    "title",
]

SUFFIX = "servicebus.windows.net"


@dataclass(frozen=True)
class Role:
    """A built-in role of Azure, by name and id (azure-docs, Azure built-in roles for Integration)."""

    name: str
    id: str


ROLES = {
    Right.SEND: Role("Azure Service Bus Data Sender", "69a216fc-b8fb-44d8-bc22-1f3c2cd27a39"),
    Right.LISTEN: Role("Azure Service Bus Data Receiver", "4f6d3b9b-027b-4f4c-9142-0e5a2a2247e0"),
}


def duration(seconds: float) -> str:
    """Seconds in ISO 8601, as Azure takes them: `PT1M30S`, `P14D`."""
    milliseconds = round(seconds * 1000)
    days, milliseconds = divmod(milliseconds, 86_400_000)
    hours, milliseconds = divmod(milliseconds, 3_600_000)
    minutes, milliseconds = divmod(milliseconds, 60_000)
    text = "".join(f"{value}{unit}" for value, unit in ((hours, "H"), (minutes, "M")) if value)
    if milliseconds:
        text += f"{milliseconds / 1000:g}S"
    date = f"{days}D" if days else ""
    return f"P{date}T{text}" if text else f"P{date}" if date else "PT0S"


def names_of(things: Iterable[str], separator: str = "_") -> dict[str, str]:
    """A symbol for each name, distinct and made of letters, digits and the separator; '' gives camelCase."""
    symbols: dict[str, str] = {}
    for thing in sorted(set(things)):
        words = [word for word in re.split(r"[^A-Za-z0-9]+", thing) if word] or ["x"]
        if separator:
            symbol = separator.join(words).lower()
        else:
            symbol = words[0][0].lower() + words[0][1:] + "".join(w[0].upper() + w[1:] for w in words[1:])
        if symbol[0].isdigit():
            symbol = f"n{symbol}"
        free, number = symbol, 2
        while free in symbols.values():
            free, number = f"{symbol}{separator}{number}", number + 1
        symbols[thing] = free
    return symbols


def title(text: str) -> str:
    """A name that begins with a capital, to be appended to another one in camelCase."""
    return text[0].upper() + text[1:]


def symbols_of(system: System, separator: str = "_") -> dict[tuple[str, str | None], str]:
    """A symbol for each queue, topic and subscription, by their names."""
    found: dict[tuple[str, str | None], str] = {}
    queues = [entity.name for entity in system.entities() if isinstance(entity, Queue)]
    topics = [entity for entity in system.entities() if isinstance(entity, Topic)]
    for name, symbol in names_of([*queues, *system.foreign()], separator).items():
        found[name, None] = join(symbol, "queue", separator)
    for name, symbol in names_of((topic.name for topic in topics), separator).items():
        found[name, None] = join(symbol, "topic", separator)
    for topic in topics:
        of_topic = found[topic.name, None]
        for name, symbol in names_of((each.name for each in topic.subscriptions), separator).items():
            found[topic.name, name] = join(of_topic, symbol, separator)
    return found


def join(one: str, other: str, separator: str) -> str:
    """Two symbols as one."""
    return f"{one}{separator}{other}" if separator else one + title(other)


def properties_of(entity: Queue | Topic | Subscription) -> dict[str, Any]:
    """What differs from Azure's defaults, and what is fixed at creation, in the words of Resource Manager."""
    found: dict[str, Any] = {}
    if isinstance(entity, Queue | Subscription):
        found["deadLetteringOnMessageExpiration"] = entity.dead_lettering_on_message_expiration or None
        found["forwardDeadLetteredMessagesTo"] = entity.forward_dead_lettered_messages_to
        found["forwardTo"] = entity.forward_to
        found["lockDuration"] = duration(entity.lock_duration)
        found["maxDeliveryCount"] = entity.max_delivery_count
        found["requiresSession"] = entity.requires_session
    if isinstance(entity, Subscription):
        found["deadLetteringOnFilterEvaluationExceptions"] = (
            None if entity.dead_lettering_on_filter_evaluation_exceptions else False
        )
    if isinstance(entity, Queue | Topic):
        if entity.duplicate_detection_window is not None:
            found["duplicateDetectionHistoryTimeWindow"] = duration(entity.duplicate_detection_window)
            found["requiresDuplicateDetection"] = True
        found["maxSizeInMegabytes"] = entity.max_size_in_megabytes
        if entity.max_message_size_in_kilobytes != 1024:
            found["maxMessageSizeInKilobytes"] = entity.max_message_size_in_kilobytes
    if entity.default_message_time_to_live is not None:
        found["defaultMessageTimeToLive"] = duration(entity.default_message_time_to_live)
    if entity.auto_delete_on_idle is not None:
        found["autoDeleteOnIdle"] = duration(entity.auto_delete_on_idle)
    if entity.status != "Active":
        found["status"] = entity.status
    return {name: value for name, value in sorted(found.items()) if value is not None}


_CORRELATION = {
    "content_type": "contentType",
    "correlation_id": "correlationId",
    "message_id": "messageId",
    "reply_to": "replyTo",
    "reply_to_session_id": "replyToSessionId",
    "session_id": "sessionId",
    "subject": "label",
    "to": "to",
}


def filter_of(rule: Rule) -> dict[str, Any]:
    """A rule in the words of Resource Manager."""
    found: dict[str, Any] = {}
    match rule.filter:
        case CorrelationFilter() as each:
            filter: dict[str, Any] = {_CORRELATION[name]: text for name, text in each.fields().items()}
            if each.properties:
                filter["properties"] = {name: str(value) for name, value in sorted(each.properties.items())}
            found = {"correlationFilter": filter, "filterType": "CorrelationFilter"}
        case SqlFilter(expression):
            found = {"filterType": "SqlFilter", "sqlFilter": {"sqlExpression": expression}}
        case TrueFilter():
            found = {"filterType": "SqlFilter", "sqlFilter": {"sqlExpression": "1=1"}}
        case FalseFilter():
            found = {"filterType": "SqlFilter", "sqlFilter": {"sqlExpression": "1=0"}}
    if rule.action is not None:
        found["action"] = {"sqlExpression": rule.action}
    return found


def by_process(grants: Iterable[Grant]) -> Mapping[str, list[Grant]]:
    """The grants of each process."""
    found: dict[str, list[Grant]] = {}
    for grant in grants:
        found.setdefault(grant.process, []).append(grant)
    return found
