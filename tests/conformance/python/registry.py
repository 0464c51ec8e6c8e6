"""The scenarios by name, as the modules next to this one register them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .bench import Bench

__all__ = ["REGISTRY", "scenario"]

Steps = Callable[["Bench"], Awaitable[None]]

REGISTRY: dict[str, Steps] = {}


def scenario(steps: Steps) -> Steps:
    """Register a coroutine function as the scenario of its name, dashes for underscores."""
    name = steps.__name__.replace("_", "-")
    if name in REGISTRY:
        raise ValueError(f"two functions are the scenario {name!r}")
    REGISTRY[name] = steps
    return steps
