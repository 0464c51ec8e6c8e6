"""Processes that tests start: told what they say, waited for with a bound, and never left behind."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import anyio

__all__ = ["Child", "child"]

_TESTS = Path(__file__).resolve().parents[1]

_PATIENCE = 60.0
"""Seconds that anything a child is waited for may take, on a machine that is busy."""


class Child:
    """A process that writes lines."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @property
    def pid(self) -> int:
        return self._process.pid

    async def line(self, beginning: str) -> str:
        """The next line that begins so; what comes before it is skipped."""
        assert self._process.stdout is not None
        async with _bounded(f"a line {beginning!r}"):
            while line := (await self._process.stdout.readline()).decode():
                if line.startswith(beginning):
                    return line.strip()
        raise AssertionError(f"the process ended ({await self.ended()}) before it wrote {beginning!r}")

    async def tell(self, line: str) -> None:
        """Write a line to it."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n".encode())
        await self._process.stdin.drain()

    async def ended(self) -> int:
        """Wait for its end; the exit code."""
        async with _bounded("the end of a process"):
            return await self._process.wait()

    def kill(self) -> None:
        """kill -9."""
        if self._process.returncode is None:
            self._process.kill()

    def terminate(self) -> None:
        """SIGTERM."""
        self._process.terminate()


@asynccontextmanager
async def child(module: str, arguments: Sequence[str]) -> AsyncIterator[Child]:
    """A process that runs a module of the tests; it is killed at the end of the block if it still runs."""
    path = os.pathsep.join([str(_TESTS), *filter(None, sys.path)])
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        module,
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": path},
    )
    started = Child(process)
    try:
        yield started
    finally:
        started.kill()
        await process.communicate()


@asynccontextmanager
async def _bounded(what: str) -> AsyncIterator[None]:
    try:
        with anyio.fail_after(_PATIENCE):
            yield
    except TimeoutError:
        raise AssertionError(f"waited {_PATIENCE:g} s for {what}") from None
