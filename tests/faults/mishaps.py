"""The faults, one function each: what strikes while calls are in flight, and what has to happen afterwards.

Every function returns once the broker can be reached again. Faults that stay are ended by the caller.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType

import anyio

from .rig import Rig
from .service import QUEUE, REPLIES

__all__ = ["MISHAPS", "Mishap"]

Mishap = Callable[[Rig], Awaitable[None]]


async def cut_client(rig: Rig) -> None:
    """All connections of the client are cut."""
    rig.cut("the-client")


async def cut_server(rig: Rig) -> None:
    """All connections of the server are cut."""
    rig.cut("the-server")


async def kill_server(rig: Rig) -> None:
    """One of two server processes is killed; the locks that it held run out."""
    rig.children[0].kill()
    await rig.children[0].ended()
    await rig.emulator.advance(rig.lock_duration + 0.2)


async def restart(rig: Rig) -> None:
    """The broker is restarted."""
    await rig.emulator.restart()


async def unreachable(rig: Rig) -> None:
    """All connections are cut, and new ones are refused for a while."""
    with rig.emulator.faults.refuse():
        rig.emulator.faults.cut()
        rig.during()
        await anyio.sleep(rig.outage)


async def black_hole(rig: Rig) -> None:
    """Whatever is sent vanishes for a while, over old connections and new ones."""
    with rig.emulator.faults.black_hole():
        rig.during()
        await anyio.sleep(rig.outage)


async def session_lost(rig: Rig) -> None:
    """The lock on the session of the replies is lost."""
    rig.emulator.faults.lose_sessions(entity=REPLIES)


async def lock_lost(rig: Rig) -> None:
    """The locks on all requests are lost, and those on the next ones as soon as they are delivered."""
    rig.emulator.faults.lose_locks(entity=QUEUE)
    rig.emulator.faults.lose_locks(entity=QUEUE, count=20)


async def throttled(rig: Rig) -> None:
    """The next operations are refused with `ServerBusy`."""
    rig.emulator.faults.busy(count=6)


async def twice(rig: Rig) -> None:
    """Every message is delivered twice, requests and replies."""
    rig.emulator.faults.duplicate()


async def slow(rig: Rig) -> None:
    """Everything takes a tenth of a second longer, in each direction."""
    rig.emulator.faults.delay(incoming=0.1, outgoing=0.1)


async def detached(rig: Rig) -> None:
    """All links are detached, as Service Bus does with idle ones."""
    rig.emulator.faults.detach()


MISHAPS: Mapping[str, Mishap] = MappingProxyType(
    {
        "cut client": cut_client,
        "cut server": cut_server,
        "kill -9 server": kill_server,
        "broker restart": restart,
        "unreachable": unreachable,
        "black hole": black_hole,
        "session lock lost": session_lost,
        "message lock lost": lock_lost,
        "throttled": throttled,
        "delivered twice": twice,
        "slow": slow,
        "link detached": detached,
    }
)
