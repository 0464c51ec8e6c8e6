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
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import IO, Any

import anyio
from anyio.abc import Process
from anyio.streams.buffered import BufferedByteReceiveStream

CONFIG = Path(__file__).with_name("Config.json")
GRACE = 15.0  # seconds that a process has to finish what it is doing


class Kept:
    """One process that shall be there."""

    def __init__(
        self, command: list[str], env: dict[str, str], log: IO[str] | None, say: Callable[[str], object]
    ):
        self.command, self.env, self.log, self.say = command, env, log, say
        self.first_line = ""
        self.is_up = anyio.Event()

    async def up(self) -> str:
        """Wait until it is up; what it prints then: an address, or just a word."""
        await self.is_up.wait()
        return self.first_line

    async def keep(self) -> None:
        """Run it until cancelled. One that does not come up is an error, one that ends later is restarted."""
        name = self.command[0]
        while True:
            process = await anyio.open_process(
                [sys.executable, "-m", "movies", *self.command],
                stdin=subprocess.PIPE,  # its end tells the process that this one is gone, see `watch_parent`
                stderr=self.log,
                env=self.env,
                start_new_session=True,  # Ctrl-C reaches this process alone, which ends the others in order
            )
            try:
                code = await self._run(process)
            finally:
                await _stop(process)
            if not self.is_up.is_set():
                raise RuntimeError(f"movies {name} did not start (exit code {code})")
            self.say(f"movies {name} (process {process.pid}) ended with exit code {code}; starting it again")
            await anyio.sleep(0.5)

    async def _run(self, process: Process) -> int:
        assert process.stdout is not None
        output = BufferedByteReceiveStream(process.stdout)
        try:
            line = (await output.receive_until(b"\n", 4096)).decode().strip()
            if not self.is_up.is_set():
                self.first_line = line
                if port := re.search(r":(\d+)", line):  # the next one takes the same address
                    self.command += ["--port", port[1]]
                self.is_up.set()
            async for rest in output:
                print(rest.decode(errors="replace"), end="", file=self.log or sys.stderr)
        except (anyio.EndOfStream, anyio.IncompleteRead):
            pass  # it ended, as `wait` says below
        return await process.wait()


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
        "PYTHONUNBUFFERED": "1",
    }
    async with AsyncExitStack() as stack:

        async def start(*command: str) -> Kept:
            group = await stack.enter_async_context(anyio.create_task_group())
            stack.callback(group.cancel_scope.cancel)
            kept = Kept([*command], env, log, say)
            group.start_soon(kept.keep, name=f"keep {command[0]}")
            return kept

        if not env.get("SERVICEBUS_CONNECTION_STRING"):
            emulator = await start("emulator", "--config", str(CONFIG), "--port", "0", "--http-port", "0")
            env["SERVICEBUS_CONNECTION_STRING"] = await emulator.up()
        others = [await start("service"), await start("events"), await start("api", "--port", str(port))]
        for kept in others:
            url = await kept.up()
        yield env["SERVICEBUS_CONNECTION_STRING"], url


async def _stop(process: Process) -> None:
    with anyio.CancelScope(shield=True):
        if process.returncode is None:
            process.terminate()
            with anyio.move_on_after(GRACE):
                await process.wait()
        await process.aclose()  # kills it if need be


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
        time.sleep(GRACE)
        os._exit(1)

    if os.environ.pop("MOVIES_WATCH_PARENT", None):
        threading.Thread(target=watch, daemon=True).start()
