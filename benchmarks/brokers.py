"""The brokers between client and server, each started as its own process on a free port of loopback.

Owns how a broker is started, and when it is ready. Knows none of the peers that use it.
"""

from __future__ import annotations

import json
import shutil
import socket
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.processes import Child, NotReady, Stage, module
from sbrpc.testing import free_port

__all__ = ["Broker", "missing", "start"]

_RABBIT = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")


@dataclass
class Broker:
    """A running broker; peers without one have an address and no process."""

    url: str
    child: Child | None = None
    http: str | None = None
    """Where an emulator tells its books."""

    def credits(self) -> int | None:
        """What has been used of a namespace's credits since the last reset; `None` if it is no emulator."""
        if self.http is None:
            return None
        with urllib.request.urlopen(f"{self.http}/api/books", timeout=5) as response:
            return _total(json.load(response))

    def reset_credits(self) -> None:
        """Begin the books anew."""
        if self.http is not None:
            request = urllib.request.Request(f"{self.http}/api/books", method="DELETE")
            urllib.request.urlopen(request, timeout=5).close()


def _total(books: Any) -> int:
    if isinstance(books, dict):
        own = books.get("credits")
        if isinstance(own, int):
            return own
        return sum(_total(value) for value in books.values())
    return sum(_total(item) for item in books) if isinstance(books, list) else 0


def missing(kind: str) -> str | None:
    """What is not installed here that the broker needs."""
    if kind == "nats" and shutil.which("nats-server") is None:
        return "nats-server is not installed"
    if kind == "rabbit" and (not _RABBIT.exists() or shutil.which("epmd") is None):
        return "rabbitmq-server is not installed"
    return None


def start(kind: str, stage: Stage, folder: Path) -> Broker:
    """Start a broker of a kind; `folder` takes its files."""
    if kind == "emulator":
        return _emulator(stage, folder)
    if kind == "nats":
        return _nats(stage)
    if kind == "rabbit":
        return _rabbit(stage, folder)
    return Broker(f"127.0.0.1:{free_port()}")


def _emulator(stage: Stage, folder: Path) -> Broker:
    queue = {"LockDuration": "PT1M", "DefaultMessageTimeToLive": "PT1H", "MaxDeliveryCount": 10}
    subscription = {"Name": "movie-event-handler", "Properties": queue}
    namespace = {
        "Name": "sbemulatorns",
        "Queues": [
            {"Name": "movies", "Properties": queue},
            {"Name": "gateway.replies", "Properties": {**queue, "RequiresSession": True}},
        ],
        "Topics": [{"Name": "movie-events", "Properties": {}, "Subscriptions": [subscription]}],
    }
    config = folder / "Config.json"
    config.write_text(json.dumps({"UserConfig": {"Namespaces": [namespace], "Logging": {"Type": "File"}}}))
    port = free_port()
    command = module("run", "emulator", "--config", str(config), "--port", "0", "--http-port", str(port))
    child = stage.start("emulator", command)
    return Broker(child.ready("Endpoint=sb://"), child, f"http://127.0.0.1:{port}")


def _nats(stage: Stage) -> Broker:
    port = free_port()
    child = stage.start("nats-server", ["nats-server", "-a", "127.0.0.1", "-p", str(port)])
    _wait_for_port(child, port, b"INFO", 10)
    return Broker(f"nats://127.0.0.1:{port}", child)


def _rabbit(stage: Stage, folder: Path) -> Broker:
    port, distribution, names = free_port(), free_port(), free_port()
    home = folder / "rabbit"
    home.mkdir()
    (home / "plugins").write_text("[].\n")
    env = {
        "HOME": str(home),
        "ERL_EPMD_PORT": str(names),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODENAME": f"bench{port}@localhost",
        "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODE_PORT": str(port),
        "RABBITMQ_DIST_PORT": str(distribution),
        "RABBITMQ_MNESIA_BASE": str(home / "db"),
        "RABBITMQ_LOG_BASE": str(home / "log"),
        "RABBITMQ_PID_FILE": str(home / "pid"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(home / "plugins"),
        "RABBITMQ_CONF_ENV_FILE": "/dev/null",
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
    }
    # Erlang's name server, which would otherwise be started in the background and stay.
    name_server = stage.start("epmd", ["epmd", "-port", str(names), "-address", "127.0.0.1"], env=env)
    _wait_for_port(name_server, names, b"", 10)
    child = stage.start("rabbitmq-server", [str(_RABBIT)], env=env)
    # A client speaks first in AMQP 0-9-1: a wrong greeting is answered with the right one.
    _wait_for_port(child, port, b"AMQP", 60, greeting=b"HELLO!!!")
    return Broker(f"amqp://guest:guest@127.0.0.1:{port}/", child)


def _wait_for_port(child: Child, port: int, expected: bytes, timeout: float, greeting: bytes = b"") -> None:
    ends = time.monotonic() + timeout
    while time.monotonic() < ends:
        if child.process.poll() is not None:
            raise NotReady(f"{child.name} ended with {child.process.returncode}\n{child.log()}")
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1) as probe:
                if greeting:
                    probe.sendall(greeting)
                if not expected or probe.recv(1024).startswith(expected):
                    return
        except OSError:
            pass
        time.sleep(0.05)
    raise NotReady(f"{child.name} did not listen on port {port} within {timeout:.0f} s\n{child.log()}")
