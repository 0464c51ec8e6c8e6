"""What the tests of `sbrpc run` run: a service by each way to name it, and some that cannot run."""

from __future__ import annotations

import gc
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio

from sbrpc import Contract, RpcClient, RpcServer
from sbrpc.contract import method
from sbrpc.topology import Queue


class Shop(Contract, name="shop"):
    @method
    async def double(self, request: int) -> int:
        raise NotImplementedError


def app(connection: str, queue: str = "shop") -> list[object]:
    """A server, beside a declaration of its queue."""
    server = RpcServer(connection, Shop, queue=queue)

    @server.method(Shop.double)
    async def double(request: int) -> int:
        return 2 * request

    return [server, Queue(queue)]


@asynccontextmanager
async def managed(connection: str) -> AsyncIterator[list[object]]:
    """The same, with something around it that is opened and closed."""
    print("opened", flush=True)
    yield app(connection)
    print(f"closed, frozen: {gc.get_freeze_count() > 10_000}", flush=True)


def missing(connection: str) -> list[object]:
    """A server on a queue that does not exist."""
    return app(connection, "nowhere")


def web() -> object:
    """Something that listens at a port."""
    from fastapi import FastAPI  # here, since every other program would load it too

    from sbrpc.web import Web

    return Web(FastAPI(), port=int(os.environ["PORT"]))


nothing = [Queue("shop")]


@asynccontextmanager
async def caller(connection: str) -> AsyncIterator[list[object]]:
    """A client of the shop, which calls it once."""
    client = RpcClient(connection, reply_queue="shop.replies")

    async def ask() -> None:
        print("doubled:", await client.of(Shop, timeout=60).double(21), flush=True)
        await anyio.sleep_forever()

    yield [client, Shop, ask]
