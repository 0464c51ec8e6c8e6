"""`make movies-validation`: both applications through every scenario, in turns, in one run.

Owns the order of things and the files that come out. What is done and measured is in `scenarios`.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import json
import signal
import sys
import time
from collections.abc import Awaitable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import anyio
from tests.postgres import postgres

from benchmarks import machine
from benchmarks.movies import report, scenarios
from benchmarks.movies.site import VARIANTS
from benchmarks.processes import ROOT, NotReady

# A run that takes longer than this hangs somewhere; it is ended and says so. Seconds.
_LIMIT = {True: 180, False: 600}


def main() -> int:
    """Run; 0 when all went through, 1 when something could not be measured, 130 when interrupted."""
    parser = argparse.ArgumentParser(prog="make movies-validation", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="everything short, kept out of docs/")
    parser.add_argument(
        "--only",
        help=f"some of {', '.join(scenarios.FULL.what)}, separated by commas; outage:async+sync is "
        "that for some of the applications",
    )
    parser.add_argument("--postgres", action="store_true", help="a PostgreSQL of its own in place of SQLite")
    parser.add_argument("--output", type=Path, help="folder of the page and its pictures")
    arguments = parser.parse_args()
    plan = scenarios.QUICK if arguments.quick else scenarios.FULL
    wanted, unknown = _wanted(plan, arguments.only)
    if unknown:
        parser.error(f"no such scenario: {', '.join(sorted(unknown))}")
    whole = not (arguments.quick or arguments.only)
    output = arguments.output or (ROOT / "docs" if whole else ROOT / "build" / "movies-validation")

    began = time.monotonic()
    try:
        with postgres() if arguments.postgres else nullcontext() as server:
            if arguments.postgres and server is None:
                parser.error("PostgreSQL is not installed: there is no initdb")
            work = _measure(replace(plan, server=server), wanted)
            results = asyncio.run(_interruptible(work, _LIMIT[arguments.quick]))
    except (asyncio.CancelledError, KeyboardInterrupt):
        print("interrupted; what had been started is stopped, nothing is written", file=sys.stderr)
        return 130
    except TimeoutError:
        print(
            f"stopped after {_LIMIT[arguments.quick]} s, which is more than it should take", file=sys.stderr
        )
        return 1
    results["quick"] = arguments.quick
    results["minutes"] = (time.monotonic() - began) / 60
    folder = output / "movies-validation"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    if importlib.util.find_spec("matplotlib"):
        from benchmarks.movies import plots

        plots.draw(results, folder)
    else:
        print("left out: the pictures; matplotlib is not installed here")
    (output / "movies-validation.md").write_text(report.page(results))
    print(report.summary(results))
    print(f"{output / 'movies-validation.md'}, after {results['minutes']:.1f} minutes")
    for name, reason in results["failed"].items():
        print(f"FAILED: {name}: {reason}", file=sys.stderr)
    return 1 if results["failed"] else 0


async def _interruptible(work: Awaitable[dict[str, Any]], limit: float) -> dict[str, Any]:
    """The work, which SIGTERM cancels as SIGINT does, and the clock."""
    running = asyncio.current_task()
    assert running is not None
    for each in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(each, running.cancel)
    with anyio.fail_after(limit):
        return await work


def _wanted(plan: scenarios.Plan, only: str | None) -> tuple[dict[str, Sequence[str]], set[str]]:
    """Scenarios and the applications that go through each; and what is named and not known."""
    if only is None:
        return dict(plan.what), set()
    wanted: dict[str, Sequence[str]] = {}
    for scenario, _, variants in (each.partition(":") for each in only.split(",")):
        possible = scenarios.FULL.what.get(scenario, ())
        wanted[scenario] = variants.split("+") if variants else plan.what.get(scenario, possible)
    unknown = {
        ":".join(filter(None, (scenario, variant)))
        for scenario, variants in wanted.items()
        for variant in variants or [""]
        if variant not in scenarios.FULL.what.get(scenario, ())
    }
    return wanted, unknown


async def _measure(plan: scenarios.Plan, wanted: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    found: dict[str, dict[str, Any]] = {}
    failed: dict[str, str] = {}
    for scenario, variants in wanted.items():
        found[scenario] = {}
        for variant in variants:
            print(f"[{time.strftime('%H:%M:%S')}] {scenario}: {VARIANTS[variant]}", flush=True)
            try:
                found[scenario][variant] = await scenarios.run(scenario, variant, plan)
            except (NotReady, TimeoutError, OSError) as error:
                # The figures of the others are worth having all the same.
                failed[f"{scenario}, {VARIANTS[variant]}"] = str(error) or type(error).__name__
    return {
        "at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": machine.describe(),
        "versions": machine.versions(),
        "plan": asdict(replace(plan, server=None)),
        "database": "PostgreSQL" if plan.server else "SQLite",
        "scenarios": found,
        "failed": failed,
    }


if __name__ == "__main__":
    sys.exit(main())
