"""A PostgreSQL of its own for the tests: a cluster in a temporary directory, on loopback, gone afterwards.

Taken from PATH or from where Debian keeps it. `SBRPC_TEST_POSTGRES` names one that runs already, as a URL for
SQLAlchemy.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp

__all__ = ["postgres"]


def _programs() -> Path | None:
    """Where `initdb` and `pg_ctl` of the newest version are."""
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: float(path.parent.name))
    found = shutil.which("initdb")
    candidates = [*reversed(debian), *([Path(found).resolve().parent] if found else [])]
    return next((path for path in candidates if (path / "initdb").exists()), None)


@contextmanager
def postgres() -> Iterator[str | None]:
    """The URL of a running server, or `None` where PostgreSQL is not installed."""
    given = os.environ.get("SBRPC_TEST_POSTGRES")
    if given:
        yield given
        return
    programs = _programs()
    if programs is None:
        yield None
        return
    # PostgreSQL refuses to run as root; where the tests do, it runs as the user that its package made.
    as_user = ["runuser", "-u", "postgres", "--"] if os.getuid() == 0 else []
    home = Path(mkdtemp(prefix="sbrpc-postgres-"))
    try:
        if as_user:
            shutil.chown(home, "postgres")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        data = str(home / "data")
        init = [str(programs / "initdb"), "-D", data, "-U", "sbrpc", "-A", "trust", "-E", "UTF8", "--no-sync"]
        subprocess.run([*as_user, *init], check=True, capture_output=True, timeout=120, cwd=home)
        options = f"-p {port} -h 127.0.0.1 -k {home} -c fsync=off"
        control = [str(programs / "pg_ctl"), "-D", data, "-w"]
        start = [*control, "-l", str(home / "log"), "-o", options, "start"]
        subprocess.run([*as_user, *start], check=True, capture_output=True, timeout=120, cwd=home)
        try:
            yield f"postgresql+asyncpg://sbrpc@127.0.0.1:{port}/postgres"
        finally:
            stop = [*control, "-m", "immediate", "stop"]
            subprocess.run([*as_user, *stop], check=False, capture_output=True, timeout=60, cwd=home)
    finally:
        shutil.rmtree(home, ignore_errors=True)
