"""Values to JSON and back, by type annotation; and what a type looks like to the other side.

A `Codec` is pydantic behind one narrow door: bytes in and out, one kind of error. `fingerprint` and
`difference` compare what two peers believe about a method. Pure; knows no Service Bus and no contract.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import PydanticSchemaGenerationError, TypeAdapter, ValidationError
from pydantic.errors import PydanticInvalidForJsonSchema, PydanticUndefinedAnnotation
from pydantic_core import PydanticSerializationError

from .errors import DecodeError

__all__ = ["Codec", "difference", "fingerprint", "sendable"]

# A reply that lists a thousand wrong fields helps nobody and may not fit into a message.
_MOST_PROBLEMS = 20


def sendable(text: str) -> str:
    """The text as it can be sent, with question marks for the halves of characters, which UTF-8 has not."""
    return text.encode(errors="replace").decode()


class Codec:
    """Turns values of one annotated type into JSON bytes and back."""

    __slots__ = ("_adapter", "_schemas", "annotation")

    def __init__(self, annotation: Any) -> None:
        self.annotation: Any = annotation
        # Its validator and serializer are asked themselves: its own methods take as long as a small model.
        self._adapter: TypeAdapter[Any] = TypeAdapter(annotation)
        self._schemas: dict[str, dict[str, Any] | None] = {}

    def encode(self, value: Any) -> bytes:
        """The value as JSON; raises `DecodeError` where it is not of the type."""
        try:
            adapter = self._adapter
            return adapter.serializer.to_json(adapter.validator.validate_python(value), by_alias=True)
        except ValidationError as error:
            raise _decode_error(error) from None  # the cause would quote the value in every traceback
        except PydanticSerializationError as error:
            raise DecodeError(f"the value cannot be JSON: {error}") from error

    def decode(self, data: bytes) -> Any:
        """The value in the JSON; raises `DecodeError` that names each wrong field."""
        try:
            return self._adapter.validator.validate_json(data)
        except ValidationError as error:
            raise _decode_error(error) from None  # the cause would quote the value in every traceback

    def to_json_value(self, value: Any) -> Any:
        """The value as plain JSON types, to stand inside a larger JSON document."""
        return json.loads(self.encode(value))

    def from_json_value(self, value: Any) -> Any:
        """The reverse of `to_json_value`; raises `DecodeError`."""
        return self.decode(json.dumps(value).encode())

    def schema(self, mode: str = "validation") -> dict[str, Any] | None:
        """The JSON Schema of what is read (`validation`) or written (`serialization`), if there is one."""
        if mode not in self._schemas:
            try:
                reading: Any = mode
                self._schemas[mode] = self._adapter.json_schema(mode=reading)
            except (PydanticInvalidForJsonSchema, PydanticSchemaGenerationError, PydanticUndefinedAnnotation):
                self._schemas[mode] = None
        return self._schemas[mode]


def _decode_error(error: ValidationError) -> DecodeError:
    problems = error.errors(include_url=False, include_context=False, include_input=False)
    details = [
        {"field": ".".join(str(part) for part in problem["loc"]), "problem": problem["msg"]}
        for problem in problems[:_MOST_PROBLEMS]
    ]
    if len(problems) > _MOST_PROBLEMS:
        details.append({"field": "", "problem": f"and {len(problems) - _MOST_PROBLEMS} more"})
    listed = "; ".join(f"{d['field']}: {d['problem']}" if d["field"] else d["problem"] for d in details)
    return DecodeError(listed, details=details)


def fingerprint(kind: str, request: Codec, response: Codec) -> str:
    """Sixteen hex digits that two peers share exactly if they agree on a method's types."""
    seen = {
        "kind": kind,
        "request": _bare(request.schema("validation")),
        "response": _bare(response.schema("serialization")),
    }
    canonical = json.dumps(seen, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def _bare(schema: Any) -> Any:
    """The schema without the words that are for people: they may change freely."""
    if isinstance(schema, Mapping):
        return {
            key: _bare(value)
            for key, value in schema.items()
            if not (key in ("title", "description", "examples") and not isinstance(value, Mapping))
        }
    if isinstance(schema, list):
        return [_bare(item) for item in schema]
    return schema


def difference(ours: Mapping[str, Any] | None, theirs: Mapping[str, Any] | None) -> list[str]:
    """How two JSON Schemas differ, one line per place, in words; empty if they agree or one is unknown."""
    if ours is None or theirs is None:
        return []
    return list(_differences("", _inline(_bare(ours)), _inline(_bare(theirs))))


def _inline(schema: Any, definitions: Mapping[str, Any] | None = None, depth: int = 0) -> Any:
    """The schema with its `$ref`s replaced by what they name; recursion ends after a few levels."""
    if not isinstance(schema, Mapping):
        return [_inline(item, definitions, depth) for item in schema] if isinstance(schema, list) else schema
    definitions = definitions if definitions is not None else schema.get("$defs", {})
    reference = schema.get("$ref")
    if isinstance(reference, str):
        name = reference.rsplit("/", 1)[-1]
        return _inline(definitions.get(name, {}), definitions, depth + 1) if depth < 8 else {"type": name}
    return {key: _inline(value, definitions, depth) for key, value in schema.items() if key != "$defs"}


def _differences(path: str, ours: Any, theirs: Any) -> Iterator[str]:
    where = path or "the value"
    if not isinstance(ours, Mapping) or not isinstance(theirs, Mapping):
        if ours != theirs:
            yield f"{where}: {ours!r} here, {theirs!r} there"
        return
    mine, yours = ours.get("properties", {}), theirs.get("properties", {})
    required_here, required_there = set(ours.get("required", ())), set(theirs.get("required", ()))
    for name in sorted(set(mine) | set(yours)):
        inner = f"{path}.{name}" if path else name
        if name not in yours:
            yield f"{inner}: only here" + (", required" if name in required_here else "")
        elif name not in mine:
            yield f"{inner}: only there" + (", required" if name in required_there else "")
        else:
            if (name in required_here) != (name in required_there):
                yield f"{inner}: required {'here' if name in required_here else 'there'} only"
            yield from _differences(inner, mine[name], yours[name])
    for key in sorted((set(ours) | set(theirs)) - {"properties", "required"}):
        if key == "items":
            yield from _differences(f"{path}[]", ours.get(key, {}), theirs.get(key, {}))
        elif ours.get(key) != theirs.get(key):
            yield f"{where}: {key} is {ours.get(key)!r} here, {theirs.get(key)!r} there"
