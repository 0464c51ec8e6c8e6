"""Terraform: namespace, queues, topics, subscriptions, rules, and role assignments of each process.

Owns Terraform's syntax and the provider's names for what is in `_text`. Resources and arguments: the azurerm
provider, version 4.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from sbrpc.topology import Queue, Rule, Topic

from ._system import Grant, System
from ._text import ROLES, by_process, filter_of, join, names_of, properties_of, symbols_of

__all__ = ["terraform"]

_HEAD = """\
# Made by `sbrpc export terraform`: make it again rather than edit it.
# Every subscription is born with a rule $Default that lets everything through. Azure or the provider removes
# it when there are other rules; `az servicebus topic subscription rule list` shows whether it is gone.

terraform {
  required_version = ">= 1.5"
  required_providers {
    azurerm = {
      source  = "hashicorp/azurerm"
      version = ">= 4.0"
    }
  }
}

variable "resource_group_name" {
  type = string
}

variable "location" {
  type = string
}

variable "namespace_name" {
  type        = string
  description = "6 to 50 letters, digits and hyphens, unique in Azure."
}

variable "sku" {
  type        = string
  default     = "Standard"
  description = "Basic will not do: it has no sessions and no topics."
  validation {
    condition     = contains(["Standard", "Premium"], var.sku)
    error_message = "The sku is Standard or Premium."
  }
}

variable "messaging_units" {
  type        = number
  default     = 1
  description = "Of the Premium tier: 1, 2, 4, 8 or 16."
}

variable "local_auth_enabled" {
  type        = bool
  default     = false
  description = "Whether keys let anybody in."
}
"""

_NAMESPACE = """\
resource "azurerm_servicebus_namespace" "namespace" {
  name                         = var.namespace_name
  resource_group_name          = var.resource_group_name
  location                     = var.location
  sku                          = var.sku
  capacity                     = var.sku == "Premium" ? var.messaging_units : 0
  premium_messaging_partitions = var.sku == "Premium" ? 1 : 0
  local_auth_enabled           = var.local_auth_enabled
  minimum_tls_version          = "1.2"
}
"""

_OUTPUT = """\
output "fully_qualified_namespace" {
  description = "What the processes get as SERVICEBUS_FULLY_QUALIFIED_NAMESPACE."
  value       = "${azurerm_servicebus_namespace.namespace.name}.servicebus.windows.net"
}
"""

# What Resource Manager calls it, and what the provider does.
_ARGUMENTS = {
    "autoDeleteOnIdle": "auto_delete_on_idle",
    "deadLetteringOnFilterEvaluationExceptions": "dead_lettering_on_filter_evaluation_error",
    "deadLetteringOnMessageExpiration": "dead_lettering_on_message_expiration",
    "defaultMessageTimeToLive": "default_message_ttl",
    "duplicateDetectionHistoryTimeWindow": "duplicate_detection_history_time_window",
    "forwardDeadLetteredMessagesTo": "forward_dead_lettered_messages_to",
    "forwardTo": "forward_to",
    "lockDuration": "lock_duration",
    "maxDeliveryCount": "max_delivery_count",
    "maxMessageSizeInKilobytes": "max_message_size_in_kilobytes",
    "maxSizeInMegabytes": "max_size_in_megabytes",
    "requiresDuplicateDetection": "requires_duplicate_detection",
    "requiresSession": "requires_session",
    "status": "status",
    "contentType": "content_type",
    "correlationId": "correlation_id",
    "label": "label",
    "messageId": "message_id",
    "properties": "properties",
    "replyTo": "reply_to",
    "replyToSessionId": "reply_to_session_id",
    "sessionId": "session_id",
    "to": "to",
}


def terraform(system: System) -> str:
    """A Terraform file that brings a resource group what a system needs."""
    symbols = symbols_of(system)
    granted = by_process(system.grants())
    parts = [_HEAD]
    if granted:
        what = f"Principal ids of the identities that the processes run as: {', '.join(sorted(granted))}."
        parts.append(
            'variable "principal_ids" {\n'
            "  type        = map(string)\n"
            "  default     = {}\n"
            f"  description = {_value(what)}\n"
            "}\n"
        )
    parts.append(_NAMESPACE)
    for name in system.foreign():
        arguments = {"name": name, "namespace_id": _Reference("azurerm_servicebus_namespace.namespace.id")}
        parts.append(
            "# Somebody else's; it has to be there.\n"
            + _block("data", "azurerm_servicebus_queue", symbols[name, None], arguments)
        )
    for entity in system.entities():
        parts += _entity(entity, symbols)
    foreign = set(system.foreign())
    processes = names_of(granted)
    for name, grants in granted.items():
        for grant in grants:
            kind = "data.azurerm_servicebus_queue" if grant.entity in foreign else _kind(grant)
            symbol = symbols[grant.entity, grant.subscription]
            parts.append(_assignment(grant, join(processes[name], symbol, "_"), f"{kind}.{symbol}.id"))
    parts.append(_OUTPUT)
    return "\n".join(parts)


class _Reference(str):
    """An expression, which goes into the file as it is."""


def _entity(entity: Queue | Topic, symbols: Mapping[tuple[str, str | None], str]) -> Iterator[str]:
    symbol = symbols[entity.name, None]
    kind = "azurerm_servicebus_queue" if isinstance(entity, Queue) else "azurerm_servicebus_topic"
    parent = _Reference("azurerm_servicebus_namespace.namespace.id")
    yield _block(
        "resource",
        kind,
        symbol,
        {"name": entity.name, "namespace_id": parent, **_arguments(properties_of(entity))},
    )
    if not isinstance(entity, Topic):
        return
    for each in entity.subscriptions:
        inner = symbols[entity.name, each.name]
        yield _block(
            "resource",
            "azurerm_servicebus_subscription",
            inner,
            {
                "name": each.name,
                "topic_id": _Reference(f"azurerm_servicebus_topic.{symbol}.id"),
                **_arguments(properties_of(each)),
            },
        )
        rules = sorted(each.rules, key=lambda rule: rule.name)
        names = names_of(rule.name for rule in rules)
        for rule in rules:
            yield _rule(rule, join(inner, names[rule.name], "_"), inner)


def _rule(rule: Rule, symbol: str, subscription: str) -> str:
    shape = filter_of(rule)
    arguments: dict[str, Any] = {
        "name": rule.name,
        "subscription_id": _Reference(f"azurerm_servicebus_subscription.{subscription}.id"),
        "filter_type": shape["filterType"],
    }
    if "sqlFilter" in shape:
        arguments["sql_filter"] = shape["sqlFilter"]["sqlExpression"]
    if "action" in shape:
        arguments["action"] = shape["action"]["sqlExpression"]
    inner = _arguments(shape["correlationFilter"]) if "correlationFilter" in shape else None
    kind = "azurerm_servicebus_subscription_rule"
    return _block("resource", kind, symbol, arguments, correlation_filter=inner)


def _kind(grant: Grant) -> str:
    if grant.subscription is not None:
        return "azurerm_servicebus_subscription"
    return "azurerm_servicebus_topic" if grant.topic else "azurerm_servicebus_queue"


def _assignment(grant: Grant, symbol: str, scope: str) -> str:
    process = _value(grant.process)
    # Counted by key and not by value, which may be known only once the identities are made.
    arguments = {
        "count": _Reference(f"contains(keys(var.principal_ids), {process}) ? 1 : 0"),
        "scope": _Reference(scope),
        "role_definition_name": ROLES[grant.right].name,
        "principal_id": _Reference(f"var.principal_ids[{process}]"),
        "principal_type": "ServicePrincipal",
    }
    symbol = join(symbol, grant.right.value.lower(), "_")
    block = _block("resource", "azurerm_role_assignment", symbol, arguments)
    return f"# {grant.process} {grant.reason}.\n{block}"


def _arguments(shape: Mapping[str, Any]) -> dict[str, Any]:
    return {_ARGUMENTS[name]: value for name, value in shape.items()}


def _block(kind: str, type: str, symbol: str, arguments: Mapping[str, Any], **blocks: Any) -> str:
    inner = "".join(
        f"  {name} {{\n{_lines(block, '    ')}  }}\n" for name, block in blocks.items() if block is not None
    )
    return f'{kind} "{type}" "{symbol}" {{\n{_lines(arguments, "  ")}{inner}}}\n'


def _lines(arguments: Mapping[str, Any], indent: str) -> str:
    """Arguments one to a line, with their equals signs in one column, as `terraform fmt` leaves them."""
    plain = [name for name, value in arguments.items() if not isinstance(value, dict)]
    widest = max((len(name) for name in plain), default=0)
    lines = ""
    for name, value in arguments.items():
        if isinstance(value, dict):
            inner = {_value(key): each for key, each in value.items()}
            lines += f"{indent}{name} = {{\n{_lines(inner, indent + '  ')}{indent}}}\n"
        else:
            lines += f"{indent}{name:<{widest}} = {_value(value)}\n"
    return lines


def _value(value: Any) -> str:
    if isinstance(value, _Reference):
        return str(value)
    text = json.dumps(value, ensure_ascii=False)
    return text.replace("${", "$${").replace("%{", "%%{")
