"""sbrpc against one other at a time: both are up at once, and short slices take turns.

What the targets are judged by: two slices that follow each other meet the same moment of the machine, which
two trials that are minutes apart do not. Owns which measures are taken against whom, and how slices become
ratios.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from benchmarks.figures import spread
from benchmarks.peers import PEERS, Peer
from benchmarks.trial import Measured, broker_for, started

__all__ = ["AGAINST", "Slices", "measure", "ratios"]

AGAINST: Mapping[str, tuple[str, ...]] = {
    "sdk": ("sequential",),
    "sdk_batched": ("16", "256"),
    "faststream_nats": ("256",),
    "faststream_rabbit": ("256",),
    "grpc": ("256",),
    "nats": ("256",),
}
"""Numbers of callers, or one that calls sequentially, by the peer."""


@dataclass(frozen=True)
class Slices:
    """How many pairs of slices there are, and how long each slice is. Seconds."""

    count: int = 12
    seconds: float = 0.6
    warm: float = 0.15


def measure(other: Peer, slices: Slices) -> dict[str, Any]:
    """What sbrpc is to the other, as ratios: `{"256": {"per_second": spread, ...}, ...}`."""
    ours = PEERS[0]
    with ExitStack() as stack:
        sides = []
        for peer in (ours, other):
            # Each has a broker of its own, also where both could share one: its books and its load are its.
            broker = stack.enter_context(broker_for(peer.broker))
            sides.append(stack.enter_context(started(peer, broker)))
        return {kind: _taking_turns(sides[0], sides[1], kind, slices) for kind in AGAINST[other.name]}


def _taking_turns(ours: Measured, theirs: Measured, kind: str, slices: Slices) -> dict[str, Any]:
    order: dict[str, Any] = {"do": "sequential", "seconds": slices.seconds}
    if kind != "sequential":
        order |= {"do": "concurrent", "callers": int(kind), "warm": slices.warm}
    for side in (ours, theirs):
        side.calls(**order)  # the first connects, allocates and compiles
    pairs = []
    for number in range(slices.count):
        if number % 2:  # neither is always the one that comes after the other
            second, first = theirs.calls(**order), ours.calls(**order)
        else:
            first, second = ours.calls(**order), theirs.calls(**order)
        pairs.append((first, second))
    return ratios(pairs)


def ratios(pairs: list[tuple[Mapping[str, Any], Mapping[str, Any]]]) -> dict[str, Any]:
    """Calls per second, median latency and processor time per call: the first of each pair to the second."""
    return {
        "per_second": _quartiles([ours["per_second"] / theirs["per_second"] for ours, theirs in pairs]),
        "p50": _quartiles([ours["p50_ms"] / theirs["p50_ms"] for ours, theirs in pairs]),
        "cost": _quartiles([_cost(ours) / _cost(theirs) for ours, theirs in pairs]),
    }


def _cost(calls: Mapping[str, Any]) -> float:
    used: Mapping[str, float] = calls["cpu_us"]
    return used["client"] + used["server"]


def _quartiles(values: list[float]) -> dict[str, float]:
    """Half of the pairs lie between `low` and `high`: a slice that something disturbed is no finding."""
    found = spread(values)
    if len(values) > 1:
        found["low"], _, found["high"] = statistics.quantiles(values, n=4, method="inclusive")
    return found
