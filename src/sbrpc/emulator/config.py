"""The official emulator's `Config.json`, read into topology values.

Owns the file's shape, its limits and its error messages: every mistake is reported with its path, all at
once. Wider values than the official emulator takes (Azure's own ranges) are accepted with a warning, and
so are keys nobody knows, because the official emulator's schema lets them pass. `AuthorizationRules` (on
the namespace, a queue or a topic) is an addition of ours. Knows no broker and no file system beyond
reading one file.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from sbrpc import topology
from sbrpc.emulator.access import AccessKey, Right
from sbrpc.emulator.broker.rules import compile_action, compile_filter

__all__ = ["Config", "ConfigError", "load", "parse"]


class ConfigError(ValueError):
    """The configuration cannot be used; `mistakes` has one line per mistake, each with its path."""

    def __init__(self, source: str, mistakes: list[str]) -> None:
        super().__init__(source, mistakes)
        self.source = source
        self.mistakes = mistakes

    def __str__(self) -> str:
        count = "1 mistake" if len(self.mistakes) == 1 else f"{len(self.mistakes)} mistakes"
        return "\n".join([f"{self.source} has {count}:", *(f"  {mistake}" for mistake in self.mistakes)])


@dataclass(frozen=True)
class Config:
    """What a configuration asks for, and what is remarkable about it."""

    namespace: str
    queues: tuple[topology.Queue, ...]
    topics: tuple[topology.Topic, ...]
    access_keys: tuple[AccessKey, ...]
    warnings: tuple[str, ...]


# -- values -----------------------------------------------------------------------------------------------

_DURATION = re.compile(
    r"P(?:(\d+)Y)?(?:(\d+)M)?(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:(\d+(?:\.\d+)?)S)?)?", re.ASCII
)
_SECONDS = (365 * 86400, 30 * 86400, 86400, 3600, 60, 1)


def parse_duration(text: object) -> float:
    """Seconds of an ISO 8601 duration such as `PT1M30S`."""
    match = _DURATION.fullmatch(text) if isinstance(text, str) else None
    if match is None or not any(match.groups()):
        raise ValueError(f"{text!r} is not an ISO 8601 duration such as PT30S, PT1M or P1DT2H")
    return sum(float(value or 0) * unit for value, unit in zip(match.groups(), _SECONDS, strict=True))


def _unset(value: object) -> object:
    """An empty text means that a property is not set."""
    return None if value == "" else value


Duration = Annotated[float, BeforeValidator(parse_duration)]
OptionalText = Annotated["str | None", BeforeValidator(_unset)]


class _Part(BaseModel):
    # Unknown keys are collected for a warning.
    model_config = ConfigDict(extra="allow", strict=True, defer_build=True)


class _SqlExpression(_Part):
    SqlExpression: str = Field(min_length=1, max_length=1024)


class _Correlation(_Part):
    ContentType: OptionalText = None
    CorrelationId: OptionalText = None
    Label: OptionalText = None
    MessageId: OptionalText = None
    ReplyTo: OptionalText = None
    ReplyToSessionId: OptionalText = None
    SessionId: OptionalText = None
    To: OptionalText = None
    Properties: dict[str, str | int | float | bool] | None = None


class _RuleProperties(_Part):
    FilterType: Literal["Correlation", "Sql", "True", "False"]
    CorrelationFilter: _Correlation | None = None
    SqlFilter: _SqlExpression | None = None
    Action: _SqlExpression | None = None


class _Rule(_Part):
    Name: str
    Properties: _RuleProperties


class _AuthorizationRule(_Part):
    Name: str
    Key: str = Field(min_length=1)
    Rights: list[Literal["Send", "Listen", "Manage"]] = Field(min_length=1)


class _SubscriptionProperties(_Part):
    DeadLetteringOnMessageExpiration: bool = False
    DefaultMessageTimeToLive: Duration = 3600.0
    LockDuration: Duration = 60.0
    MaxDeliveryCount: Annotated[int, Field(ge=1, le=2000)] = 3
    ForwardDeadLetteredMessagesTo: OptionalText = None
    ForwardTo: OptionalText = None
    RequiresSession: bool = False


class _Subscription(_Part):
    Name: str
    Properties: _SubscriptionProperties = _SubscriptionProperties()
    Rules: list[_Rule] = []


class _QueueProperties(_SubscriptionProperties):
    DuplicateDetectionHistoryTimeWindow: Duration = 20.0
    RequiresDuplicateDetection: bool = False


class _Queue(_Part):
    Name: str
    Properties: _QueueProperties = _QueueProperties()
    AuthorizationRules: list[_AuthorizationRule] = []


class _TopicProperties(_Part):
    DefaultMessageTimeToLive: Duration = 3600.0
    DuplicateDetectionHistoryTimeWindow: Duration = 20.0
    RequiresDuplicateDetection: bool = False


class _Topic(_Part):
    Name: str
    Properties: _TopicProperties = _TopicProperties()
    Subscriptions: list[_Subscription] = []
    AuthorizationRules: list[_AuthorizationRule] = []


class _Namespace(_Part):
    Name: str = "sbemulatorns"
    Queues: list[_Queue] = []
    Topics: list[_Topic] = []
    AuthorizationRules: list[_AuthorizationRule] = []


class _Logging(_Part):
    Type: Literal["File", "Console", "File,Console", "Console,File"] = "Console"


class _UserConfig(_Part):
    Namespaces: list[_Namespace] = Field(min_length=1, max_length=1)
    Logging: _Logging = _Logging()


class _File(_Part):
    UserConfig: _UserConfig


# -- reading ----------------------------------------------------------------------------------------------

# A string, or what is to go: a comment, or a comma with nothing but space and a closing bracket after it.
_LENIENT = re.compile(r'("(?:[^"\\]|\\.)*")|//[^\n]*|/\*.*?\*/', re.DOTALL)
_TRAILING_COMMA = re.compile(r'("(?:[^"\\]|\\.)*")|,(?=\s*[}\]])', re.DOTALL)


def _blank(match: re.Match[str]) -> str:
    # Newlines stay, so that a position in an error message is a position in the file.
    return match.group(1) or re.sub(r"[^\n]", " ", match.group(0))


def load(path: str | Path) -> Config:
    """Read a `Config.json`. Raises `ConfigError`, or `OSError` when the file cannot be read."""
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(
            str(path), [f"byte {error.start}: not UTF-8; save the file in that encoding"]
        ) from None
    return parse(text, source=str(path))


def parse(text: str, *, source: str = "the configuration") -> Config:
    """A `Config.json` from its text, with // comments and trailing commas. Raises `ConfigError`."""
    cleaned = _TRAILING_COMMA.sub(_blank, _LENIENT.sub(_blank, text))
    try:
        raw = json.loads(cleaned)
    except json.JSONDecodeError as error:
        raise ConfigError(
            source, [f"line {error.lineno}, column {error.colno}: not JSON: {error.msg}"]
        ) from None
    try:
        file = _File.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(source, [_mistake(item) for item in error.errors()]) from None
    return _Reader(source).read(file)


def _path(location: tuple[Any, ...]) -> str:
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text or "(top)"


def _mistake(item: Any) -> str:
    message = str(item["msg"]).removeprefix("Value error, ")
    given = item.get("input")
    shown = "" if item["type"] == "missing" or isinstance(given, dict | list) else f" (it is {given!r})"
    return f"{_path(item['loc'])}: {message}{shown if repr(given) not in message else ''}"


class _Reader:
    """Turns the checked file into topology values, collecting what is wrong or remarkable."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.mistakes: list[str] = []
        self.warnings: list[str] = []
        self.names: dict[str, str] = {}

    def read(self, file: _File) -> Config:
        self.warnings.extend(_unknown_keys(file, ""))
        namespace = file.UserConfig.Namespaces[0]
        base = "UserConfig.Namespaces[0]"
        keys = [self.key(rule, None) for rule in namespace.AuthorizationRules]
        queues: list[topology.Queue] = []
        topics: list[topology.Topic] = []
        for index, queue in enumerate(namespace.Queues):
            at = f"{base}.Queues[{index}]"
            self.claim(queue.Name, at)
            self.ranges(queue.Properties, at)
            keys += [self.key(rule, queue.Name) for rule in queue.AuthorizationRules]
            queues += self.build(at, lambda q=queue: _queue(q))
        for index, topic in enumerate(namespace.Topics):
            at = f"{base}.Topics[{index}]"
            self.claim(topic.Name, at)
            keys += [self.key(rule, topic.Name) for rule in topic.AuthorizationRules]
            subscriptions = self.subscriptions(topic, at)
            topics += self.build(at, lambda t=topic, s=subscriptions: _topic(t, s))
        self.targets(namespace, base)
        if self.mistakes:
            raise ConfigError(self.source, self.mistakes)
        return Config(namespace.Name, tuple(queues), tuple(topics), tuple(keys), tuple(self.warnings))

    def subscriptions(self, topic: _Topic, at: str) -> list[topology.Subscription]:
        seen: set[str] = set()
        result: list[topology.Subscription] = []
        for index, subscription in enumerate(topic.Subscriptions):
            here = f"{at}.Subscriptions[{index}]"
            if subscription.Name.lower() in seen:
                self.mistakes.append(f"{here}.Name: {subscription.Name!r} stands there twice")
            seen.add(subscription.Name.lower())
            self.ranges(subscription.Properties, here)
            rules: list[topology.Rule] = []
            for number, rule in enumerate(subscription.Rules):
                rules += self.build(f"{here}.Rules[{number}]", lambda r=rule: _rule(r))
            result += self.build(here, lambda s=subscription, r=rules: _subscription(s, r))
        return result

    def build(self, at: str, make: Any) -> list[Any]:
        try:
            return [make()]
        except ValueError as error:
            self.mistakes.append(f"{at}: {error}")
            return []

    def claim(self, name: str, at: str) -> None:
        other = self.names.setdefault(name.lower(), at)
        if other != at:
            self.mistakes.append(f"{at}.Name: {name!r} is taken by {other}")

    def key(self, rule: _AuthorizationRule, entity: str | None) -> AccessKey:
        return AccessKey(rule.Name, rule.Key, frozenset(Right(right) for right in rule.Rights), entity)

    def ranges(self, properties: _SubscriptionProperties, at: str) -> None:
        """What the official emulator would refuse and this one takes."""
        if not 300 <= properties.DefaultMessageTimeToLive <= 3600:
            self.warn(at, "DefaultMessageTimeToLive", "PT5M to PT1H")
        if properties.MaxDeliveryCount > 10:
            self.warn(at, "MaxDeliveryCount", "1 to 10")

    def warn(self, at: str, name: str, allowed: str) -> None:
        self.warnings.append(f"{at}.Properties.{name}: the official emulator takes {allowed} only")

    def targets(self, namespace: _Namespace, base: str) -> None:
        """Everything that forwards must forward to something that exists."""
        entities: list[tuple[str, _SubscriptionProperties]] = [
            (f"{base}.Queues[{i}]", queue.Properties) for i, queue in enumerate(namespace.Queues)
        ]
        for i, topic in enumerate(namespace.Topics):
            entities += [
                (f"{base}.Topics[{i}].Subscriptions[{j}]", subscription.Properties)
                for j, subscription in enumerate(topic.Subscriptions)
            ]
        for at, properties in entities:
            for field in ("ForwardTo", "ForwardDeadLetteredMessagesTo"):
                target = getattr(properties, field)
                if target and target.lower() not in self.names:
                    self.mistakes.append(
                        f"{at}.Properties.{field}: there is no queue or topic {target!r}"
                        f"{_suggest(target, self.names)}"
                    )


def _unknown_keys(part: BaseModel, at: str) -> Iterator[str]:
    for name in part.model_extra or {}:
        known = type(part).model_fields
        yield f"{at}{'.' if at else ''}{name}: nobody knows this key{_suggest(name, known)}"
    for name in type(part).model_fields:
        value = getattr(part, name)
        here = f"{at}.{name}" if at else name
        if isinstance(value, BaseModel):
            yield from _unknown_keys(value, here)
        elif isinstance(value, list):
            for index, item in enumerate(value):
                if isinstance(item, BaseModel):
                    yield from _unknown_keys(item, f"{here}[{index}]")


def _suggest(name: str, known: Any) -> str:
    close = difflib.get_close_matches(name.lower(), {str(k).lower(): k for k in known}, n=1)
    match = next((str(k) for k in known if close and str(k).lower() == close[0]), None)
    return f"; did you mean {match!r}?" if match is not None else ""


# -- building ---------------------------------------------------------------------------------------------


def _common(properties: _SubscriptionProperties) -> dict[str, Any]:
    return {
        "requires_session": properties.RequiresSession,
        "lock_duration": properties.LockDuration,
        "max_delivery_count": properties.MaxDeliveryCount,
        "default_message_time_to_live": properties.DefaultMessageTimeToLive,
        "dead_lettering_on_message_expiration": properties.DeadLetteringOnMessageExpiration,
        "forward_to": properties.ForwardTo,
        "forward_dead_lettered_messages_to": properties.ForwardDeadLetteredMessagesTo,
    }


def _queue(queue: _Queue) -> topology.Queue:
    properties = queue.Properties
    window = properties.DuplicateDetectionHistoryTimeWindow
    return topology.Queue(
        queue.Name,
        duplicate_detection_window=window if properties.RequiresDuplicateDetection else None,
        **_common(properties),
    )


def _topic(topic: _Topic, subscriptions: list[topology.Subscription]) -> topology.Topic:
    properties = topic.Properties
    window = properties.DuplicateDetectionHistoryTimeWindow
    return topology.Topic(
        topic.Name,
        subscriptions=tuple(subscriptions),
        default_message_time_to_live=properties.DefaultMessageTimeToLive,
        duplicate_detection_window=window if properties.RequiresDuplicateDetection else None,
    )


def _subscription(subscription: _Subscription, rules: list[topology.Rule]) -> topology.Subscription:
    return topology.Subscription(subscription.Name, rules=tuple(rules), **_common(subscription.Properties))


def _rule(rule: _Rule) -> topology.Rule:
    properties = rule.Properties
    action = properties.Action.SqlExpression if properties.Action else None
    made = topology.Rule(rule.Name, _filter(properties), action)
    # Compiled here only to report what does not parse, with the path of the rule.
    try:
        compile_filter(made.filter)
    except ValueError as error:
        raise ValueError(f"SqlFilter.SqlExpression: {error}") from None
    if action is not None:
        try:
            compile_action(action)
        except ValueError as error:
            raise ValueError(f"Action.SqlExpression: {error}") from None
    return made


def _filter(properties: _RuleProperties) -> topology.Filter:
    kind = properties.FilterType
    if kind == "Sql":
        if properties.SqlFilter is None:
            raise ValueError("FilterType is Sql, but there is no SqlFilter with a SqlExpression")
        return topology.SqlFilter(properties.SqlFilter.SqlExpression)
    if kind == "Correlation":
        wanted = properties.CorrelationFilter
        fields = {} if wanted is None else wanted.model_dump(exclude_none=True, exclude={"Properties"})
        custom = dict(wanted.Properties or {}) if wanted is not None else {}
        if not fields and not custom:
            raise ValueError("FilterType is Correlation, but CorrelationFilter names no property")
        assert wanted is not None
        return topology.CorrelationFilter(
            content_type=wanted.ContentType,
            correlation_id=wanted.CorrelationId,
            subject=wanted.Label,
            message_id=wanted.MessageId,
            reply_to=wanted.ReplyTo,
            reply_to_session_id=wanted.ReplyToSessionId,
            session_id=wanted.SessionId,
            to=wanted.To,
            properties=custom,
        )
    return topology.TrueFilter() if kind == "True" else topology.FalseFilter()
