"""What the figures were measured on."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path

__all__ = ["describe", "versions"]

_LIBRARIES = (
    *("sbrpc", "azure-servicebus", "pydantic", "faststream", "nats-py", "aio-pika", "grpcio"),
    *("fastapi", "uvicorn", "httpx", "uvloop"),
)


def describe() -> dict[str, str]:
    """Processor, memory, system, interpreter."""
    processor = platform.machine()
    for line in _lines("/proc/cpuinfo"):
        if line.startswith("model name"):
            processor = line.partition(":")[2].strip()
            break
    memory = next((line.split()[1] for line in _lines("/proc/meminfo") if line.startswith("MemTotal")), "0")
    release = dict(line.split("=", 1) for line in _lines("/etc/os-release") if "=" in line)
    name = release.get("PRETTY_NAME", platform.system()).strip('"')
    return {
        "processor": processor,
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{int(memory) / 1024 / 1024:.0f} GB",
        "system": f"{name}, Linux {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
    }


def versions() -> dict[str, str]:
    """Versions of everything that took part, as far as it is installed."""
    installed = {item.name.lower(): item.version for item in metadata.distributions()}
    found = {name: installed[name] for name in _LIBRARIES if name in installed}
    for name, command in {
        "node": ["node", "--version"],
        "nats-server": ["nats-server", "--version"],
        "rabbitmq-server": ["dpkg-query", "-W", "-f", "${Version}", "rabbitmq-server"],
    }.items():
        told = _told(command)
        if told:
            found[name] = told.split()[-1].lstrip("v")
    return found


def _told(command: list[str]) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []
