"""How two JSON Schemas differ, change by change. Knows what changed and where; not whether that is bad.

Made for what pydantic writes (draft 2020-12: references, unions, enumerations, bounds, fields, items). A
keyword that it does not know is a change of its own when it differs: nothing is passed over in silence.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Change", "changes"]

Schema = Mapping[str, Any]


@dataclass(frozen=True)
class Change:
    """One change: its kind, a row of the table of rules; where; and what is to be said about it."""

    kind: str
    where: str
    detail: str = ""


def changes(old: Any, new: Any, where: str = "") -> list[Change]:
    """What changed from one schema to the other; nothing, if they mean the same."""
    found = dict.fromkeys(_Comparison(_definitions(old), _definitions(new)).compare(where, old, new))
    return list(found)


def _definitions(schema: Any) -> Schema:
    found = schema.get("$defs", {}) if isinstance(schema, Mapping) else {}
    return found if isinstance(found, Mapping) else {}


# Words for people, and what is looked at by itself.
_WORDS = frozenset({"title", "description", "examples", "deprecated", "readOnly", "writeOnly", "$comment"})
_CHOICES = frozenset({"type", "enum", "const", "default", "anyOf", "oneOf", "allOf", "discriminator"})
_PARTS = frozenset({"properties", "required", "additionalProperties", "items", "prefixItems"})
_HANDLED = frozenset({"$defs", "$ref", "x-name", "multipleOf", "uniqueItems"}) | _CHOICES | _PARTS
_LEAST = frozenset({"minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties"})
_MOST = frozenset({"maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties"})
_FORMS = frozenset({"pattern", "format", "contentEncoding", "contentMediaType"})

_ABSENT: Any = object()


class _Comparison:
    """One comparison, with the definitions of both sides and what it is in the middle of."""

    def __init__(self, old: Schema, new: Schema) -> None:
        self.old = old
        self.new = new
        self.open: set[tuple[str, str | None, str | None]] = set()

    def compare(self, where: str, old: Any, new: Any) -> Iterator[Change]:
        """The changes between two schemas, which may refer to definitions, and these to themselves."""
        inner = self._compare(where, _resolved(old, self.old), _resolved(new, self.new))
        yield from self._once("reference", _reference(old), _reference(new), inner)

    def _once(self, what: str, old: str | None, new: str | None, found: Iterator[Change]) -> Iterator[Change]:
        """What is found, unless these two are being compared already: a type that contains itself."""
        if old is None and new is None:
            yield from found
        elif (what, old, new) not in self.open:
            self.open.add((what, old, new))
            yield from found
            self.open.discard((what, old, new))

    def _compare(self, where: str, old: Schema, new: Schema) -> Iterator[Change]:
        if old.get("default", _ABSENT) != new.get("default", _ABSENT) and "default" in old:
            yield Change("default-changed", where, f"{_text(old['default'])} before, {_default(new)} now")
        before, after = list(self._choices(old, self.old)), list(self._choices(new, self.new))
        if len(before) == len(after) == 1:
            yield from self._plain(where, before[0], after[0])
            return
        pairs, removed, added = _matched(before, after)
        for one, other in pairs:
            yield from self._plain(where, one, other)
        for choice in removed:
            yield Change("choice-removed", where, _kind(choice))
        for choice in added:
            yield Change("choice-added", where, _kind(choice))

    def _choices(self, schema: Schema, definitions: Schema) -> Iterator[Schema]:
        """The schemas of which a value has to fit one, without choices of their own."""
        rest = {
            name: value for name, value in schema.items() if name not in ("anyOf", "oneOf", "discriminator")
        }
        choices = schema.get("anyOf") or schema.get("oneOf")
        if choices:
            for choice in choices:
                resolved = {**_without_words(rest), **_resolved(choice, definitions)}
                yield from self._choices(resolved, definitions)
        elif isinstance(schema.get("type"), list):
            for each in schema["type"]:
                yield from self._choices({**rest, "type": each}, definitions)
        elif "enum" in schema and "type" not in schema:
            kinds: dict[str, list[Any]] = {}
            for value in schema["enum"]:
                kinds.setdefault(_JSON[type(value)], []).append(value)
            for kind, values in kinds.items() or [("null", [])]:
                yield {**schema, "type": kind, "enum": values}
        else:
            yield schema

    # -- one type ----------------------------------------------------------------------------------------

    def _plain(self, where: str, old: Schema, new: Schema) -> Iterator[Change]:
        yield from self._once("type", _named(old), _named(new), self._one_type(where, old, new))

    def _one_type(self, where: str, old: Schema, new: Schema) -> Iterator[Change]:
        before, after = _type(old), _type(new)
        if before != after:
            yield Change(
                _type_change(before, after), where, f"{after or 'anything'}, not {before or 'anything'}"
            )
            if {before, after} != {"integer", "number"}:
                return
        yield from _values(where, old, new)
        yield from _bounds(where, old, new)
        yield from self._fields(where, old, new)
        yield from self._items(where, old, new)
        for name in sorted((set(old) | set(new)) - _HANDLED - _WORDS - _LEAST - _MOST - _FORMS):
            if old.get(name, _ABSENT) != new.get(name, _ABSENT):
                yield Change("otherwise-changed", where, name)

    def _fields(self, where: str, old: Schema, new: Schema) -> Iterator[Change]:
        before, after = old.get("properties", {}), new.get("properties", {})
        needed, needs = set(old.get("required", ())), set(new.get("required", ()))
        for name in sorted(set(before) | set(after) | needed | needs):
            inner = f"{where}.{name}" if where else name
            if name not in before and name in after:
                if old.get("additionalProperties") is False:
                    yield Change("field-added-to-closed", inner)
                if name in needs:
                    yield Change("required-field-added", inner)
                else:
                    yield Change("optional-field-added", inner)
                if old.get("additionalProperties", True) is not False:
                    yield from self._held_before(inner, old, after[name])
            elif name in before and name not in after:
                closed = new.get("additionalProperties") is False
                yield Change("field-removed-from-closed" if closed else "field-removed", inner)
                if name in needs - needed:
                    yield Change("field-became-required", inner)
            else:
                if name in needs - needed:
                    yield Change("field-became-required", inner)
                elif name in needed - needs:
                    yield Change("field-became-optional", inner)
                if name in before:
                    yield from self.compare(inner, before[name], after[name])
        yield from self._others(where, old, new)

    def _held_before(self, where: str, old: Schema, field: Any) -> Iterator[Change]:
        """A dictionary's value of that name had the type of all its values."""
        values = old.get("additionalProperties", True)
        if isinstance(values, Mapping) and values:
            yield from self.compare(where, values, field)

    def _others(self, where: str, old: Schema, new: Schema) -> Iterator[Change]:
        """What fields without a name of their own may be."""
        before, after = old.get("additionalProperties", True), new.get("additionalProperties", True)
        if before == after and not isinstance(before, Mapping):
            return
        if before is False or after is False:
            if before is not after:
                yield Change("fields-opened" if before is False else "fields-closed", where)
            return
        yield from self.compare(
            f"{where}.*" if where else "*", {} if before is True else before, {} if after is True else after
        )

    def _items(self, where: str, old: Schema, new: Schema) -> Iterator[Change]:
        first, second = old.get("prefixItems", []), new.get("prefixItems", [])
        before, after = old.get("items", True), new.get("items", True)
        for number in range(max(len(first), len(second))):
            one = first[number] if number < len(first) else before
            other = second[number] if number < len(second) else after
            yield from self._item(f"{where}[{number}]", one, other)
        if "items" in old or "items" in new:
            yield from self._item(f"{where}[]", before, after)

    def _item(self, where: str, old: Any, new: Any) -> Iterator[Change]:
        if old is False or new is False:
            if old is not new:
                yield Change("choice-added" if old is False else "choice-removed", where, "there")
            return
        yield from self.compare(where, {} if old is True else old, {} if new is True else new)


def _values(where: str, old: Schema, new: Schema) -> Iterator[Change]:
    before, after = _enumerated(old), _enumerated(new)
    if before is None and after is None:
        return
    if before is None or after is None:
        kind = "value-removed" if before is None else "value-added"
        yield Change(kind, where, f"anything but {', '.join(before or after or ())}")
        return
    for value in sorted(set(before) - set(after)):
        yield Change("value-removed", where, value)
    for value in sorted(set(after) - set(before)):
        yield Change("value-added", where, value)


def _bounds(where: str, old: Schema, new: Schema) -> Iterator[Change]:
    for name in sorted((_LEAST | _MOST) & {*old, *new}):
        before, after = old.get(name), new.get(name)
        if before == after:
            continue
        tighter = before is None or (after is not None and (after > before) == (name in _LEAST))
        yield _bound(where, name, before, after, tighter)
    for name in sorted(_FORMS & {*old, *new}):
        before, after = old.get(name), new.get(name)
        if before is None or after is None:
            if before != after:
                yield _bound(where, name, before, after, before is None)
        elif before != after:
            yield Change("form-changed", where, f"{name} {after}, not {before}")
    if bool(old.get("uniqueItems")) != bool(new.get("uniqueItems")):
        yield _bound(
            where, "uniqueItems", old.get("uniqueItems"), new.get("uniqueItems"), bool(new.get("uniqueItems"))
        )
    before, after = old.get("multipleOf"), new.get("multipleOf")
    if before != after:
        if before is None or after is None:
            yield _bound(where, "multipleOf", before, after, before is None)
        elif after % before == 0:
            yield _bound(where, "multipleOf", before, after, True)
        elif before % after == 0:
            yield _bound(where, "multipleOf", before, after, False)
        else:
            yield Change("form-changed", where, f"multipleOf {after}, not {before}")


def _bound(where: str, name: str, old: Any, new: Any, tighter: bool) -> Change:
    said = "any" if new is None else _text(new)
    was = "any" if old is None else _text(old)
    return Change("bound-tightened" if tighter else "bound-loosened", where, f"{name} {said}, not {was}")


# -- reading schemas -----------------------------------------------------------------------------------


def _reference(schema: Any) -> str | None:
    found = schema.get("$ref") if isinstance(schema, Mapping) else None
    return found if isinstance(found, str) else None


def _resolved(schema: Any, definitions: Schema) -> Schema:
    """The schema with what its references and its `allOf` say put into it."""
    if not isinstance(schema, Mapping):
        return {} if schema is not False else {"enum": []}
    found = dict(schema)
    for _ in range(len(definitions) + 1):
        name = found.pop("$ref", None)
        if not isinstance(name, str):
            break
        target = definitions.get(name.rpartition("/")[2].replace("~1", "/").replace("~0", "~"), {})
        found = {**target, "x-name": name.rpartition("/")[2], **found}
    for part in found.pop("allOf", ()):
        found = {**_resolved(part, definitions), **found}
    return found


def _without_words(schema: Schema) -> dict[str, Any]:
    return {
        name: value for name, value in schema.items() if name not in {*_WORDS, "default", "$defs", "x-name"}
    }


def _type(schema: Schema) -> str | None:
    kind = schema.get("type")
    if kind is not None:
        return str(kind)
    values = _enumerated(schema)
    kinds = {_JSON[type(json.loads(value))] for value in values or ()}
    if len(kinds) == 1:
        return kinds.pop()
    if "properties" in schema or "required" in schema:
        return "object"
    return None


_JSON = {
    str: "string",
    int: "integer",
    float: "number",
    bool: "boolean",
    type(None): "null",
    list: "array",
    dict: "object",
}


def _type_change(before: str | None, after: str | None) -> str:
    if before is None or (before, after) == ("number", "integer"):
        return "type-narrowed"
    if after is None or (before, after) == ("integer", "number"):
        return "type-widened"
    return "type-changed"


def _enumerated(schema: Schema) -> list[str] | None:
    if "const" in schema:
        return [_text(schema["const"])]
    return [_text(value) for value in schema["enum"]] if "enum" in schema else None


def _matched(
    before: list[Schema], after: list[Schema]
) -> tuple[list[tuple[Schema, Schema]], list[Schema], list[Schema]]:
    """Choices that are each other's old and new form: by name, then by what marks them, then by type."""
    pairs: list[tuple[Schema, Schema]] = []
    old, new = list(before), list(after)
    for mark in (_text, _named, _marked, _type):
        for choice in list(old):
            alike = [each for each in new if mark(each) == mark(choice) and mark(choice) is not None]
            same = [each for each in old if mark(each) == mark(choice)]
            if alike and (mark is _text or len(alike) == len(same) == 1):
                pairs.append((choice, alike[0]))
                old.remove(choice)
                new.remove(alike[0])
    # Whole numbers are numbers: one that became the other has not become another choice.
    for choice in list(old):
        wider = [each for each in new if {_type(choice), _type(each)} == {"integer", "number"}]
        if wider:
            pairs.append((choice, wider[0]))
            old.remove(choice)
            new.remove(wider[0])
    return pairs, old, new


def _named(schema: Schema) -> str | None:
    name = schema.get("x-name")
    return str(name) if name is not None else None


def _marked(schema: Schema) -> str | None:
    """The constant fields that tell an object of a tagged union from the others."""
    fields = schema.get("properties")
    if not isinstance(fields, Mapping):
        return None
    marks = {
        name: field["const"]
        for name, field in fields.items()
        if isinstance(field, Mapping) and "const" in field
    }
    return _text(marks) if marks else None


def _kind(schema: Schema) -> str:
    values = _enumerated(schema)
    if values is not None:
        return " or ".join(values) or "nothing"
    return _named(schema) or str(schema.get("title") or _type(schema) or "anything")


def _default(schema: Schema) -> str:
    return _text(schema["default"]) if "default" in schema else "nothing"


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
