"""Contracts and events against what they were: what is found, and what it means."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, create_model

from sbrpc import Contract, Event, method
from sbrpc.compatibility import RULES, Finding, Side, Verdict, check_document, compare, document_of
from sbrpc.errors import Aborted, ContractError, NotFound


class Ref(BaseModel):
    id: int


class Film(BaseModel):
    title: str


class Missing(NotFound):
    data: int


class Movies(Contract, name="movies"):
    @method(timeout=5, idempotent=True, errors=[Missing])
    async def get(self, request: Ref) -> Film: ...


class Created(Event, type="created.v1", key="id"):
    id: int


class Changed(Event, type="changed.v2"):
    id: int


@Changed.upcast_from("changed.v1")
def from_v1(old: dict[str, Any]) -> dict[str, Any]:
    return old


DOCUMENT = document_of([Movies, Created, Changed])
GET = ("contracts", "movies", "get")


def after(*path: str, **values: Any) -> dict[str, Any]:
    """The document with something else at a place in it."""
    new = deepcopy(DOCUMENT)
    place: Any = new
    for part in path:
        place = place[part]
    place.update(values)
    return new


def without(*path: str) -> dict[str, Any]:
    """The document without something."""
    new = deepcopy(DOCUMENT)
    place: Any = new
    for part in path[:-1]:
        place = place[part]
    del place[path[-1]]
    return new


def lines(found: list[Finding]) -> list[str]:
    return [f"{each.verdict.value}: {each}" for each in found]


def test_a_document_is_json_and_means_the_same_again() -> None:
    """Written and read again, it does not differ."""
    again = check_document(json.loads(json.dumps(DOCUMENT)), "it")
    assert compare(DOCUMENT, again) == []


@pytest.mark.parametrize(
    ("kind", "new", "line"),
    [
        ("contract-removed", without("contracts", "movies"), "breaking: movies is gone"),
        ("contract-added", after("contracts", other={}), "compatible: other is new"),
        ("method-removed", without(*GET), "breaking: movies.get is gone; keep it until nobody calls it"),
        ("method-added", after("contracts", "movies", new=DOCUMENT["contracts"]["movies"]["get"]),
            "compatible: movies.new is new"),
        ("kind-changed", after(*GET, kind="stream"),
            "breaking: movies.get is stream, not unary; add a method of another name"),
        ("no-longer-idempotent", after(*GET, idempotent=False),
            "risky: movies.get is no longer idempotent, and old callers go on repeating it"),
        ("cancellable-now", after(*GET, cancellable=True), "compatible: movies.get is cancellable now"),
        ("order-changed", after(*GET, keyed=True),
            f"risky: movies.get is ordered by key; {RULES['order-changed'].advice}"),
        ("timeout-lowered", after(*GET, timeout=2.5), "risky: movies.get may take 2.5 s, not 5 s"),
        ("timeout-raised", after(*GET, timeout=None), "compatible: movies.get may take any time, not 5 s"),
        ("error-removed", after(*GET, errors={}), "compatible: movies.get: error Missing is gone"),
        ("error-added", after(*GET, "errors", Busy={"code": "UNAVAILABLE", "data": None}),
            "risky: movies.get: error Busy is new; old callers see only its code, UNAVAILABLE"),
        ("error-code-changed", after(*GET, "errors", "Missing", code="ABORTED"),
            "breaking: movies.get: error Missing has the code ABORTED, not NOT_FOUND"),
        ("type-changed", after(*GET, "errors", "Missing", data=None),
            "breaking: movies.get: error Missing data is null, not integer"),
        ("event-removed", without("events", "created.v1"),
            "breaking: created.v1 is gone; publish the new version beside it for a while"),
        ("event-added", after("events", new=DOCUMENT["events"]["created.v1"]), "compatible: new is new"),
        ("version-dropped", after("events", "changed.v2", accepts=["changed.v2"]),
            "breaking: changed.v2 is no longer made from changed.v1, of which some may be on their way"),
        ("version-accepted", after("events", "created.v1", accepts=["created.v0", "created.v1"]),
            "compatible: created.v1 is made from created.v0 too"),
        ("key-changed", after("events", "created.v1", key=None),
            "risky: created.v1 keeps order by no field, not by id"),
    ],
)  # fmt: skip
def test_each_change_around_the_types(kind: str, new: dict[str, Any], line: str) -> None:
    """What happens to methods, errors and events, in the words that people read."""
    (found,) = compare(DOCUMENT, new)
    assert (found.kind, lines([found])) == (kind, [line])


def test_an_event_may_be_replaced_by_its_next_version() -> None:
    """Where the new one is made from the old one, handlers know what to do with both."""
    new = without("events", "created.v1")
    new["events"]["created.v2"] = DOCUMENT["events"]["created.v1"] | {"accepts": ["created.v1", "created.v2"]}
    found = {each.kind: each for each in compare(DOCUMENT, new)}
    assert found.keys() == {"event-replaced", "event-added"}
    assert "created.v2 is made from it" in str(found["event-replaced"])


def test_requests_and_replies_are_judged_the_other_way_round() -> None:
    """A new required field breaks a request and not a reply; a value less breaks nobody who gets it."""

    class NewFilm(BaseModel):
        title: str
        year: int

    class NewRef(BaseModel):
        id: int
        year: int

    class New(Contract, name="movies"):
        @method(timeout=5, idempotent=True, errors=[Missing])
        async def get(self, request: NewRef) -> NewFilm: ...

    found = compare(document_of([Movies]), document_of([New]))
    assert lines(found) == [
        "breaking: movies.get: request.year is new and required; give it a default",
        "compatible: movies.get: reply.year is new and required",
    ]


def test_events_are_judged_both_ways() -> None:
    """Old ones are on their way to new handlers, and new ones to old handlers."""

    class More(Event, type="created.v1", key="id"):
        id: int
        year: int

    class Less(Event, type="created.v1"):
        pass

    more = compare(document_of([Created]), document_of([More]))
    assert [(each.verdict, each.where) for each in more] == [
        (Verdict.BREAKING, "read.year"),
        (Verdict.COMPATIBLE, "written.year"),
    ]
    less = compare(document_of([Created]), document_of([Less]))
    assert Verdict.BREAKING in {each.verdict for each in less if each.where == "written.id"}


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        ([], "is no exported contract"),
        ({"format": "other"}, "is no exported contract"),
        ({"format": DOCUMENT["format"], "events": {}}, "contracts: Field required"),
        (after(*GET, kind=1), "contracts.movies.get.kind"),
    ],
)
def test_what_is_no_document_is_said(document: Any, problem: str) -> None:
    """With the place where it stops being one."""
    with pytest.raises(ContractError, match=problem):
        check_document(document, "old.json")


def test_rules_have_a_row_for_all_that_is_found() -> None:
    """And each row a verdict for both sides, which is not the same as saying nothing."""
    for kind, rule in RULES.items():
        assert isinstance(rule.on(Side.REQUEST), Verdict), kind
        assert rule.words.format("x"), kind


TYPES: dict[str, Callable[[], Any]] = {
    "int": lambda: (int, ...),
    "text": lambda: (str, ...),
    "optional": lambda: (str | None, None),
    "list": lambda: (list[int], ...),
    "dict": lambda: (dict[str, float], {}),
    "model": lambda: (Film, ...),
}
MODELS = st.dictionaries(
    st.from_regex(r"f[a-z]{1,5}", fullmatch=True), st.sampled_from(sorted(TYPES)), min_size=1, max_size=5
)


def contract_of(request: dict[str, str], reply: dict[str, str], **more: Any) -> dict[str, Any]:
    """The document of a contract whose types have these fields."""
    fields = {name: TYPES[kind]() for name, kind in request.items()}
    Taken = create_model("Taken", **fields, **more)
    Given = create_model("Given", **{name: TYPES[kind]() for name, kind in reply.items()})

    class Any_(Contract, name="any"):
        @method(errors=[Aborted])
        async def do(self, request: Taken) -> Given: ...  # type: ignore[valid-type]

    return document_of([Any_])


@given(MODELS, MODELS)
def test_a_contract_does_not_differ_from_itself(request: dict[str, str], reply: dict[str, str]) -> None:
    """Made twice from the same fields."""
    assert compare(contract_of(request, reply), contract_of(request, reply)) == []


@given(MODELS, MODELS, st.sampled_from(["optional", "dict"]))
def test_an_optional_field_more_in_a_request_is_compatible(
    request: dict[str, str], reply: dict[str, str], kind: str
) -> None:
    """Whatever else is there."""
    new = contract_of(request, reply, added=TYPES[kind]())
    assert {each.verdict for each in compare(contract_of(request, reply), new)} == {Verdict.COMPATIBLE}


@given(MODELS, MODELS)
def test_a_field_less_in_a_reply_is_breaking(request: dict[str, str], reply: dict[str, str]) -> None:
    """Whatever else is there."""
    old = contract_of(request, reply | {"gone": "int"})
    found = compare(old, contract_of(request, reply))
    assert (found[0].verdict, found[0].where) == (Verdict.BREAKING, "reply.gone")


PAGE = Path(__file__).parents[3] / "docs" / "compatibility.md"
BEGIN, END = "<!-- begin: the table of sbrpc.compatibility -->\n", "<!-- end -->"


def test_the_documentation_has_the_table() -> None:
    """As it is; `SBRPC_WRITE_DOCS=1` writes it anew."""
    rows = ["", "| change | in a request | in a reply | in words |", "|---|---|---|---|"]
    for kind, rule in RULES.items():
        words = rule.words.format("…") + (f"; {rule.advice}" if rule.advice else "")
        rows.append(f"| `{kind}` | {rule.request.value} | {rule.reply.value} | {words} |")
    table = "\n".join([*rows, "", ""])
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    written, _, after = rest.partition(END)
    if os.environ.get("SBRPC_WRITE_DOCS"):
        PAGE.write_text(before + BEGIN + table + END + after, encoding="utf-8")
        written = table
    assert written == table
