"""A whole application as `sbrpc run` runs it, for tests from end to end: each program in its processes.

Owns the process of the command: how it is started, when it is up, what it says and how it ends. Knows nothing
of the programs.
"""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from random import SystemRandom

import anyio
import anyio.abc
from anyio.streams.text import TextReceiveStream

__all__ = ["Application", "application", "free_port"]

_STARTER = "SBRPC_ENDS_WITH_STDIN"  # the same as in `sbrpc.cli.worker`
_LINES = 10_000
_STOPPING = 60.0  # beyond what the command itself gives its processes


def free_port() -> int:
    """A port of this machine that nobody listens on now, for what has to be told one.

    It is below those that systems choose themselves for whoever asks for port 0 (Linux from 32,768, others
    from 49,152), so that no connection and no emulator has it before the one that is told.
    """
    for port in SystemRandom().sample(range(10_000, 32_768), 1_000):
        try:
            socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            continue
        return port
    raise OSError(errno.EADDRINUSE, "none of a thousand ports of 127.0.0.1 could be listened on")


class Application:
    """A running `sbrpc run`, as `application` gives it."""

    def __init__(self, process: anyio.abc.Process) -> None:
        self.process = process
        """The command. What it has started ends with it, however it ends."""
        self.connection_string = ""
        """Where its emulator is; empty without one."""
        self.said: deque[str] = deque(maxlen=_LINES)
        """The last lines of what it and its programs have printed and logged."""
        self._up = anyio.Event()
        self._over = anyio.Event()

    async def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Stop it with a signal, and kill it where it has not ended after a minute; its exit code."""
        self._send(how)
        with anyio.move_on_after(_STOPPING) as patience:
            await self._over.wait()
        if patience.cancelled_caught:
            self._send(signal.SIGKILL)
        return await self.process.wait()

    def _send(self, how: signal.Signals) -> None:
        # `Popen.send_signal` first asks whether the process has ended and so takes the exit code of one that
        # just has; asyncio, which waits for it, would then report 255.
        if self.process.returncode is None:
            with suppress(ProcessLookupError):
                os.kill(self.process.pid, how)

    async def _failure(self, apps: str, patience: float) -> RuntimeError:
        why = f"it was not ready after {patience:g} s"
        if self._over.is_set():
            why = f"it ended with {await self.process.wait()}"
        return RuntimeError("\n".join([f"{apps}: {why}", *self.said]))

    async def _listen(self, tell: Callable[[str], object] | None) -> None:
        assert self.process.stdout is not None
        rest = ""
        async for text in TextReceiveStream(self.process.stdout, errors="replace"):
            *lines, rest = (rest + text).split("\n")
            for line in lines:
                self.said.append(line)
                if tell is not None:
                    tell(line)
                if line == "ready" or line.startswith("Endpoint=sb://"):
                    self.connection_string = "" if line == "ready" else line
                    self._up.set()
        self._over.set()
        self._up.set()


@asynccontextmanager
async def application(
    *apps: str,
    emulator: bool = True,
    options: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
    cwd: Path | str | None = None,
    timeout: float = 60,
    tell: Callable[[str], object] | None = None,
) -> AsyncIterator[Application]:
    """`sbrpc run --apart --emulator` of these apps, up and ready inside the block, and stopped behind it.

        async with application("shop.service:app", "shop.api:app", env={"PORT": str(free_port())}) as shop:
            ...  # over HTTP at that port, or with an RpcClient(shop.connection_string, ...)

    Any number can run at the same time. An app that is named twice has two processes. Without `emulator`
    they work on the namespace that the environment names. `options` are further ones of `sbrpc run`, `env` is
    added to the environment, and `tell` is called with each line that is printed or logged. Leaving the block
    takes as long as what runs needs to finish, a minute at most. Needs the extra `cli`.

    Raises:
        RuntimeError: it has ended instead, or was not ready within `timeout` seconds; with what it has said.
    """
    command = [sys.executable, "-m", "sbrpc", "run", "--apart", *(["--emulator"] if emulator else [])]
    process = await anyio.open_process(
        [*command, *options, *apps],
        cwd=cwd,
        env={**os.environ, **(env or {}), _STARTER: "1"},
        stdin=subprocess.PIPE,  # which closes when the test's process is killed, and then it ends
        stderr=subprocess.STDOUT,
        start_new_session=True,  # Ctrl-C is for whoever runs the test, who stops this in the end
    )
    running = Application(process)
    failure: Exception | None = None
    async with process, anyio.create_task_group() as beside:
        beside.start_soon(running._listen, tell)
        try:
            with anyio.move_on_after(timeout):
                await running._up.wait()
            if running._over.is_set() or not running._up.is_set():
                failure = await running._failure(" ".join(apps), timeout)
            else:
                yield running
        except Exception as error:  # raised below, where the task group does not wrap it
            failure = error
        finally:
            with anyio.CancelScope(shield=True):
                await running.stop()
    if failure is not None:
        raise failure
