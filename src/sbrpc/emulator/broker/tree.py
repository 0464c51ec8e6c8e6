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
    value: int | float | str | bool | None


@dataclass(frozen=True, slots=True)
class UserProperty:
    name: str


@dataclass(frozen=True, slots=True)
class SystemProperty:
    name: str
    """The broker's name, as in `View.system`."""


@dataclass(frozen=True, slots=True)
class Parameter:
    name: str
    """Lower case, without the @."""


@dataclass(frozen=True, slots=True)
class NewId:
    pass


@dataclass(frozen=True, slots=True)
class PropertyCall:
    name: Value


@dataclass(frozen=True, slots=True)
class Unary:
    operator: str
    operand: Value


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """Operators of one precedence in a row, from left to right."""

    first: Value
    rest: tuple[tuple[str, Value], ...]


@dataclass(frozen=True, slots=True)
class Comparison:
    operator: str
    left: Value
    right: Value


@dataclass(frozen=True, slots=True)
class IsNull:
    property: Property
    negated: bool


@dataclass(frozen=True, slots=True)
class In:
    operand: Value
    choices: tuple[Value, ...]
    negated: bool


@dataclass(frozen=True, slots=True)
class Like:
    operand: Value
    pattern: Value
    escape: Value | None
    negated: bool


@dataclass(frozen=True, slots=True)
class Exists:
    property: Property


@dataclass(frozen=True, slots=True)
class Not:
    operand: Predicate


@dataclass(frozen=True, slots=True)
class And:
    terms: tuple[Predicate, ...]


@dataclass(frozen=True, slots=True)
class Or:
    terms: tuple[Predicate, ...]


@dataclass(frozen=True, slots=True)
class Set:
    property: Property
    value: Value


@dataclass(frozen=True, slots=True)
class Remove:
    property: UserProperty


Property = UserProperty | SystemProperty
Value = Constant | UserProperty | SystemProperty | Parameter | NewId | PropertyCall | Unary | Arithmetic
Predicate = Comparison | IsNull | In | Like | Exists | Not | And | Or
Statement = Set | Remove
