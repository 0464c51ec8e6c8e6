"""The ways to call another process that are compared: one module each, in the way its documentation shows.

A Python peer has `client(settings)`, an async context manager that gives a `Caller`, and `serve(settings,
journal)`, which serves until cancelled and calls `journal.ready()` once it does. Peers with events publish
with `Caller.publish` and tell the journal of every event they handle. The peer in JavaScript keeps the same
protocol on its standard input and output as `benchmarks.client` and `benchmarks.server`.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from benchmarks.models import Movie, MovieChanged

__all__ = ["PEERS", "Caller", "Journal", "Peer"]

_JS = Path(__file__).parent / "js"


class Caller(Protocol):
    """The calling side of a peer."""

    async def call(self, number: int) -> Movie:
        """Ask for a movie. Safe to be called by many tasks at once."""


class Journal(Protocol):
    """What a server tells the benchmark."""

    def ready(self) -> None:
        """Requests are answered from now on."""

    def handled(self, event: MovieChanged) -> None:
        """An event has arrived."""


@dataclass(frozen=True)
class Peer:
    """One row of the comparison."""

    name: str
    label: str
    broker: str
    """`emulator`, `nats`, `rabbit`, or nothing for peers that talk directly."""
    module: str = ""
    events: bool = False
    settings: dict[str, Any] = field(default_factory=dict)
    script: bool = False
    """It runs in Node."""

    def command(self, side: str, settings: str) -> list[str]:
        """The command of one side's process."""
        if self.script:
            return ["node", str(_JS / f"{side}.mjs"), settings]
        return [sys.executable, "-m", f"benchmarks.{side}", self.module or self.name, settings]


PEERS = (
    Peer("sbrpc", "sbrpc", "emulator", events=True),
    Peer("sbrpc_uvloop", "sbrpc on uvloop", "emulator", "sbrpc", settings={"uvloop": True}),
    Peer("sdk", "SDK by hand, one by one", "emulator", events=True),
    Peer("sdk_batched", "SDK by hand, batched", "emulator"),
    Peer("js", "@azure/service-bus by hand (JavaScript)", "emulator", script=True),
    Peer("faststream_nats", "FastStream on NATS", "nats", events=True),
    Peer("faststream_rabbit", "FastStream on RabbitMQ", "rabbit", events=True),
    Peer("nats", "nats-py", "nats", events=True),
    Peer("aio_pika", "aio-pika RPC", "rabbit", events=True),
    Peer("grpc", "grpc.aio", ""),
    Peer("http", "FastAPI + httpx", ""),
)
