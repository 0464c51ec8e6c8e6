"""Processes that a benchmark starts: ready when they say so, measured from outside, gone at any exit.

Owns starting, stopping and the reading of `/proc`. Knows nothing of what the processes do.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

__all__ = ["ROOT", "Child", "NotReady", "Stage", "child_environment", "cpus", "module"]

ROOT = Path(__file__).resolve().parent.parent
_TICKS = os.sysconf("SC_CLK_TCK")


class NotReady(RuntimeError):
    """A process ended, or said nothing for too long, before it was ready."""


def cpus() -> list[int]:
    """The processors this process may run on."""
    return sorted(os.sched_getaffinity(0))


def child_environment() -> dict[str, str]:
    """The environment of what is measured: our source on the path, and compiled files as users have them."""
    inherited = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    source = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    return {**inherited, "PYTHONPATH": source, "PYTHONUNBUFFERED": "1"}


def module(name: str, *arguments: str) -> list[str]:
    """The command for a module of this package in a process of its own."""
    return [sys.executable, "-m", f"benchmarks.{name}", *arguments]


class _Guard:
    """The process that outlives this one for as long as it takes to end what it leaves behind."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def tell(self, sign: str, group: int) -> None:
        """`+` for a process group that has begun, `-` for one that has ended."""
        if self._process is None:
            self._process = subprocess.Popen(
                module("guard"), stdin=subprocess.PIPE, cwd=ROOT, start_new_session=True
            )
        assert self._process.stdin is not None
        # Should somebody have killed it, the benchmark can still do without.
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(f"{sign}{group}\n".encode())
            self._process.stdin.flush()


_guard = _Guard()


class Child:
    """One process in a group of its own; its output goes to a file that is shown when it fails."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | str = ROOT,
        cpu: int | None = None,
    ) -> None:
        self.name = name
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed in stop
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            cwd=cwd,
            env={**child_environment(), **(env or {})},
            start_new_session=True,
        )
        _guard.tell("+", self.pid)
        if cpu is not None:
            os.sched_setaffinity(self.pid, {cpu})
        self._pending = b""

    @property
    def pid(self) -> int:
        return self.process.pid

    # -- what it says -----------------------------------------------------------------------------------

    def line(self, timeout: float) -> str:
        """The next line of its output; `NotReady` when none comes in time."""
        stdout = self.process.stdout
        assert stdout is not None
        ends = time.monotonic() + timeout
        with selectors.DefaultSelector() as selector:
            selector.register(stdout, selectors.EVENT_READ)
            while b"\n" not in self._pending:
                if not selector.select(max(0.0, ends - time.monotonic())):
                    raise NotReady(f"{self.name} said nothing for {timeout:.0f} s\n{self.log()}")
                part = os.read(stdout.fileno(), 1 << 16)
                if not part:
                    self.process.wait(10)
                    code = self.process.returncode
                    raise NotReady(f"{self.name} ended with {code}\n{self.log()}")
                self._pending += part
        line, _, self._pending = self._pending.partition(b"\n")
        return line.decode()

    def ready(self, prefix: str, timeout: float = 30.0) -> str:
        """Wait for the line that begins with `prefix` and give it."""
        ends = time.monotonic() + timeout
        while True:
            line = self.line(max(0.01, ends - time.monotonic()))
            if line.startswith(prefix):
                return line

    def tell(self, text: str) -> None:
        """Write a line to its input."""
        assert self.process.stdin is not None
        self.process.stdin.write(text.encode() + b"\n")
        self.process.stdin.flush()

    def log(self) -> str:
        """The end of what it wrote to its error output."""
        self._log.seek(0)
        return self._log.read()[-3000:].decode(errors="replace")

    # -- what it costs ----------------------------------------------------------------------------------

    def _family(self) -> Iterator[int]:
        """The process and its descendants: brokers in shell scripts have their engine in a child."""
        children: dict[int, list[int]] = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    parent = (entry / "stat").read_text().rpartition(")")[2].split()[1]
                    children.setdefault(int(parent), []).append(int(entry.name))
        waiting = [self.pid]
        while waiting:
            pid = waiting.pop()
            yield pid
            waiting += children.get(pid, [])

    def cpu_seconds(self) -> float:
        """Processor time used so far, user and system, with that of its children."""
        total = 0
        for pid in self._family():
            with contextlib.suppress(OSError):
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                total += int(fields[11]) + int(fields[12])
        return total / _TICKS

    def resident_mb(self) -> float:
        """Resident memory in MB, with that of its children."""
        total = 0
        for pid in self._family():
            with contextlib.suppress(OSError):
                for line in Path(f"/proc/{pid}/status").read_text().splitlines():
                    if line.startswith("VmRSS:"):
                        total += int(line.split()[1])
        return total / 1024

    # -- the end ----------------------------------------------------------------------------------------

    def stop(self, grace: float = 5.0) -> None:
        """Ask it to end, then make it; safe to call twice."""
        for kind, patience in ((signal.SIGTERM, grace), (signal.SIGKILL, 5.0)):
            if self.process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self.pid, kind)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self.process.wait(patience)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        _guard.tell("-", self.pid)
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        self._log.close()


class Stage(contextlib.ExitStack):
    """Children that are all stopped, in reverse order, when the block ends."""

    def start(
        self,
        name: str,
        command: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | str = ROOT,
        cpu: int | None = None,
    ) -> Child:
        """Start one more child."""
        child = Child(name, command, env=env, cwd=cwd, cpu=cpu)
        self.callback(child.stop)
        return child
