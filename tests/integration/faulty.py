"""A client, a server and load on them, for tests that break what is between."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import anyio

from sbrpc.client import RpcClient
from sbrpc.emulator import Emulator
from sbrpc.errors import RpcError

from .laboratory import QUEUES, Bench, Ends, Item, Lab, make_client, make_server

CALLERS = 24

# What a server holds when its connection is cut stays locked, and comes to another one when the locks end.
BRIEF = [replace(queue, lock_duration=4) if queue.name == "lab" else queue for queue in QUEUES]


class World(Ends):
    """Ends that have to mend themselves."""

    async def healthy(self) -> None:
        """Wait until all is whole."""
        await self.client.ready(60)
        await self.server.ready(60)
        assert await self.lab.echo(Item(id=1), timeout=15) == Item(id=1)

    @asynccontextmanager
    async def whole(self) -> AsyncIterator[World]:
        """All is whole at the beginning, and again at the end."""
        await self.healthy()
        yield self
        self.emulator.faults.clear()
        await self.healthy()


@asynccontextmanager
async def opened() -> AsyncIterator[World]:
    """One of each, for many tests: what a fault breaks has to mend itself before the next one."""
    bench = Bench()
    async with AsyncExitStack() as stack:
        emulator = await stack.enter_async_context(Emulator(queues=BRIEF))
        server = make_server(emulator.connection_string, bench, reply_queues=["lab.replies", "*.replies"])
        client = make_client(emulator.connection_string)
        await stack.enter_async_context(server)
        await stack.enter_async_context(client)
        yield World(emulator, bench, server, client)


@dataclass
class Load:
    """Callers that call without pause, and what became of their calls."""

    client: RpcClient
    timeout: float = 15.0
    made: int = 0
    right: int = 0
    crossed: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    stopping: bool = False

    async def run(self, fault: Callable[[], Awaitable[Any]]) -> Load:
        """Load, then the fault, then load again; every call comes to its end."""
        with anyio.fail_after(60):
            async with anyio.create_task_group() as tasks:
                for _ in range(CALLERS):
                    tasks.start_soon(self._call)
                await self._answered(4 * CALLERS)
                await fault()
                await self._answered(20 * CALLERS)
                self.stopping = True
        assert self.client.pending == 0
        assert self.made == self.right + self.crossed + self.errors.total()
        return self

    async def _answered(self, more: int) -> None:
        """Wait until so many more calls have got their answers."""
        enough = self.right + more
        while self.right < enough:  # noqa: ASYNC110 (what is waited for tells nobody)
            await anyio.sleep(0.01)

    async def _call(self) -> None:
        lab = self.client.of(Lab, timeout=self.timeout)
        while not self.stopping:
            self.made += 1
            number = self.made
            try:
                reply = await lab.echo(Item(id=number))
            except RpcError as error:
                self.errors[type(error).__name__] += 1
                await anyio.sleep(0.01)
            else:
                if reply.id == number:
                    self.right += 1
                else:
                    self.crossed += 1


def flawless(load: Load) -> None:
    """No call failed, and each got its own answer."""
    assert load.crossed == 0
    assert load.errors == Counter()
    assert load.right > CALLERS
