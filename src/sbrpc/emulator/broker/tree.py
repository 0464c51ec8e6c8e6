"""The tree of rule SQL: values, conditions and statements, as the grammar finds them.

Frozen words between the parser (`sql`) and the evaluation (`rules`); this module knows neither text nor
messages.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = [
    # values
    "Arithmetic",
    "Constant",
    "NewId",
    "Parameter",
    "PropertyCall",
    "SystemProperty",
    "Unary",
    "UserProperty",
    "Property",
    "Value",
    # conditions
    "And",
    "Comparison",
    "Exists",
    "In",
    "IsNull",
    "Like",
    "Not",
    "Or",
    "Predicate",
    # statements
    "Remove",
    "Set",
    "Statement",
]


@dataclass(frozen=True, slots=True)
class Constant:
    """A number, a text, a truth value or null."""

    value: int | float | str | bool | None


@dataclass(frozen=True, slots=True)
class UserProperty:
    """An application property, as the rule spells it."""

    name: str


@dataclass(frozen=True, slots=True)
class SystemProperty:
    """A standard property: `sys.` and a name."""

    name: str
    """The broker's name, as in `View.system`."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """A value that the rule brings along: @name."""

    name: str
    """Lower case, without the @."""


@dataclass(frozen=True, slots=True)
class NewId:
    """newid(): an id that nobody has had before."""


@dataclass(frozen=True, slots=True)
class PropertyCall:
    """property(name): an application property whose name is computed."""

    name: Value


@dataclass(frozen=True, slots=True)
class Unary:
    """A sign in front of a value."""

    operator: str
    operand: Value


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """Operators of one precedence in a row, from left to right."""

    first: Value
    rest: tuple[tuple[str, Value], ...]


@dataclass(frozen=True, slots=True)
class Comparison:
    """One value against another: =, <>, <, <=, >, >=."""

    operator: str
    left: Value
    right: Value


@dataclass(frozen=True, slots=True)
class IsNull:
    """IS NULL, or IS NOT NULL."""

    property: Property
    negated: bool


@dataclass(frozen=True, slots=True)
class In:
    """IN, or NOT IN, a list of values."""

    operand: Value
    choices: tuple[Value, ...]
    negated: bool


@dataclass(frozen=True, slots=True)
class Like:
    """LIKE, or NOT LIKE, a pattern."""

    operand: Value
    pattern: Value
    escape: Value | None
    negated: bool


@dataclass(frozen=True, slots=True)
class Exists:
    """EXISTS(property): whether a message has it, null or not."""

    property: Property


@dataclass(frozen=True, slots=True)
class Not:
    """NOT a condition."""

    operand: Predicate


@dataclass(frozen=True, slots=True)
class And:
    """Conditions joined by AND."""

    terms: tuple[Predicate, ...]


@dataclass(frozen=True, slots=True)
class Or:
    """Conditions joined by OR."""

    terms: tuple[Predicate, ...]


@dataclass(frozen=True, slots=True)
class Set:
    """SET property = value."""

    property: Property
    value: Value


@dataclass(frozen=True, slots=True)
class Remove:
    """REMOVE property."""

    property: UserProperty


Property = UserProperty | SystemProperty
Value = Constant | UserProperty | SystemProperty | Parameter | NewId | PropertyCall | Unary | Arithmetic
Predicate = Comparison | IsNull | In | Like | Exists | Not | And | Or
Statement = Set | Remove
