"""Two documents, and a verdict on each change between them.

Owns which parts of contracts and events are compared. Which changes of a schema there are is found in
`_schema`, and what they mean stands in `_rules`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ._rules import RULES, Side, Verdict
from ._schema import Change, changes

__all__ = ["Finding", "compare"]


@dataclass(frozen=True)
class Finding:
    """One change, where it is, and what it means."""

    verdict: Verdict
    kind: str
    subject: str
    """The method, error or event: `movies.get_movie`."""
    where: str
    """The part of it: `request.title`."""
    text: str

    def __str__(self) -> str:
        place = f"{self.subject}: {self.where}" if self.where else self.subject
        return f"{place} {self.text}"


def compare(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Finding]:
    """What changed from one document to the other, the worst first; compatible changes too."""
    found = [*_contracts(old["contracts"], new["contracts"]), *_events(old["events"], new["events"])]
    severity = list(Verdict)
    return sorted(set(found), key=lambda each: (severity.index(each.verdict), str(each)))


def _finding(
    kind: str, subject: str, where: str = "", detail: str = "", side: Side = Side.REQUEST
) -> Finding:
    rule = RULES[kind]
    verdict = rule.on(side)
    text = rule.words.format(detail)
    if rule.advice and verdict is not Verdict.COMPATIBLE:
        text += f"; {rule.advice}"
    return Finding(verdict, kind, subject, where, text)


def _schemas(subject: str, what: str, side: Side, old: Any, new: Any) -> Iterator[Finding]:
    for change in changes(old, new):
        yield _finding(change.kind, subject, _place(what, change), change.detail, side)


def _place(what: str, change: Change) -> str:
    joint = "" if not change.where or change.where.startswith("[") else "."
    return f"{what}{joint}{change.where}"


# -- calls ---------------------------------------------------------------------------------------------


def _contracts(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Finding]:
    for name in sorted({*old, *new}):
        if name not in new or name not in old:
            yield _finding("contract-added" if name in new else "contract-removed", name)
            continue
        for method in sorted({*old[name], *new[name]}):
            subject = f"{name}.{method}"
            if method not in new[name] or method not in old[name]:
                yield _finding("method-added" if method in new[name] else "method-removed", subject)
            else:
                yield from _method(subject, old[name][method], new[name][method])


def _method(subject: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Finding]:
    if old["kind"] != new["kind"]:
        yield _finding("kind-changed", subject, detail=f"{new['kind']}, not {old['kind']}")
        return
    if old["idempotent"] != new["idempotent"]:
        yield _finding("idempotent-now" if new["idempotent"] else "no-longer-idempotent", subject)
    if old["cancellable"] != new["cancellable"]:
        yield _finding("cancellable-now" if new["cancellable"] else "no-longer-cancellable", subject)
    if old["keyed"] != new["keyed"]:
        yield _finding(
            "order-changed", subject, detail="ordered by key" if new["keyed"] else "no longer ordered"
        )
    if old["timeout"] != new["timeout"]:
        lower = (new["timeout"] or float("inf")) < (old["timeout"] or float("inf"))
        detail = f"{_seconds(new['timeout'])}, not {_seconds(old['timeout'])}"
        yield _finding("timeout-lowered" if lower else "timeout-raised", subject, detail=detail)
    yield from _schemas(subject, "request", Side.REQUEST, old["request"], new["request"])
    yield from _schemas(subject, "reply", Side.REPLY, old["reply"], new["reply"])
    yield from _errors(subject, old["errors"], new["errors"])


def _errors(subject: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Finding]:
    for name in sorted({*old, *new}):
        where = f"error {name}"
        if name not in old:
            yield _finding("error-added", subject, where, new[name]["code"])
        elif name not in new:
            yield _finding("error-removed", subject, where)
        else:
            before, after = old[name], new[name]
            if before["code"] != after["code"]:
                yield _finding("error-code-changed", subject, where, f"{after['code']}, not {before['code']}")
            yield from _schemas(
                subject, f"{where} data", Side.REPLY, _data(before["data"]), _data(after["data"])
            )


def _data(schema: Any) -> Any:
    return schema if schema is not None else {"type": "null"}


def _seconds(timeout: float | None) -> str:
    return "any time" if timeout is None else f"{timeout:g} s"


# -- events --------------------------------------------------------------------------------------------


def _events(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Finding]:
    for name in sorted({*old, *new}):
        if name not in old:
            yield _finding("event-added", name)
        elif name not in new:
            heirs = sorted(other for other, event in new.items() if name in event["accepts"])
            yield _finding("event-replaced" if heirs else "event-removed", name, detail=", ".join(heirs))
        else:
            yield from _event(name, old[name], new[name])


def _event(name: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Finding]:
    for version in sorted({*old["accepts"]} - {*new["accepts"]}):
        yield _finding("version-dropped", name, detail=version)
    for version in sorted({*new["accepts"]} - {*old["accepts"]}):
        yield _finding("version-accepted", name, detail=version)
    if old["key"] != new["key"]:
        detail = f"by {new['key'] or 'no field'}, not by {old['key'] or 'no field'}"
        yield _finding("key-changed", name, detail=detail)
    yield from _schemas(name, "read", Side.REQUEST, old["read"], new["read"])
    yield from _schemas(name, "written", Side.REPLY, old["written"], new["written"])
