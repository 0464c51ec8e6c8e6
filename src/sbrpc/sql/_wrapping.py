"""Handlers that are made of functions with other arguments."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

__all__ = ["named_as"]

H = TypeVar("H", bound=Callable[..., Any])


def named_as(work: Callable[..., Any], handler: H) -> H:
    """The handler, with the name and the documentation of the function it is made of, not its signature."""
    functools.update_wrapper(handler, work)
    del handler.__wrapped__  # type: ignore[attr-defined]  # what looks for the signature would follow it
    return handler
