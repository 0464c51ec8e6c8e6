"""Runs the example's processes: starts each, starts it again when it ends, and leaves none behind.

It knows their command lines and the first line that each prints when it is up, nothing of what they do.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import anyio
from anyio.streams.text import TextReceiveStream

CONFIG = Path(__file__).with_name("Config.json")
GRACE = 15.0  # seconds that a process has to finish what it is doing


@dataclass
class Kept:
    """One process that shall be there, and what it prints when it is up: an address, or just words."""

    command: list[str]
    env: dict[str, str]
    log: IO[str] | None
    say: Callable[[str], object]
    first_line: str = ""
    up: anyio.Event = field(default_factory=anyio.Event)
    ended: anyio.Event = field(default_factory=anyio.Event)
    # Shielded: an interrupt cancels everything at once, and yet the processes are to end one after the other.
    scope: anyio.CancelScope = field(default_factory=lambda: anyio.CancelScope(shield=True))

    async def keep(self) -> None:
        """Run it until `stop`. One that does not come up is an error, one that ends later is restarted."""
        try:
            with self.scope:
                while True:
                    code = await self._run()
                    if not self.up.is_set():
                        raise RuntimeError(f"movies {self.command[0]} did not start (exit code {code})")
                    self.say(f"movies {self.command[0]} ended with exit code {code}; starting it again")
                    await anyio.sleep(0.5)
        finally:
            self.ended.set()

    async def stop(self) -> None:
        """End it: it gets some time to finish what it is doing."""
        self.scope.cancel()
        await self.ended.wait()

    async def _run(self) -> int | None:
        process = await anyio.open_process(
            [sys.executable, "-m", "movies", *self.command],
            stdin=subprocess.PIPE,  # its end tells the process that this one is gone, see `watch_parent`
            stderr=self.log,
            env=self.env,
            start_new_session=True,  # Ctrl-C reaches this process alone, which ends the others in order
        )
        try:
            assert process.stdout is not None
            async for text in TextReceiveStream(process.stdout):
                if self.up.is_set():
                    print(text, end="", file=self.log or sys.stderr)
                    continue
                self.first_line = text.strip()
                if port := re.search(r":(\d+)", text):  # the next one takes the same address
                    self.command += ["--port", port[1]]
                self.up.set()
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
async def running(
    directory: Path, port: int, *, log: IO[str] | None = None, say: Callable[[str], object] = print
) -> AsyncIterator[tuple[str, str]]:
    """All of the example: yields the connection string and the URL of the API. Ends in reverse order.

    The databases go to `directory`, what the processes print to `log`, news about them to `say`.
    """
    env = os.environ | {
        "MOVIES_DATABASE": f"sqlite+aiosqlite:///{directory / 'movies.sqlite3'}",
        "MOVIES_READ_MODEL": f"sqlite+aiosqlite:///{directory / 'movies-read-model.sqlite3'}",
        "MOVIES_WATCH_PARENT": "1",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    started: list[Kept] = []
    async with anyio.create_task_group() as group:

        def start(*command: str) -> Kept:
            started.append(Kept([*command], env, log, say))
            group.start_soon(started[-1].keep, name=f"keep {command[0]}")
            return started[-1]

        try:
            if not env.get("SERVICEBUS_CONNECTION_STRING"):
                emulator = start("emulator", "--config", str(CONFIG), "--port", "0", "--http-port", "0")
                await emulator.up.wait()
                env["SERVICEBUS_CONNECTION_STRING"] = emulator.first_line
            for kept in (start("service"), start("events"), api := start("api", "--port", str(port))):
                await kept.up.wait()
            yield env["SERVICEBUS_CONNECTION_STRING"], api.first_line
        finally:
            with anyio.CancelScope(shield=True):
                for kept in reversed(started):
                    await kept.stop()


async def serve(port: int, data: Path | None) -> None:
    """Run everything until cancelled."""
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", port)) == 0:
            raise OSError(f"port {port} is taken; choose another one: --port {port + 1}")
    with tempfile.TemporaryDirectory(prefix="movies-") as temporary:
        directory = (data or Path(temporary)).resolve()
        directory.mkdir(parents=True, exist_ok=True)
        async with running(directory, port) as (connection_string, url):
            print(connection_string, f"The movies API runs on {url}, see {url}/docs", sep="\n", flush=True)
            await anyio.sleep_forever()


async def until_interrupted(work: Coroutine[Any, Any, None]) -> None:
    """Do the work; SIGINT or SIGTERM cancels it, which ends all processes in order."""
    async with anyio.create_task_group() as group:

        async def watch() -> None:
            with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
                async for _ in signals:
                    group.cancel_scope.cancel()

        group.start_soon(watch)
        await work
        group.cancel_scope.cancel()


def watch_parent() -> None:
    """Make a process that `Kept` started end when its parent is gone, even if that was killed."""

    def watch() -> None:
        os.read(0, 1)  # returns at the end of the pipe that the parent holds
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)
        os._exit(1)

    if os.environ.pop("MOVIES_WATCH_PARENT", None):
        threading.Thread(target=watch, daemon=True).start()
