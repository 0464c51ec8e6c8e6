"""Contracts and events as a document: what the other side depends on, as plain JSON.

Owns the shape of the document and its check. Knows nothing of what may change.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel, ValidationError

from sbrpc._codec import Codec
from sbrpc.contract import Contract, MethodSpec
from sbrpc.errors import ContractError
from sbrpc.event import Event

__all__ = ["FORMAT", "check_document", "document_of"]

FORMAT = "sbrpc-contract/1"


def document_of(things: Iterable[type[Contract] | type[Event]]) -> dict[str, Any]:
    """The document of contracts and events, the same each time.

    Requests are described as the server reads them, replies as it writes them, events as both.
    """
    contracts: dict[str, Any] = {}
    events: dict[str, Any] = {}
    for thing in things:
        if issubclass(thing, Contract):
            methods = (_method(spec) for spec in thing.contract_methods.values())
            contracts.setdefault(thing.contract_name, {}).update(methods)
        else:
            events[str(thing.__event_type__)] = _event(thing)
    return {
        "format": FORMAT,
        "contracts": {name: dict(sorted(methods.items())) for name, methods in sorted(contracts.items())},
        "events": dict(sorted(events.items())),
    }


def _method(spec: MethodSpec) -> tuple[str, dict[str, Any]]:
    errors = {
        name: {
            "code": str(error.kind.default_code.value) if error.kind.default_code else None,
            "data": error.data.schema("serialization") if error.data is not None else None,
        }
        for name, error in sorted(spec.errors.items())
    }
    return spec.subject, {
        "kind": spec.kind.value,
        "idempotent": spec.idempotent,
        "timeout": spec.timeout,
        "cancellable": spec.cancellable,
        "keyed": spec.key is not None,
        "request": _schema(spec.request, "validation"),
        "reply": _schema(spec.response, "serialization"),
        "errors": errors,
    }


def _event(event: type[Event]) -> dict[str, Any]:
    codec = Codec(event)
    return {
        "key": event.__event_key__,
        "accepts": sorted(event.accepted_types()),
        "read": _schema(codec, "validation"),
        "written": _schema(codec, "serialization"),
    }


def _schema(codec: Codec, mode: str) -> dict[str, Any]:
    """The schema, or one that allows everything where none describes the type."""
    return codec.schema(mode) or {}


class _Error(BaseModel):
    code: str | None
    data: dict[str, Any] | None


class _Method(BaseModel):
    kind: str
    idempotent: bool
    timeout: float | None
    cancellable: bool
    keyed: bool
    request: dict[str, Any]
    reply: dict[str, Any]
    errors: dict[str, _Error]


class _EventVersion(BaseModel):
    key: str | None
    accepts: list[str]
    read: dict[str, Any]
    written: dict[str, Any]


class _Document(BaseModel):
    format: str
    contracts: dict[str, dict[str, _Method]]
    events: dict[str, _EventVersion]


def check_document(document: Any, source: str) -> dict[str, Any]:
    """The document, checked; raises `ContractError` for what is none."""
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise ContractError(
            f'{source} is no exported contract: it has no "format": "{FORMAT}"; '
            "make one with `sbrpc contract export`"
        )
    try:
        return _Document.model_validate(document).model_dump()
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise ContractError(f"{source} is a damaged contract: {where}: {first['msg']}") from None
