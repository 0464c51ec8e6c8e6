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
from collections.abc import Awaitable
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
    parser.add_argument("--only", help=f"some of {', '.join(scenarios.FULL.what)}, separated by commas")
    parser.add_argument("--postgres", action="store_true", help="a PostgreSQL of its own in place of SQLite")
    parser.add_argument("--output", type=Path, help="folder of the page and its pictures")
    arguments = parser.parse_args()
    plan = scenarios.QUICK if arguments.quick else scenarios.FULL
    wanted = arguments.only.split(",") if arguments.only else list(plan.what)
    if unknown := set(wanted) - scenarios.FULL.what.keys():
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


async def _measure(plan: scenarios.Plan, wanted: list[str]) -> dict[str, Any]:
    found: dict[str, dict[str, Any]] = {}
    failed: dict[str, str] = {}
    for scenario in wanted:
        found[scenario] = {}
        for variant in plan.what.get(scenario, scenarios.FULL.what[scenario]):
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
