"""The serving process of one peer: serves until its standard input ends, and tells what events it saw."""

from __future__ import annotations

import asyncio
import importlib
import json
import sys
from array import array
from collections.abc import Callable
from time import monotonic
from typing import Any

from benchmarks.client import quantiles
from benchmarks.models import MovieChanged
from benchmarks.stdio import Lines, run

__all__: list[str] = []


class Record:
    """The events since somebody asked last."""

    def __init__(self, say: Callable[[Any], None]) -> None:
        self._say = say
        self._clear()

    def _clear(self) -> None:
        self._seen: set[int] = set()
        self._latencies = array("d")
        self._last = 0.0

    def ready(self) -> None:
        self._say({"ready": True})

    def handled(self, event: MovieChanged) -> None:
        self._last = monotonic()
        self._latencies.append(self._last - event.sent_at)
        self._seen.add(event.id)

    def told(self, reset: bool) -> dict[str, Any]:
        """The figures so far; with `reset` the next ones begin anew."""
        figures = {
            "count": len(self._latencies),
            "distinct": len(self._seen),
            "last": self._last,
            **quantiles(self._latencies),
        }
        if reset:
            self._clear()
        return figures


async def main(arguments: list[str], lines: Lines, say: Callable[[Any], None]) -> None:
    module = importlib.import_module(f"benchmarks.peers.{arguments[0]}")
    record = Record(say)
    serving = asyncio.create_task(module.serve(json.loads(arguments[1]), record))

    async def obey() -> None:
        async for line in lines:
            order = json.loads(line)
            say(record.told(order.get("reset", False)))

    obeying = asyncio.create_task(obey())
    await asyncio.wait([serving, obeying], return_when=asyncio.FIRST_COMPLETED)
    if serving.done():
        serving.result()
        raise RuntimeError("the server ended by itself")
    serving.cancel()
    await asyncio.wait([serving], timeout=3)


if __name__ == "__main__":
    run(main, sys.argv[1:])
