"""A PostgreSQL of its own for the tests: a cluster in a temporary directory, on loopback, gone afterwards.

Taken from PATH or from where Debian keeps it. `SBRPC_TEST_POSTGRES` names one that runs already, as a URL for
SQLAlchemy.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from sbrpc.testing import free_port

__all__ = ["postgres"]


def _programs() -> Path | None:
    """Where `initdb` and `pg_ctl` of the newest version are."""
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: float(path.parent.name))
    found = shutil.which("initdb")
    candidates = [*reversed(debian), *([Path(found).resolve().parent] if found else [])]
    return next((path for path in candidates if (path / "initdb").exists()), None)


@contextmanager
def postgres(shared: Path | None = None) -> Iterator[str | None]:
    """The URL of an empty database of one's own, or `None` where PostgreSQL is not installed.

    Processes that name the same folder share a server, which the first one starts and the last one stops:
    to make a cluster takes seconds.
    """
    given = os.environ.get("SBRPC_TEST_POSTGRES")
    programs = _programs()
    if given or programs is None:
        yield given
    elif shared is None:
        cluster = _Cluster.start(programs)
        try:
            yield cluster.url("postgres")
        finally:
            cluster.stop(programs)
    else:
        with _members(shared) as members:
            cluster = _Cluster(**members["cluster"]) if members else _Cluster.start(programs)
            members["cluster"] = vars(cluster)
            members["there"] = members.get("there", 0) + 1
            name = f"tests_{os.getpid()}_{members['there']}"
            to = ["-h", "127.0.0.1", "-p", str(cluster.port), "-U", "sbrpc"]
            _run([programs / "createdb", *to, name])
        try:
            yield cluster.url(name)
        finally:
            with _members(shared) as members:
                members["there"] -= 1
                if not members["there"]:
                    members.clear()
                    cluster.stop(programs)


@dataclass
class _Cluster:
    """A server that runs, and where it keeps what it has."""

    home: str
    port: int

    @classmethod
    def start(cls, programs: Path) -> _Cluster:
        home = Path(mkdtemp(prefix="sbrpc-postgres-"))
        try:
            if os.getuid() == 0:
                shutil.chown(home, "postgres")
            port = free_port()
            at = ["-D", home / "data"]
            init = [programs / "initdb", *at, "-U", "sbrpc", "-A", "trust", "-E", "UTF8", "--no-sync"]
            _run_as_its_user(init, home)
            options = f"-p {port} -h 127.0.0.1 -k {home} -c fsync=off"
            start = [programs / "pg_ctl", *at, "-w", "-l", home / "log", "-o", options, "start"]
            _run_as_its_user(start, home)
        except BaseException:
            shutil.rmtree(home, ignore_errors=True)
            raise
        return cls(str(home), port)

    def url(self, database: str) -> str:
        return f"postgresql+asyncpg://sbrpc@127.0.0.1:{self.port}/{database}"

    def stop(self, programs: Path) -> None:
        stop = [programs / "pg_ctl", "-D", f"{self.home}/data", "-w", "-m", "immediate", "stop"]
        try:
            _run_as_its_user(stop, Path(self.home))
        finally:
            shutil.rmtree(self.home, ignore_errors=True)


def _run_as_its_user(command: list[str | Path], home: Path) -> None:
    # PostgreSQL refuses to run as root; where the tests do, it runs as the user that its package made.
    as_user: list[str | Path] = ["runuser", "-u", "postgres", "--"] if os.getuid() == 0 else []
    _run([*as_user, *command], cwd=home)


def _run(command: list[str | Path], cwd: Path | None = None) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=120, cwd=cwd)


@contextmanager
def _members(folder: Path) -> Iterator[dict[str, Any]]:
    """What the processes know that share a server, for one of them at a time; empty before the first."""
    with (folder / "postgres.json").open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        members = json.loads(file.read() or "{}")
        yield members
        file.seek(0)
        file.truncate()
        json.dump(members, file)
