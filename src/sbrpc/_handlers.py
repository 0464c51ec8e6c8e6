"""Handlers: what was registered for each method, checked when it is registered, and how it is called.

Knows contracts and functions; no messages.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, overload

import anyio
import anyio.to_thread

from ._signatures import takes_info, takes_other
from .context import CallInfo
from .contract import Contract, MethodKind, MethodSpec
from .errors import ContractError

__all__ = ["Handler", "Registry", "StreamRegistrar", "UnaryRegistrar", "handler_for"]

Req = TypeVar("Req")
Res = TypeVar("Res")


@dataclass(frozen=True)
class Handler:
    """A method and the function that implements it."""

    spec: MethodSpec
    function: Callable[..., Any]
    takes_info: bool
    in_thread: bool

    def call(self, request: Any, info: CallInfo | None, limiter: anyio.CapacityLimiter) -> Awaitable[Any]:
        """Run the handler, to be awaited; a synchronous one in a thread, so that it holds nothing else up.

        `info` is needed if it `takes_info`.

        A thread cannot be interrupted: on cancellation it is left to finish, and may look at
        `info.cancelled`.
        """
        arguments = (request, info) if self.takes_info else (request,)
        if self.in_thread:
            return anyio.to_thread.run_sync(
                self.function, *arguments, limiter=limiter, abandon_on_cancel=True
            )
        called: Awaitable[Any] = self.function(*arguments)
        return called

    def stream(self, request: Any, info: CallInfo) -> AsyncIterator[Any]:
        """Begin a streamed answer."""
        arguments = (request, info) if self.takes_info else (request,)
        replies: AsyncIterator[Any] = self.function(*arguments)
        return replies


def handler_for(spec: MethodSpec, function: Callable[..., Any]) -> Handler:
    """The handler, once it is clear that it fits the method."""
    name = getattr(function, "__qualname__", repr(function))
    where = f"the handler {name} of {spec}"
    if not callable(function):
        raise ContractError(f"{where} is not a function")
    called: Any = function
    if not inspect.isroutine(function):
        called = type(called).__call__
    in_thread = False
    if spec.kind is MethodKind.STREAM:
        if not inspect.isasyncgenfunction(called):
            raise ContractError(f"{where} must stream: write it as `async def` with `yield`")
    elif inspect.isasyncgenfunction(called) or inspect.isgeneratorfunction(called):
        raise ContractError(f"{where} yields, but the method has one reply; use `return`")
    else:
        in_thread = not inspect.iscoroutinefunction(called)
    info = takes_info(function)
    if info is None:
        raise ContractError(
            f"{where} must take (request) or (request, info), not {inspect.signature(function)}"
        )
    other = takes_other(function, spec.request.annotation)
    if other is not None:
        raise ContractError(
            f"{where} takes {other.__qualname__}, but what the method is called with is "
            f"{spec.request.annotation.__qualname__}"
        )
    return Handler(spec, function, info, in_thread)


class Registry:
    """The methods of one queue by their names on the wire, and their handlers."""

    def __init__(self, contracts: Sequence[type[Contract]]) -> None:
        self._specs: dict[str, MethodSpec] = {}
        self._handlers: dict[str, Handler] = {}
        self._declared: dict[str, str] = {}
        for contract in contracts:
            if not (isinstance(contract, type) and issubclass(contract, Contract)):
                raise ContractError(f"{contract!r} is not a contract; pass classes that derive from Contract")
            for attribute, spec in contract.contract_methods.items():
                other = self._specs.get(spec.subject)
                if other is not None:
                    raise ContractError(
                        f'{spec} and {other} are both named "{spec.subject}" on the wire and cannot share a '
                        "queue; give one of them another `name=`"
                    )
                self._specs[spec.subject] = spec
                self._declared[spec.subject] = f"{contract.__name__}.{attribute}"

    def add(self, spec: MethodSpec, function: Callable[..., Any]) -> None:
        """Register the handler of a method."""
        if self._specs.get(spec.subject) is not spec:
            served = ", ".join(sorted({s.contract for s in self._specs.values()})) or "no contract"
            raise ContractError(f"this server serves {served}, which has no method {spec}")
        if spec.subject in self._handlers:
            raise ContractError(f"{spec} already has a handler")
        self._handlers[spec.subject] = handler_for(spec, function)

    def get(self, subject: str) -> Handler | None:
        """The handler of the method with this name on the wire."""
        return self._handlers.get(subject)

    @property
    def handlers(self) -> Mapping[str, Handler]:
        """All handlers by name on the wire."""
        return self._handlers

    def check_complete(self) -> None:
        """Raise `ContractError` that names the methods without a handler."""
        missing = [subject for subject in self._specs if subject not in self._handlers]
        if missing:
            named = ", ".join(str(self._specs[subject]) for subject in missing)
            raise ContractError(
                f"no handler for {named}; register one with `@server.method({self._declared[missing[0]]})`"
            )


class UnaryRegistrar(Generic[Req, Res]):
    """What `@server.method(...)` of a method with one reply returns; checks the handler's types."""

    def __init__(self, add: Callable[[Callable[..., Any]], None]) -> None:
        self._add = add

    @overload
    def __call__(self, handler: Callable[[Req], Awaitable[Res]], /) -> Callable[[Req], Awaitable[Res]]: ...
    @overload
    def __call__(
        self, handler: Callable[[Req, CallInfo], Awaitable[Res]], /
    ) -> Callable[[Req, CallInfo], Awaitable[Res]]: ...
    @overload
    def __call__(self, handler: Callable[[Req], Res], /) -> Callable[[Req], Res]: ...
    @overload
    def __call__(self, handler: Callable[[Req, CallInfo], Res], /) -> Callable[[Req, CallInfo], Res]: ...
    def __call__(self, handler: Callable[..., Any], /) -> Callable[..., Any]:
        self._add(handler)
        return handler


class StreamRegistrar(Generic[Req, Res]):
    """What `@server.method(...)` of a streaming method returns; checks the handler's types."""

    def __init__(self, add: Callable[[Callable[..., Any]], None]) -> None:
        self._add = add

    @overload
    def __call__(
        self, handler: Callable[[Req], AsyncIterator[Res]], /
    ) -> Callable[[Req], AsyncIterator[Res]]: ...
    @overload
    def __call__(
        self, handler: Callable[[Req, CallInfo], AsyncIterator[Res]], /
    ) -> Callable[[Req, CallInfo], AsyncIterator[Res]]: ...
    def __call__(self, handler: Callable[..., Any], /) -> Callable[..., Any]:
        self._add(handler)
        return handler
