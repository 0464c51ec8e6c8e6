"""The parent of workers: starts them, starts them again, tells them to stop, ends what does not.

Owns processes, and the emulator they may work on. A worker is `sbrpc run` itself, with its standard input
open for as long as the supervisor lives, and a pipe on which it says whether it is ready.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from random import uniform
from typing import TYPE_CHECKING, Any

import anyio
import anyio.abc
import typer

from sbrpc._signals import asked_to_stop
from sbrpc.cli import health
from sbrpc.cli.outcome import Exit
from sbrpc.cli.worker import STATUS, end_with_starter, is_ready

if TYPE_CHECKING:
    from sbrpc.export import System

__all__ = ["supervise"]

_log = logging.getLogger("sbrpc.run")

_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 30.0

# Beyond the grace: what it takes to close links, and to be slow about it.
_CLOSING = 20.0
_GRACE = 20.0
_REPLIES = "emulator.replies"

# What ends every worker alike, however often it is started.
_HOPELESS = frozenset({Exit.USAGE, Exit.NOT_FOUND, Exit.DENIED})


async def supervise(
    programs: Sequence[Sequence[str]],
    options: Sequence[str],
    reload_dirs: Sequence[str] | None,
    address: tuple[str, int] | None,
    grace: float | None,
    emulated: System | None,
) -> int:
    """Run a worker for each of the programs until a signal; gives the exit code. A second signal kills them.

    Once all are ready one line is printed: `ready`, or, with a system to emulate, the connection string of
    the emulator that they work on, which has what the system needs.
    """
    end_with_starter()
    supervisor = _Supervisor(programs, options, reload=reload_dirs is not None)
    async with (
        _emulator(emulated) as connection_string,
        health.answering(address, supervisor.report),
        anyio.create_task_group() as beside,
    ):
        if reload_dirs is not None:
            _check_watchfiles()
            beside.start_soon(supervisor.watch, reload_dirs)
        beside.start_soon(supervisor.announce, connection_string or "ready")
        beside.start_soon(supervisor.listen, _GRACE if grace is None else grace)
        await supervisor.run()
        beside.cancel_scope.cancel()
    return supervisor.code


@asynccontextmanager
async def _emulator(system: System | None) -> AsyncIterator[str | None]:
    """An emulator with what a system needs, which workers find in their environment; or nothing."""
    if system is None:
        yield None
        return
    from sbrpc.emulator import Emulator
    from sbrpc.topology import Queue

    entities = system.entities()
    queues = [entity for entity in entities if isinstance(entity, Queue)]
    replies = sorted({grant.entity for grant in system.grants() if grant.reason == "replies"})
    if not replies and any(process.servers for process in system.processes):
        replies = [_REPLIES]  # nobody here calls; somebody at a shell is going to
        queues.append(Queue(_REPLIES, requires_session=True))
    topics = [entity for entity in entities if not isinstance(entity, Queue)]
    async with Emulator(queues=queues, topics=topics, http_port=0) as emulator:
        print(f"sbrpc emulator: look into it at {emulator.http_url}/", file=sys.stderr, flush=True)
        if replies:
            print(f"sbrpc emulator: call with --reply-queue {replies[0]}", file=sys.stderr, flush=True)
        os.environ["SERVICEBUS_CONNECTION_STRING"] = emulator.connection_string
        yield emulator.connection_string


def _check_watchfiles() -> None:
    try:
        import watchfiles  # noqa: F401 - whether it is there
    except ImportError:
        raise typer.BadParameter(
            'watching files needs watchfiles, which is not installed: pip install "sbrpc[cli]"',
            param_hint="--reload",
        ) from None


class _Worker:
    """One process, or the place of one."""

    def __init__(self, number: int, program: Sequence[str]) -> None:
        self.number = number
        self.program = program
        self.process: anyio.abc.Process | None = None
        self.ready = False
        self.was_ready = False
        self.lived = False
        """Whether the present process, or else the last one, was ever ready."""


class _Supervisor:
    def __init__(self, programs: Sequence[Sequence[str]], options: Sequence[str], *, reload: bool) -> None:
        self.code = int(Exit.DONE)
        self._options = options
        self._workers = [_Worker(number, program) for number, program in enumerate(programs, 1)]
        self._reload = reload
        self._stopping = anyio.Event()
        self._changed = anyio.Event()
        self._complete = anyio.Event()

    def report(self) -> tuple[bool, bool, Mapping[str, Any]]:
        """Live while it supervises, ready while a worker of each program is."""
        states = [
            {
                "worker": each.number,
                "apps": list(each.program),
                "process": each.process.pid if each.process else None,
                "ready": each.ready,
            }
            for each in self._workers
        ]
        ready = {tuple(each.program) for each in self._workers if each.ready}
        return True, ready == {tuple(each.program) for each in self._workers}, {"workers": states}

    async def run(self) -> None:
        """Keep all workers until it is told to stop, or none can be kept."""
        async with anyio.create_task_group() as tasks:
            for worker in self._workers:
                tasks.start_soon(self._keep, worker)

    async def listen(self, grace: float) -> None:
        """Pass a signal on, and end what has not ended by itself when the grace is over or it is repeated."""
        await asked_to_stop()
        _log.info("stopping %d workers", len(self._workers))
        self.stop()
        with anyio.move_on_after(grace + _CLOSING):
            await asked_to_stop()
        for worker in self._workers:
            self._end(worker, kill=True)

    async def announce(self, line: str) -> None:
        """Print the line on standard output once every worker has been ready."""
        await self._complete.wait()
        print(line, flush=True)

    async def watch(self, dirs: Sequence[str]) -> None:
        """Start the workers anew whenever Python files change."""
        from watchfiles import PythonFilter, awatch

        async for changes in awatch(*dirs, watch_filter=PythonFilter(), raise_interrupt=False):
            _log.info("changed: %s; starting anew", ", ".join(sorted({path for _, path in changes})[:5]))
            changed, self._changed = self._changed, anyio.Event()
            changed.set()
            for worker in self._workers:
                self._end(worker)

    def stop(self) -> None:
        """Tell all workers to drain and to end."""
        self._stopping.set()
        for worker in self._workers:
            self._end(worker)

    def _end(self, worker: _Worker, *, kill: bool = False) -> None:
        if worker.process is not None and worker.process.returncode is None:
            with suppress(ProcessLookupError):
                worker.process.kill() if kill else worker.process.terminate()

    async def _keep(self, worker: _Worker) -> None:
        """One process after the other, with longer pauses between those that do not live."""
        failures = 0
        while not self._stopping.is_set():
            changed = self._changed
            code = await self._live(worker)
            if self._stopping.is_set():
                return
            if changed.is_set():
                failures = 0
                continue
            if self._reload:
                _log.warning("ended with %s; waiting for a change", code)
                await self._until_stopping_or(changed)
                continue
            if code in _HOPELESS and not self._was_ready(worker.program):
                self.code = code
                self.stop()
                return
            # One that was ready has shown that it can start.
            failures = 1 if worker.lived else failures + 1
            pause = min(_FIRST_PAUSE * 2 ** (failures - 1), _LONGEST_PAUSE) * uniform(0.8, 1.2)
            _log.warning(
                "worker %d ended with %s; starting another %s in %.1f s",
                worker.number,
                code,
                " ".join(worker.program),
                pause,
            )
            with anyio.move_on_after(pause):
                await self._stopping.wait()

    def _was_ready(self, program: Sequence[str]) -> bool:
        return any(each.was_ready for each in self._workers if each.program == program)

    async def _until_stopping_or(self, other: anyio.Event) -> None:
        async with anyio.create_task_group() as either:

            async def wait(event: anyio.Event) -> None:
                await event.wait()
                either.cancel_scope.cancel()

            either.start_soon(wait, self._stopping)
            either.start_soon(wait, other)

    async def _live(self, worker: _Worker) -> int:
        """Start a process and wait for its end; gives its exit code, negative for a signal."""
        reading, writing = os.pipe()
        os.set_inheritable(writing, True)
        try:
            process = await anyio.open_process(
                [sys.executable, "-m", "sbrpc", "run", *worker.program, *self._options],
                env={**os.environ, STATUS: str(writing)},
                stdin=subprocess.PIPE,
                stdout=None,
                stderr=None,
                # A group of its own: Ctrl-C is for the supervisor, which passes it on once.
                start_new_session=True,
                pass_fds=(writing,),
            )
        finally:
            os.close(writing)
        worker.process, worker.lived = process, False
        if self._stopping.is_set():
            self._end(worker)
        _log.info("worker %d is process %d: %s", worker.number, process.pid, " ".join(worker.program))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._hear, worker, reading)
            try:
                code = await process.wait()
            finally:
                self._end(worker, kill=True)
                tasks.cancel_scope.cancel()
        worker.ready, worker.process = False, None
        return code

    async def _hear(self, worker: _Worker, reading: int) -> None:
        stream = os.fdopen(reading, "rb", buffering=0)
        os.set_blocking(reading, False)
        rest = b""
        try:
            while True:
                await anyio.wait_readable(stream)
                data = stream.read(4096)
                if data == b"":
                    return
                *lines, rest = (rest + (data or b"")).split(b"\n")
                for line in lines:
                    worker.ready = is_ready(line)
                    if worker.ready:
                        worker.lived = worker.was_ready = True
                if all(each.was_ready for each in self._workers):
                    self._complete.set()
        finally:
            stream.close()
