"""What a handler is called with."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from sbrpc._signatures import takes_info


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
