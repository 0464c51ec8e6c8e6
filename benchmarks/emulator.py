"""How much the emulator takes: raw AMQP frames against `sbrpc emulator` in a process of its own.

Owns the load on the emulator and its figures: messages per second in and out, memory, start-up, idle
connections. Run it as `python -m benchmarks.emulator`.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import tempfile
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from benchmarks.figures import spread
from benchmarks.processes import Child, Stage, cpus, module
from benchmarks.rawamqp import RawConnection, RawReceiver, RawSender, sdk_message

__all__ = ["measure", "start_emulator"]

QUEUE = "load"


def _config(folder: Path) -> Path:
    path = folder / "Config.json"
    queue = {"Name": QUEUE, "Properties": {"LockDuration": "PT5M", "DefaultMessageTimeToLive": "PT1H"}}
    namespace = {"Name": "sbemulatorns", "Queues": [queue], "Topics": []}
    path.write_text(json.dumps({"UserConfig": {"Namespaces": [namespace], "Logging": {"Type": "File"}}}))
    return path


def start_emulator(
    stage: Stage, config: Path, *, cpu: int | None = None, profile: Path | None = None
) -> tuple[Child, tuple[str, int], float]:
    """Start `sbrpc emulator`; the process, its address, and the seconds until it was ready."""
    began = time.perf_counter()
    command = module("profiled", str(profile)) if profile else module("run")
    command = [*command, "emulator", "--config", str(config), "--port", "0", "--http-port", "0"]
    child = stage.start("emulator", command, cpu=cpu)
    line = child.ready("Endpoint=sb://")
    ready = time.perf_counter() - began
    address = urlsplit(line.split(";")[0].removeprefix("Endpoint="))
    return child, (address.hostname or "127.0.0.1", address.port or 5672), ready


def measure(
    *, messages: int = 10_000, rounds: int = 5, idle: int = 1000, profile: Path | None = None
) -> dict[str, Any]:
    """One run; a dictionary of figures with their spread."""
    processors = cpus()
    apart = len(processors) > 1
    if apart:
        os.sched_setaffinity(0, {processors[0]})
    try:
        with tempfile.TemporaryDirectory() as folder, Stage() as stage:
            config = _config(Path(folder))
            starts = []
            for _ in range(rounds):
                with Stage() as brief:
                    starts.append(start_emulator(brief, config)[2])
            child, address, _ = start_emulator(
                stage, config, cpu=processors[1] if apart else None, profile=profile
            )
            figures = _load(child, address, messages, rounds)
            figures["ready_ms"] = spread([start * 1000 for start in starts])
            if idle:
                figures["idle"] = _idle(child, address, idle)
            return figures
    finally:
        os.sched_setaffinity(0, set(processors))


def _load(child: Child, address: tuple[str, int], count: int, rounds: int) -> dict[str, Any]:
    texts = [sdk_message() for _ in range(64)]
    sender = RawSender(address, QUEUE)
    receiver = RawReceiver(address, QUEUE)
    settled = RawReceiver(address, QUEUE, settled=True)
    idle_mb = child.resident_mb()
    # What runs before the first round is warm-up.
    sender.send(texts, 2000)
    receiver.receive(2000)
    rates: dict[str, list[float]] = {}
    costs: dict[str, list[float]] = {}

    def timed(name: str, seconds: float, used: float) -> None:
        rates.setdefault(name, []).append(count / seconds)
        costs.setdefault(name, []).append(used / count * 1e6)

    def step(name: str, work: Any) -> None:
        before = child.cpu_seconds()
        seconds = work()
        timed(name, seconds, child.cpu_seconds() - before)

    passed = 2000
    for _ in range(rounds):
        step("accepted one by one", lambda: sender.send(texts, count))
        step("delivered and completed one by one", lambda: receiver.receive(count))
        step("accepted in batches of 100", lambda: sender.send(texts, count, batch=100, window=1000))
        step("delivered and completed in ranges", lambda: receiver.receive(count, ranges=True))
        step("accepted in batches of 100", lambda: sender.send(texts, count, batch=100, window=1000))
        step("delivered settled", lambda: settled.receive(count))
        passed += 3 * count
    while passed < 100_000:
        sender.send(texts, count, batch=100, window=1000)
        receiver.receive(count)
        passed += count
    resident = child.resident_mb()
    for connection in (sender, receiver, settled):
        connection.close()
    return {
        "per_second": {name: spread(values) for name, values in rates.items()},
        "microseconds": {name: spread(values) for name, values in costs.items()},
        "messages_passed": spread([passed]),
        "resident_mb": {"idle": spread([idle_mb]), "after": spread([resident])},
    }


def _idle(child: Child, address: tuple[str, int], wanted: int) -> dict[str, Any]:
    """What open connections cost that say nothing."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    room = max(soft, min(hard, wanted + 200))
    resource.setrlimit(resource.RLIMIT_NOFILE, (room, hard))
    wanted = min(wanted, room - 100)
    before_mb = child.resident_mb()
    began = time.perf_counter()
    connections = []
    try:
        for number in range(wanted):
            connection = RawConnection(address, f"idle-{number}")
            connection.attach(QUEUE, sender=False)
            connections.append(connection)
        opened = time.perf_counter() - began
        time.sleep(0.5)
        used, start = child.cpu_seconds(), time.perf_counter()
        time.sleep(4.0)
        share = (child.cpu_seconds() - used) / (time.perf_counter() - start)
        grown = child.resident_mb() - before_mb
    finally:
        for connection in connections:
            connection.close()
    return {
        "connections": spread([wanted]),
        "opened_per_second": spread([wanted / opened]),
        "core_share": spread([share]),
        "kb_each": spread([grown * 1024 / wanted]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--idle", type=int, default=1000)
    parser.add_argument("--profile", type=Path)
    arguments = parser.parse_args()
    figures = measure(
        messages=arguments.messages, rounds=arguments.rounds, idle=arguments.idle, profile=arguments.profile
    )
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
