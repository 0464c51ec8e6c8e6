"""`Config.json` of the official Service Bus emulator, which ours reads as well.

Owns the file's keys and the emulator's limits, and says where a system does not fit into them. Knows neither
emulator's code. Limits: Azure/azure-service-bus-emulator-installer, README and ServiceBus-Emulator/Schema.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from sbrpc.topology import Queue, Rule, SqlFilter, Subscription, Topic

from ._system import System
from ._text import duration, filter_of, title

__all__ = ["emulator_config"]

_MOST_ENTITIES = 50
_MOST_SUBSCRIPTIONS = 50
_MOST_RULES = 1000


def emulator_config(system: System) -> tuple[str, tuple[str, ...]]:
    """A `Config.json` for a system and the queues it sends to, and a line for each thing that it cannot hold.

    A value beyond the emulator's range becomes the nearest one that it takes.
    """
    writer = _Writer()
    entities = [*system.entities(), *(Queue(name) for name in system.foreign())]
    entities.sort(key=lambda entity: entity.name)
    if len(entities) > _MOST_ENTITIES:
        writer.warn("", f"{len(entities)} queues and topics, and it takes {_MOST_ENTITIES}")
    namespace = {
        "Name": "sbemulatorns",
        "Queues": [writer.queue(entity) for entity in entities if isinstance(entity, Queue)],
        "Topics": [writer.topic(entity) for entity in entities if isinstance(entity, Topic)],
    }
    config = {"UserConfig": {"Namespaces": [namespace], "Logging": {"Type": "Console"}}}
    return json.dumps(config, indent=2) + "\n", tuple(writer.warnings)


class _Writer:
    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, where: str, what: str) -> None:
        self.warnings.append(f"the official emulator: {where}{': ' if where else ''}{what}")

    def queue(self, queue: Queue) -> dict[str, Any]:
        where = f"queue {queue.name}"
        properties = self._settings(where, queue, shortest_lock=5)
        properties |= self._duplicates(where, queue.duplicate_detection_window)
        self._absent(where, queue, Queue(queue.name), ("auto_delete_on_idle", "status"))
        return {"Name": queue.name, "Properties": properties}

    def topic(self, topic: Topic) -> dict[str, Any]:
        where = f"topic {topic.name}"
        properties: dict[str, Any] = {}
        if topic.default_message_time_to_live is not None:
            properties["DefaultMessageTimeToLive"] = self._lifetime(where, topic.default_message_time_to_live)
        properties |= self._duplicates(where, topic.duplicate_detection_window)
        self._absent(where, topic, Topic(topic.name), ("auto_delete_on_idle", "status"))
        if not 1 <= len(topic.subscriptions) <= _MOST_SUBSCRIPTIONS:
            self.warn(
                where, f"{len(topic.subscriptions)} subscriptions, and it takes 1 to {_MOST_SUBSCRIPTIONS}"
            )
        if sum(len(each.rules) for each in topic.subscriptions) > _MOST_RULES:
            self.warn(where, f"more than {_MOST_RULES} rules")
        subscriptions = [self._subscription(topic, each) for each in topic.subscriptions]
        return {"Name": topic.name, "Properties": properties, "Subscriptions": subscriptions}

    def _subscription(self, topic: Topic, each: Subscription) -> dict[str, Any]:
        where = f"subscription {topic.name}/{each.name}"
        properties = self._settings(where, each, shortest_lock=60)
        self._absent(where, each, Subscription(each.name), ("auto_delete_on_idle", "status"))
        rules = [self._rule(where, rule) for rule in sorted(each.rules, key=lambda rule: rule.name)]
        return {"Name": each.name, "Properties": properties, **({"Rules": rules} if rules else {})}

    def _settings(self, where: str, each: Queue | Subscription, *, shortest_lock: float) -> dict[str, Any]:
        found: dict[str, Any] = {
            "DeadLetteringOnMessageExpiration": each.dead_lettering_on_message_expiration,
            "LockDuration": self._bounded(where, "lock", each.lock_duration, shortest_lock, 300, duration),
            "MaxDeliveryCount": self._bounded(
                where, "max delivery count", each.max_delivery_count, 1, 10, int
            ),
            "RequiresSession": each.requires_session,
        }
        if each.default_message_time_to_live is not None:
            found["DefaultMessageTimeToLive"] = self._lifetime(where, each.default_message_time_to_live)
        if each.forward_to is not None:
            found["ForwardTo"] = each.forward_to
        if each.forward_dead_lettered_messages_to is not None:
            found["ForwardDeadLetteredMessagesTo"] = each.forward_dead_lettered_messages_to
        return dict(sorted(found.items()))

    def _lifetime(self, where: str, seconds: float) -> Any:
        return self._bounded(where, "default time to live", seconds, 300, 3600, duration)

    def _duplicates(self, where: str, window: float | None) -> dict[str, Any]:
        if window is None:
            return {}
        bounded = self._bounded(where, "duplicate detection window", window, 5, 300, duration)
        return {"DuplicateDetectionHistoryTimeWindow": bounded, "RequiresDuplicateDetection": True}

    def _bounded(
        self, where: str, what: str, value: float, least: float, most: float, shown: Callable[[float], Any]
    ) -> Any:
        nearest = min(max(value, least), most)
        # It takes whole seconds only.
        nearest = float(round(nearest)) if shown is duration else nearest
        if nearest != value:
            self.warn(where, f"a {what} of {shown(value)}, and it takes {shown(least)} to {shown(most)}")
        return shown(nearest)

    def _absent(self, where: str, entity: Any, plain: Any, names: Sequence[str]) -> None:
        for name in names:
            if getattr(entity, name) != getattr(plain, name):
                self.warn(where, f"it knows no {name.replace('_', ' ')}")

    def _rule(self, where: str, rule: Rule) -> dict[str, Any]:
        if isinstance(rule.filter, SqlFilter) and rule.filter.parameters:
            self.warn(where, f"rule {rule.name} has parameters, and it knows none")
        shape = filter_of(rule)
        properties: dict[str, Any]
        if "correlationFilter" in shape:
            correlation = {title(name): value for name, value in shape["correlationFilter"].items()}
            properties = {"FilterType": "Correlation", "CorrelationFilter": correlation}
        else:
            expression = shape["sqlFilter"]["sqlExpression"]
            properties = {"FilterType": "Sql", "SqlFilter": {"SqlExpression": expression}}
        if rule.action is not None:
            properties["Action"] = {"SqlExpression": rule.action}
        # It knows no name with a dollar, and no rule `$Default` beside others.
        return {"Name": rule.name.removeprefix("$"), "Properties": properties}
