"""Runs the tests once more and measures what of each module they run, in child processes too.

`python .ci/coverage.py` runs everything, `python .ci/coverage.py tests/unit` a part, and what that does not
run falls short. How much each module has to have stands in pyproject.toml, in `[tool.coverage-by-module]`;
how much all of them have to have together, in `[tool.coverage.report]`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
COVERAGE = [sys.executable, "-m", "coverage"]
REPORT = ".coverage.json"


def main(arguments: list[str]) -> None:
    """Measure, and end with what is wrong."""
    run("erase")
    workers = os.environ.get("WORKERS", "3")  # measuring makes tests slow, and some of them have bounds
    run("run", "-m", "pytest", "-q", "-n", workers, "--no-loadscope-reorder", *arguments)
    run("combine", "--quiet")
    run("json", "--quiet", "--fail-under=0", "-o", REPORT)
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    report = json.loads((ROOT / REPORT).read_text(encoding="utf-8"))
    modules = {
        file.removeprefix("src/"): each["summary"]["percent_covered"]
        for file, each in report["files"].items()
    }
    for module, percent in sorted(modules.items(), key=lambda each: each[1]):
        print(f"{percent:5.1f} % {module}")
    total, least = report["totals"]["percent_covered"], wanted["coverage"]["report"]["fail_under"]
    short = too_little(modules, wanted["coverage-by-module"])
    if total < least:
        short.append(f"all of it has {total:.1f} %, and has to have {least} %")
    if short:
        sys.exit("\n".join(["coverage:", *short]))
    print(f"coverage: {total:.1f} % of all lines, and each module has what it has to have")


def too_little(modules: Mapping[str, float], wanted: Mapping[str, Any]) -> list[str]:
    """What falls short of what it has to have, and what is named and not there."""
    own: Mapping[str, float] = wanted["modules"]
    short = [
        f"{module} has {percent:.1f} %, and has to have {least} %"
        for module, percent in sorted(modules.items())
        if percent < (least := own.get(module, wanted["least"]))
    ]
    return short + [
        f"{module} is no module, but pyproject.toml names it" for module in own.keys() - modules.keys()
    ]


def run(*arguments: str) -> None:
    """Run coverage, and end with what it ends with."""
    done = subprocess.run([*COVERAGE, *arguments], cwd=ROOT)
    if done.returncode:
        sys.exit(f"coverage: `coverage {' '.join(arguments)}` ended with {done.returncode}")


if __name__ == "__main__":
    main(sys.argv[1:])
