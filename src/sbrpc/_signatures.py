"""What a handler's parameters say: which value it takes, and whether what is known about it as well.

The one rule for handlers of calls and of events. Knows neither.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable
from typing import Any, TypeGuard

__all__ = ["takes_info", "takes_other"]


def takes_info(function: Callable[..., Any]) -> bool | None:
    """Whether it is to be called with `(value, info)`; False for `(value)`, None if neither is possible."""
    parameters = list(inspect.signature(function).parameters.values())
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    required = [
        p for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]
    if not positional or len(required) > 2 or any(p not in positional for p in required):
        return None
    # A second parameter with a default is the author's own, unless it says that it is the info.
    return len(required) == 2 or (len(positional) > 1 and positional[1].name == "info")


def takes_other(function: Callable[..., Any], value: Any) -> type | None:
    """The class that its first parameter is annotated with, where a value of this type is certainly none.

    Type checkers know better, and some people use none. Here only classes count which have nothing to do with
    each other; what is not certain is not said.
    """
    if not _is_class(value):
        return None
    called: Any = function
    if not inspect.isroutine(function):
        called = type(called).__call__
    try:
        hints = typing.get_type_hints(called)
        first = next(iter(inspect.signature(function).parameters))
    except Exception:  # a name that cannot be resolved here, or something that has no signature
        return None
    wanted = hints.get(first)
    if not _is_class(wanted) or wanted is object:
        return None
    try:
        related = issubclass(value, wanted) or issubclass(wanted, value)
    except TypeError:  # a protocol that cannot be asked
        return None
    # Where a float is wanted, an int will do (PEP 484).
    return None if related or (wanted in (float, complex) and value in (int, float)) else wanted


def _is_class(annotation: Any) -> TypeGuard[type]:
    return isinstance(annotation, type) and annotation is not Any and typing.get_origin(annotation) is None
