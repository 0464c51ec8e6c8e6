"""A shell script for the Azure CLI: namespace, queues, topics, subscriptions, rules, and role assignments.

Owns the script's words: commands, options, and what makes it safe to run again. Its quoting is that of a
POSIX shell.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from sbrpc.topology import Queue, Rule, Topic

from ._roles import scope_of
from ._system import System
from ._text import ROLES, SUFFIX, by_process, filter_of, names_of, properties_of

__all__ = ["az"]

_HEAD = """\
#!/usr/bin/env bash
# Made by `sbrpc export az`: make it again rather than edit it. Running it again changes nothing.
#   RESOURCE_GROUP=movies NAMESPACE=contoso-movies bash main.sh
set -euo pipefail
: "${RESOURCE_GROUP:?set it to a resource group that exists}"
: "${NAMESPACE:?set it to a name of 6 to 50 letters, digits and hyphens, unique in Azure}"
SKU=${SKU:-Standard} # or Premium; Basic has no sessions and no topics

here=(--resource-group "$RESOURCE_GROUP" --namespace-name "$NAMESPACE")

queue() { az servicebus queue create "${here[@]}" --output none "$@"; }
topic() { az servicebus topic create "${here[@]}" --output none "$@"; }
subscription() { az servicebus topic subscription create "${here[@]}" --output none "$@"; }
rule() { az servicebus topic subscription rule create "${here[@]}" --output none "$@"; }
# Every subscription is born with a rule that lets everything through.
without_default() {
  local where=("${here[@]}" --topic-name "$1" --subscription-name "$2") found
  found=$(az servicebus topic subscription rule list "${where[@]}" \\
    --query "[?name=='\\$Default'].name" --output tsv)
  if [ -n "$found" ]; then
    az servicebus topic subscription rule delete "${where[@]}" --name "\\$Default"
  fi
}
assign() {
  az role assignment create --assignee-object-id "$1" --assignee-principal-type ServicePrincipal \\
    --role "$2" --scope "$namespace$3" --output none
}

az servicebus namespace create --resource-group "$RESOURCE_GROUP" --name "$NAMESPACE" --sku "$SKU" \\
  --minimum-tls-version 1.2 --disable-local-auth true --output none
namespace=$(az servicebus namespace show --resource-group "$RESOURCE_GROUP" --name "$NAMESPACE" \\
  --query id --output tsv)
"""

# What Resource Manager calls it, and what the CLI does.
_OPTIONS = {
    "autoDeleteOnIdle": "--auto-delete-on-idle",
    "deadLetteringOnFilterEvaluationExceptions": "--dead-letter-on-filter-exceptions",
    "deadLetteringOnMessageExpiration": "--enable-dead-lettering-on-message-expiration",
    "defaultMessageTimeToLive": "--default-message-time-to-live",
    "duplicateDetectionHistoryTimeWindow": "--duplicate-detection-history-time-window",
    "forwardDeadLetteredMessagesTo": "--forward-dead-lettered-messages-to",
    "forwardTo": "--forward-to",
    "lockDuration": "--lock-duration",
    "maxDeliveryCount": "--max-delivery-count",
    "maxMessageSizeInKilobytes": "--max-message-size",
    "maxSizeInMegabytes": "--max-size",
    "requiresDuplicateDetection": "--enable-duplicate-detection",
    "requiresSession": "--enable-session",
    "status": "--status",
    "contentType": "--content-type",
    "correlationId": "--correlation-id",
    "label": "--label",
    "messageId": "--message-id",
    "replyTo": "--reply-to",
    "replyToSessionId": "--reply-to-session-id",
    "sessionId": "--session-id",
    "to": "--to",
}


def az(system: System) -> str:
    """A script that brings a resource group what a system needs, with the rights of whoever is signed in."""
    parts = [_HEAD]
    parts += ["\n".join(_entity(entity)) + "\n" for entity in system.entities()]
    granted = by_process(system.grants())
    variables = names_of(granted)
    for process, grants in granted.items():
        variable = f"{variables[process].upper()}_PRINCIPAL_ID"
        lines = [f"# The identity that {process} runs as.", f'if [ -n "${{{variable}:-}}" ]; then']
        for grant in grants:
            role = ROLES[grant.right].name
            lines.append(
                f'  assign "${variable}" {shlex.quote(role)} {shlex.quote(scope_of(grant))} # {grant.reason}'
            )
        parts.append("\n".join([*lines, "fi"]) + "\n")
    parts.append(f'echo "SERVICEBUS_FULLY_QUALIFIED_NAMESPACE=$NAMESPACE.{SUFFIX}"\n')
    return "\n".join(parts)


def _entity(entity: Queue | Topic) -> Iterator[str]:
    kind = "queue" if isinstance(entity, Queue) else "topic"
    yield _command(kind, {"--name": entity.name}, properties_of(entity))
    for each in entity.subscriptions if isinstance(entity, Topic) else ():
        yield _command(
            "subscription", {"--topic-name": entity.name, "--name": each.name}, properties_of(each)
        )
        for rule in sorted(each.rules, key=lambda rule: rule.name):
            yield _rule(rule, {"--topic-name": entity.name, "--subscription-name": each.name})
        if each.rules and all(rule.name != "$Default" for rule in each.rules):
            yield f"without_default {shlex.quote(entity.name)} {shlex.quote(each.name)}"


def _rule(rule: Rule, where: Mapping[str, str]) -> str:
    shape = filter_of(rule)
    options = {**where, "--name": rule.name, "--filter-type": shape["filterType"]}
    if "sqlFilter" in shape:
        options["--filter-sql-expression"] = shape["sqlFilter"]["sqlExpression"]
    if "action" in shape:
        options["--action-sql-expression"] = shape["action"]["sqlExpression"]
    correlation = dict(shape.get("correlationFilter", {}))
    custom = correlation.pop("properties", {})
    command = _command("rule", options, correlation)
    if custom:
        pairs = " ".join(shlex.quote(f"{name}={value}") for name, value in custom.items())
        command += f" --correlation-filter-property {pairs}"
    return command


def _command(name: str, options: Mapping[str, str], shape: Mapping[str, Any]) -> str:
    words = [name]
    for option, value in (*options.items(), *((_OPTIONS[key], value) for key, value in shape.items())):
        words += [option, str(value).lower() if isinstance(value, bool) else str(value)]
    return shlex.join(words)
