"""What a handler is called with."""

from __future__ import annotations

from functools import partial
from typing import Any, Protocol

import pytest
from pydantic import BaseModel

from sbrpc._signatures import takes_info, takes_other


def both(value: Any, info: Any) -> None: ...


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda value: None, False),
        (lambda value, retries=3: None, False),
        (lambda value, *more, **named: None, False),
        (lambda value, info=None: None, True),
        (lambda value, anything: None, True),
        (both, True),
        (partial(both, info=None), False),
        (lambda: None, None),
        (lambda value, info, more: None, None),
        (lambda value, *, info: None, None),
    ],
)
def test_the_info_is_the_second_parameter(function: Any, expected: bool | None) -> None:
    """One without a default, or one of that name; what cannot be called either way is None."""
    assert takes_info(function) is expected


class Film(BaseModel):
    id: int


class Short(Film):
    pass


class Named(Protocol):
    name: str


def takes(annotation: Any) -> Any:
    def handler(request: Any, info: Any = None) -> None: ...

    handler.__annotations__["request"] = annotation
    return handler


class Counter:
    def __call__(self, request: int) -> None: ...


@pytest.mark.parametrize(
    ("function", "value", "expected"),
    [
        (takes(str), int, str),
        (takes(Film), int, Film),
        (takes(int), Film, int),
        (Counter(), str, int),
        # It fits, or may.
        (takes(Film), Film, None),
        (takes(Film), Short, None),
        (takes(Short), Film, None),
        (takes(float), int, None),
        (takes(object), int, None),
        (takes(Any), int, None),
        (takes(Named), Film, None),
        (takes(list[int]), list, None),
        (takes(int | None), int, None),
        (takes(str), list[int], None),
        (takes("Unheard"), int, None),
        (lambda request: None, int, None),
        (partial(both, info=None), int, None),
        (len, int, None),
    ],
)
def test_only_a_class_that_cannot_be_meant_is_another(
    function: Any, value: Any, expected: type | None
) -> None:
    """What has nothing to do with the value; everything less certain is left to type checkers."""
    assert takes_other(function, value) is expected
