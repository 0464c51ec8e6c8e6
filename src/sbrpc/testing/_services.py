"""From what a test has to a server that runs it: handlers by method, or an object with methods.

Also brings what a handler raised to the test that called it. Opens no link.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from azure.servicebus.aio import ServiceBusClient

from sbrpc.contract import CallOptions, Contract, Invoker, Method, MethodKind, MethodSpec
from sbrpc.errors import ContractError, Internal, Unimplemented
from sbrpc.server import RpcServer

__all__ = ["Crashes", "Explaining", "crashes", "server_with"]

_GRACE = 1.0
"""Seconds that a handler may go on after its test is over, where the test did not bring a server."""

_REMEMBERED = 100


def server_with(connection: ServiceBusClient, contract: type[Contract], service: object) -> RpcServer | None:
    """A server with these handlers, if that is what they are. Those that are missing are UNIMPLEMENTED."""
    if isinstance(service, type):
        raise ContractError(f"{service.__name__} is a class; pass an object of it: {service.__name__}(...)")
    if isinstance(service, Mapping):
        return _server_with(connection, contract, _by_name(contract, service))
    if any(hasattr(service, name) for name in contract.contract_methods):
        return _server_with(
            connection,
            contract,
            {name: getattr(service, name) for name in contract.contract_methods if hasattr(service, name)},
        )
    if callable(service) or isinstance(service, RpcServer | list | tuple):
        return None
    raise ContractError(
        f"{service!r} has none of the methods of {contract.__name__} ("
        f"{', '.join(contract.contract_methods)}); pass handlers by method, an object that has them, an "
        "RpcServer, or a function that makes one from a connection"
    )


def _by_name(contract: type[Contract], handlers: Mapping[Any, Any]) -> dict[str, Any]:
    found = {}
    for declared, handler in handlers.items():
        name = declared.spec.name if isinstance(declared, Method) else declared
        spec = contract.contract_methods.get(name)
        if spec is None or (isinstance(declared, Method) and declared.spec is not spec):
            raise ContractError(
                f"{declared!r} is no method of {contract.__name__}; it has "
                f"{', '.join(contract.contract_methods)}"
            )
        found[name] = handler
    return found


def _server_with(
    connection: ServiceBusClient, contract: type[Contract], handlers: Mapping[str, Any]
) -> RpcServer:
    server = RpcServer(connection, contract, grace=_GRACE)
    for name, spec in contract.contract_methods.items():
        server._registry.add(spec, handlers.get(name) or _missing(spec))
    return server


def _missing(spec: MethodSpec) -> Callable[..., Any]:
    problem = f"the test gave no handler for {spec}"

    async def unimplemented(request: Any) -> Any:
        raise Unimplemented(problem)

    async def unimplemented_stream(request: Any) -> AsyncGenerator[Any, None]:
        raise Unimplemented(problem)
        yield

    return unimplemented_stream if spec.kind is MethodKind.STREAM else unimplemented


# -- what handlers raised ------------------------------------------------------------------------------

Crashes = OrderedDict[str, BaseException]
"""Exceptions by the id of the call whose handler raised them."""


class _Listener(logging.Handler):
    def __init__(self, crashes: Crashes) -> None:
        super().__init__(logging.ERROR)
        self._crashes = crashes

    def emit(self, record: logging.LogRecord) -> None:
        call_id = getattr(record, "call_id", None)
        if call_id is not None and record.exc_info and record.exc_info[1] is not None:
            self._crashes[call_id] = record.exc_info[1]
            if len(self._crashes) > _REMEMBERED:
                self._crashes.popitem(last=False)


@contextmanager
def crashes() -> Iterator[Crashes]:
    """What handlers in this process raise inside the block, as the server's log has it."""
    found: Crashes = OrderedDict()
    listener = _Listener(found)
    log = logging.getLogger("sbrpc.server")
    log.addHandler(listener)
    try:
        yield found
    finally:
        log.removeHandler(listener)


class Explaining:
    """Makes calls as another invoker does; `Internal` errors have what the handler raised as their cause."""

    def __init__(self, invoker: Invoker, crashes: Crashes) -> None:
        self._invoker = invoker
        self._crashes = crashes

    def invoke(self, spec: MethodSpec, request: Any, options: CallOptions) -> Coroutine[Any, Any, Any]:
        """Make a call."""
        return self._explained(self._invoker.invoke(spec, request, options))

    async def _explained(self, call: Coroutine[Any, Any, Any]) -> Any:
        try:
            return await call
        except Internal as error:
            raise error from self._cause(error)

    async def invoke_stream(
        self, spec: MethodSpec, request: Any, options: CallOptions
    ) -> AsyncGenerator[Any, None]:
        """Make a call whose reply is streamed."""
        replies = self._invoker.invoke_stream(spec, request, options)
        try:
            async for reply in replies:
                yield reply
        except Internal as error:
            raise error from self._cause(error)
        finally:
            await replies.aclose()

    def _cause(self, error: Internal) -> BaseException | None:
        return self._crashes.get(error.call_id or "") or error.__cause__
