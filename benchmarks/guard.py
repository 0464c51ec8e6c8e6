"""Ends what a benchmark has started when the benchmark is gone, however it went.

Reads process groups from standard input, `+123` for one that began and `-123` for one that ended, and kills
those that are left when the input ends. It is a process of its own, since a killed one cleans up nothing.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys

__all__: list[str] = []


def main() -> None:
    # Ctrl+C and the like are for the benchmark, which ends its processes in order; we wait for its end.
    for kind in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(kind, signal.SIG_IGN)
    groups: set[int] = set()
    for line in sys.stdin:
        change = groups.add if line.startswith("+") else groups.discard
        change(int(line[1:]))
    for group in groups:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)


if __name__ == "__main__":
    main()
