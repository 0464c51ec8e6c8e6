"""The service that the fault tests call, in this process or in one of its own.

Every request carries a value that no other request has, and every answer gives it back: that is how a reply
that reaches the wrong caller is found out. Knows no fault. As a program it serves until SIGTERM.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
from azure.servicebus.aio import ServiceBusClient
from pydantic import BaseModel

from sbrpc import CallInfo, Contract, RpcClient, RpcServer, method
from sbrpc.errors import Aborted

__all__ = ["Answer", "Ask", "Conflict", "Drifted", "Service", "Swell", "Work", "serving"]

QUEUE = "work"
REPLIES = "callers.replies"
SECRET = "password=hunter2"
"""Stands in the exception of a handler that fails; no caller must ever see it."""


class Ask(BaseModel):
    value: str
    work: float = 0.0
    """Seconds the handler takes."""
    gated: bool = False
    """Whether it waits for the gate first."""


class Answer(BaseModel):
    value: str
    by: int = 0
    """The process that answered."""


class Swell(BaseModel):
    value: str
    size: int


class Blob(BaseModel):
    value: str
    data: str


class Conflicting(BaseModel):
    value: str


class Conflict(Aborted):
    """A declared error that carries the value of its request."""

    data: Conflicting


class Work(Contract, name=QUEUE):
    @method
    async def echo(self, request: Ask) -> Answer: ...

    @method(cancellable=True)
    async def guarded(self, request: Ask) -> Answer: ...

    @method
    async def fail(self, request: Ask) -> Answer: ...

    @method(errors=[Conflict])
    async def refuse(self, request: Ask) -> Answer: ...

    @method
    async def swell(self, request: Swell) -> Blob: ...

    @method
    async def relay(self, request: Ask) -> Answer: ...

    @method
    async def kill(self, request: Ask) -> Answer: ...

    @method(one_way=True)
    async def note(self, request: Ask) -> None: ...

    @method
    def count(self, request: Ask) -> AsyncIterator[Answer]: ...


class Number(BaseModel):
    number: int


class Drifted(Contract, name=QUEUE):
    """What a caller believes that was built against another version of the service."""

    @method
    async def echo(self, request: Number) -> Answer: ...

    @method
    async def vanished(self, request: Ask) -> Answer: ...


class Service:
    """The handlers, and what they have seen."""

    def __init__(self, client: RpcClient | None = None, journal: Path | None = None) -> None:
        self._client = client
        self._journal = journal
        self.gate = asyncio.Event()
        self.runs: Counter[str] = Counter()
        """How often the handler of each value began."""
        self.cancelled: Counter[str] = Counter()
        """How often it was cancelled."""
        self.noted: set[str] = set()
        self.rows: dict[str, int] = {}
        """A database that refuses writes with a smaller fencing token than it has seen."""
        self.refused = 0

    async def echo(self, request: Ask) -> Answer:
        self.runs[request.value] += 1
        if request.work or request.gated:
            try:
                if request.gated:
                    await self.gate.wait()
                await anyio.sleep(request.work)
            except BaseException:
                self.cancelled[request.value] += 1
                raise
        return Answer(value=request.value, by=os.getpid())

    async def guarded(self, request: Ask, info: CallInfo) -> Answer:
        self.rows[request.value] = max(info.fencing_token, self.rows.get(request.value, 0))
        answer = await self.echo(request)
        if self.rows[request.value] > info.fencing_token:
            self.refused += 1
        return answer

    async def fail(self, request: Ask) -> Answer:
        raise RuntimeError(f"{SECRET} {request.value}")

    async def refuse(self, request: Ask) -> Answer:
        raise Conflict(f"not {request.value}", data=Conflicting(value=request.value))

    async def swell(self, request: Swell) -> Blob:
        return Blob(value=request.value, data="x" * request.size)

    async def relay(self, request: Ask) -> Answer:
        assert self._client is not None
        return await self._client.of(Work).echo(request)

    async def kill(self, request: Ask) -> Answer:
        os._exit(9)

    async def note(self, request: Ask) -> None:
        self.noted.add(request.value)
        if self._journal is not None:
            with self._journal.open("a") as journal:
                journal.write(f"{request.value}\n")

    async def count(self, request: Ask) -> AsyncIterator[Answer]:
        for number in range(20):
            yield Answer(value=f"{request.value}/{number}", by=os.getpid())


def serving(connection: str | ServiceBusClient, service: Service, *, deliveries: int = 5) -> RpcServer:
    """A server for it, with room for all the calls that the tests keep in flight."""
    server = RpcServer(connection, Work, concurrency=512, prefetch=512, grace=5.0, max_deliveries=deliveries)
    server.implement(Work, service)
    return server


async def _serve(connection: str, journal: Path, deliveries: int) -> None:
    async with RpcClient(connection, reply_queue=REPLIES) as client, anyio.create_task_group() as tasks:
        server = serving(connection, Service(client, journal), deliveries=deliveries)

        async def tell() -> None:
            while not server.is_ready:  # noqa: ASYNC110 (serve() tells nobody)
                await anyio.sleep(0.02)
            print("ready", flush=True)

        tasks.start_soon(tell)
        await server.serve()
        tasks.cancel_scope.cancel()
        print("drained", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("connection")
    parser.add_argument("journal", type=Path)
    parser.add_argument("--deliveries", type=int, default=5)
    arguments = parser.parse_args()
    logging.basicConfig(level=os.environ.get("SBRPC_TEST_LOG", "CRITICAL"))
    anyio.run(_serve, arguments.connection, arguments.journal, arguments.deliveries)


if __name__ == "__main__":
    main()
