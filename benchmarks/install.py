"""What the comparison needs that Python's package index does not have: brokers and the JavaScript SDK.

Installs it where it can (Debian packages as root, npm) and says what is left out where it cannot.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from pathlib import Path

from benchmarks import brokers
from benchmarks.peers import PEERS

__all__ = ["ensure"]

_PACKAGES = {"nats": "nats-server", "rabbit": "rabbitmq-server"}
_JS = Path(__file__).parent / "peers" / "js"


def _quietly(command: list[str], *, cwd: Path | None = None, seconds: float = 300) -> None:
    # Services of packages are not to be started: the benchmark starts its own, on ports of its own.
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        subprocess.run(command, cwd=cwd, env=env, timeout=seconds, capture_output=True, check=False)


def ensure() -> dict[str, str]:
    """Install what is missing. The names of peers that cannot run, each with the reason."""
    wanted = [package for kind, package in _PACKAGES.items() if brokers.missing(kind)]
    if wanted and shutil.which("apt-get") and os.geteuid() == 0:
        print(f"installing {' and '.join(wanted)} (Debian packages)", flush=True)
        _quietly(["apt-get", "update", "-qq"])
        _quietly(["apt-get", "install", "-y", "-qq", "--no-install-recommends", *wanted])
    if shutil.which("npm") and shutil.which("node") and not (_JS / "node_modules").exists():
        print("installing @azure/service-bus (npm)", flush=True)
        _quietly(["npm", "install", "--no-audit", "--no-fund", "--silent"], cwd=_JS)
    left_out = {}
    for peer in PEERS:
        reason = brokers.missing(peer.broker) if peer.broker else None
        if peer.script and shutil.which("node") is None:
            reason = "Node.js is not installed"
        elif peer.script and not (_JS / "node_modules").exists():
            reason = "@azure/service-bus could not be installed with npm"
        if reason is not None:
            left_out[peer.name] = reason
    return left_out
