"""Runs Python programs in processes of their own that need not import the libraries first: by fork.

A process that tests begin spends a second on importing the SDK and what else commands need. So one process,
the server, imports it once for all that a pytest process begins, and each program runs in a copy of it. A
program has its own arguments, environment, directory and standard streams, and ends as any interpreter does.
Nothing of a test is imported before, nor anything that looks at its environment when it is. Where there is no
such fork, and with another `PYTHONPATH`, programs start from nothing.

What is about starting itself, about signals, or about what is imported, does not belong here.
"""

from __future__ import annotations

import gc
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from threading import Lock
from time import monotonic
from typing import IO, Any

import anyio

__all__ = ["Finished", "end", "run", "run_aside"]

LINUX = sys.platform == "linux"
ROOT = Path(__file__).resolve().parents[1]
PRELOADED = (
    "azure.servicebus.aio",
    "azure.servicebus.aio.management",
    "sbrpc.cli.app",
    "sbrpc.diagnosis",
    "sbrpc.emulator",
    "sbrpc.export",
    "sbrpc.running",
    "sbrpc.testing",
    "rich.markdown",
    "rich.table",
    "typer.rich_utils",
    "anyio._backends._asyncio",
)
PATIENCE = 60.0
"""Seconds that a program may take."""

Finished = subprocess.CompletedProcess[bytes]


async def run_aside(*arguments: str, **options: Any) -> Finished:
    """As `run`, while the loop goes on."""
    return await anyio.to_thread.run_sync(lambda: run(*arguments, **options))


def run(
    *arguments: str,
    env: Mapping[str, str] | None = None,
    cwd: Path = ROOT,
    given: bytes = b"",
    together: bool = False,
    patience: float = PATIENCE,
) -> Finished:
    """What `python ARGUMENTS` writes and ends with; `-m MODULE ...` or `FILE ...`.

    `together` has what it writes to standard error among its output. What takes longer than `patience` is
    killed, and raises `subprocess.TimeoutExpired`. May be called from several threads at once.
    """
    environment = dict(os.environ if env is None else env)
    with (
        tempfile.TemporaryFile() as standard_in,
        tempfile.TemporaryFile() as out,
        tempfile.TemporaryFile() as err,
    ):
        standard_in.write(given)
        standard_in.seek(0)
        streams = (standard_in, out, out if together else err)
        # With another path it may be that other modules are found.
        forks = LINUX and environment.get("PYTHONPATH") == os.environ.get("PYTHONPATH")
        code = (_fork if forks else _spawn)(arguments, environment, cwd, streams, patience)
        for written in (out, err):
            written.seek(0)
        return Finished([sys.executable, *arguments], code, out.read(), err.read())


def _spawn(
    arguments: tuple[str, ...],
    environment: dict[str, str],
    cwd: Path,
    streams: tuple[IO[bytes], ...],
    patience: float,
) -> int:
    program = [sys.executable, *arguments]
    given, out, err = streams
    return subprocess.run(
        program, env=environment, cwd=cwd, stdin=given, stdout=out, stderr=err, timeout=patience, check=False
    ).returncode


def _fork(
    arguments: tuple[str, ...],
    environment: dict[str, str],
    cwd: Path,
    streams: tuple[IO[bytes], ...],
    patience: float,
) -> int:
    request = json.dumps({"arguments": arguments, "environment": environment, "cwd": str(cwd)}).encode()
    until = monotonic() + patience
    ours, theirs = os.pipe()
    try:
        with _lock:
            server = _server()
        try:
            socket.send_fds(server, [request], [*(stream.fileno() for stream in streams), theirs])
        finally:
            os.close(theirs)
        pid = int(_said(ours, until) or 0)
        status = _said(ours, until) if pid else b""
        if not status:
            if pid:
                os.kill(pid, signal.SIGKILL)
                _said(ours, monotonic() + PATIENCE)
            raise subprocess.TimeoutExpired([sys.executable, *arguments], patience)
        return os.waitstatus_to_exitcode(int(status))
    finally:
        os.close(ours)


def _said(pipe: int, until: float) -> bytes:
    """The next number that the server writes of a program; nothing if there is none in time."""
    said = b""
    while not said.endswith(b"\n"):
        ready, _, _ = select.select([pipe], [], [], max(0.0, until - monotonic()))
        more = os.read(pipe, 1) if ready else b""
        if not more:
            return b""
        said += more
    return said


_lock = Lock()
_running: tuple[subprocess.Popen[bytes], socket.socket] | None = None


def _server() -> socket.socket:
    global _running
    if _running is None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            command = [sys.executable, "-m", "tests.forked", str(theirs.fileno())]
            # What is read when a module is imported is for all programs the same.
            wide = {"COLUMNS": "200", "NO_COLOR": "1"}
            process = subprocess.Popen(
                command, pass_fds=[theirs.fileno()], cwd=ROOT, env=os.environ | wide, stdin=subprocess.DEVNULL
            )
        _running = process, ours
    return _running[1]


def end() -> None:
    """End the server, if there is one."""
    global _running
    if _running is not None:
        process, connection = _running
        connection.close()
        process.wait(PATIENCE)
        _running = None


# -- in the server -----------------------------------------------------------------------------------------


def serve(connection: socket.socket) -> dict[str, Any] | None:
    """Make a copy of this process for each request: returns in the copy, with the request, or at the end."""
    pipes: dict[int, int] = {}

    def reap(*_: object) -> None:
        while pipes:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            pipe = pipes.pop(pid)
            try:
                os.write(pipe, b"%d\n" % status)
            except BrokenPipeError:  # nobody waits for it any longer
                pass
            os.close(pipe)

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for those who test
    signal.signal(signal.SIGCHLD, reap)
    while True:
        request, streams, _, _ = socket.recv_fds(connection, 2**20, 4)
        if not request:
            return None
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
        pid = os.fork()
        if pid == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])
            connection.close()
            for each in pipes.values():
                os.close(each)
            for number, stream in enumerate(streams[:3]):
                os.dup2(stream, number)
            for stream in streams:
                os.close(stream)
            return dict(json.loads(request))
        pipes[pid] = streams[3]
        os.write(streams[3], b"%d\n" % pid)
        for stream in streams[:3]:
            os.close(stream)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])


def main() -> None:
    """Serve; in a copy, be the program that was asked for."""
    with socket.socket(fileno=int(sys.argv[1])) as connection:
        for module in PRELOADED:
            import_module(module)
        gc.freeze()
        request = serve(connection)
    if request is None:
        return
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["environment"])
    first, *arguments = request["arguments"]
    if first == "-m":
        module, *arguments = arguments
        sys.argv, sys.path[0] = [module, *arguments], request["cwd"]
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    else:
        sys.argv, sys.path[0] = [first, *arguments], str(Path(first).parent)
        runpy.run_path(first, run_name="__main__")


if __name__ == "__main__":
    main()
