"""Provisioning: compares what a namespace has with what is wanted, says what it would change, then does it.

    steps = plan(wanted, read(admin, wanted))
    for step in steps:
        print(step)
    apply(admin, steps)

`wanted` are topology values, such as `bus.topology()` computes from handlers. What is missing is created and
rules are brought in line; other settings of what exists are left to whoever made it, and nothing is deleted
but rules. This is for deployments: it needs the Manage right, which nothing in sbrpc needs at run time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

from azure.core.exceptions import ResourceNotFoundError
from azure.servicebus.management import (
    CorrelationRuleFilter,
    FalseRuleFilter,
    RuleProperties,
    ServiceBusAdministrationClient,
    SqlRuleAction,
    SqlRuleFilter,
    TrueRuleFilter,
)

from .errors import ContractError
from .topology import (
    CorrelationFilter,
    FalseFilter,
    Filter,
    Queue,
    Rule,
    SqlFilter,
    Subscription,
    Topic,
    TrueFilter,
)

__all__ = ["Found", "Step", "apply", "plan", "read"]


@dataclass(frozen=True)
class Step:
    """One change, in the order in which it has to be made. Its text is for people."""

    entity: Queue | Topic | Subscription | Rule
    action: str
    """`create`, or for rules also `replace` or `remove`."""
    topic: str | None = None
    subscription: str | None = None

    def __str__(self) -> str:
        kind = type(self.entity).__name__.lower()
        where = f" of {self.topic}" if self.subscription is None else f" of {self.topic}/{self.subscription}"
        sessions = " with sessions" if getattr(self.entity, "requires_session", False) else ""
        return (
            f"{self.action} {kind} {self.entity.name}{where if self.topic else ''}{sessions}{self._detail()}"
        )

    def _detail(self) -> str:
        return f": {_words(self.entity)}" if isinstance(self.entity, Rule) and self.action != "remove" else ""


@dataclass
class Found:
    """What a namespace has of what is wanted. Names are in lower case, as Service Bus does not mind case."""

    queues: dict[str, bool] = field(default_factory=dict)
    """Name to whether it requires sessions."""
    topics: set[str] = field(default_factory=set)
    subscriptions: dict[tuple[str, str], bool] = field(default_factory=dict)
    rules: dict[tuple[str, str], tuple[Rule, ...]] = field(default_factory=dict)


def plan(wanted: Iterable[Queue | Topic], found: Found) -> list[Step]:
    """The steps from what is found to what is wanted; none when all is well.

    Raises:
        ContractError: something has to be deleted and made anew, which is for a person to decide.
    """
    steps: list[Step] = []
    for entity in _targets_first(wanted):
        if isinstance(entity, Queue):
            existing = found.queues.get(entity.name.lower())
            if existing is None:
                steps.append(Step(entity, "create"))
            else:
                _check_sessions(f"queue {entity.name!r}", existing, entity.requires_session)
            continue
        if entity.name.lower() not in found.topics:
            steps.append(Step(entity, "create"))
        for subscription in entity.subscriptions:
            steps += _plan_subscription(entity.name, subscription, found)
    return steps


def _targets_first(wanted: Iterable[Queue | Topic]) -> Iterator[Queue | Topic]:
    """In their order, but none before what it forwards to; in a circle nobody can be first."""
    left = {entity.name.lower(): entity for entity in wanted}
    while left:
        free = [entity for entity in left.values() if not _forwards_to(entity) & left.keys()]
        for entity in free or list(left.values()):
            del left[entity.name.lower()]
            yield entity


def _forwards_to(entity: Queue | Topic) -> set[str]:
    sources = [entity] if isinstance(entity, Queue) else entity.subscriptions
    targets = (to for each in sources for to in (each.forward_to, each.forward_dead_lettered_messages_to))
    return {to.lower() for to in targets if to is not None} - {entity.name.lower()}


def _plan_subscription(topic: str, subscription: Subscription, found: Found) -> list[Step]:
    place = (topic.lower(), subscription.name.lower())
    steps: list[Step] = []
    existing = found.subscriptions.get(place)
    if existing is None:
        steps.append(Step(subscription, "create", topic))
        present: Sequence[Rule] = (Rule("$Default"),)
    else:
        what = f"subscription {subscription.name!r} of topic {topic!r}"
        _check_sessions(what, existing, subscription.requires_session)
        present = found.rules.get(place, ())
    wanted = {rule.name.lower(): rule for rule in subscription.rules or (Rule("$Default"),)}
    have = {rule.name.lower(): rule for rule in present}
    # Bicep cannot delete the rule that every subscription is born with, so it makes one of the others of it.
    for name, rule in wanted.items():
        born = have.get("$default")
        if "$default" not in wanted and name not in have and born == replace(rule, name="$Default"):
            have[name] = replace(have.pop("$default"), name=rule.name)
    # New rules first and old ones last: in between there may be an event too many, but none is missed.
    for name, rule in wanted.items():
        if name not in have:
            steps.append(Step(rule, "create", topic, subscription.name))
        elif have[name] != rule:
            steps.append(Step(rule, "replace", topic, subscription.name))
    steps += [
        Step(rule, "remove", topic, subscription.name) for name, rule in have.items() if name not in wanted
    ]
    return steps


def _check_sessions(what: str, existing: bool, wanted: bool) -> None:
    if existing != wanted:
        raise ContractError(
            f"{what} {'requires' if existing else 'does not require'} sessions and should"
            f"{'' if wanted else ' not'}; that is fixed for its life, so it has to be deleted and made anew"
        )


def read(admin: ServiceBusAdministrationClient, wanted: Iterable[Queue | Topic]) -> Found:
    """What the namespace has of what is wanted. Needs the Manage right; blocks, as the SDK's management does.

    Raises:
        azure.core.exceptions.AzureError: the management API refuses, or cannot be reached.
    """
    found = Found()
    for entity in wanted:
        name = entity.name.lower()
        try:
            if isinstance(entity, Queue):
                found.queues[name] = bool(admin.get_queue(entity.name).requires_session)
                continue
            admin.get_topic(entity.name)
        except ResourceNotFoundError:
            continue
        found.topics.add(name)
        for subscription in admin.list_subscriptions(entity.name):
            place = (name, subscription.name.lower())
            found.subscriptions[place] = bool(subscription.requires_session)
            if subscription.name.lower() in {each.name.lower() for each in entity.subscriptions}:
                rules = admin.list_rules(entity.name, subscription.name)
                found.rules[place] = tuple(_rule_of(rule) for rule in rules)
    return found


def apply(admin: ServiceBusAdministrationClient, steps: Iterable[Step]) -> None:
    """Make the changes, one after the other; one that fails ends it, and what is done stays done.

    Raises:
        azure.core.exceptions.AzureError: the management API refuses, or cannot be reached.
    """
    for step in steps:
        entity, topic, subscription = step.entity, str(step.topic), str(step.subscription)
        match entity:
            case Queue():
                queue = admin.create_queue(
                    entity.name, **_of_all(entity), **_of_stores(entity), **_of_receivers(entity)
                )
                if entity.status != "Active":  # which is what everything is born as
                    queue.status = entity.status
                    admin.update_queue(queue)
            case Topic():
                made = admin.create_topic(entity.name, **_of_all(entity), **_of_stores(entity))
                if entity.status != "Active":
                    made.status = entity.status
                    admin.update_topic(made)
            case Subscription():
                subscribed = admin.create_subscription(
                    topic,
                    entity.name,
                    dead_lettering_on_filter_evaluation_exceptions=(
                        entity.dead_lettering_on_filter_evaluation_exceptions
                    ),
                    **_of_all(entity),
                    **_of_receivers(entity),
                )
                if entity.status != "Active":
                    subscribed.status = entity.status
                    admin.update_subscription(topic, subscribed)
            case Rule() if step.action == "remove":
                admin.delete_rule(topic, subscription, entity.name)
            case Rule() if step.action == "replace":
                rule = admin.get_rule(topic, subscription, entity.name)
                rule.filter = _sdk_filter(entity.filter)
                rule.action = _sdk_action(entity)
                admin.update_rule(topic, subscription, rule)
            case Rule():
                admin.create_rule(
                    topic,
                    subscription,
                    entity.name,
                    filter=_sdk_filter(entity.filter),
                    action=_sdk_action(entity),
                )


def _of_all(entity: Queue | Topic | Subscription) -> dict[str, Any]:
    return {
        "default_message_time_to_live": _seconds(entity.default_message_time_to_live),
        "auto_delete_on_idle": _seconds(entity.auto_delete_on_idle),
        "user_metadata": entity.user_metadata,
    }


def _of_stores(entity: Queue | Topic) -> dict[str, Any]:
    found = {
        "requires_duplicate_detection": entity.duplicate_detection_window is not None,
        "duplicate_detection_history_time_window": _seconds(entity.duplicate_detection_window),
        "max_size_in_megabytes": entity.max_size_in_megabytes,
    }
    # Only Premium namespaces take it at all.
    if entity.max_message_size_in_kilobytes != 1024:
        found["max_message_size_in_kilobytes"] = entity.max_message_size_in_kilobytes
    return found


def _of_receivers(entity: Queue | Subscription) -> dict[str, Any]:
    return {
        "requires_session": entity.requires_session,
        "lock_duration": _seconds(entity.lock_duration),
        "max_delivery_count": entity.max_delivery_count,
        "dead_lettering_on_message_expiration": entity.dead_lettering_on_message_expiration,
        "forward_to": entity.forward_to,
        "forward_dead_lettered_messages_to": entity.forward_dead_lettered_messages_to,
    }


def _seconds(value: float | None) -> timedelta | None:
    return None if value is None else timedelta(seconds=value)


_TEXTS = {
    "content_type": "content_type",
    "correlation_id": "correlation_id",
    "subject": "label",
    "message_id": "message_id",
    "reply_to": "reply_to",
    "reply_to_session_id": "reply_to_session_id",
    "session_id": "session_id",
    "to": "to",
}


def _sdk_filter(wanted: Filter) -> Any:
    match wanted:
        case TrueFilter():
            return TrueRuleFilter()
        case FalseFilter():
            return FalseRuleFilter()
        case SqlFilter(expression, parameters):
            return SqlRuleFilter(expression, parameters=dict(parameters) or None)  # type: ignore[arg-type]
        case CorrelationFilter():
            texts: dict[str, Any] = {theirs: getattr(wanted, ours) for ours, theirs in _TEXTS.items()}
            return CorrelationRuleFilter(**texts, properties=dict[str, Any](wanted.properties) or None)


def _sdk_action(rule: Rule) -> SqlRuleAction | None:
    parameters: Any = dict(rule.action_parameters) or None
    return SqlRuleAction(rule.action, parameters=parameters) if rule.action else None


def _rule_of(rule: RuleProperties) -> Rule:
    action = rule.action if isinstance(rule.action, SqlRuleAction) else None
    found: Any = rule.filter
    wanted: Filter
    if isinstance(found, TrueRuleFilter):
        wanted = TrueFilter()
    elif isinstance(found, FalseRuleFilter):
        wanted = FalseFilter()
    elif isinstance(found, SqlRuleFilter):
        wanted = SqlFilter(str(found.sql_expression), dict(found.parameters or {}))
    else:
        texts = {ours: getattr(found, theirs) or None for ours, theirs in _TEXTS.items()}
        wanted = CorrelationFilter(**texts, properties=dict(found.properties or {}))
    if action is None:
        return Rule(rule.name, wanted)
    parameters: Any = action.parameters or {}
    return Rule(rule.name, wanted, action.sql_expression, action_parameters=dict(parameters))


def _words(rule: Rule) -> str:
    match rule.filter:
        case SqlFilter(expression):
            return expression
        case CorrelationFilter() as each:
            parts: Mapping[str, object] = {**each.fields(), **each.properties}
            return " and ".join(f"{name} = {value!r}" for name, value in parts.items())
        case TrueFilter():
            return "everything"
        case FalseFilter():
            return "nothing"
