"""What a handler's parameters say: whether it takes its value alone, or what is known about it as well.

The one rule for handlers of calls and of events. Knows neither.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

__all__ = ["takes_info"]


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
