"""Handlers are checked when they are registered."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio
import pytest

from sbrpc._handlers import Registry, handler_for
from sbrpc.context import CallInfo
from sbrpc.contract import Contract, method
from sbrpc.errors import ContractError


class Numbers(Contract, name="numbers"):
    @method
    async def double(self, request: int) -> int:
        raise NotImplementedError

    @method
    def count(self, request: int) -> AsyncIterator[int]:
        raise NotImplementedError


class Others(Contract, name="others"):
    @method
    async def double(self, request: str) -> str:
        raise NotImplementedError


DOUBLE = Numbers.contract_methods["double"]
COUNT = Numbers.contract_methods["count"]
INFO = CallInfo("double", "1")


async def asynchronous(request: int) -> int:
    return 2 * request


async def informed(request: int, info: CallInfo) -> str:
    return f"{request} {info.method}"


def synchronous(request: int, info: CallInfo) -> str:
    return threading.current_thread().name


async def defaulted(request: int, factor: int = 2) -> int:
    return factor * request


async def defaulted_info(request: int, info: CallInfo | None = None) -> bool:
    return info is not None


class Service:
    async def double(self, request: int) -> int:
        return 2 * request

    async def __call__(self, request: int, info: CallInfo) -> str:
        return f"called {request}"


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (asynchronous, 14),
        (informed, "7 double"),
        (defaulted, 14),
        (defaulted_info, True),
        (Service().double, 14),
        (Service(), "called 7"),
    ],
)
async def test_handlers_take_a_request_and_perhaps_the_info(function: Any, expected: object) -> None:
    """Functions, bound methods and callable objects; a default of the author's own is left alone."""
    handler = handler_for(DOUBLE, function)
    assert await handler.call(7, INFO, anyio.CapacityLimiter(1)) == expected


async def test_synchronous_handlers_run_in_a_thread() -> None:
    """So that they do not hold up the loop that renews locks."""
    handler = handler_for(DOUBLE, synchronous)
    assert handler.in_thread
    name = await handler.call(7, INFO, anyio.CapacityLimiter(1))
    assert name != threading.main_thread().name


async def stream(request: int, info: CallInfo) -> AsyncIterator[int]:
    for n in range(request):
        yield n


async def test_streams_are_generators() -> None:
    """A streaming handler yields its replies."""
    handler = handler_for(COUNT, stream)
    assert [n async for n in handler.stream(3, INFO)] == [0, 1, 2]


def generator(request: int) -> Iterator[int]:
    yield request


async def nothing() -> int:
    return 0


async def three(a: int, b: int, c: int) -> int:
    return 0


async def keyword(request: int, *, needed: int) -> int:
    return 0


async def textual(request: str) -> int:
    return 0


@pytest.mark.parametrize(
    ("spec", "function", "says"),
    [
        (DOUBLE, 7, "is not a function"),
        (DOUBLE, stream, "has one reply; use `return`"),
        (DOUBLE, generator, "has one reply; use `return`"),
        (COUNT, asynchronous, "must stream"),
        (COUNT, generator, "must stream"),
        (DOUBLE, nothing, r"must take (request) or (request, info)"),
        (DOUBLE, three, r"must take (request) or (request, info)"),
        (DOUBLE, keyword, r"must take (request) or (request, info)"),
        (DOUBLE, textual, "takes str, but what the method is called with is int"),
    ],
)
def test_what_does_not_fit_is_refused(spec: Any, function: Any, says: str) -> None:
    """When it is registered, with the method and the remedy."""
    with pytest.raises(ContractError) as caught:
        handler_for(spec, function)
    assert says in str(caught.value)


def test_contracts_on_one_queue_must_not_collide() -> None:
    """Requests are told apart by the method's name alone."""
    with pytest.raises(ContractError, match=r"others\.double and numbers\.double"):
        Registry([Numbers, Others])
    with pytest.raises(ContractError, match="not a contract"):
        Registry([int])  # type: ignore[list-item]


def test_a_registry_is_complete_or_says_what_is_missing() -> None:
    """What lacks a handler would answer UNIMPLEMENTED in production; it fails at the start instead."""
    registry = Registry([Numbers])
    registry.add(DOUBLE, asynchronous)
    with pytest.raises(
        ContractError, match=r"no handler for numbers\.count; .*@server\.method\(Numbers\.count\)"
    ):
        registry.check_complete()
    registry.add(COUNT, stream)
    registry.check_complete()
    assert registry.get("double") is registry.handlers["double"]
    assert registry.get("nothing") is None


def test_a_handler_is_registered_once_and_where_it_belongs() -> None:
    """The errors name the method."""
    registry = Registry([Numbers])
    registry.add(DOUBLE, asynchronous)
    with pytest.raises(ContractError, match="already has a handler"):
        registry.add(DOUBLE, asynchronous)
    with pytest.raises(ContractError, match=r"serves numbers, which has no method others\.double"):
        registry.add(Others.contract_methods["double"], asynchronous)
