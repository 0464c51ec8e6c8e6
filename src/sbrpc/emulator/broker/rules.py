"""Filters and actions of subscription rules, compiled once and evaluated per message.

Owns what a rule says about one message: whether it matches, and what its action changes. Trees become
closures here, with the operators of `operators`. Knows neither subscriptions nor how a message is stored: it
reads a `View` and returns `Changes`. Randomness, for newid(), is an argument.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any, Protocol
from uuid import UUID, uuid4

from sbrpc import topology
from sbrpc.emulator.broker import sql, tree
from sbrpc.emulator.broker.operators import (
    ARITHMETIC,
    COMPARISONS,
    FilterError,
    converted,
    duration_of,
    like_matcher,
    signed,
    text_of,
)
from sbrpc.emulator.broker.sql import SqlError

__all__ = [
    "Changes",
    "CompiledAction",
    "CompiledFilter",
    "FilterError",
    "SqlError",
    "View",
    "compile_action",
    "compile_filter",
]


class View(Protocol):
    """A message as rules see it."""

    def system(self, name: str) -> object:
        """A system property by the broker's name; `None` when the message has none.

        Times (`enqueued_at`, `expires_at`, `scheduled_at`) and `time_to_live` are seconds.
        """

    def user(self) -> Mapping[str, object]:
        """The application properties. Keys may be bytes in UTF-8, as some clients send them."""


@dataclass(frozen=True, slots=True)
class CompiledFilter:
    """`matches(view)` is true when the condition is true, not when it is false or unknown.

    It raises `FilterError` when the condition cannot be evaluated for this message.
    """

    matches: Callable[[View], bool]


@dataclass(frozen=True, slots=True)
class Changes:
    """What an action does to a message. No name is in both `user` and `removed`.

    Names of user properties are spelt as the message has them, whatever the action wrote.
    """

    system: dict[str, object] = field(default_factory=dict)
    user: dict[str, object] = field(default_factory=dict)
    removed: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class CompiledAction:
    """`apply(view)` returns the changes; the message itself is left alone. Raises `FilterError`."""

    apply: Callable[[View], Changes]


def compile_filter(
    filter: topology.Filter,
    *,
    parameters: Mapping[str, object] | None = None,
    new_id: Callable[[], UUID] = uuid4,
) -> CompiledFilter:
    """A filter made ready.

    `parameters` are the values of @names in SQL, by name with or without the @, in any case.

    Raises:
        SqlError: the SQL is not in the grammar, or names an unknown system property or a parameter that
            has no value.
    """
    if isinstance(filter, topology.TrueFilter):
        return CompiledFilter(lambda view: True)
    if isinstance(filter, topology.FalseFilter):
        return CompiledFilter(lambda view: False)
    if isinstance(filter, topology.CorrelationFilter):
        return CompiledFilter(_correlation(filter))
    if isinstance(filter, topology.SqlFilter):
        values = _parameters(parameters)
        condition = _Compiler(values, new_id).predicate(sql.parse_filter(filter.expression, values))
        return CompiledFilter(lambda view: condition(view) is True)
    raise TypeError(f"{filter!r} is not a filter")


def compile_action(
    text: str, *, parameters: Mapping[str, object] | None = None, new_id: Callable[[], UUID] = uuid4
) -> CompiledAction:
    """A SQL action made ready; `parameters` as in `compile_filter`.

    Raises:
        SqlError: the SQL is not in the grammar, names a system property that is unknown or read-only, or a
            parameter that has no value.
    """
    values = _parameters(parameters)
    compiler = _Compiler(values, new_id)
    steps = [compiler.statement(statement) for statement in sql.parse_action(text, values)]

    def apply(view: View) -> Changes:
        draft = _Draft(view)
        for step in steps:
            step(draft)
        return draft.changes

    return CompiledAction(apply)


def _parameters(given: Mapping[str, object] | None) -> dict[str, object]:
    return {name.removeprefix("@").lower(): value for name, value in (given or {}).items()}


# -- reading a message ---------------------------------------------------------------------------------

_Read = Callable[[View], object]
_Test = Callable[[View], "bool | None"]

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_MISSING = object()


def _text(value: object) -> object:
    # AMQP has message and correlation ids of other types; the language knows them as text.
    return text_of(value) if isinstance(value, UUID | int) and not isinstance(value, bool) else value


def _seconds(value: object) -> object:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return value
    try:
        return timedelta(seconds=value)
    except (OverflowError, ValueError) as exc:
        raise FilterError(f"{value} seconds are out of the range of time") from exc


def _instant(value: object) -> object:
    since = _seconds(value)
    return ARITHMETIC["+"](_EPOCH, since) if isinstance(since, timedelta) else since


def _unchanged(value: object) -> object:
    return value


# The documented types: the Utc properties are DateTime, the time to live is a TimeSpan.
_SYSTEM_TYPES: dict[str, Callable[[object], object]] = {
    "enqueued_at": _instant,
    "expires_at": _instant,
    "scheduled_at": _instant,
    "time_to_live": _seconds,
    "delivery_count": _unchanged,
    "sequence_number": _unchanged,
    "size": _unchanged,
}


def _system_reader(name: str) -> _Read:
    typed = _SYSTEM_TYPES.get(name, _text)
    return lambda view: typed(view.system(name))


def _user_reader(name: str) -> _Read:
    folded = name.lower()

    def read(view: View) -> object:
        properties = view.user()
        value = properties.get(name, _MISSING)
        if value is _MISSING:
            value = _search(properties, folded)
        return None if value is _MISSING else value

    return read


def _search(properties: Mapping[Any, object], folded: str) -> object:
    for key, value in properties.items():
        if _spelling(key).lower() == folded:
            return value
    return _MISSING


def _spelling(key: object) -> str:
    return key.decode("utf-8", "replace") if isinstance(key, bytes) else str(key)


# -- correlation filters -------------------------------------------------------------------------------


def _correlation(filter: topology.CorrelationFilter) -> Callable[[View], bool]:
    wanted = tuple(filter.fields().items())
    properties = tuple((_user_reader(_spelling(key)), value) for key, value in filter.properties.items())
    equal = COMPARISONS["="]

    def matches(view: View) -> bool:
        for name, text in wanted:
            if _text(view.system(name)) != text:
                return False
        for read, value in properties:
            found = read(view)
            # A wanted null is the one thing a comparison in SQL could not express.
            if not (found is None if value is None else equal(found, value)):
                return False
        return True

    return matches


# -- trees to closures ---------------------------------------------------------------------------------


class _Compiler:
    def __init__(self, parameters: Mapping[str, object], new_id: Callable[[], UUID]) -> None:
        self.parameters = parameters
        self.new_id = new_id

    def value(self, node: tree.Value) -> _Read:
        match node:
            case tree.Constant(value):
                return lambda view: value
            case tree.UserProperty(name):
                return _user_reader(name)
            case tree.SystemProperty(name):
                return _system_reader(name)
            case tree.Parameter(name):
                given = self.parameters[name]
                return lambda view: given
            case tree.NewId():
                new_id = self.new_id
                return lambda view: new_id()
            case tree.PropertyCall(name):
                return _property_call(self.value(name))
            case tree.Unary(symbol, operand):
                read = self.value(operand)
                return lambda view: signed(symbol, read(view))
            case tree.Arithmetic(first, rest):
                return _chain(
                    self.value(first),
                    tuple((ARITHMETIC[symbol], self.value(operand)) for symbol, operand in rest),
                )

    def predicate(self, node: tree.Predicate) -> _Test:
        match node:
            case tree.Comparison(symbol, left, right):
                return _comparison(COMPARISONS[symbol], self.value(left), self.value(right))
            case tree.IsNull(name, negated):
                read = self.value(name)
                return lambda view: (read(view) is None) is not negated
            case tree.Exists(name):
                return self.exists(name)
            case tree.In(operand, choices, negated):
                test = _membership(self.value(operand), tuple(map(self.value, choices)))
                return _not(test) if negated else test
            case tree.Like():
                test = self.like(node)
                return _not(test) if node.negated else test
            case tree.Not(operand):
                return _not(self.predicate(operand))
            case tree.And(terms):
                return _joined(tuple(map(self.predicate, terms)), decided_by=False)
            case tree.Or(terms):
                return _joined(tuple(map(self.predicate, terms)), decided_by=True)

    def exists(self, node: tree.Property) -> _Test:
        if isinstance(node, tree.SystemProperty):
            read = _system_reader(node.name)
            return lambda view: read(view) is not None
        name, folded = node.name, node.name.lower()
        return lambda view: name in (user := view.user()) or _search(user, folded) is not _MISSING

    def like(self, node: tree.Like) -> _Test:
        read = self.value(node.operand)
        match node.pattern, node.escape:
            case tree.Constant(str(pattern)), None | tree.Constant():
                escape = node.escape.value if isinstance(node.escape, tree.Constant) else None
                matches = like_matcher(sql.split_pattern(pattern, None if escape is None else str(escape)))

                def test(view: View) -> bool | None:
                    text = read(view)
                    return matches(text) if isinstance(text, str) else None

                return test
            case _:
                escape_of = None if node.escape is None else self.value(node.escape)
                return _computed_like(read, self.value(node.pattern), escape_of)

    def statement(self, node: tree.Statement) -> Callable[[_Draft], None]:
        name = node.property.name
        if isinstance(node, tree.Remove):
            return lambda draft: draft.remove(name)
        read = self.value(node.value)
        if isinstance(node.property, tree.SystemProperty):
            return lambda draft: draft.set_system(name, read(draft))
        return lambda draft: draft.set(name, read(draft))


def _property_call(name_of: _Read) -> _Read:
    def read(view: View) -> object:
        name = name_of(view)
        if name is None:
            return None
        if not isinstance(name, str):
            raise FilterError(f"property() needs the name as text, not {type(name).__name__}")
        # User properties only: the real service does not find system ones here either
        # (MicrosoftDocs/azure-docs issue 87667).
        return _user_reader(name)(view)

    return read


def _chain(first: _Read, rest: tuple[tuple[Callable[[object, object], object], _Read], ...]) -> _Read:
    def read(view: View) -> object:
        value = first(view)
        for compute, operand in rest:
            value = compute(value, operand(view))
        return value

    return read


def _comparison(compare: Callable[[object, object], bool | None], left: _Read, right: _Read) -> _Test:
    return lambda view: compare(left(view), right(view))


def _membership(operand: _Read, choices: tuple[_Read, ...]) -> _Test:
    """As SQL-92 defines IN: its equalities joined by OR."""
    equal = COMPARISONS["="]

    def test(view: View) -> bool | None:
        value = operand(view)
        if value is None:
            return None
        result: bool | None = False
        for choice in choices:
            same = equal(value, choice(view))
            if same:
                return True
            if same is None:
                result = None
        return result

    return test


def _computed_like(text_of_view: _Read, pattern_of: _Read, escape_of: _Read | None) -> _Test:
    def test(view: View) -> bool | None:
        text, pattern = text_of_view(view), pattern_of(view)
        escape = None if escape_of is None else escape_of(view)
        if text is None or pattern is None or (escape is None and escape_of is not None):
            return None
        if not isinstance(pattern, str) or not isinstance(escape, str | None):
            raise FilterError("the pattern and the escape of LIKE must be texts")
        try:
            matches = like_matcher(sql.split_pattern(pattern, escape))
        except ValueError as exc:
            raise FilterError(str(exc)) from exc
        return matches(text) if isinstance(text, str) else None

    return test


def _not(test: _Test) -> _Test:
    def negated(view: View) -> bool | None:
        result = test(view)
        return None if result is None else not result

    return negated


def _joined(tests: tuple[_Test, ...], *, decided_by: bool) -> _Test:
    """AND, which one that is false decides, or OR, which one that is true decides; else unknown wins."""

    def test_until_decided(view: View) -> bool | None:
        result: bool | None = not decided_by
        for test in tests:
            one = test(view)
            if one is decided_by:
                return decided_by
            if one is None:
                result = None
        return result

    return test_until_decided


# -- actions -------------------------------------------------------------------------------------------


class _Draft:
    """The message as the statements so far have left it; a `View` for the next one."""

    def __init__(self, view: View) -> None:
        self.view = view
        self.properties = {_spelling(key): value for key, value in view.user().items()}
        self.original = frozenset(self.properties)
        self.changes = Changes()

    def system(self, name: str) -> object:
        changed = self.changes.system
        return changed[name] if name in changed else self.view.system(name)

    def user(self) -> Mapping[str, object]:
        return self.properties

    def set(self, name: str, value: object) -> None:
        key = self.spelt(name)
        value = converted(value, self.properties.get(key))
        self.properties[key] = value
        self.changes.user[key] = value
        self.changes.removed.discard(key)

    def remove(self, name: str) -> None:
        key = self.spelt(name)
        self.properties.pop(key, None)
        self.changes.user.pop(key, None)
        if key in self.original:
            self.changes.removed.add(key)

    def set_system(self, name: str, value: object) -> None:
        if value is None:
            self.changes.system[name] = None
        elif name == "time_to_live":
            self.changes.system[name] = _time_to_live(value)
        else:
            self.changes.system[name] = text_of(value)

    def spelt(self, name: str) -> str:
        """The message's own spelling of the name, also when an earlier statement removed the property."""
        if name in self.properties or name in self.original:
            return name
        folded = name.lower()
        for key in (*self.properties, *self.original):
            if key.lower() == folded:
                return key
        return name


def _time_to_live(value: object) -> float:
    duration = duration_of(value) if isinstance(value, str) else value
    if not isinstance(duration, timedelta):
        found = repr(value[:40]) if isinstance(value, str) else type(value).__name__
        raise FilterError(f"TimeToLive needs a time span such as '00:05:00', not {found}")
    if duration <= timedelta():
        raise FilterError(f"TimeToLive must be positive, not {duration}")
    return duration.total_seconds()
