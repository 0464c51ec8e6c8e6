"""Bicep: namespace, queues, topics, subscriptions, rules, and role assignments of each process.

Owns Bicep's syntax, and in which order things are deployed. What they are is in `_text`. Resource types and
properties: Azure Resource Manager, Microsoft.ServiceBus 2024-01-01 and Microsoft.Authorization 2022-04-01.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from sbrpc.topology import Queue, Rule, Topic

from ._system import Grant, Right, System
from ._text import ROLES, SUFFIX, by_process, filter_of, names_of, properties_of, symbols_of, title

__all__ = ["bicep"]

_BUS = "Microsoft.ServiceBus/namespaces"
_VERSION = "2024-01-01"
_ROLES = {Right.SEND: "dataSender", Right.LISTEN: "dataReceiver"}

_HEAD = """\
// Made by `sbrpc export bicep`: make it again rather than edit it.
//   az deployment group create --resource-group GROUP --template-file FILE --parameters namespaceName=NAME

@description('Name of the Service Bus namespace: 6 to 50 letters, digits and hyphens, unique in Azure.')
@minLength(6)
@maxLength(50)
param namespaceName string

param location string = resourceGroup().location

@description('Basic will not do: it has no sessions and no topics.')
@allowed(['Standard', 'Premium'])
param sku string = 'Standard'

@description('Messaging units of the Premium tier.')
@allowed([1, 2, 4, 8, 16])
param messagingUnits int = 1

@description('Nobody can sign in with a key; true for what runs with managed identities.')
param disableLocalAuth bool = true
"""

_NAMESPACE = f"""\
resource namespace '{_BUS}@{_VERSION}' = {{
  name: namespaceName
  location: location
  sku: sku == 'Premium' ? {{ name: sku, tier: sku, capacity: messagingUnits }} : {{ name: sku, tier: sku }}
  properties: {{
    disableLocalAuth: disableLocalAuth
    minimumTlsVersion: '1.2'
  }}
}}
"""


def bicep(system: System) -> str:
    """A Bicep file that brings a resource group what a system needs. Deploying it again changes nothing."""
    processes = names_of((process.name for process in system.processes), separator="")
    symbols = symbols_of(system, separator="")
    granted = by_process(system.grants())
    parts = [_HEAD]
    for name, symbol in processes.items():
        if name in granted:
            what = f"Principal id of the identity that {name} runs as. Empty: nothing is assigned."
            parts.append(f"@description({_value(what)})\nparam {symbol}PrincipalId string = ''\n")
    parts.append(_NAMESPACE)
    parts += [
        "// Somebody else's; it has to be there.\n"
        f"resource {symbols[name, None]} '{_BUS}/queues@{_VERSION}' existing = {{\n"
        f"  parent: namespace\n  name: {_value(name)}\n}}\n"
        for name in system.foreign()
    ]
    for entity in system.entities():
        parts += _entity(entity, symbols)
    for right, role in ROLES.items() if granted else ():
        parts.append(f"var {_ROLES[right]} = '{role.id}' // {role.name}\n")
    for name, grants in granted.items():
        for grant in grants:
            parts.append(_assignment(grant, processes[name], symbols[grant.entity, grant.subscription]))
    parts.append(
        "@description('What the processes get as SERVICEBUS_FULLY_QUALIFIED_NAMESPACE.')\n"
        f"output fullyQualifiedNamespace string = '${{namespaceName}}.{SUFFIX}'\n"
    )
    return "\n".join(parts)


def _entity(entity: Queue | Topic, symbols: Mapping[tuple[str, str | None], str]) -> Iterator[str]:
    symbol = symbols[entity.name, None]
    if isinstance(entity, Queue):
        yield _resource(symbol, "queues", "namespace", entity.name, properties_of(entity))
        return
    yield _resource(symbol, "topics", "namespace", entity.name, properties_of(entity))
    for each in entity.subscriptions:
        inner = symbols[entity.name, each.name]
        yield _resource(inner, "topics/subscriptions", symbol, each.name, properties_of(each))
        yield from _rules(inner, each.rules)


def _rules(subscription: str, rules: Iterable[Rule]) -> Iterator[str]:
    """The rules of a subscription.

    Every subscription is born with a rule `$Default` that lets everything through, and Bicep deletes nothing.
    So the last of the rules takes its name, after all others, lest one of them have it removed.
    """
    ordered = sorted(rules, key=lambda rule: rule.name)
    names = names_of((rule.name for rule in ordered[:-1]), separator="")
    done: list[str] = []
    for rule in ordered:
        last = rule is ordered[-1]
        symbol = subscription + ("Default" if last else f"Rule{title(names[rule.name])}")
        yield _resource(
            symbol,
            "topics/subscriptions/rules",
            subscription,
            "$Default" if last else rule.name,
            filter_of(rule),
            after=done if last else [],
        )
        done.append(symbol)


def _resource(
    symbol: str, kind: str, parent: str, name: str, properties: dict[str, Any], *, after: Sequence[str] = ()
) -> str:
    depends = "  dependsOn: [\n" + "".join(f"    {each}\n" for each in after) + "  ]\n" if after else ""
    return (
        f"resource {symbol} '{_BUS}/{kind}@{_VERSION}' = {{\n"
        f"  parent: {parent}\n"
        f"  name: {_value(name)}\n"
        f"  properties: {_value(properties, 1)}\n{depends}}}\n"
    )


def _assignment(grant: Grant, process: str, scope: str) -> str:
    role, principal = _ROLES[grant.right], f"{process}PrincipalId"
    return (
        f"// {grant.process} {grant.reason}.\n"
        f"resource {process}{title(scope)}{grant.right.value} "
        f"'Microsoft.Authorization/roleAssignments@2022-04-01' = if (!empty({principal})) {{\n"
        f"  scope: {scope}\n"
        f"  name: guid({scope}.id, {principal}, {role})\n"
        "  properties: {\n"
        f"    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', {role})\n"
        f"    principalId: {principal}\n"
        "    principalType: 'ServicePrincipal'\n"
        "  }\n}\n"
    )


def _value(value: Any, depth: int = 0) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, dict):
        inner = "  " * (depth + 1)
        lines = (f"{inner}{_key(name)}: {_value(each, depth + 1)}\n" for name, each in value.items())
        return "{\n" + "".join(lines) + "  " * depth + "}"
    text = str(value)
    for plain, escaped in (("\\", "\\\\"), ("'", "\\'"), ("${", "\\${"), ("\n", "\\n"), ("\r", "\\r")):
        text = text.replace(plain, escaped)
    return f"'{text}'"


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) else _value(name)
