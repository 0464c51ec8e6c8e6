"""How sbrpc grows with server processes whose handlers wait."""

from __future__ import annotations

import json
from time import monotonic
from typing import Any

from benchmarks.peers import PEERS
from benchmarks.processes import Stage
from benchmarks.trial import broker_for

__all__ = ["DELAY", "SERVERS", "measure"]

SERVERS = (1, 2, 4, 8)
DELAY = 0.02
CONCURRENCY = 8
# Calls under way for each that a handler can take, so that no server ever waits for work.
_CALLERS = 3


def measure(seconds: float, warm: float) -> dict[str, dict[str, float]]:
    """Calls per second by the number of server processes, once, and how many cores were busy."""
    peer = PEERS[0]
    found = {}
    for servers in SERVERS:
        with broker_for("emulator") as broker, Stage() as stage:
            serving: dict[str, Any] = {"url": broker.url, "delay": DELAY, "concurrency": CONCURRENCY}
            children = [
                stage.start(f"server {number}", peer.command("server", json.dumps(serving)))
                for number in range(servers)
            ]
            for child in children:
                child.ready('{"ready"', 60)
            client = stage.start("client", peer.command("client", json.dumps({"url": broker.url})))
            client.ready('{"ready"', 60)
            order = {
                "do": "concurrent",
                "callers": servers * CONCURRENCY * _CALLERS,
                "seconds": seconds,
                "warm": warm,
            }
            everybody = [*children, client, *([broker.child] if broker.child is not None else [])]
            used, began = sum(child.cpu_seconds() for child in everybody), monotonic()
            client.tell(json.dumps(order))
            figures = json.loads(client.line(90))
            used = sum(child.cpu_seconds() for child in everybody) - used
            cores = used / (monotonic() - began)
        most = servers * CONCURRENCY / DELAY
        found[str(servers)] = {
            "per_second": figures["per_second"],
            "share": figures["per_second"] / most,
            "cores": cores,
        }
    return found
