"""What sbrpc and its emulator are meant to reach, and what a run says about it.

Every target is a ratio or a bound over the medians of one run. What compares sbrpc with a peer comes from
their duel. They are reported, never asserted: the figures of a busy or slower machine are no failure of the
code.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.figures import median

__all__ = ["TARGETS", "Target"]

Results = Mapping[str, Any]


@dataclass(frozen=True)
class Target:
    """A bound for one number of a run."""

    text: str
    bound: float
    value: Callable[[Results], float | None]
    at_least: bool = True
    shown: str = "{:.2f}"

    def held(self, results: Results) -> bool | None:
        """Whether the run holds it; `None` where it did not measure it."""
        value = self.value(results)
        if value is None:
            return None
        return value >= self.bound if self.at_least else value <= self.bound


def _duel(peer: str, kind: str, what: str = "per_second") -> Callable[[Results], float | None]:
    return lambda r: median(r.get("duels", {}).get(peer), kind, what)


def _fast_stream(results: Results) -> float | None:
    """Against the one that is better, which is the one that leaves less."""
    found = [_duel(peer, "256")(results) for peer in ("faststream_nats", "faststream_rabbit")]
    return min((value for value in found if value is not None), default=None)


def _tail(results: Results) -> float | None:
    calls = results["peers"].get("sbrpc", {}).get("concurrent", {}).get("64")
    p50, p99 = median(calls, "p50_ms"), median(calls, "p99_ms")
    return p99 / p50 if p50 and p99 is not None else None


def _scaling(results: Results) -> float | None:
    scaling = results.get("scaling", {})
    one = median(scaling, "1", "per_second")
    if not one:
        return None
    shares = [(median(scaling, str(n), "per_second") or 0) / (n * one) for n in (2, 4, 8)]
    return min(shares)


def _emulator(*path: str) -> Callable[[Results], float | None]:
    return lambda r: median(r.get("emulator"), *path)


TARGETS = (
    Target(
        "calls/s at 256 callers, sbrpc to the batched loop by hand",
        10,
        _duel("sdk_batched", "256"),
        shown="{:.1f} x",
    ),
    Target(
        "calls/s at 256 callers, sbrpc to the better FastStream",
        8,
        _fast_stream,
        shown="{:.1f} x",
    ),
    Target(
        "calls/s at 256 callers, sbrpc to grpc.aio",
        5,
        _duel("grpc", "256"),
        shown="{:.1f} x",
    ),
    Target(
        "calls/s at 256 callers, sbrpc to nats-py",
        1,
        _duel("nats", "256"),
        shown="{:.2f} x",
    ),
    Target(
        "calls/s at 16 callers, sbrpc to the batched loop by hand",
        1,
        _duel("sdk_batched", "16"),
        shown="{:.1f} x",
    ),
    Target(
        "median of sequential calls, sbrpc to the loop by hand",
        1.15,
        _duel("sdk", "sequential", "p50"),
        at_least=False,
        shown="{:.2f} x",
    ),
    Target("p99 to median at 64 callers", 2, _tail, at_least=False, shown="{:.1f} x"),
    Target(
        "credits per call at 64 callers",
        0.25,
        lambda r: median(r["peers"].get("sbrpc"), "concurrent", "64", "credits"),
        at_least=False,
    ),
    Target(
        "processor time per call, one after the other, sbrpc to the loop by hand",
        1.25,
        _duel("sdk", "sequential", "cost"),
        at_least=False,
        shown="{:.2f} x",
    ),
    Target("least share of linear growth over 2, 4 and 8 servers", 0.9, _scaling, shown="{:.2f}"),
    Target(
        "importing client and server over importing the SDK, ms",
        60,
        lambda r: median(r.get("startup"), "client and server of sbrpc, after the SDK"),
        at_least=False,
        shown="{:.0f}",
    ),
    Target(
        "emulator: messages/s accepted",
        20_000,
        _emulator("per_second", "accepted one by one"),
        shown="{:,.0f}",
    ),
    Target(
        "emulator: messages/s delivered and completed",
        15_000,
        _emulator("per_second", "delivered and completed one by one"),
        shown="{:,.0f}",
    ),
    Target(
        "emulator: resident after 100,000 messages, MB",
        60,
        _emulator("resident_mb", "after"),
        at_least=False,
        shown="{:.0f}",
    ),
    Target(
        "emulator: ready after start of the process, ms",
        300,
        _emulator("ready_ms"),
        at_least=False,
        shown="{:.0f}",
    ),
    Target(
        "emulator: share of a core for 1,000 idle connections",
        0.05,
        _emulator("idle", "core_share"),
        at_least=False,
        shown="{:.3f}",
    ),
)
