"""Orders on standard input and answers on standard output, a line of JSON each, inside an event loop."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

__all__ = ["Lines", "run"]

Lines = AsyncIterator[str]
Main = Callable[[list[str], Lines, Callable[[Any], None]], Awaitable[None]]


async def _lines() -> AsyncIterator[str]:
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        yield line.decode()


def _say(value: Any) -> None:
    if isinstance(value, dict) and value.get("ready"):
        # What is there by now stays. Without this the garbage collector walks through all that was imported
        # now and then, 20 ms each time, which is a matter of the application and not of what is compared.
        gc.collect()
        gc.freeze()
    print(json.dumps(value), flush=True)


def run(main: Main, arguments: list[str]) -> None:
    """Run until the input ends. The settings say whether uvloop runs the loop."""

    async def body() -> None:
        await main(arguments, _lines(), _say)

    if json.loads(arguments[1]).get("uvloop"):
        import uvloop

        uvloop.run(body())
    else:
        asyncio.run(body())
    # Whatever a library has left running must not keep the process.
    sys.stdout.flush()
    os._exit(0)
