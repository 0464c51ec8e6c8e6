"""A process that calls: so many calls at once, then a line that says what became of them."""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import asdict

import anyio

from sbrpc import RpcClient

from .load import Load
from .service import REPLIES


async def _call(connection: str, count: int) -> None:
    async with RpcClient(connection, reply_queue=REPLIES) as client:
        await client.ready()
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)  # all callers begin together
        load = Load(client)
        load.plain("cross-talk", count, spread=0.2)
        await load.ended()
        print("done", json.dumps(asdict(load.tallies["cross-talk"])), flush=True)


if __name__ == "__main__":
    anyio.run(_call, sys.argv[1], int(sys.argv[2]))
