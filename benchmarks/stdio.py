"""Orders on standard input and answers on standard output, a line of JSON each, inside an event loop."""

from __future__ import annotations

import asyncio
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
