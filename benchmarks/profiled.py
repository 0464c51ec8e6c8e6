"""The `sbrpc` command under cProfile: the first argument is where the profile goes."""

from __future__ import annotations

import cProfile
import sys

from sbrpc.__main__ import main

if __name__ == "__main__":
    target = sys.argv.pop(1)
    profiler = cProfile.Profile()
    try:
        profiler.runcall(main)
    finally:
        profiler.dump_stats(target)
