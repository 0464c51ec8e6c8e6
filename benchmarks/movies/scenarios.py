"""What is done to both applications, and what is measured of it.

Owns the scenarios, their times, and the figures of each. Knows nothing of words and pictures.
"""

from __future__ import annotations

import statistics
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import anyio
import anyio.to_thread
from anyio.abc import TaskGroup

from benchmarks.movies.databases import books
from benchmarks.movies.load import Asked, Callers, calling, count
from benchmarks.movies.site import Site, running
from benchmarks.movies.slow import FILM

__all__ = [
    "BOTH",
    "BURST_FACTOR",
    "CAPACITY",
    "FULL",
    "QUICK",
    "SLOW",
    "SLOW_FACTOR",
    "WRITES",
    "Plan",
    "run",
]

CAPACITY = 1 / FILM
"""Requests a second that one service process can do."""


@dataclass(frozen=True)
class Plan:
    """How much of everything, and for whom; times in seconds."""

    what: Mapping[str, Sequence[str]]
    """The applications that go through each scenario."""
    callers: Sequence[int] = (1, 8, 32, 128)
    services: Sequence[int] = (1, 2, 4)
    warm: float = 0.5
    window: float = 2.0
    lone: float = 2.0
    creates: int = 40
    rate: float = 0.4 * CAPACITY
    before: float = 4.0
    fault: float = 5.0
    after: float = 6.0
    after_outage: float = 14.0
    burst: float = 2.0
    deadline: float = 30.0
    """Longer than the outage, the lock duration of the queue (5 s) and what it takes to work off the rest."""
    burst_deadline: float = 60.0
    deadlines: Sequence[float] = (1, 2, 4, 6, 8, 12, 20, 30)
    """Of those who show where the boundary is."""
    server: str | None = None
    """The URL of a PostgreSQL; SQLite without."""


BOTH = ("async", "sync")
ALL = (*BOTH, "retry")
BURST_FACTOR = 10
SLOW_FACTOR = 10
WRITES = 5
"""That are sent right before the service is killed, so that some are under way."""

FULL = Plan(
    what={
        "outage": ALL,
        "boundary": ALL,
        "reader_outage": ALL,
        "slowness": BOTH,
        "burst": BOTH,
        "scale": BOTH,
        "costs": BOTH,
    }
)
# Everything once, as short as it can be and still be what it is: it shows that all of it works, and no more.
QUICK = Plan(
    what={"outage": ALL, "burst": BOTH, "scale": BOTH, "costs": BOTH},
    callers=(1, 16),
    services=(1,),
    warm=0.2,
    window=0.5,
    lone=0.3,
    creates=3,
    before=0.5,
    fault=0.5,
    after=0.5,
    after_outage=0.5,
    burst=0.1,
)


async def run(scenario: str, variant: str, plan: Plan) -> dict[str, Any]:
    """The figures of one application in one scenario."""
    scenarios = (outage, boundary, reader_outage, slowness, burst, scale, costs)
    return await {each.__name__: each for each in scenarios}[scenario](variant, plan)


# -- load ---------------------------------------------------------------------------------------------------


async def scale(variant: str, plan: Plan) -> dict[str, Any]:
    """Reads by so many callers at once, of so many service processes: figures by both numbers."""
    return {str(services): await _scale(variant, services, plan) for services in plan.services}


async def _scale(variant: str, services: int, plan: Plan) -> dict[str, Any]:
    async with running(variant, plan.server, services) as site, calling(site.url, site.films) as callers:
        found = {}
        for number in plan.callers:
            already, before = len(callers.asked), site.cpu_seconds()
            measured = await callers.closed(number, plan.warm, plan.window)
            # All that is asked costs processor time, also what ends outside of the measured time.
            asked, used = callers.asked[already:], site.cpu_seconds()
            found[str(number)] = {
                "per_second": len(measured) / plan.window,
                **_latency(measured),
                "cpu_ms": {kind: (used[kind] - before[kind]) * 1000 / len(asked) for kind in used},
                "counts": count(asked),
            }
        return found


async def costs(variant: str, plan: Plan) -> dict[str, Any]:
    """What one caller meets who is alone, without pretended work: latency, and the lag of the read model."""
    async with running(variant, plan.server) as site, calling(site.url, site.films) as callers:
        site.slow(0)
        asked = await callers.closed(1, plan.warm, plan.lone)
        lag = await callers.lag(plan.creates)
        return {
            **_latency(asked),
            "lag_ms": {"p50": statistics.median(lag) * 1000, "most": max(lag) * 1000},
            "counts": count(callers.asked),
        }


# -- what goes wrong ----------------------------------------------------------------------------------------


async def burst(variant: str, plan: Plan) -> dict[str, Any]:
    """Ten times the capacity for some seconds, beside steady callers, until all of it is worked off."""
    steady, rate = CAPACITY / 5, CAPACITY * BURST_FACTOR
    # What the steady callers leave of the capacity has to work off the burst.
    working_off = plan.burst * rate / (CAPACITY - steady)
    async with running(variant, plan.server) as site, calling(site.url, site.films) as callers:
        async with anyio.create_task_group() as group:
            lasting = plan.before + plan.burst + working_off + plan.after
            group.start_soon(callers.steadily, lasting, steady, [plan.burst_deadline])
            await anyio.sleep(plan.before)
            group.start_soon(callers.steadily, plan.burst, rate, [plan.burst_deadline])
        return await _figures(site, callers, plan.before, plan.before + plan.burst)


async def outage(variant: str, plan: Plan) -> dict[str, Any]:
    """The service is killed under steady load with writes under way, and started again after some seconds."""
    return await _killed(variant, plan, "service 0", [plan.deadline], plan.after_outage, WRITES)


async def boundary(variant: str, plan: Plan) -> dict[str, Any]:
    """The same for callers of whom some wait longer than others, and without more writes than usual."""
    return await _killed(variant, plan, "service 0", plan.deadlines, plan.after)


async def reader_outage(variant: str, plan: Plan) -> dict[str, Any]:
    """The same with the process that keeps the read model."""
    return await _killed(variant, plan, "", [plan.deadline], plan.after)


async def slowness(variant: str, plan: Plan) -> dict[str, Any]:
    """Statements take ten times as long for some seconds, under steady load."""

    async def fault(site: Site, callers: Callers, group: TaskGroup) -> None:
        site.slow(SLOW_FACTOR)
        await anyio.sleep(plan.fault)
        site.slow(1)

    return await _under_load(variant, plan, fault, [plan.deadline], plan.after)


async def _killed(
    variant: str, plan: Plan, name: str, deadlines: Sequence[float], after: float, writes: int = 0
) -> dict[str, Any]:
    async def fault(site: Site, callers: Callers, group: TaskGroup) -> None:
        which = name or site.reader
        if writes:
            group.start_soon(callers.at_once, "create", writes, plan.deadline)
            await anyio.sleep(1.5 * FILM)  # then one may be done, and the others are not
        site.kill(which)
        await anyio.sleep(plan.fault)
        # Starting a process takes some milliseconds, for which callers should not wait.
        await anyio.to_thread.run_sync(site.start, which)

    return await _under_load(variant, plan, fault, deadlines, after)


async def _under_load(
    variant: str,
    plan: Plan,
    fault: Callable[[Site, Callers, TaskGroup], Awaitable[None]],
    deadlines: Sequence[float],
    after: float,
) -> dict[str, Any]:
    async with running(variant, plan.server) as site, calling(site.url, site.films) as callers:
        lasting = plan.before + plan.fault + after
        async with anyio.create_task_group() as group:
            group.start_soon(callers.steadily, lasting, plan.rate, deadlines)
            await anyio.sleep(plan.before)
            await fault(site, callers, group)
        return await _figures(site, callers, plan.before, plan.before + plan.fault)


# -- figures ------------------------------------------------------------------------------------------------

SLOW = 1.0
"""Seconds; an answer that takes longer says that the application has not recovered."""
_STEP = 1.0


async def _figures(site: Site, callers: Callers, fault: float, over: float) -> dict[str, Any]:
    asked = sorted(callers.asked, key=lambda each: each.due)
    creates = [each for each in asked if each.what == "create"]
    titles = [each.title for each in creates]
    written = await books(site.databases, [each.title for each in creates if each.right], titles)
    # Lists do not need the service.
    during = [each for each in asked if fault <= each.due < over and each.what != "list"]
    return {
        "counts": count(asked),
        **_latency([each for each in asked if each.right]),
        "fault": [fault, over],
        "recovered_after": _recovery([each for each in asked if each.due >= over], over),
        "books": written,
        "series": _series(asked),
        "by_deadline": {
            f"{deadline:g}": count([each for each in during if each.deadline == deadline])
            for deadline in sorted({each.deadline for each in asked})
        },
    }


def _recovery(asked: Sequence[Asked], over: float) -> float | None:
    """Seconds until the last request that is slow or without its answer; `None` if that is to the end."""
    suffering = [each.due for each in asked if not each.right or each.took > SLOW]
    if suffering and suffering[-1] > asked[-1].due - _STEP:
        return None
    return max(suffering, default=over) - over


def _latency(asked: Sequence[Asked]) -> dict[str, float | None]:
    """Percentiles in milliseconds."""
    if len(asked) < 2:
        return {"p50_ms": None, "p95_ms": None, "p99_ms": None, "most_ms": None}
    took = [each.took * 1000 for each in asked]
    cuts = statistics.quantiles(took, n=100, method="inclusive")
    return {"p50_ms": cuts[49], "p95_ms": cuts[94], "p99_ms": cuts[98], "most_ms": max(took)}


def _series(asked: Sequence[Asked]) -> list[dict[str, Any]]:
    """The same for each second in which requests were due."""
    steps: dict[int, list[Asked]] = {}
    for each in asked:
        steps.setdefault(int(each.due / _STEP), []).append(each)
    return [
        {
            "at": step * _STEP,
            "asked": len(those),
            "without_answer": sum(not each.right for each in those),
            **_latency([each for each in those if each.right]),
        }
        for step, those in sorted(steps.items())
    ]
