"""From what `sbrpc run` runs to its parts: a server, a bus, a list of them and of what they need, or a
function that makes any of these from a connection.

Opens what an app opens, and no link. Knows nothing of what tests ask of the parts.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

from azure.servicebus.aio import ServiceBusClient

from sbrpc.client import RpcClient
from sbrpc.contract import Contract
from sbrpc.errors import ContractError
from sbrpc.event import Event
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
        yield _flat(app)
        return
    parameters = inspect.signature(app).parameters.values()
    needed = [each for each in parameters if each.default is each.empty]
    made = app(*[connection for _ in needed[:1]])
    if not inspect.isasyncgenfunction(inspect.unwrap(app)):
        yield _flat(made)
        return
    async with made as opened:
        yield _flat(opened)


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
    return [part for part in parts if not _is_declaration(part)]


def entities_in(parts: list[Any]) -> Iterator[Entity]:
    """What says which queues and topics it needs."""
    for part in parts:
        if isinstance(part, RpcClient):
            yield Queue(part.reply_queue, requires_session=True)
        elif isinstance(part, Queue | Topic | RpcServer | EventBus) or (
            isinstance(part, type) and issubclass(part, Contract)
        ):
            yield part


def _is_declaration(part: object) -> bool:
    """What stands beside servers and clients to say what is needed."""
    return isinstance(part, Queue | Topic) or (isinstance(part, type) and issubclass(part, Contract | Event))


def _flat(found: Any) -> list[Any]:
    if isinstance(found, list | tuple | set | frozenset):
        return [part for each in found for part in _flat(each)]
    return [] if found is None else [found]


def _named(app: object) -> str:
    return str(getattr(app, "__qualname__", app))


def _shown(parts: list[Any]) -> str:
    return ", ".join(map(repr, parts)) or "nothing"
