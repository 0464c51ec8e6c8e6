"""The calling process of one peer: does what it is told on standard input, one JSON object per line.

Owns the loops that measure. Every reply is checked against its request; a wrong or missing one ends the
measurement with an error.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import math
import resource
import sys
from array import array
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Any

from benchmarks.models import changed, check
from benchmarks.stdio import Lines, run

__all__ = ["quantiles"]

# Nobody waits longer than this for the calls of a measurement that is over.
_PATIENCE = 60.0
_LONGEST_WARM = 3.0
_GAP = 0.01


def quantiles(latencies: array[float]) -> dict[str, float]:
    """Milliseconds at the quantiles that are reported."""
    ordered = sorted(latencies)
    if not ordered:
        return {}

    def at(share: float) -> float:
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] * 1000

    return {"p50_ms": at(0.5), "p99_ms": at(0.99), "max_ms": ordered[-1] * 1000}


def _cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


class Measurements:
    """What a client can be told to do."""

    def __init__(self, caller: Any) -> None:
        self._caller = caller
        self._number = 0

    async def one(self) -> None:
        """One call, checked."""
        self._number = number = self._number + 1
        check(number, await self._caller.call(number))

    async def sequential(self, seconds: float, warm: int = 30) -> dict[str, Any]:
        """Calls one after the other."""
        for _ in range(warm):
            await self.one()
        latencies = array("d")
        cpu, began = _cpu(), monotonic()
        while (start := monotonic()) < began + seconds:
            await self.one()
            latencies.append(monotonic() - start)
        elapsed = monotonic() - began
        return {
            "calls": len(latencies),
            "all_calls": len(latencies) + warm,
            "per_second": len(latencies) / elapsed,
            "client_cpu": _cpu() - cpu,
            **quantiles(latencies),
        }

    async def concurrent(self, callers: int, seconds: float, warm: float) -> dict[str, Any]:
        """So many callers, each with one call at a time.

        What counts begins after `warm` seconds, or when every caller has had its first reply if that is
        later, within bounds: until then, many callers only queue up. Some libraries let a few wait for ever.
        """
        latencies = array("d")
        warmed = monotonic() + warm
        begins = ends = math.inf
        everything = answered = 0

        async def caller() -> None:
            nonlocal everything, answered, begins, ends
            first = True
            while (start := monotonic()) < ends:
                await self.one()
                everything += 1
                now = monotonic()
                if first:
                    first = False
                    answered += 1
                if begins <= now < ends:
                    latencies.append(now - start)
                elif begins == math.inf and now >= (
                    warmed if answered == callers else warmed + _LONGEST_WARM
                ):
                    begins, ends = now, now + seconds

        cpu = _cpu()
        await asyncio.wait_for(asyncio.gather(*(caller() for _ in range(callers))), _PATIENCE)
        return {
            "calls": len(latencies),
            "all_calls": everything,
            "per_second": len(latencies) / seconds,
            "client_cpu": _cpu() - cpu,
            **quantiles(latencies),
        }

    async def publish(self, publishers: int, seconds: float) -> dict[str, Any]:
        """So many publishers, each with one event at a time."""
        began = monotonic()
        published = 0

        async def publisher() -> None:
            nonlocal published
            while (now := monotonic()) < began + seconds:
                published += 1
                await self._caller.publish(changed(published, now))

        await asyncio.wait_for(asyncio.gather(*(publisher() for _ in range(publishers))), _PATIENCE)
        return {"published": published, "began": began, "per_second": published / (monotonic() - began)}

    async def pace(self, count: int) -> dict[str, Any]:
        """Events with pauses between them: how long does a lone one take?"""
        began = monotonic()
        for number in range(count):
            await self._caller.publish(changed(number, monotonic()))
            await asyncio.sleep(_GAP)
        return {"published": count, "began": began}


async def main(arguments: list[str], lines: Lines, say: Callable[[Any], None]) -> None:
    module = importlib.import_module(f"benchmarks.peers.{arguments[0]}")
    async with module.client(json.loads(arguments[1])) as caller:
        measurements = Measurements(caller)
        # Ready is who has been answered.
        await asyncio.wait_for(measurements.one(), 30)
        say({"ready": True})
        async for line in lines:
            order = json.loads(line)
            work: Callable[..., Awaitable[dict[str, Any]]] = getattr(measurements, order.pop("do"))
            say(await work(**order))


if __name__ == "__main__":
    run(main, sys.argv[1:])
