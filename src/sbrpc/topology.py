"""The words for what exists in a namespace: queues, topics, subscriptions and their rules.

Frozen values and nothing else. They are the only words the library and the emulator share; this module
knows no SDK, no wire and no clock. Durations are seconds as float, `None` means Service Bus' own "never".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta
from types import MappingProxyType

__all__ = [
    "CorrelationFilter",
    "FalseFilter",
    "Filter",
    "Queue",
    "Rule",
    "SqlFilter",
    "Subscription",
    "Topic",
    "TrueFilter",
]

# Service Bus naming rules: letters, digits, and . - _ / inside; a queue or topic path has at most 260
# characters, a subscription or rule name at most 50 (azure-docs, Service Bus quotas).
_NAME = re.compile(r"[A-Za-z0-9]([\w\-./~]*[A-Za-z0-9_])?", re.ASCII)

PropertyValue = str | int | float | bool | bytes | datetime | timedelta | None


def _nothing() -> Mapping[str, PropertyValue]:
    return MappingProxyType({})


def _check_name(kind: str, name: str, longest: int) -> None:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError(
            f"{name!r} is not a valid {kind} name: letters, digits and, inside, . - _ / are allowed"
        )
    if len(name) > longest:
        raise ValueError(f"the {kind} name {name!r} has {len(name)} characters, the limit is {longest}")


def _check_at_least(what: str, value: float | None, least: float) -> None:
    if value is not None and value < least:
        raise ValueError(f"{what} must be at least {least:g}, not {value:g}")


@dataclass(frozen=True)
class TrueFilter:
    """Matches every message; what a new subscription has as its `$Default` rule."""


@dataclass(frozen=True)
class FalseFilter:
    """Matches no message."""


@dataclass(frozen=True)
class SqlFilter:
    """Matches messages for which a SQL-92 like predicate over their properties is true."""

    expression: str
    parameters: Mapping[str, PropertyValue] = field(default_factory=_nothing, hash=False)
    """Values of the @names in the expression."""


@dataclass(frozen=True)
class CorrelationFilter:
    """Matches messages whose named properties all have exactly the given values; the cheap filter."""

    content_type: str | None = None
    correlation_id: str | None = None
    subject: str | None = None
    message_id: str | None = None
    reply_to: str | None = None
    reply_to_session_id: str | None = None
    session_id: str | None = None
    to: str | None = None
    properties: Mapping[str, PropertyValue] = field(default_factory=_nothing, hash=False)

    def fields(self) -> dict[str, str]:
        """The standard properties that it asks for, by name, without those of the application."""
        named = ((each.name, getattr(self, each.name)) for each in fields(self))
        return {name: value for name, value in named if name != "properties" and value is not None}


Filter = TrueFilter | FalseFilter | SqlFilter | CorrelationFilter


@dataclass(frozen=True)
class Rule:
    """A filter with a name, and optionally a SQL action that changes the copy it lets through."""

    name: str
    filter: Filter = TrueFilter()
    action: str | None = None
    action_parameters: Mapping[str, PropertyValue] = field(default_factory=_nothing, hash=False)
    """Values of the @names in the action."""

    def __post_init__(self) -> None:
        if self.name != "$Default":
            _check_name("rule", self.name, 50)


@dataclass(frozen=True)
class Queue:
    """A queue. Defaults are Azure's; `requires_session` and duplicate detection are fixed at creation.

    Raises:
        ValueError: Service Bus would not take the name, a duration (in seconds), or forwarding with sessions.
    """

    name: str
    requires_session: bool = False
    lock_duration: float = 60.0
    max_delivery_count: int = 10
    default_message_time_to_live: float | None = None
    dead_lettering_on_message_expiration: bool = False
    duplicate_detection_window: float | None = None
    """Seconds; `None` means that the queue does not detect duplicates."""
    forward_to: str | None = None
    forward_dead_lettered_messages_to: str | None = None
    auto_delete_on_idle: float | None = None
    max_size_in_megabytes: int = 1024
    max_message_size_in_kilobytes: int = 1024
    status: str = "Active"
    """`Active`, `Disabled`, `SendDisabled` or `ReceiveDisabled`."""
    user_metadata: str | None = None

    def __post_init__(self) -> None:
        _check_name("queue", self.name, 260)
        _check_entity(self)


@dataclass(frozen=True)
class Subscription:
    """A subscription of a topic. Without rules it gets everything, as with Azure's `$Default` rule.

    Raises:
        ValueError: as for a `Queue`.
    """

    name: str
    rules: tuple[Rule, ...] = ()
    requires_session: bool = False
    lock_duration: float = 60.0
    max_delivery_count: int = 10
    default_message_time_to_live: float | None = None
    dead_lettering_on_message_expiration: bool = False
    dead_lettering_on_filter_evaluation_exceptions: bool = True
    forward_to: str | None = None
    forward_dead_lettered_messages_to: str | None = None
    auto_delete_on_idle: float | None = None
    status: str = "Active"
    user_metadata: str | None = None

    def __post_init__(self) -> None:
        _check_name("subscription", self.name, 50)
        _check_entity(self)
        object.__setattr__(self, "rules", tuple(self.rules))


@dataclass(frozen=True)
class Topic:
    """A topic and its subscriptions.

    Raises:
        ValueError: as for a `Queue`.
    """

    name: str
    subscriptions: tuple[Subscription, ...] = ()
    default_message_time_to_live: float | None = None
    duplicate_detection_window: float | None = None
    auto_delete_on_idle: float | None = None
    max_size_in_megabytes: int = 1024
    max_message_size_in_kilobytes: int = 1024
    status: str = "Active"
    user_metadata: str | None = None

    def __post_init__(self) -> None:
        _check_name("topic", self.name, 260)
        object.__setattr__(self, "subscriptions", tuple(self.subscriptions))
        _check_at_least(
            f"default_message_time_to_live of {self.name!r}", self.default_message_time_to_live, 0.001
        )


def _check_entity(entity: Queue | Subscription) -> None:
    where = f"of {entity.name!r}"
    _check_at_least(f"lock_duration {where}", entity.lock_duration, 0.1)
    if entity.lock_duration > 300:
        raise ValueError(
            f"lock_duration {where} is {entity.lock_duration:g} s; Service Bus allows at most 300 s"
        )
    _check_at_least(f"max_delivery_count {where}", entity.max_delivery_count, 1)
    _check_at_least(f"default_message_time_to_live {where}", entity.default_message_time_to_live, 0.001)
    if entity.requires_session and entity.forward_to:
        raise ValueError(f"{entity.name!r} forwards to {entity.forward_to!r} and so cannot require sessions")
