"""Entries and feeds of the management API, with descriptions inside them, as the service writes them.

Owns the XML that goes out: element names and their order. Translates from topology values; knows no request
and no broker.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sbrpc.emulator.http import values
from sbrpc.emulator.http.descriptions import (
    ATOM,
    BUS,
    CORRELATION,
    DEFAULT_WINDOW,
    INSTANCE,
    AuthorizationRule,
)
from sbrpc.emulator.http.values import attribute, format_boolean, format_duration, format_time, text
from sbrpc.topology import CorrelationFilter, FalseFilter, Queue, Rule, SqlFilter, Subscription, Topic

__all__ = [
    "ATOM_ENTRY",
    "ATOM_FEED",
    "Counts",
    "Entry",
    "Facts",
    "entry",
    "error_body",
    "feed",
    "namespace_description",
    "queue_description",
    "rule_description",
    "subscription_description",
    "topic_description",
]

ATOM_ENTRY = "application/atom+xml;type=entry;charset=utf-8"
ATOM_FEED = "application/atom+xml;type=feed;charset=utf-8"

_COUNTS = "http://schemas.microsoft.com/netservices/2011/06/servicebus"
_SCHEMA = "http://www.w3.org/2001/XMLSchema"
_DECLARATION = '<?xml version="1.0" encoding="utf-8"?>'


@dataclass(frozen=True)
class Counts:
    """How many messages of which kind lie in an entity."""

    active: int = 0
    dead_letter: int = 0
    scheduled: int = 0
    transfer: int = 0
    transfer_dead_letter: int = 0

    @property
    def all(self) -> int:
        """All of them."""
        return self.active + self.dead_letter + self.scheduled + self.transfer + self.transfer_dead_letter


@dataclass(frozen=True)
class Facts:
    """What is true of an entity at the moment, beside its settings. Times are seconds, sizes bytes."""

    created_at: float = 0.0
    updated_at: float = 0.0
    accessed_at: float = 0.0
    size: int = 0
    counts: Counts = Counts()
    subscriptions: int = 0


@dataclass(frozen=True)
class Entry:
    """One entity on its way out: its name, where it is, when it changed, and its description."""

    title: str
    href: str
    published: float
    updated: float
    description: str


# -- descriptions -------------------------------------------------------------------------------------------


def _element(name: str, value: object) -> str:
    return f"<{name}>{text(value)}</{name}>"


def _elements(pairs: Iterable[tuple[str, object]]) -> str:
    """Elements in order; those without a value are left out."""
    return "".join(_element(name, value) for name, value in pairs if value is not None)


def _document(kind: str, inside: str) -> str:
    return f'<{kind} xmlns="{BUS}" xmlns:i="{INSTANCE}">{inside}</{kind}>'


def _count_details(counts: Counts) -> str:
    pairs = (
        ("ActiveMessageCount", counts.active),
        ("DeadLetterMessageCount", counts.dead_letter),
        ("ScheduledMessageCount", counts.scheduled),
        ("TransferMessageCount", counts.transfer),
        ("TransferDeadLetterMessageCount", counts.transfer_dead_letter),
    )
    inside = "".join(f"<d2p1:{name}>{value}</d2p1:{name}>" for name, value in pairs)
    return f'<CountDetails xmlns:d2p1="{_COUNTS}">{inside}</CountDetails>'


def _authorization(rules: Iterable[AuthorizationRule]) -> str:
    inside = "".join(
        '<AuthorizationRule i:type="SharedAccessAuthorizationRule">'
        + _elements((("ClaimType", "SharedAccessKey"), ("ClaimValue", "None")))
        + "<Rights>"
        + "".join(_element("AccessRights", right) for right in rule.rights)
        + "</Rights>"
        + _elements(
            (
                ("CreatedTime", format_time(rule.created_at)),
                ("ModifiedTime", format_time(rule.created_at)),
                ("KeyName", rule.key_name),
                ("PrimaryKey", rule.primary_key),
                ("SecondaryKey", rule.secondary_key),
            )
        )
        + "</AuthorizationRule>"
        for rule in rules
    )
    return f"<AuthorizationRules>{inside}</AuthorizationRules>"


def _times(facts: Facts) -> tuple[tuple[str, str], ...]:
    return (
        ("CreatedAt", format_time(facts.created_at)),
        ("UpdatedAt", format_time(facts.updated_at)),
        ("AccessedAt", format_time(facts.accessed_at)),
    )


def _window(entity: Queue | Topic) -> str:
    window = entity.duplicate_detection_window
    return format_duration(DEFAULT_WINDOW if window is None else window)


def queue_description(
    queue: Queue, facts: Facts, flags: Mapping[str, bool], rules: Iterable[AuthorizationRule]
) -> str:
    """A queue with its counts, in the order of the service."""
    first = (
        ("LockDuration", format_duration(queue.lock_duration)),
        ("MaxSizeInMegabytes", queue.max_size_in_megabytes),
        ("RequiresDuplicateDetection", format_boolean(queue.duplicate_detection_window is not None)),
        ("RequiresSession", format_boolean(queue.requires_session)),
        ("DefaultMessageTimeToLive", format_duration(queue.default_message_time_to_live)),
        ("DeadLetteringOnMessageExpiration", format_boolean(queue.dead_lettering_on_message_expiration)),
        ("DuplicateDetectionHistoryTimeWindow", _window(queue)),
        ("MaxDeliveryCount", queue.max_delivery_count),
        ("EnableBatchedOperations", format_boolean(flags.get("EnableBatchedOperations", True))),
        ("SizeInBytes", facts.size),
        ("MessageCount", facts.counts.all),
        ("IsAnonymousAccessible", "false"),
    )
    second = (
        ("Status", queue.status),
        ("ForwardTo", queue.forward_to),
        ("UserMetadata", queue.user_metadata),
        *_times(facts),
        ("SupportOrdering", format_boolean(flags.get("SupportOrdering", True))),
    )
    third = (
        ("AutoDeleteOnIdle", format_duration(queue.auto_delete_on_idle)),
        ("EnablePartitioning", format_boolean(flags.get("EnablePartitioning", False))),
        ("EntityAvailabilityStatus", "Available"),
        ("ForwardDeadLetteredMessagesTo", queue.forward_dead_lettered_messages_to),
        ("EnableExpress", format_boolean(flags.get("EnableExpress", False))),
        ("MaxMessageSizeInKilobytes", queue.max_message_size_in_kilobytes),
    )
    parts = (_elements(first), _authorization(rules), _elements(second), _count_details(facts.counts))
    return _document("QueueDescription", "".join(parts) + _elements(third))


def topic_description(
    topic: Topic, facts: Facts, flags: Mapping[str, bool], rules: Iterable[AuthorizationRule]
) -> str:
    """A topic with its counts, in the order of the service."""
    filtering = flags.get("FilteringMessagesBeforePublishing", False)
    first = (
        ("DefaultMessageTimeToLive", format_duration(topic.default_message_time_to_live)),
        ("MaxSizeInMegabytes", topic.max_size_in_megabytes),
        ("RequiresDuplicateDetection", format_boolean(topic.duplicate_detection_window is not None)),
        ("DuplicateDetectionHistoryTimeWindow", _window(topic)),
        ("EnableBatchedOperations", format_boolean(flags.get("EnableBatchedOperations", True))),
        ("SizeInBytes", facts.size),
        ("FilteringMessagesBeforePublishing", format_boolean(filtering)),
        ("IsAnonymousAccessible", "false"),
    )
    second = (
        ("Status", topic.status),
        *_times(facts),
        ("SupportOrdering", format_boolean(flags.get("SupportOrdering", True))),
    )
    third = (
        ("SubscriptionCount", facts.subscriptions),
        ("AutoDeleteOnIdle", format_duration(topic.auto_delete_on_idle)),
        ("EnablePartitioning", format_boolean(flags.get("EnablePartitioning", False))),
        ("EntityAvailabilityStatus", "Available"),
        ("EnableSubscriptionPartitioning", "false"),
        ("EnableExpress", format_boolean(flags.get("EnableExpress", False))),
        ("UserMetadata", topic.user_metadata),
        ("MaxMessageSizeInKilobytes", topic.max_message_size_in_kilobytes),
    )
    parts = (_elements(first), _authorization(rules), _elements(second), _count_details(facts.counts))
    return _document("TopicDescription", "".join(parts) + _elements(third))


def subscription_description(subscription: Subscription, facts: Facts, flags: Mapping[str, bool]) -> str:
    """A subscription with its counts, in the order of the service."""
    filter_errors = subscription.dead_lettering_on_filter_evaluation_exceptions
    expired = subscription.dead_lettering_on_message_expiration
    first = (
        ("LockDuration", format_duration(subscription.lock_duration)),
        ("RequiresSession", format_boolean(subscription.requires_session)),
        ("DefaultMessageTimeToLive", format_duration(subscription.default_message_time_to_live)),
        ("DeadLetteringOnMessageExpiration", format_boolean(expired)),
        ("DeadLetteringOnFilterEvaluationExceptions", format_boolean(filter_errors)),
        ("MessageCount", facts.counts.all),
        ("MaxDeliveryCount", subscription.max_delivery_count),
        ("EnableBatchedOperations", format_boolean(flags.get("EnableBatchedOperations", True))),
        ("Status", subscription.status),
        ("ForwardTo", subscription.forward_to),
        *_times(facts),
    )
    second = (
        ("UserMetadata", subscription.user_metadata),
        ("ForwardDeadLetteredMessagesTo", subscription.forward_dead_lettered_messages_to),
        ("AutoDeleteOnIdle", format_duration(subscription.auto_delete_on_idle)),
        ("EntityAvailabilityStatus", "Available"),
    )
    return _document(
        "SubscriptionDescription", _elements(first) + _count_details(facts.counts) + _elements(second)
    )


def rule_description(rule: Rule, created_at: float) -> str:
    """A rule."""
    if rule.action is None:
        action = '<Action i:type="EmptyRuleAction"/>'
    else:
        action = _sql("Action", "SqlRuleAction", rule.action, rule.action_parameters)
    rest = _elements((("CreatedAt", format_time(created_at)), ("Name", rule.name)))
    return _document("RuleDescription", _filter(rule) + action + rest)


def _filter(rule: Rule) -> str:
    wanted = rule.filter
    if isinstance(wanted, CorrelationFilter):
        fields = _elements((theirs, getattr(wanted, ours)) for theirs, ours in CORRELATION)
        properties = _pairs("Properties", wanted.properties)
        return f'<Filter i:type="CorrelationFilter">{fields}{properties}</Filter>'
    if isinstance(wanted, SqlFilter):
        return _sql("Filter", "SqlFilter", wanted.expression, wanted.parameters)
    if isinstance(wanted, FalseFilter):
        return _sql("Filter", "FalseFilter", "1=0", {})
    return _sql("Filter", "TrueFilter", "1=1", {})


def _sql(name: str, kind: str, expression: str, parameters: Mapping[str, object]) -> str:
    inside = _elements((("SqlExpression", expression), ("CompatibilityLevel", 20)))
    return f'<{name} i:type="{kind}">{inside}{_pairs("Parameters", parameters)}</{name}>'


def _pairs(name: str, pairs: Mapping[str, object]) -> str:
    if not pairs:
        return f"<{name}/>"
    inside = []
    for key, value in pairs.items():
        kind, written = values.encode_typed(value)
        typed = f'<Value i:type="d6p1:{kind}" xmlns:d6p1="{_SCHEMA}">{text(written)}</Value>'
        inside.append(f"<KeyValueOfstringanyType>{_element('Key', key)}{typed}</KeyValueOfstringanyType>")
    return f"<{name}>{''.join(inside)}</{name}>"


def namespace_description(name: str, created_at: float) -> str:
    """What a namespace says of itself."""
    pairs = (
        ("CreatedTime", format_time(created_at)),
        ("MessagingSKU", "Standard"),
        ("MessagingUnits", 0),
        ("ModifiedTime", format_time(created_at)),
        ("Name", name),
        ("NamespaceType", "Messaging"),
    )
    return _document("NamespaceInfo", _elements(pairs))


# -- documents ----------------------------------------------------------------------------------------------


def entry(item: Entry, author: str) -> bytes:
    """A document with one entry."""
    return (_DECLARATION + _entry(item, author, f' xmlns="{ATOM}"')).encode()


def feed(
    title: str, href: str, now: float, items: Iterable[Entry], following: str | None, author: str
) -> bytes:
    """A document with a page of entries. Clients take a second link to mean that there are more."""
    links = f'<link rel="self" href={attribute(href)}/>'
    if following is not None:
        links += f'<link rel="next" href={attribute(following)}/>'
    head = (
        f'<feed xmlns="{ATOM}"><title type="text">{text(title)}</title><id>{text(href)}</id>'
        f"<updated>{format_time(now)}</updated>{links}"
    )
    return (_DECLARATION + head + "".join(_entry(item, author, "") for item in items) + "</feed>").encode()


def _entry(item: Entry, author: str, namespace: str) -> str:
    return (
        f'<entry{namespace}><id>{text(item.href)}</id><title type="text">{text(item.title)}</title>'
        f"<published>{format_time(item.published)}</published><updated>{format_time(item.updated)}</updated>"
        f"<author><name>{text(author)}</name></author>"
        f'<link rel="self" href={attribute(item.href)}/>'
        f'<content type="application/xml">{item.description}</content></entry>'
    )


def error_body(status: int, detail: str) -> bytes:
    """What the service says when it refuses."""
    return f"<Error><Code>{status}</Code><Detail>{text(detail)}</Detail></Error>".encode()
