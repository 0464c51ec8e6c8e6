"""Changes between schemas: each kind on its own, and all together against a validator."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from sbrpc.compatibility import RULES, Change, Side, Verdict, changes


def fields(*required: str, **properties: Any) -> dict[str, Any]:
    """The schema of an object."""
    return {"type": "object", "properties": properties, "required": list(required)}


INT, TEXT, NULL = {"type": "integer"}, {"type": "string"}, {"type": "null"}
MAP = fields() | {"additionalProperties": INT}
CLOSED = {"additionalProperties": False}
CARD = fields("kind", kind={"const": "card"}, number=TEXT)
CASH = fields("kind", kind={"const": "cash"})


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        (INT, TEXT, ["type-changed"]),
        (INT, {"type": "number"}, ["type-widened"]),
        ({"type": "number"}, INT, ["type-narrowed"]),
        ({}, INT, ["type-narrowed"]),
        (INT, {}, ["type-widened"]),
        (INT, {"anyOf": [INT, NULL]}, ["choice-added"]),
        ({"anyOf": [INT, NULL]}, INT, ["choice-removed"]),
        ({"anyOf": [INT, NULL]}, {"type": ["integer", "null"]}, []),
        ({"anyOf": [INT, NULL]}, {"anyOf": [NULL, {"type": "number"}]}, ["type-widened"]),
        ({"oneOf": [CARD, CASH]}, {"oneOf": [CASH, CARD | {"required": []}]}, ["field-became-optional"]),
        ({"enum": ["a", "b"]}, {"enum": ["b", "c"]}, ["value-removed", "value-added"]),
        ({"const": "a"}, {"enum": ["a", "b"]}, ["value-added"]),
        (TEXT, {"enum": ["a"]}, ["value-removed"]),
        ({"enum": ["a"]}, TEXT, ["value-added"]),
        (TEXT, TEXT | {"maxLength": 3}, ["bound-tightened"]),
        (TEXT | {"maxLength": 3}, TEXT | {"maxLength": 4}, ["bound-loosened"]),
        (INT | {"minimum": 3}, INT | {"minimum": 4}, ["bound-tightened"]),
        (INT | {"minimum": 3}, INT, ["bound-loosened"]),
        (INT | {"multipleOf": 2}, INT | {"multipleOf": 4}, ["bound-tightened"]),
        (INT | {"multipleOf": 4}, INT | {"multipleOf": 2}, ["bound-loosened"]),
        (INT | {"multipleOf": 4}, INT | {"multipleOf": 6}, ["form-changed"]),
        (INT, INT | {"multipleOf": 6}, ["bound-tightened"]),
        (TEXT, TEXT | {"format": "date"}, ["bound-tightened"]),
        (TEXT | {"format": "date"}, TEXT, ["bound-loosened"]),
        (TEXT | {"pattern": "a"}, TEXT | {"pattern": "b"}, ["form-changed"]),
        ({"type": "array", "uniqueItems": True}, {"type": "array"}, ["bound-loosened"]),
        ({"type": "array", "items": INT}, {"type": "array", "items": TEXT}, ["type-changed"]),
        ({"type": "array"}, {"type": "array", "items": TEXT}, ["type-narrowed"]),
        ({"prefixItems": [INT, INT]}, {"prefixItems": [INT, TEXT]}, ["type-changed"]),
        (INT | {"default": 1}, INT | {"default": 2}, ["default-changed"]),
        (INT | {"default": 1}, INT, ["default-changed"]),
        (INT | {"title": "A"}, INT | {"title": "B", "description": "c"}, []),
        (INT, INT | {"x-unit": "m"}, ["otherwise-changed"]),
        (fields(a=INT), fields(a=INT, b=INT), ["optional-field-added"]),
        (fields(a=INT), fields("b", a=INT, b=INT), ["required-field-added"]),
        (fields() | CLOSED, fields(b=INT) | CLOSED, ["field-added-to-closed", "optional-field-added"]),
        (fields(a=INT), fields(), ["field-removed"]),
        (fields(a=INT) | CLOSED, fields() | CLOSED, ["field-removed-from-closed"]),
        (fields(a=INT), fields("a", a=INT), ["field-became-required"]),
        (fields("a", a=INT), fields(a=INT), ["field-became-optional"]),
        (fields(a=INT), fields(a=INT) | CLOSED, ["fields-closed"]),
        (fields(a=INT) | CLOSED, fields(a=INT), ["fields-opened"]),
        (MAP, fields() | {"additionalProperties": TEXT}, ["type-changed"]),
        (MAP, fields(a=TEXT) | {"additionalProperties": INT}, ["optional-field-added", "type-changed"]),
    ],
)  # fmt: skip
def test_each_change_has_its_kind(old: Any, new: Any, found: list[str]) -> None:
    """One row per kind, and what is no change."""
    assert [change.kind for change in changes(old, new)] == found


def test_a_change_says_where_and_what() -> None:
    """The path to it, and both of its sides."""
    old = fields(films={"type": "array", "items": fields(id=INT)})
    new = fields(films={"type": "array", "items": fields(id=TEXT)})
    assert changes(old, new) == [Change("type-changed", "films[].id", "string, not integer")]


def test_definitions_are_followed_and_their_names_do_not_matter() -> None:
    """A reference is what it refers to, so a model may get another name."""
    old = {"$ref": "#/$defs/A", "$defs": {"A": fields(id=INT)}}
    new = {"$ref": "#/$defs/B", "$defs": {"B": fields(id=TEXT)}}
    assert [change.where for change in changes(old, new)] == ["id"]
    assert changes(old, fields(id=INT)) == []
    assert changes({"allOf": [old], "$defs": old["$defs"]}, fields(id=INT)) == []


def recursive(leaf: Any) -> dict[str, Any]:
    """A film that may have a film, and any JSON besides."""
    film = fields(leaf=leaf, sequel={"anyOf": [{"$ref": "#/$defs/Film"}, NULL]}, rest={"$ref": "#/$defs/Any"})
    anything = {"anyOf": [TEXT, {"type": "array", "items": {"$ref": "#/$defs/Any"}}]}
    return {"$ref": "#/$defs/Film", "$defs": {"Film": film, "Any": anything}}


def test_types_that_contain_themselves_end() -> None:
    """And what changed in them is found, once."""
    assert changes(recursive(INT), recursive(INT)) == []
    assert changes(recursive(INT), recursive(TEXT)) == [Change("type-changed", "leaf", "string, not integer")]


NAMES = ("a", "b")
BOUNDS = st.none() | st.integers(0, 3)


def bounded(kind: str, least: str, most: str) -> st.SearchStrategy[dict[str, Any]]:
    """Values of one type within bounds that may be missing."""

    def make(low: int | None, high: int | None) -> dict[str, Any]:
        bounds = {name: bound for name, bound in ((least, low), (most, high)) if bound is not None}
        return {"type": kind, **bounds}

    return st.builds(make, BOUNDS, BOUNDS)


def objects(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Objects with some of two fields."""

    def make(properties: dict[str, Any], required: set[str], closed: bool) -> dict[str, Any]:
        found = fields(*sorted(required & {*properties}), **properties)
        return found | CLOSED if closed else found

    return st.builds(
        make, st.dictionaries(st.sampled_from(NAMES), inner), st.sets(st.sampled_from(NAMES)), st.booleans()
    )


PLAIN = st.one_of(
    st.just({}),
    st.just(NULL),
    st.just({"type": "boolean"}),
    bounded("integer", "minimum", "maximum"),
    bounded("number", "exclusiveMinimum", "exclusiveMaximum"),
    bounded("string", "minLength", "maxLength"),
    st.builds(
        lambda values: {"enum": values}, st.lists(st.sampled_from([1, 2, "x", None]), min_size=1, unique=True)
    ),
)
SCHEMAS = st.recursive(
    PLAIN,
    lambda inner: st.one_of(
        objects(inner),
        st.builds(lambda items: {"type": "array", "items": items}, inner),
        st.builds(lambda choices: {"anyOf": choices}, st.lists(inner, min_size=1, max_size=3)),
    ),
    max_leaves=4,
)
LEAVES = [None, True, 0, 1, 2, 3, 4, 0.5, 2.5, "", "x", "xx", "xxx", "xxxx"]
VALUES = st.recursive(
    st.sampled_from(LEAVES),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(NAMES), inner),
    max_leaves=4,
)


def closed(schema: Any) -> Any:
    """The schema without fields that have no name in it.

    That nobody sends fields which are not in the contract is what makes a new optional field compatible.
    """
    if isinstance(schema, list):
        return [closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    found = {name: closed(each) for name, each in schema.items()}
    return found | CLOSED if schema.get("type") == "object" else found


def worst(found: list[Change], side: Side) -> Verdict:
    """The worst verdict on some changes."""
    verdicts = {RULES[change.kind].on(side) for change in found}
    return next(
        verdict for verdict in [*Verdict, Verdict.COMPATIBLE] if verdict in {*verdicts, Verdict.COMPATIBLE}
    )


@given(SCHEMAS)
def test_a_schema_does_not_differ_from_itself(schema: Any) -> None:
    """Whatever it is."""
    assert changes(schema, schema) == []


@given(objects(SCHEMAS), SCHEMAS)
def test_an_optional_field_never_breaks_a_request(old: dict[str, Any], field: Any) -> None:
    """Of whatever type it is."""
    new = old | {"properties": {**old["properties"], "new": field}}
    assert worst(changes(old, new), Side.REQUEST) is not Verdict.BREAKING


@given(objects(SCHEMAS), st.sampled_from(NAMES))
def test_a_field_less_always_breaks_a_reply(old: dict[str, Any], name: str) -> None:
    """Somebody may read it."""
    old = old | {"properties": {name: INT, **old["properties"]}}
    new = old | {
        "properties": {other: each for other, each in old["properties"].items() if other != name},
        "required": [other for other in old["required"] if other != name],
    }
    assert worst(changes(old, new), Side.REPLY) is Verdict.BREAKING


def edited(draw: st.DrawFn, schema: dict[str, Any]) -> dict[str, Any]:
    """The schema with something changed somewhere in it."""
    if not {"properties", "items", "anyOf"} & {*schema} or draw(st.integers(0, 5)) == 0:
        return draw(PLAIN) if draw(st.booleans()) else draw(SCHEMAS)
    if "items" in schema:
        return schema | {"items": edited(draw, schema["items"])}
    if "anyOf" in schema:
        choices = list(schema["anyOf"])
        which = draw(st.integers(0, len(choices)))
        choices[which : which + 1] = [edited(draw, choices[which]) if which < len(choices) else draw(SCHEMAS)]
        return schema | {"anyOf": draw(st.permutations(choices))}
    properties = dict(schema["properties"])
    name = draw(st.sampled_from(NAMES))
    if name in properties and draw(st.booleans()):
        properties[name] = edited(draw, properties[name])
    elif name in properties:
        del properties[name]
    else:
        properties[name] = draw(SCHEMAS)
    required = draw(st.sets(st.sampled_from(NAMES))) if draw(st.booleans()) else {*schema["required"]}
    found = fields(*sorted(required & {*properties}), **properties)
    return found | CLOSED if draw(st.booleans()) else found


@st.composite
def versions(draw: st.DrawFn) -> tuple[dict[str, Any], dict[str, Any]]:
    """Two schemas of which one came from the other, either way round."""
    old = draw(SCHEMAS)
    new = edited(draw, old)
    return (old, new) if draw(st.booleans()) else (new, old)


@settings(max_examples=300)
@given(versions(), st.lists(VALUES, min_size=5, max_size=20))
def test_what_is_not_noticed_breaks_nobody(both: tuple[Any, Any], values: list[Any]) -> None:
    """A value that one side may write and the other refuses means that something was found.

    For requests the old side writes, for replies the new one; a validator is the judge.
    """
    old, new = both
    found = changes(old, new)
    sent, replied = Draft202012Validator(closed(old)), Draft202012Validator(closed(new))
    before, after = Draft202012Validator(old), Draft202012Validator(new)
    for value in values:
        if sent.is_valid(value) and not after.is_valid(value):
            assert worst(found, Side.REQUEST) is Verdict.BREAKING, (value, found)
        if replied.is_valid(value) and not before.is_valid(value):
            assert worst(found, Side.REPLY) is not Verdict.COMPATIBLE, (value, found)
