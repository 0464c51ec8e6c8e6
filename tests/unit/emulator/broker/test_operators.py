"""The semantics of values: kinds, three-valued comparison, arithmetic, LIKE and conversion."""

from __future__ import annotations

import math
import re
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
from sbrpc.emulator.broker.sql import split_pattern

NOON = datetime(2024, 1, 1, 12, tzinfo=timezone.utc)
HOUR = timedelta(hours=1)
ID = UUID(int=7)


class Text(str):
    """A str subclass, as a decoder may produce."""


class Whole(int):
    """An int subclass, as a decoder may produce."""


@pytest.mark.parametrize(
    ("left", "symbol", "right", "result"),
    [
        (1, "=", 1.0, True),
        (1, "<>", 1.5, True),
        (Whole(2), ">", 1, True),
        (Decimal("1.5"), "=", 1.5, True),
        (2**53 + 1, "=", float(2**53), True),
        (1, "=", True, None),
        (True, "<>", 1, None),
        (True, "=", True, True),
        (True, "<", False, None),
        ("10", "=", 10, None),
        ("10", "<>", 10, None),
        (5, "<", "10", None),
        ("a", "=", "A", False),
        (Text("a"), "=", "a", True),
        ("a", "<", "b", True),
        (b"a", "=", b"a", True),
        (b"a", "<", b"b", None),
        (b"a", "=", "a", None),
        (ID, "=", UUID(int=7), True),
        (ID, "=", str(ID), None),
        (NOON, ">=", NOON.replace(tzinfo=None), True),
        (NOON, "<", NOON + HOUR, True),
        (HOUR, "<=", HOUR, True),
        ([1], "=", [1], None),
        (None, "=", None, None),
        (None, "<>", 1, None),
        (1, "<", None, None),
        (math.nan, "=", math.nan, False),
    ],
)
def test_comparison(left: object, symbol: str, right: object, result: bool | None) -> None:
    """Values compare inside their kind; anything else is unknown."""
    assert COMPARISONS[symbol](left, right) is result


@pytest.mark.parametrize(
    ("left", "symbol", "right", "result"),
    [
        (7, "/", 2, 3),
        (-7, "/", 2, -3),
        (7, "%", -2, 1),
        (-7, "%", 2, -1),
        (7, "/", 2.0, 3.5),
        (-7.5, "%", 2, -1.5),
        (1.0, "/", 0, math.inf),
        (-1, "/", 0.0, -math.inf),
        (1, "/", -0.0, -math.inf),
        (2, "*", Decimal("1.5"), 3.0),
        ("a", "+", "b", "ab"),
        ("a", "+", 1, "a1"),
        (1.0, "+", "a", "1a"),
        (True, "+", "a", "Truea"),
        ("a", "+", ID, f"a{ID}"),
        (NOON, "+", HOUR, NOON + HOUR),
        (HOUR, "+", NOON, NOON + HOUR),
        (NOON + HOUR, "-", NOON, HOUR),
        (NOON, "-", HOUR, NOON - HOUR),
        (HOUR, "-", HOUR, timedelta()),
        (None, "+", "a", None),
        (1, "/", None, None),
        (None, "*", "a", None),
    ],
)
def test_arithmetic(left: object, symbol: str, right: object, result: object) -> None:
    """Arithmetic is C#'s; unknown stays unknown, whatever the other side is."""
    computed = ARITHMETIC[symbol](left, right)
    assert (type(computed), computed) == (type(result), result)


@pytest.mark.parametrize("symbol", ["/", "%"])
def test_doubles_without_a_quotient(symbol: str) -> None:
    """Zero over zero, and the remainder of infinity, are not a number rather than an error."""
    for left, right in [(0.0, 0), (math.nan, 0.0), (math.inf, math.inf)]:
        computed = ARITHMETIC[symbol](left, right)
        assert isinstance(computed, float)
        assert math.isnan(computed)


@pytest.mark.parametrize(
    ("left", "symbol", "right", "reason"),
    [
        (1, "/", 0, "by zero"),
        (1, "%", 0, "by zero"),
        (2**63 - 1, "+", 1, "64-bit"),
        (-(2**63), "/", -1, "64-bit"),
        (10**400, "+", 1.5, "does not fit a double"),
        (Decimal("sNaN"), "+", 1, "does not fit a double"),
        ("a", "+", 10**4000, "does not fit 64 bits"),
        ("a", "-", "b", "not defined for text and text"),
        (True, "+", 1, "not defined for boolean and number"),
        (b"a", "+", b"b", "not defined for bytes and bytes"),
        ("a", "+", b"b", "bytes cannot be written as text"),
        (NOON, "+", NOON, "not defined for instant and instant"),
        (NOON, "+", timedelta.max, "out of the range of time"),
        ([1], "+", 1, r"not defined for list\? and number"),
    ],
)
def test_arithmetic_errors(left: object, symbol: str, right: object, reason: str) -> None:
    """What has no result is a FilterError that says why."""
    with pytest.raises(FilterError, match=reason):
        ARITHMETIC[symbol](left, right)


def test_signs() -> None:
    """Signs apply to numbers and durations, and unknown stays unknown."""
    assert signed("-", 2) == -2
    assert signed("+", Whole(2)) == 2
    assert signed("-", Decimal(2)) == -2.0
    assert signed("+", 1.5) == 1.5
    assert signed("-", HOUR) == -HOUR
    assert signed("-", None) is None
    for value, reason in [
        ("a", "not defined for text"),
        (True, "not defined for boolean"),
        (-(2**63), "64-bit"),
    ]:
        with pytest.raises(FilterError, match=reason):
            signed("-", value)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Text("a"), "a"),
        (12, "12"),
        (2**64 - 1, "18446744073709551615"),
        (True, "True"),
        (2.0, "2"),
        (0.1, "0.1"),
        (1e-05, "1E-05"),
        (123456789012345.0, "123456789012345"),
        (1e15, "1E+15"),
        (1.25e300, "1.25E+300"),
        (math.nan, "NaN"),
        (-math.inf, "-Infinity"),
        (ID, "00000000-0000-0000-0000-000000000007"),
    ],
)
def test_text(value: object, text: str) -> None:
    """Values become text as C# writes them."""
    assert text_of(value) == text


# -- LIKE ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "escape", "matching", "other"),
    [
        ("abc", None, ["abc"], ["ab", "abcd", "ABC", ""]),
        ("", None, [""], ["a"]),
        ("%", None, ["", "a", "a\nb"], []),
        ("a%", None, ["a", "abc"], ["ba", ""]),
        ("%a", None, ["a", "ba"], ["ab"]),
        ("%bus%", None, ["bus", "omnibus!"], ["BUS", "bs"]),
        ("a%a", None, ["aa", "aba"], ["a"]),
        ("%ab%ab%", None, ["abab", "xabxabx"], ["ab", "aba"]),
        ("a_c", None, ["abc", "a\nc"], ["ac", "abbc"]),
        ("_", None, ["a", "\n"], ["", "ab"]),
        ("%_b", None, ["ab", "bb"], ["b"]),
        ("a.c*", None, ["a.c*"], ["abc"]),
        (r"ABC\%", "\\", ["ABC%"], ["ABCD", "ABC"]),
        ("%!_%", "!", ["a_b", "_"], ["ab"]),
        ("a!!", "!", ["a!"], ["a!!"]),
    ],
)
def test_like(pattern: str, escape: str | None, matching: list[str], other: list[str]) -> None:
    """% stands for any run and _ for one character; a LIKE matches the whole text, in its case."""
    matches = like_matcher(split_pattern(pattern, escape))
    assert [text for text in (*matching, *other) if matches(text)] == matching


@settings(deadline=None)
@given(st.text("ab%_", max_size=8), st.text("ab\n", max_size=10))
def test_like_is_the_regular_expression(pattern: str, text: str) -> None:
    """Matching piece by piece gives what one regular expression would."""
    regex = "".join({"%": ".*", "_": "."}.get(char, char) for char in pattern)
    expected = re.fullmatch(regex, text, re.DOTALL) is not None
    assert like_matcher(split_pattern(pattern, None))(text) is expected


def test_like_does_not_backtrack() -> None:
    """A pattern made to explode a regular expression is answered at once."""
    matches = like_matcher(split_pattern("%a" * 500 + "b", None))
    assert not matches("a" * 50_000)


# -- conversion ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("00:05:00", 300),
        (" 1.02:03:04.5 ", 93784.5),
        ("01:30", 5400),
        ("-00:00:01", -1),
        ("PT5M", None),
        ("5", None),
        ("", None),
    ],
)
def test_time_spans(text: str, seconds: float | None) -> None:
    """The .NET notation of time spans is read, nothing else."""
    assert duration_of(text) == (None if seconds is None else timedelta(seconds=seconds))


@pytest.mark.parametrize(
    ("value", "present", "result"),
    [
        ("low", "high", "low"),
        (5, "high", "5"),
        (ID, "high", str(ID)),
        (b"a", "high", b"a"),
        ("5", 1, 5),
        ("five", 1, "five"),
        ("1_0", 1, "1_0"),
        ("9" * 30, 1, "9" * 30),
        (2.0, 1, 2),
        (2.5, 1, 2.5),
        (math.inf, 1, math.inf),
        (True, 1, True),
        (3, 1.5, 3.0),
        ("3.5", 1.5, 3.5),
        ("nan", 1.5, "nan"),
        ("TRUE", False, True),
        ("yes", False, "yes"),
        (1, False, 1),
        (str(ID), UUID(int=1), ID),
        ("nobody", UUID(int=1), "nobody"),
        ("2024-01-01T12:00:00Z", NOON - HOUR, NOON),
        ("noon", NOON, "noon"),
        ("01:00:00", timedelta(), HOUR),
        ("soon", HOUR, "soon"),
        ("a", b"b", "a"),
        (None, 1, None),
        (1, None, 1),
    ],
)
def test_conversion(value: object, present: object, result: object) -> None:
    """A value takes the type of the one it replaces where that is possible, and stays as it is elsewhere."""
    found = converted(value, present)
    assert (type(found), found) == (type(result), result)


anything: st.SearchStrategy[Any] = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.decimals()
    | st.text()
    | st.binary()
    | st.uuids()
    | st.datetimes()
    | st.datetimes(timezones=st.just(timezone(HOUR)))
    | st.timedeltas()
    | st.lists(st.integers(), max_size=2)
)


@settings(deadline=None)
@given(anything, anything)
def test_operators_only_raise_filter_errors(left: object, right: object) -> None:
    """No pair of values makes an operator raise anything but a FilterError."""
    converted(left, right)
    for compare in COMPARISONS.values():
        with suppress(FilterError):
            assert compare(left, right) in (True, False, None)
    for compute in ARITHMETIC.values():
        with suppress(FilterError):
            compute(left, right)
    with suppress(FilterError):
        signed("-", left)
