"""Figures of several rounds as medians with their spread, and how to find them again.

Owns the shape of `results.json`: nested dictionaries whose leaves are {"median", "low", "high", "rounds"}.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["gather", "median", "spread"]


def gather(rounds: Sequence[Mapping[Any, Any]]) -> dict[str, Any]:
    """One dictionary of the shape of each round's, with medians for numbers."""
    found: dict[str, Any] = {}
    for key in dict.fromkeys(key for each in rounds for key in each):
        values = [each[key] for each in rounds if each.get(key) is not None]
        if isinstance(values[0], Mapping):
            found[str(key)] = gather(values)
        else:
            found[str(key)] = spread(values)
    return found


def spread(values: Sequence[float]) -> dict[str, float]:
    """The median of some values, the least and the greatest."""
    return {
        "median": statistics.median(values),
        "low": min(values),
        "high": max(values),
        "rounds": len(values),
    }


def median(figures: Mapping[str, Any] | None, *path: str) -> float | None:
    """The median at a path, or `None` where there is none."""
    found: Any = figures
    for step in (*path, "median"):
        if not isinstance(found, Mapping) or step not in found:
            return None
        found = found[step]
    return float(found)
