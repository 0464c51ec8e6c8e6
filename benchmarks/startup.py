"""How long imports take, each in an interpreter of its own."""

from __future__ import annotations

import subprocess
import sys

from benchmarks.processes import child_environment

__all__ = ["measure"]

# Half of pydantic is imported where the first model is made.
_NEEDED = "import anyio, anyio.abc, tenacity; from pydantic import BaseModel, TypeAdapter"
_ONE_MODEL = "TypeAdapter(type('Model', (BaseModel,), {}))"

# What is imported first, and what is timed on top of it.
_CASES = {
    "import azure.servicebus.aio": ("pass", "import azure.servicebus.aio"),
    "import sbrpc, after the SDK": ("import azure.servicebus.aio", "import sbrpc"),
    "pydantic with one model, anyio and tenacity, after the SDK": (
        "import azure.servicebus.aio",
        f"{_NEEDED}; {_ONE_MODEL}",
    ),
    "client and server of sbrpc, after the SDK": (
        "import azure.servicebus.aio",
        "from sbrpc import RpcClient, RpcServer",
    ),
    "client and server of sbrpc, after all of these": (
        f"import azure.servicebus.aio; {_NEEDED}; {_ONE_MODEL}",
        "from sbrpc import RpcClient, RpcServer",
    ),
    "import sbrpc.emulator": ("pass", "import sbrpc.emulator"),
}
_PROGRAM = """
{before}
from time import perf_counter
began = perf_counter()
{timed}
print((perf_counter() - began) * 1000)
"""


def measure(rounds: int) -> list[dict[str, float]]:
    """Milliseconds of each case, once per round; the cases take turns."""
    found = []
    # The first round only fills the caches, those of the file system and of the compiler.
    for number in range(rounds + 1):
        figures = {name: _once(*case) for name, case in _CASES.items()}
        if number:
            found.append(figures)
    return found


def _once(before: str, timed: str) -> float:
    program = _PROGRAM.format(before=before, timed=timed)
    told = subprocess.run(
        [sys.executable, "-c", program],
        env=child_environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return float(told.stdout)
