"""A topic: an intake that copies each message to the subscriptions whose rules let it through.

Owns fan-out: which copies a subscription gets, what actions change in them, and what happens to a message
whose filter cannot be evaluated. What filters mean is in `rules`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import count

from sbrpc.emulator.broker import errors
from sbrpc.emulator.broker.exchange import Exchange, Origin, Usage
from sbrpc.emulator.broker.intake import Intake
from sbrpc.emulator.broker.messages import NEVER, Incoming
from sbrpc.emulator.broker.queues import Trio
from sbrpc.emulator.broker.rules import (
    CompiledAction,
    CompiledFilter,
    FilterError,
    SqlError,
    compile_action,
    compile_filter,
)
from sbrpc.topology import Rule, SqlFilter, Subscription, Topic, TrueFilter

__all__ = ["SubscriptionEntity", "TopicEntity"]

DEFAULT_RULE = Rule("$Default", TrueFilter())


class _View:
    """A message as filters and actions see it, while it is in the topic."""

    __slots__ = ("_incoming", "_now", "_sequence_number")

    def __init__(self, incoming: Incoming, sequence_number: int, now: float) -> None:
        self._incoming = incoming
        self._sequence_number = sequence_number
        self._now = now

    def system(self, name: str) -> object:
        own = _OWN.get(name)
        return self._incoming.content.system(name) if own is None else getattr(self, own)

    def user(self) -> Mapping[str, object]:
        return self._incoming.content.user()

    @property
    def sequence_number(self) -> int:
        return self._sequence_number

    @property
    def enqueued_at(self) -> float:
        return self._now

    @property
    def scheduled_at(self) -> float | None:
        return self._incoming.scheduled_at

    @property
    def time_to_live(self) -> float | None:
        return self._incoming.time_to_live

    @property
    def expires_at(self) -> float | None:
        ttl = self._incoming.time_to_live
        return None if ttl is None else self._now + ttl

    @property
    def size(self) -> int:
        return self._incoming.content.size

    @property
    def delivery_count(self) -> int:
        return 0


_OWN = {
    name: name
    for name in (
        "delivery_count",
        "enqueued_at",
        "expires_at",
        "scheduled_at",
        "sequence_number",
        "size",
        "time_to_live",
    )
}


class _CompiledRule:
    """A rule made ready, with the time of its creation."""

    __slots__ = ("action", "created_at", "filter", "rule")

    def __init__(self, rule: Rule, now: float) -> None:
        self.rule = rule
        self.created_at = now
        try:
            values = rule.filter.parameters if isinstance(rule.filter, SqlFilter) else None
            self.filter: CompiledFilter = compile_filter(rule.filter, parameters=values)
            self.action: CompiledAction | None = None
            if rule.action:
                self.action = compile_action(rule.action, parameters=rule.action_parameters)
        except SqlError as error:
            raise errors.argument(f"Rule '{rule.name}': {error}") from error


class SubscriptionEntity:
    """A subscription: rules in front of a store."""

    def __init__(
        self, exchange: Exchange, topic: str, settings: Subscription, usage: Usage, now: float
    ) -> None:
        self.name = settings.name
        self.topic = topic
        self.created_at = self.updated_at = now
        self.timer = NEVER
        self._limits = exchange.limits
        self.rules: dict[str, _CompiledRule] = {}
        for rule in settings.rules or (DEFAULT_RULE,):
            self.add_rule(rule, now)
        self.trio = Trio(exchange, f"{topic}/Subscriptions/{settings.name}", settings, usage, now)
        self.store = self.trio.main

    @property
    def settings(self) -> Subscription:
        """The settings with the rules as they are now."""
        settings = self.trio.settings
        assert isinstance(settings, Subscription)
        return replace(settings, rules=tuple(compiled.rule for compiled in self.rules.values()))

    @property
    def in_use(self) -> bool:
        """Somebody is attached."""
        return self.trio.in_use

    @property
    def last_used(self) -> float:
        """When somebody last did something here."""
        return self.trio.accessed_at

    def follow(self, settings: Subscription, now: float) -> None:
        """Follow new settings; rules are changed by name, one by one."""
        self.trio.follow(settings, now)
        self.updated_at = now

    def add_rule(self, rule: Rule, now: float) -> None:
        """Let more messages through."""
        if rule.name.lower() in self.rules:
            raise errors.already_exists(rule.name)
        self.rules[rule.name.lower()] = _CompiledRule(rule, now)

    def replace_rule(self, rule: Rule, now: float) -> None:
        """Put a rule in the place of one with its name."""
        compiled = _CompiledRule(rule, now)
        compiled.created_at = self.rule(rule.name).created_at
        self.rules[rule.name.lower()] = compiled

    def rule(self, name: str) -> _CompiledRule:
        """A rule by its name."""
        compiled = self.rules.get(name.lower())
        if compiled is None:
            raise errors.not_found(f"{self.trio.address}/Rules/{name}")
        return compiled

    def remove_rule(self, name: str) -> None:
        """Let no messages through on this account any more."""
        del self.rules[self.rule(name).rule.name.lower()]

    def offer(self, incoming: Incoming, view: _View, now: float, origin: Origin) -> None:
        """Store the copies the rules let through: one for all without action, and one for each other."""
        plain = False
        failure: str | None = None
        for compiled in self.rules.values():
            try:
                if not compiled.filter.matches(view):
                    continue
                if compiled.action is None:
                    plain = True
                else:
                    self._place(self._changed(incoming, compiled, view), now, origin)
            except FilterError as error:
                failure = failure or f"Rule '{compiled.rule.name}': {error}"
        if plain:
            self._place(incoming, now, origin)
        if failure is not None and self.settings.dead_lettering_on_filter_evaluation_exceptions:
            self.store.reject(incoming, now, origin, "FilterEvaluationException", failure)

    def _changed(self, incoming: Incoming, compiled: _CompiledRule, view: _View) -> Incoming:
        assert compiled.action is not None
        changes = compiled.action.apply(view)
        system = dict(changes.system)
        ttl = system.pop("time_to_live", incoming.time_to_live)
        content = incoming.content.revised(
            system=system, user={**changes.user, "RuleName": compiled.rule.name}, removed=changes.removed
        )
        session_id = system.get("session_id", incoming.session_id)
        partition_key = system.get("partition_key", incoming.partition_key)
        return Incoming(
            content,
            system.get("message_id", incoming.message_id),
            None if session_id is None else str(session_id),
            ttl if isinstance(ttl, int | float) else None,
            incoming.scheduled_at,
            None if partition_key is None else str(partition_key),
            incoming.header_size + content.size - incoming.content.size,
        )

    def _place(self, incoming: Incoming, now: float, origin: Origin) -> None:
        limit = self._limits.header_size
        if incoming.session_id is None and self.trio.settings.requires_session:
            self.store.reject(
                incoming, now, origin, "Session id is null.", errors.session_id_missing().description
            )
        elif incoming.header_size > limit:
            text = f"The header of the message has {incoming.header_size} bytes, the limit is {limit}."
            self.store.reject(incoming, now, origin, "HeaderSizeExceeded", text)
        else:
            self.store.admit(incoming, now, origin)


class TopicEntity(Intake[Topic]):
    """A topic with its subscriptions, which it keeps by their name in lower case."""

    kind = "Topic"

    def __init__(self, exchange: Exchange, settings: Topic, now: float) -> None:
        super().__init__(exchange, settings, now)
        self.subscriptions: dict[str, SubscriptionEntity] = {}
        self._numbers = count(1)
        self._scheduled: dict[int, _Scheduled] = {}

    @property
    def scheduled(self) -> int:
        """How many messages wait for their time."""
        return len(self._scheduled)

    @property
    def described(self) -> Topic:
        """The settings, with the subscriptions as they are now."""
        return replace(
            self.settings, subscriptions=tuple(entity.settings for entity in self.subscriptions.values())
        )

    @property
    def in_use(self) -> bool:
        """Somebody is attached to a subscription."""
        return any(entity.in_use for entity in self.subscriptions.values())

    @property
    def last_used(self) -> float:
        """When somebody last did something here or in a subscription."""
        return max((self.accessed_at, *(entity.last_used for entity in self.subscriptions.values())))

    def follow(self, settings: Topic, now: float) -> None:
        """Follow new settings; subscriptions are changed by name, one by one."""
        self._follow(settings)
        self.updated_at = now

    def wipe(self) -> None:
        super().wipe()
        self.clear()
        for subscription in self.subscriptions.values():
            subscription.trio.wipe()

    def clear(self) -> None:
        """The topic is deleted."""
        for waiting in list(self._scheduled.values()):
            self._drop(waiting)

    def _enter(self, incoming: Incoming, now: float, origin: Origin | None) -> int:
        number = next(self._numbers)
        self._fan_out(incoming, number, now, origin)
        return number

    def _fan_out(self, incoming: Incoming, number: int, now: float, origin: Origin | None) -> None:
        default = self.settings.default_message_time_to_live
        if default is not None and (incoming.time_to_live is None or incoming.time_to_live > default):
            incoming = replace(incoming, time_to_live=default)
        if origin is None:
            origin = Origin(0, number)
        view = _View(incoming, number, now)
        # A list: forwarding can lead back here, and what happens there must not disturb this round.
        for subscription in list(self.subscriptions.values()):
            self.books.filters += len(subscription.rules)
            subscription.offer(incoming, view, now, origin)

    def _schedule(self, incoming: Incoming, now: float, origin: Origin | None) -> int:
        number = next(self._numbers)
        waiting = self._scheduled[number] = _Scheduled(number, incoming, origin)
        self.usage.size += incoming.content.size
        assert incoming.scheduled_at is not None
        self._exchange.timers.arm(waiting, incoming.scheduled_at, self._due)
        return number

    def _due(self, waiting: _Scheduled, now: float) -> None:
        self._drop(waiting)
        self._fan_out(waiting.incoming, next(self._numbers), now, waiting.origin)

    def _drop(self, waiting: _Scheduled) -> None:
        self._exchange.timers.disarm(waiting)
        del self._scheduled[waiting.sequence_number]
        self.usage.size -= waiting.incoming.content.size

    def cancel(self, sequence_numbers: list[int]) -> None:
        numbers = list(dict.fromkeys(sequence_numbers))
        for number in numbers:
            if number not in self._scheduled:
                raise errors.message_not_found([number])
        for number in numbers:
            self._drop(self._scheduled[number])


class _Scheduled:
    """A message that waits in the topic, before it is copied to anybody."""

    __slots__ = ("incoming", "origin", "sequence_number", "timer")

    def __init__(self, sequence_number: int, incoming: Incoming, origin: Origin | None) -> None:
        self.sequence_number = sequence_number
        self.incoming = incoming
        self.origin = origin
        self.timer = NEVER
