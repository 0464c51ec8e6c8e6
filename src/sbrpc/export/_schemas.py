"""The contracts and events of a system, and their types as JSON Schemas that share one set of definitions.

Owns which types travel in a system, and under which names. Knows no format but JSON Schema.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import TypeAdapter

from sbrpc._codec import Codec
from sbrpc.contract import Contract, MethodKind
from sbrpc.event import Event

from ._system import System

__all__ = ["Described", "contracts_of", "described_in", "events_of", "schemas_of"]

Mode = Literal["validation", "serialization"]


@dataclass(frozen=True)
class Described:
    """A type that travels, by name, and whether it is described as it is read or as it is written."""

    name: str
    annotation: Any
    mode: Mode


def contracts_of(system: System) -> list[type[Contract]]:
    """Every contract that is served or called, by name."""
    found = {contract for process in system.processes for contract in process.contracts()}
    return sorted(found, key=lambda contract: (contract.contract_name, contract.__qualname__))


def events_of(system: System) -> dict[str, tuple[type[Event], Mode]]:
    """Every event by type: as it is written where it is published here, otherwise as it is read."""
    found: dict[str, tuple[type[Event], Mode]] = {}
    for process in system.processes:
        for bus in process.buses:
            for subscribed in bus.subscriptions.values():
                for event in (event for handler in subscribed.handlers for event in handler.events):
                    found.setdefault(str(event.__event_type__), (event, "validation"))
    for process in system.processes:
        for event in process.publishes:
            found[str(event.__event_type__)] = (event, "serialization")
    return dict(sorted(found.items()))


def described_in(system: System) -> Iterator[Described]:
    """Everything that travels in a system: requests as they are read, the rest as it is written."""
    for contract in contracts_of(system):
        for spec in contract.contract_methods.values():
            name = f"{spec.contract}.{spec.subject}"
            yield Described(f"{name}.request", spec.request.annotation, "validation")
            if spec.kind is not MethodKind.ONE_WAY:
                yield Described(f"{name}.reply", spec.response.annotation, "serialization")
            for error, declared in sorted(spec.errors.items()):
                if declared.data is not None:
                    yield Described(f"{name}.{error}", declared.data.annotation, "serialization")
    for name, (event, mode) in events_of(system).items():
        yield Described(name, event, mode)


def schemas_of(
    described: Iterable[Described], template: str
) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]]:
    """Each type's schema by name, and the definitions that they refer to as `template` says.

    A type that no schema can describe has one that allows everything.
    """
    schemas: dict[str, dict[str, Any]] = {}
    inputs: list[tuple[str, Mode, TypeAdapter[Any]]] = []
    for each in described:
        if Codec(each.annotation).schema(each.mode) is None:
            schemas[each.name] = {"description": "No JSON Schema describes this type."}
        else:
            inputs.append((each.name, each.mode, TypeAdapter(each.annotation)))
    made, shared = TypeAdapter.json_schemas(inputs, ref_template=template)
    schemas |= {name: schema for (name, _), schema in made.items()}
    return dict(sorted(schemas.items())), dict(sorted(shared.get("$defs", {}).items()))
