"""From an app, as `sbrpc run` runs it, to the parts of it that a test needs.

Opens what an app opens, and no link. Knows nothing of what tests ask of the parts.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

from azure.servicebus.aio import ServiceBusClient

from sbrpc._apps import flat, is_declaration, needed_by
from sbrpc.client import RpcClient
from sbrpc.contract import Contract
from sbrpc.errors import ContractError
from sbrpc.events import EventBus
from sbrpc.server import RpcServer
from sbrpc.topology import Queue, Topic

from ._entities import Entity

__all__ = ["bus_in", "entities_in", "parts_of", "running_in", "server_in"]


@asynccontextmanager
async def parts_of(app: Any, connection: ServiceBusClient) -> AsyncIterator[list[Any]]:
    """What the app consists of, in its order. What an `@asynccontextmanager` opens is open in the block."""
    # A coroutine function is a handler that was taken for an app; calling it would handle something.
    if isinstance(app, RpcServer | EventBus) or not callable(app) or inspect.iscoroutinefunction(app):
        yield [*flat(app)]
        return
    made = app(*[connection for _ in needed_by(app)[:1]])
    if not inspect.isasyncgenfunction(inspect.unwrap(app)):
        yield [*flat(made)]
        return
    async with made as opened:
        yield [*flat(opened)]


def server_in(parts: list[Any], contract: type[Contract], app: object) -> RpcServer:
    """The one that serves the contract, or else the only one."""
    servers = [part for part in parts if isinstance(part, RpcServer)]
    for server in servers:
        if contract in server.contracts:
            return server
    if servers:
        raise ContractError(f"this server does not serve {contract.__name__}")
    example = next(iter(contract.contract_methods))
    raise ContractError(
        f"{_named(app)} makes {_shown(parts)}, not an RpcServer; "
        f"a handler is passed with its method: {{{contract.__name__}.{example}: handler}}"
    )


def bus_in(parts: list[Any], app: object) -> EventBus:
    """The first event bus."""
    for part in parts:
        if isinstance(part, EventBus):
            return part
    raise ContractError(f"{_named(app)} makes {_shown(parts)}, which is no EventBus")


def running_in(parts: list[Any], connection: ServiceBusClient) -> list[Any]:
    """What of it runs. Servers, buses and clients have to be connected to the bench."""
    for part in parts:
        if isinstance(part, RpcServer | EventBus | RpcClient) and part._connection is not connection:
            kind = {RpcServer: "server", EventBus: "bus"}.get(type(part), "client")
            raise ContractError(
                f"this {kind} connects elsewhere; make it with the bench's `connection`, or pass a function "
                "that makes it from a connection"
            )
    return [part for part in parts if not is_declaration(part)]


def entities_in(parts: list[Any]) -> Iterator[Entity]:
    """What says which queues and topics it needs."""
    for part in parts:
        if isinstance(part, RpcClient):
            yield Queue(part.reply_queue, requires_session=True)
        elif isinstance(part, Queue | Topic | RpcServer | EventBus) or (
            isinstance(part, type) and issubclass(part, Contract)
        ):
            yield part


def _named(app: object) -> str:
    return str(getattr(app, "__qualname__", app))


def _shown(parts: list[Any]) -> str:
    return ", ".join(map(repr, parts)) or "nothing"
