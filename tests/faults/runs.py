"""One run: everything started, calls in flight, a fault, more calls, and the count of what became of them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import anyio

from .load import Load, Tally
from .mishaps import MISHAPS
from .rig import Rig, rigged
from .service import QUEUE

__all__ = ["PROMISES", "SIZE", "Size", "Story", "applicable", "run"]

PROMISES = ("G1", "G2", "G3", "G4", "G5", "G6", "G7", "G8", "G9", "G11", "G12", "G13", "G17")
"""The promises that are kept whatever the fault; G10 has a test of its own."""

# Only servers in processes of their own can be killed and told to stop.
IN_PROCESSES = ("G1", "G13")
# Faults that happen to a link that nobody uses.
IDLE = (
    "cut client",
    "cut server",
    "broker restart",
    "unreachable",
    "black hole",
    "session lost",
    "link detached",
)

_PATIENCE = 60.0


@dataclass(frozen=True)
class Size:
    """How much of everything."""

    calls: int
    """Calls in flight when the fault strikes."""
    kinds: int
    """Further calls of each kind."""
    outage: float
    """Seconds for which the broker cannot be reached."""
    everything: bool
    """Every promise under every fault; otherwise processes are only started to be killed."""
    together: int
    """Runs at a time."""


SHORT = Size(calls=200, kinds=2, outage=1.2, everything=False, together=6)
LONG = Size(calls=200, kinds=4, outage=10.0, everything=True, together=3)

# `SBRPC_TEST_LONG=1` makes the runs long.
SIZE = LONG if os.environ.get("SBRPC_TEST_LONG") else SHORT


@dataclass
class Story:
    """What became of the calls of one fault's runs."""

    tallies: dict[str, Tally] = field(default_factory=dict)
    in_flight: int = 0
    """The fewest calls that were in flight when the fault struck."""
    recovery: float = 0.0
    """Seconds after which a new call was answered, once the broker could be reached again; the longest."""

    def add(self, load: Load, in_flight: int, recovery: float) -> None:
        """Take in what one run has shown."""
        self.in_flight = min(self.in_flight, in_flight) if self.in_flight else in_flight
        self.recovery = max(self.recovery, recovery)
        for promise, tally in load.tallies.items():
            mine = self.tallies.setdefault(promise, Tally())
            mine.made += tally.made
            mine.right += tally.right
            mine.promised += tally.promised
            mine.lost += tally.lost
            mine.crossed += tally.crossed


def applicable(promise: str, mishap: str, size: Size) -> bool:
    """Whether a run of this size puts a promise to the test under a fault."""
    if promise in IN_PROCESSES:
        return size.everything or mishap == "kill -9 server"
    if promise == "G17":
        return mishap in IDLE and (size.everything or mishap in ("link detached", "black hole"))
    return True


async def run_all(mishaps: Iterable[str], size: Size, folder: Path) -> dict[str, Story]:
    """The stories of these faults."""
    limiter = anyio.CapacityLimiter(size.together)
    stories = {mishap: Story() for mishap in mishaps}

    async def tell(mishap: str) -> None:
        async with limiter:
            journal = folder / f"{mishap.replace(' ', '-')}.txt"
            if mishap != "kill -9 server":
                await _under_fault(mishap, size, journal, stories[mishap])
            if size.everything or mishap == "kill -9 server":
                await _with_processes(mishap, size, journal, stories[mishap])

    async with anyio.create_task_group() as tasks:
        for mishap in stories:
            tasks.start_soon(tell, mishap, name=mishap)
    return stories


async def _under_fault(mishap: str, size: Size, journal: Path, story: Story) -> None:
    """Server and client in this process."""
    async with rigged(journal, outage=size.outage) as rig:
        load = rig.load
        if applicable("G17", mishap, size):
            await MISHAPS[mishap](rig)
            # A heartbeat and a half: long enough to notice, and nobody has called meanwhile.
            await anyio.sleep(1.5)
            await _until(lambda: rig.client.is_ready and rig.server is not None and rig.server.is_ready)
            load.plain("G17", 5 * size.kinds)
            await load.ended()
        load.plain("G3", size.calls, work=0.2, spread=1.0, gated=True)
        load.mixed(size.kinds, 1.5)
        await _until(lambda: rig.server is not None and rig.server.running >= size.calls)
        rig.during = lambda: load.mixed(size.kinds, 0.1)
        in_flight = rig.client.pending
        rig.service.gate.set()
        await MISHAPS[mishap](rig)
        recovery = await load.first_answer()
        await _afterwards(rig, size)
        story.add(load, in_flight, recovery)


async def _with_processes(mishap: str, size: Size, journal: Path, story: Story) -> None:
    """Servers in processes of their own: the first is killed, the second told to stop, the third stays."""
    async with rigged(journal, processes=3, outage=size.outage) as rig:
        load = rig.load
        load.plain("G1", size.calls, work=3.0, spread=1.0)
        if mishap == "kill -9 server":
            load.mixed(size.kinds, 1.5)
        await _until(lambda: rig.received() >= size.calls)
        in_flight = rig.client.pending
        await MISHAPS[mishap](rig)
        if mishap != "kill -9 server":
            await MISHAPS["kill -9 server"](rig)
        recovery = await load.first_answer()
        before = rig.received()
        load.plain("G13", size.calls // 2, work=0.2, spread=1.0)
        await _until(lambda: rig.received() > before)  # calls may share messages
        rig.children[1].terminate()
        await rig.children[1].line("drained")
        assert await rig.children[1].ended() == 0
        if mishap == "kill -9 server":
            await _afterwards(rig, size)
        else:
            await load.ended()
        # Its recovery is that of servers that are gone, which is another matter than that of a connection.
        story.add(load, in_flight, recovery if mishap == "kill -9 server" else 0.0)


async def _afterwards(rig: Rig, size: Size) -> None:
    """Calls after the fault, which may still last, then what must have come of messages without an answer."""
    load = rig.load
    load.plain("G3", 5 * size.kinds, work=0.1)
    load.mixed(size.kinds, 0.1)
    rig.emulator.faults.lose_locks(entity=QUEUE, count=4 * size.kinds)
    load.plain("G2", 4 * size.kinds)
    load.plain("G12", 2 * size.kinds)
    await load.ended()
    before = rig.emulator.broker.runtime(QUEUE).dead_letter
    forged = await rig.forge(2 * size.kinds)
    load.plain("G12", 2 * size.kinds)
    await load.ended()
    rig.emulator.faults.clear()
    await _until(lambda: rig.noted() >= set(load.accepted), give_up=True)
    load.missing("G7", len(set(load.accepted) - rig.noted()))
    came = before + len(forged)
    await _until(lambda: rig.emulator.broker.runtime(QUEUE).dead_letter >= came, give_up=True)
    dead = await rig.dead_lettered()
    ends = {"MalformedRequest", "ForbiddenReplyTo"}
    load.count("G12", made=len(forged), promised=sum(dead.get(name) in ends for name in forged))


async def _until(holds: Callable[[], bool], *, give_up: bool = False) -> None:
    with anyio.move_on_after(_PATIENCE) as patience:
        while not holds():  # noqa: ASYNC110 (what is waited for tells nobody)
            await anyio.sleep(0.02)
    if patience.cancelled_caught and not give_up:
        raise AssertionError("it did not come to that; see the line that waited")


def run(mishaps: Iterable[str], size: Size, folder: Path) -> dict[str, Story]:
    """As `run_all`, in a loop of its own."""
    return asyncio.run(run_all(mishaps, size, folder))
