"""The process that hosts emulators for the suite: one JSON request per line in, one JSON answer out.

Requests are `{"do": "start", "scenarios": [names]}`, `{"do": "advance", "emulator": n, "seconds": s}` and
`{"do": "stop", "emulator": n}`. A process of its own keeps the emulator out of the tests' interpreter, so
that neither waits for the other, and lets several emulators with clocks of their own run side by side.
It uses what any user of the emulator uses and knows no SDK. It ends when its input does.
"""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import AsyncExitStack
from typing import Any

from sbrpc.emulator import Emulator

from .scenarios import by_name


class Host:
    """The emulators that run, by number."""

    def __init__(self) -> None:
        self._running: dict[int, tuple[Emulator, AsyncExitStack]] = {}
        self._started = 0

    async def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """What a request asks for, done."""
        if request["do"] == "start":
            return await self._start([by_name[name] for name in request["scenarios"]])
        if request["do"] == "advance":
            emulator, _ = self._running[request["emulator"]]
            await emulator.advance(request["seconds"])
            return {}
        if request["do"] == "stop":
            _, stack = self._running.pop(request["emulator"])
            await stack.aclose()
            return {}
        raise ValueError(f"unknown request {request!r}")

    async def _start(self, scenarios: list[Any]) -> dict[str, Any]:
        stack = AsyncExitStack()
        emulator = await stack.enter_async_context(
            Emulator(
                queues=[queue for scenario in scenarios for queue in scenario.queues],
                topics=[topic for scenario in scenarios for topic in scenario.topics],
                host="127.0.0.1",
                port=0,
            )
        )
        self._started += 1
        self._running[self._started] = (emulator, stack)
        return {"emulator": self._started, "connection_string": emulator.connection_string}

    async def stop_all(self) -> None:
        """Stop every emulator that still runs."""
        while self._running:
            await self._running.popitem()[1][1].aclose()


async def _serve() -> None:
    host = Host()
    loop = asyncio.get_running_loop()
    requests = asyncio.StreamReader(limit=2**20)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(requests), sys.stdin)
    pending: set[asyncio.Task[None]] = set()

    async def handle(line: bytes) -> None:
        request = json.loads(line)
        try:
            answer = await host.answer(request)
        except Exception as exc:  # whoever asked raises it; the host goes on serving
            answer = {"error": f"{type(exc).__name__}: {exc}"}
        print(json.dumps({"id": request["id"], **answer}), flush=True)

    while line := await requests.readline():
        task = asyncio.create_task(handle(line))
        pending.add(task)
        task.add_done_callback(pending.discard)
    await asyncio.gather(*pending)
    await host.stop_all()


if __name__ == "__main__":
    asyncio.run(_serve())
