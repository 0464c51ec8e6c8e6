"""Runs the example's processes: starts each, starts it again when it ends, and leaves none behind.

It knows their command lines and the first line that each prints when it is up, nothing of what they do.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
from anyio.streams.text import TextReceiveStream

CONFIG = Path(__file__).with_name("Config.json")
GRACE = 15.0  # seconds that a process has to finish what it is doing


@dataclass
class Kept:
    """One process that shall be there. `up` is what it prints first: its address, or just words."""

    command: list[str]
    env: dict[str, str]
    up: asyncio.Future[str] = field(default_factory=asyncio.Future)
    ended: anyio.Event = field(default_factory=anyio.Event)
    # Shielded: an interrupt cancels everything at once, and yet the processes are to end one after the other.
    scope: anyio.CancelScope = field(default_factory=lambda: anyio.CancelScope(shield=True))

    async def keep(self) -> None:
        """Run it until `stop`. One that does not come up is an error, one that ends later is restarted."""
        try:
            with self.scope:
                while True:
                    code = await self._run()
                    if not self.up.done():
                        raise RuntimeError(f"movies {self.command[0]} did not start (exit code {code})")
                    print(
                        f"movies {self.command[0]} ended with exit code {code}; starting it again", flush=True
                    )
                    await anyio.sleep(0.5)
        finally:
            self.ended.set()

    async def stop(self) -> None:
        self.scope.cancel()
        await self.ended.wait()

    async def _run(self) -> int | None:
        process = await anyio.open_process(
            [sys.executable, "-m", "movies", *self.command],
            stdin=subprocess.PIPE,  # its end tells the process that this one is gone, see `watch_parent`
            stderr=None,
            env=self.env,
            start_new_session=True,  # Ctrl-C reaches this process alone, which ends the others in order
        )
        try:
            assert process.stdout is not None
            async for text in TextReceiveStream(process.stdout):
                if not self.up.done():
                    self.up.set_result(text.strip())
                    if port := re.search(r":(\d+)", text):  # the next one takes the same address
                        self.command += ["--port", port[1]]
            await process.wait()
        finally:
            with anyio.CancelScope(shield=True):
                if process.returncode is None:
                    process.terminate()
                    with anyio.move_on_after(GRACE):
                        await process.wait()
                await process.aclose()  # kills it if need be
        return process.returncode


@asynccontextmanager
async def running(directory: Path, port: int) -> AsyncIterator[tuple[str, str]]:
    """All of the example, its databases in `directory`: yields the connection string and the API's URL."""
    env = os.environ | {
        "MOVIES_DATABASE": f"sqlite+aiosqlite:///{directory / 'movies.sqlite3'}",
        "MOVIES_READ_MODEL": f"sqlite+aiosqlite:///{directory / 'movies-read-model.sqlite3'}",
        "MOVIES_WATCH_PARENT": "1",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    started: list[Kept] = []
    async with anyio.create_task_group() as group:

        def start(*command: str) -> Kept:
            started.append(Kept([*command], env))
            group.start_soon(started[-1].keep, name=f"keep {command[0]}")
            return started[-1]

        try:
            if not env.get("SERVICEBUS_CONNECTION_STRING"):
                emulator = start("emulator", "--config", str(CONFIG), "--port", "0", "--http-port", "0")
                env["SERVICEBUS_CONNECTION_STRING"] = await emulator.up
            service, events, api = start("service"), start("events"), start("api", "--port", str(port))
            await asyncio.gather(service.up, events.up, api.up)
            yield env["SERVICEBUS_CONNECTION_STRING"], api.up.result()
        finally:
            with anyio.CancelScope(shield=True):
                for kept in reversed(started):
                    await kept.stop()


async def serve(port: int, data: Path | None) -> None:
    """Run everything until cancelled."""
    with tempfile.TemporaryDirectory(prefix="movies-") as temporary:
        directory = (data or Path(temporary)).resolve()
        directory.mkdir(parents=True, exist_ok=True)
        async with running(directory, port) as (connection_string, url):
            print(connection_string, f"The movies API runs on {url}, see {url}/docs", sep="\n", flush=True)
            await anyio.sleep_forever()


async def until_interrupted(work: Coroutine[Any, Any, None]) -> bool:
    """Do the work. SIGINT or SIGTERM cancels it, which ends all processes in order; says whether one did."""
    async with anyio.create_task_group() as group:

        async def watch() -> None:
            with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
                async for _ in signals:
                    group.cancel_scope.cancel()

        group.start_soon(watch)
        await work
        group.cancel_scope.cancel()
        return False
    return True


def watch_parent() -> None:
    """Make a process that `Kept` started end when its parent is gone, even if that was killed."""

    def watch() -> None:
        os.read(0, 1)  # returns at the end of the pipe that the parent holds
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)
        os._exit(1)

    if os.environ.pop("MOVIES_WATCH_PARENT", None):
        threading.Thread(target=watch, daemon=True).start()
