"""Descriptions of entities as clients send them, read into topology values.

Owns the elements of a description: their names, their texts and the limits the service puts on them. Parsed
by namespace, whatever the prefixes. Knows no request and no broker; whatever is wrong is a `ValueError` that
names the element.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from sbrpc.emulator.http import values
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

__all__ = [
    "ATOM",
    "BUS",
    "CORRELATION",
    "DEFAULT_WINDOW",
    "INSTANCE",
    "AuthorizationRule",
    "Description",
    "parse",
    "queue_from",
    "rule_from",
    "subscription_from",
    "topic_from",
]

ATOM = "http://www.w3.org/2005/Atom"
BUS = "http://schemas.microsoft.com/netservices/2010/10/servicebus/connect"
INSTANCE = "http://www.w3.org/2001/XMLSchema-instance"

_TYPE = f"{{{INSTANCE}}}type"
_NIL = f"{{{INSTANCE}}}nil"


@dataclass(frozen=True)
class AuthorizationRule:
    """Keys that came with an entity, and what they allow."""

    key_name: str
    rights: tuple[str, ...]
    primary_key: str
    secondary_key: str
    created_at: float = 0.0


@dataclass(frozen=True)
class Description:
    """A parsed request: the kind of description, its element, and what the topology has no word for.

    `flags` are settings that change nothing in an emulator and come back as they were given.
    """

    kind: str
    element: Element
    flags: Mapping[str, bool] = field(default_factory=dict)
    authorization_rules: tuple[AuthorizationRule, ...] | None = None


_FLAGS = (
    "EnableBatchedOperations",
    "EnablePartitioning",
    "EnableExpress",
    "SupportOrdering",
    "FilteringMessagesBeforePublishing",
)
_RIGHTS = ("Manage", "Send", "Listen")


class _Builder(ElementTree.TreeBuilder):
    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        # Entities defined there can make a small document huge, and no client needs them.
        raise ValueError("a document type declaration is not allowed")


def parse(body: bytes) -> Description:
    """The description in an Atom entry; raises `ValueError` for anything else."""
    try:
        root = ElementTree.fromstring(body, ElementTree.XMLParser(target=_Builder()))
    except ElementTree.ParseError as error:
        raise ValueError(f"the body is not XML: {error}") from error
    content = root.find(f"{{{ATOM}}}content") if root.tag == f"{{{ATOM}}}entry" else None
    if content is None or len(content) != 1:
        raise ValueError("the body must be an Atom entry whose content is one description")
    element = content[0]
    namespace, _, kind = element.tag.rpartition("}")
    if namespace != "{" + BUS:
        raise ValueError(f"the description must be in the namespace '{BUS}'")
    flags = {name: values.boolean(given) for name in _FLAGS if (given := _text(element, name)) is not None}
    return Description(kind, element, flags, _authorization_rules(element))


def _text(element: Element, name: str) -> str | None:
    found = element.find(f"{{{BUS}}}{name}")
    if found is None or found.get(_NIL) == "true":
        return None
    return found.text or ""


def _read(element: Element, table: Mapping[str, tuple[str, Callable[[str], Any]]]) -> dict[str, Any]:
    """The attributes that a description gives, by the table's names; raises `ValueError` with the element."""
    found = {}
    for name, (attribute_name, decode) in table.items():
        if (given := _text(element, name)) is not None:
            try:
                found[attribute_name] = decode(given)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from error
    return found


def _status(value: str) -> str:
    if value not in ("Active", "Disabled", "SendDisabled", "ReceiveDisabled"):
        raise ValueError(
            f"'{value}' is not a status; known are Active, Disabled, SendDisabled, ReceiveDisabled"
        )
    return value


def _idle(value: str) -> float | None:
    seconds = values.optional_duration(value)
    if seconds is not None and seconds < 300:
        raise ValueError(f"'{value}' is too short; the shortest is PT5M")
    return seconds


def _deliveries(value: str) -> int:
    count = values.number(value)
    if not 1 <= count <= 2000:
        raise ValueError(f"{count} is not between 1 and 2000")
    return count


def _metadata(value: str) -> str:
    if len(value) > 1024:
        raise ValueError(f"it has {len(value)} characters, the limit is 1024")
    return value


_COMMON: dict[str, tuple[str, Callable[[str], Any]]] = {
    "DefaultMessageTimeToLive": ("default_message_time_to_live", values.optional_duration),
    "Status": ("status", _status),
    "UserMetadata": ("user_metadata", _metadata),
    "AutoDeleteOnIdle": ("auto_delete_on_idle", _idle),
}
_RECEIVING: dict[str, tuple[str, Callable[[str], Any]]] = {
    "LockDuration": ("lock_duration", values.required_duration),
    "RequiresSession": ("requires_session", values.boolean),
    "DeadLetteringOnMessageExpiration": ("dead_lettering_on_message_expiration", values.boolean),
    "MaxDeliveryCount": ("max_delivery_count", _deliveries),
    "ForwardTo": ("forward_to", values.path),
    "ForwardDeadLetteredMessagesTo": ("forward_dead_lettered_messages_to", values.path),
}
_STORING: dict[str, tuple[str, Callable[[str], Any]]] = {
    "MaxSizeInMegabytes": ("max_size_in_megabytes", values.number),
    "MaxMessageSizeInKilobytes": ("max_message_size_in_kilobytes", values.number),
}
_QUEUE = _COMMON | _RECEIVING | _STORING
_TOPIC = _COMMON | _STORING
_SUBSCRIPTION = (
    _COMMON
    | _RECEIVING
    | {
        "DeadLetteringOnFilterEvaluationExceptions": (
            "dead_lettering_on_filter_evaluation_exceptions",
            values.boolean,
        )
    }
)
_DUPLICATES: dict[str, tuple[str, Callable[[str], Any]]] = {
    "RequiresDuplicateDetection": ("wanted", values.boolean),
    "DuplicateDetectionHistoryTimeWindow": ("window", values.required_duration),
}
DEFAULT_WINDOW = 600.0
_LONGEST_WINDOW = 7 * 86400.0


def _duplicates(element: Element, before: float | None) -> float | None:
    """The window of duplicate detection, which two elements describe; `before` is the window so far."""
    given = _read(element, _DUPLICATES)
    wanted = given.get("wanted", before is not None)
    window: float = given.get("window", DEFAULT_WINDOW if before is None else before)
    if not 1 <= window <= _LONGEST_WINDOW:
        raise ValueError("DuplicateDetectionHistoryTimeWindow must be between PT1S and P7D")
    return window if wanted else None


def queue_from(element: Element, name: str, before: Queue | None) -> Queue:
    """A queue as described; what the description leaves out stays as it was. Raises `ValueError`."""
    window = _duplicates(element, before.duplicate_detection_window if before is not None else None)
    given = _read(element, _QUEUE) | {"duplicate_detection_window": window}
    return Queue(name, **given) if before is None else replace(before, **given)


def topic_from(element: Element, name: str, before: Topic | None) -> Topic:
    """A topic as described; what the description leaves out stays as it was. Raises `ValueError`."""
    window = _duplicates(element, before.duplicate_detection_window if before is not None else None)
    given = _read(element, _TOPIC) | {"duplicate_detection_window": window}
    return Topic(name, **given) if before is None else replace(before, **given)


def subscription_from(element: Element, name: str, before: Subscription | None) -> Subscription:
    """A subscription as described; what the description leaves out stays as it was. Raises `ValueError`."""
    given = _read(element, _SUBSCRIPTION)
    if before is not None:
        return replace(before, **given)
    first = element.find(f"{{{BUS}}}DefaultRuleDescription")
    if first is not None and first.get(_NIL) != "true":
        given["rules"] = (rule_from(first, _text(first, "Name") or "$Default"),)
    return Subscription(name, **given)


def _authorization_rules(element: Element) -> tuple[AuthorizationRule, ...] | None:
    wrapper = element.find(f"{{{BUS}}}AuthorizationRules")
    if wrapper is None or wrapper.get(_NIL) == "true":
        return None
    rules = []
    for item in wrapper.iterfind(f"{{{BUS}}}AuthorizationRule"):
        key_name, primary = _text(item, "KeyName"), _text(item, "PrimaryKey")
        rights = tuple(right.text or "" for right in item.iterfind(f"{{{BUS}}}Rights/{{{BUS}}}AccessRights"))
        if not key_name or not primary or not rights or not set(rights) <= set(_RIGHTS):
            raise ValueError(
                "AuthorizationRules: each needs a KeyName, a PrimaryKey and Rights of Manage, Send and Listen"
            )
        rules.append(AuthorizationRule(key_name, rights, primary, _text(item, "SecondaryKey") or primary))
    return tuple(rules)


# -- rules --------------------------------------------------------------------------------------------------

CORRELATION = (
    ("CorrelationId", "correlation_id"),
    ("MessageId", "message_id"),
    ("To", "to"),
    ("ReplyTo", "reply_to"),
    ("Label", "subject"),
    ("SessionId", "session_id"),
    ("ReplyToSessionId", "reply_to_session_id"),
    ("ContentType", "content_type"),
)


def rule_from(element: Element, name: str) -> Rule:
    """A rule as described. Raises `ValueError`."""
    wanted = element.find(f"{{{BUS}}}Filter")
    action = element.find(f"{{{BUS}}}Action")
    expression: str | None = None
    parameters: dict[str, Any] = {}
    if action is not None and _type(action) == "SqlRuleAction":
        expression = _text(action, "SqlExpression") or ""
        parameters = _key_values(action, "Parameters")
    elif action is not None and _type(action) not in ("EmptyRuleAction", ""):
        raise ValueError(f"Action: '{_type(action)}' is not a kind of action")
    rule_filter = TrueFilter() if wanted is None else _filter_from(wanted)
    return Rule(name, rule_filter, expression, action_parameters=parameters)


def _filter_from(element: Element) -> TrueFilter | FalseFilter | SqlFilter | CorrelationFilter:
    kind = _type(element)
    if kind == "CorrelationFilter":
        given = {ours: value for theirs, ours in CORRELATION if (value := _text(element, theirs)) is not None}
        properties = _key_values(element, "Properties")
        if not given and not properties:
            raise ValueError("Filter: a correlation filter needs at least one property")
        return CorrelationFilter(**given, properties=properties)
    if kind == "TrueFilter":
        return TrueFilter()
    if kind == "FalseFilter":
        return FalseFilter()
    if kind == "SqlFilter":
        return SqlFilter(_text(element, "SqlExpression") or "", parameters=_key_values(element, "Parameters"))
    raise ValueError(f"Filter: '{kind}' is not a kind of filter")


def _type(element: Element) -> str:
    return (element.get(_TYPE) or "").rpartition(":")[2]


def _key_values(element: Element, name: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for item in element.iterfind(f"{{{BUS}}}{name}/{{{BUS}}}KeyValueOfstringanyType"):
        value = item.find(f"{{{BUS}}}Value")
        key = _text(item, "Key")
        if key is None or value is None:
            raise ValueError(f"{name}: each entry needs a Key and a Value")
        try:
            found[key] = values.decode_typed(value.get(_TYPE) or "string", value.text or "")
        except ValueError as error:
            raise ValueError(f"{name}: '{key}': {error}") from error
    return found
