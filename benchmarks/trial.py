"""One peer, once: broker, server and client as three processes, and everything that is measured on them.

Owns the order of the measurements and what is read from outside while they run.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import brokers
from benchmarks.brokers import Broker
from benchmarks.peers import Peer
from benchmarks.processes import Child, Stage

__all__ = ["Failed", "Measured", "Plan", "broker_for", "run", "started"]


@dataclass(frozen=True)
class Plan:
    """How long to measure. Seconds."""

    sequential: float = 1.2
    concurrent: float = 1.2
    warm: float = 0.4
    callers: tuple[int, ...] = (16, 64, 256, 1024)
    publish: float = 0.8
    paced_events: int = 40


class Failed(RuntimeError):
    """A measurement could not be made; the text says why."""


def _order(child: Child, timeout: float, **order: Any) -> dict[str, Any]:
    child.tell(json.dumps(order))
    answer: dict[str, Any] = json.loads(child.line(timeout))
    return answer


@contextmanager
def broker_for(kind: str) -> Iterator[Broker]:
    """A broker for the trials of peers that share it."""
    with tempfile.TemporaryDirectory(prefix="sbrpc-bench-") as folder, Stage() as stage:
        yield brokers.start(kind, stage, Path(folder))


@contextmanager
def started(peer: Peer, broker: Broker) -> Iterator[Measured]:
    """A peer whose server serves and whose client waits for orders."""
    url = broker.url
    if peer.name == "http":
        url = f"http://{url}"
    settings = json.dumps({"url": url, **peer.settings})
    with Stage() as stage:
        server = stage.start(f"{peer.name} server", peer.command("server", settings))
        server.ready('{"ready"')
        client = stage.start(f"{peer.name} client", peer.command("client", settings))
        client.ready('{"ready"', 40)
        yield Measured(client, server, broker)


def run(peer: Peer, broker: Broker, plan: Plan) -> dict[str, Any]:
    """Everything about one peer."""
    with started(peer, broker) as measured:
        figures: dict[str, Any] = {}
        figures["sequential"] = measured.calls(do="sequential", seconds=plan.sequential)
        figures["concurrent"] = {
            callers: measured.calls(do="concurrent", callers=callers, seconds=plan.concurrent, warm=plan.warm)
            for callers in plan.callers
        }
        client, server = measured.client, measured.server
        if peer.events:
            figures["events"] = _events(client, server, plan)
        figures["resident_mb"] = {
            "client": client.resident_mb(),
            "server": server.resident_mb(),
            "broker": broker.child.resident_mb() if broker.child is not None else 0.0,
        }
        return figures


class Measured:
    """A client's measurements, with what they cost outside of it."""

    def __init__(self, client: Child, server: Child, broker: Broker) -> None:
        self.client = client
        self.server = server
        self._broker = broker

    def calls(self, **order: Any) -> dict[str, Any]:
        broker = self._broker.child
        self._broker.reset_credits()
        served = self.server.cpu_seconds()
        brokered = broker.cpu_seconds() if broker is not None else 0.0
        figures = _order(self.client, 90, **order)
        count = figures["all_calls"]
        if not count:
            raise Failed(f"not one call was answered: {order}")
        server_cpu = self.server.cpu_seconds() - served
        broker_cpu = (broker.cpu_seconds() if broker is not None else 0.0) - brokered
        figures["cpu_us"] = {
            "client": figures.pop("client_cpu") / count * 1e6,
            "server": server_cpu / count * 1e6,
            "broker": broker_cpu / count * 1e6,
        }
        # The last completions are still on their way.
        time.sleep(0.1)
        spent = self._broker.credits()
        if spent is not None:
            figures["credits"] = spent / count
        return figures


def _events(client: Child, server: Child, plan: Plan) -> dict[str, Any]:
    _order(server, 10, do="events", reset=True)
    paced = _order(client, 60, do="pace", count=plan.paced_events)
    lone = _arrived(server, paced["published"])
    flood = _order(client, 90, do="publish", publishers=64, seconds=plan.publish)
    handled = _arrived(server, flood["published"])
    return {
        "latency_p50_ms": lone["p50_ms"],
        "latency_p99_ms": lone["p99_ms"],
        "published_per_second": flood["per_second"],
        "handled_per_second": flood["published"] / (handled["last"] - flood["began"]),
    }


def _arrived(server: Child, expected: int) -> dict[str, Any]:
    """Wait until the server has handled that many different events."""
    ends = time.monotonic() + 60
    while True:
        told = _order(server, 10, do="events", reset=False)
        if told["distinct"] >= expected or time.monotonic() > ends:
            break
        time.sleep(0.05)
    if told["distinct"] != expected:
        raise Failed(f"{expected} events were published, {told['distinct']} arrived")
    _order(server, 10, do="events", reset=True)
    return told
