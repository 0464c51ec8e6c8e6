"""What the operators of rule SQL do with values: comparison, arithmetic, LIKE, conversion.

Owns the semantics of values and nothing else; knows no tree and no message. `None` is both null and
"unknown": any operator gives `None` for it, as in SQL-92. The rest is the documented "C# implicit
conversion semantics":

    kinds       text, number (int64, double), boolean, instant, duration, uuid, bytes
    comparison  inside a kind; an int64 meets a double as double. Between kinds, and ordering a kind that has
                no order, is unknown: a string "10" neither equals nor differs from the number 10, so a filter
                on it lets nothing through
    +           joins texts as soon as one side is a text; adds numbers; adds durations to instants
    - * / %     of numbers; integer division truncates and % has the sign of the dividend; - of instants and
                durations. Any other combination, integer division by zero and overflow are a `FilterError`
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

__all__ = [
    "ARITHMETIC",
    "COMPARISONS",
    "FilterError",
    "converted",
    "duration_of",
    "like_matcher",
    "signed",
    "text_of",
]


class FilterError(Exception):
    """A filter or an action cannot be evaluated for a message; the text says why."""


_INT64_LEAST, _INT64_MOST = -(2**63), 2**63 - 1
_SECONDS_PER = {"days": 86400, "hours": 3600, "minutes": 60, "seconds": 1}
_TIME_SPAN = re.compile(
    r"(?P<sign>-?)(?:(?P<days>[0-9]{1,8})\.)?(?P<hours>[0-9]{1,2}):(?P<minutes>[0-9]{1,2})"
    r"(?::(?P<seconds>[0-9]{1,2}(?:\.[0-9]{1,7})?))?"
)


def _kind(value: object) -> str:
    if isinstance(value, str):
        return "text"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float | Decimal):
        return "number"
    for kind, types in _OTHER_KINDS.items():
        if isinstance(value, types):
            return kind
    return f"{type(value).__name__}?"


_OTHER_KINDS: dict[str, type | tuple[type, ...]] = {
    "instant": datetime,
    "duration": timedelta,
    "uuid": UUID,
    "bytes": (bytes, bytearray),
}
_ORDERED = frozenset({"text", "number", "instant", "duration"})


def _double(value: Any) -> float:
    try:
        return float(value)
    except (OverflowError, ValueError) as exc:
        raise FilterError(f"a number does not fit a double: {exc}") from exc


def _numbers(left: Any, right: Any) -> tuple[Any, Any]:
    if isinstance(left, int) and isinstance(right, int):
        return left, right
    return _double(left), _double(right)


def _utc(value: Any) -> datetime:
    # A naive instant is UTC, as everything in Service Bus is.
    instant: datetime = value
    return instant if instant.tzinfo is not None else instant.replace(tzinfo=timezone.utc)


# -- comparison ----------------------------------------------------------------------------------------

_PLAIN = frozenset({str, int, float})


def _comparison(
    compare: Callable[[Any, Any], bool], ordering: bool
) -> Callable[[object, object], bool | None]:
    def compared(left: Any, right: Any) -> bool | None:
        if left is None or right is None:
            return None
        if type(left) is type(right) and type(left) in _PLAIN:
            return compare(left, right)
        kind = _kind(left)
        if kind != _kind(right) or kind.endswith("?") or (ordering and kind not in _ORDERED):
            return None
        if kind == "number":
            left, right = _numbers(left, right)
        elif kind == "instant":
            left, right = _utc(left), _utc(right)
        return compare(left, right)

    return compared


COMPARISONS: dict[str, Callable[[object, object], bool | None]] = {
    "=": _comparison(operator.eq, False),
    "<>": _comparison(operator.ne, False),
    "<": _comparison(operator.lt, True),
    "<=": _comparison(operator.le, True),
    ">": _comparison(operator.gt, True),
    ">=": _comparison(operator.ge, True),
}


# -- arithmetic ----------------------------------------------------------------------------------------


def _int64(value: int) -> int:
    if not _INT64_LEAST <= value <= _INT64_MOST:
        raise FilterError("the result does not fit a 64-bit integer")
    return value


def _divide_integers(left: int, right: int) -> int:
    if right == 0:
        raise FilterError("division of an integer by zero")
    quotient = abs(left) // abs(right)
    return quotient if (left < 0) == (right < 0) else -quotient


def _divide_doubles(left: float, right: float) -> float:
    if right != 0:
        return left / right
    if left == 0 or math.isnan(left):
        return math.nan
    return math.copysign(math.inf, left) * math.copysign(1.0, right)


def _remainder_of_doubles(left: float, right: float) -> float:
    if right == 0 or math.isinf(left):
        return math.nan
    return math.fmod(left, right)


_INTEGERS: dict[str, Callable[[int, int], int]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": _divide_integers,
    "%": lambda left, right: left - right * _divide_integers(left, right),
}
_DOUBLES: dict[str, Callable[[float, float], float]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": _divide_doubles,
    "%": _remainder_of_doubles,
}
_TIMES = {
    ("instant", "-", "instant"),
    ("instant", "-", "duration"),
    ("instant", "+", "duration"),
    ("duration", "+", "instant"),
    ("duration", "+", "duration"),
    ("duration", "-", "duration"),
}


def _arithmetic(symbol: str) -> Callable[[object, object], object]:
    integers, doubles = _INTEGERS[symbol], _DOUBLES[symbol]

    def computed(left: Any, right: Any) -> object:
        if left is None or right is None:
            return None
        kinds = _kind(left), _kind(right)
        if kinds == ("number", "number"):
            left, right = _numbers(left, right)
            if isinstance(left, int):
                return _int64(integers(left, right))
            return doubles(left, right)
        if symbol == "+" and "text" in kinds:
            return text_of(left) + text_of(right)
        if (kinds[0], symbol, kinds[1]) in _TIMES:
            left, right = (_utc(side) if isinstance(side, datetime) else side for side in (left, right))
            try:
                total: object = left + right if symbol == "+" else left - right
            except OverflowError as exc:
                raise FilterError("the result is out of the range of time") from exc
            return total
        raise FilterError(f"the operator {symbol} is not defined for {kinds[0]} and {kinds[1]}")

    return computed


ARITHMETIC = {symbol: _arithmetic(symbol) for symbol in _INTEGERS}


def signed(symbol: str, value: Any) -> object:
    """The unary operators."""
    if value is None:
        return None
    kind = _kind(value)
    if kind == "duration":
        return ARITHMETIC[symbol](timedelta(), value)
    if kind != "number":
        raise FilterError(f"the sign {symbol} is not defined for {kind}")
    if isinstance(value, int):
        return _int64(-value if symbol == "-" else +value)
    return -_double(value) if symbol == "-" else _double(value)


# -- LIKE ----------------------------------------------------------------------------------------------


def like_matcher(pieces: Sequence[Sequence[str | None]]) -> Callable[[str], bool]:
    """A test for the pieces of a pattern (`sql.split_pattern`).

    Every piece has a fixed length, so taking the leftmost place for each is right and the time is bounded by
    length times pattern; one regular expression for the whole could take a time exponential in its `%`.
    """
    regexes = [
        re.compile("".join("." if char is None else re.escape(char) for char in piece), re.DOTALL)
        for piece in pieces
    ]
    first, middle, last = regexes[0], regexes[1:-1], regexes[-1]
    least, tail = sum(map(len, pieces)), len(pieces[-1])
    if len(pieces) == 1:
        return lambda text: first.fullmatch(text) is not None

    def matches(text: str) -> bool:
        if len(text) < least or (found := first.match(text)) is None:
            return False
        position = found.end()
        end = len(text) - tail
        for regex in middle:
            if (found := regex.search(text, position, end)) is None:
                return False
            position = found.end()
        return position <= end and last.match(text, end) is not None

    return matches


# -- conversion ----------------------------------------------------------------------------------------


def text_of(value: object) -> str:
    """A value as text, as C# writes it.

    Raises:
        FilterError: values of its kind have no agreed text.
    """
    if isinstance(value, str):
        return str(value)
    if isinstance(value, bool):
        return "True" if value else "False"
    if isinstance(value, int):
        if not _INT64_LEAST <= value < 2**64:
            raise FilterError("a number does not fit 64 bits")
        return int.__repr__(value)
    if isinstance(value, float):
        return _text_of_double(value)
    if isinstance(value, UUID):
        return str(value)
    raise FilterError(f"{_kind(value)} cannot be written as text")


def _text_of_double(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    text = float.__repr__(value)
    if abs(value) >= 1e15:
        return format(Decimal(text).normalize(), "E")
    return text.removesuffix(".0").replace("e", "E")


def duration_of(text: str) -> timedelta | None:
    """The .NET notation of a time span, `[-][days.]hours:minutes[:seconds[.fraction]]`."""
    match = _TIME_SPAN.fullmatch(text.strip())
    if match is None:
        return None
    seconds = sum(float(match[unit] or 0) * factor for unit, factor in _SECONDS_PER.items())
    return timedelta(seconds=-seconds if match["sign"] else seconds)


def converted(value: object, present: object) -> object:
    """The value in the type of the one it replaces, where that loses nothing; else as it is."""
    if value is None or present is None or type(value) is type(present):
        return value
    kind = _kind(present)
    try:
        if kind == "text":
            return text_of(value)
        if kind == "number" and not isinstance(value, bool):
            return _converted_number(value, isinstance(present, int))
        if isinstance(value, str):
            return _CONVERSIONS[kind](value.strip()) if kind in _CONVERSIONS else value
    except (FilterError, KeyError, ValueError, OverflowError):
        pass  # "if possible", says the documentation of actions: here it is not
    return value


def _duration(text: str) -> timedelta:
    if (duration := duration_of(text)) is None:
        raise ValueError(text)
    return duration


_CONVERSIONS: dict[str, Callable[[str], object]] = {
    "boolean": lambda text: {"true": True, "false": False}[text.lower()],
    "instant": lambda text: _utc(datetime.fromisoformat(re.sub("[zZ]$", "+00:00", text))),
    "duration": _duration,
    "uuid": UUID,
}
_NUMBER = re.compile(r"[-+]?[0-9]{1,400}(\.[0-9]{1,400})?([eE][-+]?[0-9]{1,3})?")


def _converted_number(value: Any, whole: bool) -> object:
    if isinstance(value, str):
        text = value.strip()
        if not _NUMBER.fullmatch(text):
            return value
        number: Any = int(text) if whole else float(text)
        return _int64(number) if whole else number
    if _kind(value) != "number" or isinstance(value, int) == whole:
        return value
    number = _int64(int(value)) if whole else float(value)
    return number if number == value else value
