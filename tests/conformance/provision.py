"""Creates what the scenarios need in a namespace that `SBRPC_TEST_CONNECTION_STRING` names.

Run as `python -m tests.conformance.provision`, with a key that has the Manage claim;
entities that exist already are left as they are. `--list` names the entities and creates nothing.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from azure.core.exceptions import ResourceExistsError
from azure.servicebus.management import (
    CorrelationRuleFilter,
    FalseRuleFilter,
    ServiceBusAdministrationClient,
    SqlRuleAction,
    SqlRuleFilter,
    TrueRuleFilter,
)

from sbrpc.topology import CorrelationFilter, FalseFilter, Filter, Queue, Rule, SqlFilter, Subscription, Topic

from .scenarios import SCENARIOS, Scenario

__all__ = ["main"]


def _seconds(value: float | None) -> timedelta | None:
    return None if value is None else timedelta(seconds=value)


def _queue(queue: Queue) -> dict[str, Any]:
    return {
        "requires_session": queue.requires_session,
        "lock_duration": _seconds(queue.lock_duration),
        "max_delivery_count": queue.max_delivery_count,
        "default_message_time_to_live": _seconds(queue.default_message_time_to_live),
        "dead_lettering_on_message_expiration": queue.dead_lettering_on_message_expiration,
        "requires_duplicate_detection": queue.duplicate_detection_window is not None,
        "duplicate_detection_history_time_window": _seconds(queue.duplicate_detection_window),
        "forward_to": queue.forward_to,
        "forward_dead_lettered_messages_to": queue.forward_dead_lettered_messages_to,
        "status": queue.status,
    }


def _topic(topic: Topic) -> dict[str, Any]:
    return {
        "default_message_time_to_live": _seconds(topic.default_message_time_to_live),
        "requires_duplicate_detection": topic.duplicate_detection_window is not None,
        "duplicate_detection_history_time_window": _seconds(topic.duplicate_detection_window),
    }


def _subscription(subscription: Subscription) -> dict[str, Any]:
    return {
        "requires_session": subscription.requires_session,
        "dead_lettering_on_message_expiration": subscription.dead_lettering_on_message_expiration,
        "forward_to": subscription.forward_to,
    }


def _filter(given: Filter) -> Any:
    if isinstance(given, SqlFilter):
        return SqlRuleFilter(given.expression)
    if isinstance(given, CorrelationFilter):
        return CorrelationRuleFilter(
            content_type=given.content_type,
            correlation_id=given.correlation_id,
            label=given.subject,
            message_id=given.message_id,
            reply_to=given.reply_to,
            reply_to_session_id=given.reply_to_session_id,
            session_id=given.session_id,
            to=given.to,
            properties=dict(given.properties),
        )
    return FalseRuleFilter() if isinstance(given, FalseFilter) else TrueRuleFilter()


def _rule(rule: Rule) -> dict[str, Any]:
    return {
        "filter": _filter(rule.filter),
        "action": None if rule.action is None else SqlRuleAction(rule.action),
    }


def _once(create: Callable[..., Any], *names: str, **options: Any) -> bool:
    """Create something, and say whether it is new."""
    try:
        create(*names, **{name: value for name, value in options.items() if value is not None})
    except ResourceExistsError:
        return False
    print("created", "/".join(names))
    return True


def _provision(client: ServiceBusAdministrationClient, scenario: Scenario) -> None:
    for queue in scenario.queues:
        _once(client.create_queue, queue.name, **_queue(queue))
    for topic in scenario.topics:
        _once(client.create_topic, topic.name, **_topic(topic))
        for subscription in topic.subscriptions:
            path = (topic.name, subscription.name)
            if _once(client.create_subscription, *path, **_subscription(subscription)) and subscription.rules:
                for rule in subscription.rules:
                    _once(client.create_rule, *path, rule.name, **_rule(rule))
                client.delete_rule(*path, "$Default")


def main() -> None:
    """Create the entities, or list them."""
    scenarios = [each for each in SCENARIOS if not each.clock and each.emulator_only is None]
    if "--list" in sys.argv[1:]:
        for scenario in scenarios:
            for entity in (*scenario.queues, *scenario.topics):
                print(entity)
        return
    connection_string = os.environ.get("SBRPC_TEST_CONNECTION_STRING")
    if not connection_string:
        sys.exit("SBRPC_TEST_CONNECTION_STRING is not set: say which namespace to create the entities in")
    with ServiceBusAdministrationClient.from_connection_string(connection_string) as client:
        for scenario in scenarios:
            _provision(client, scenario)


if __name__ == "__main__":
    main()
