"""Several servers, event buses and relays in one process: started together, asked to stop once, drained once.

    await serve(server, bus, OutboxRelay(engine, outbox, bus))

Owns the order of starting and stopping, and the one grace that all share. What each thing does is its own
business: this module knows `async with`, `run()`, and what a thing says of its readiness.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from types import TracebackType
from typing import Any, Protocol, runtime_checkable

import anyio
import anyio.abc

from ._signals import asked_to_stop
from .errors import NotRunning

__all__ = ["Group", "serve"]


@runtime_checkable
class _Drains(Protocol):
    """What takes work and can be told to take no more: `RpcServer`, `EventBus`."""

    async def drain(self, grace: float | None = None) -> None: ...


@runtime_checkable
class _Runs(Protocol):
    """What works in the background until it is cancelled: `OutboxRelay`."""

    def run(self) -> Awaitable[Any]: ...


async def serve(*things: Any, grace: float | None = None) -> None:
    """Run servers, event buses, relays and whatever they need until SIGTERM or SIGINT, then drain them.

    Each thing is an async context manager, such as `RpcServer`, `EventBus`, `RpcClient` or a
    `ServiceBusClient`; or has a `run()`, such as `OutboxRelay`; or is an async function without arguments,
    which runs in the background. They are entered in their order. On the first signal all stop taking work
    at once and have `grace` seconds together for what runs, each its own grace unless given; until then
    handlers can call and publish as before. Then the background ends, and everything is left in the reverse
    order. A second signal ends the process the way it would without this. Cancelled by a scope that contains
    it, handlers are cancelled too, and what they worked on is handed back.

    Raises:
        EntityNotFound, AccessDenied, BusError, ContractError: one of them cannot start, or cannot go on.
        TypeError: one of them is nothing that runs.
    """
    async with Group(*things, grace=grace) as group:
        await group.until_asked_to_stop()


class Group:
    """Things that run together, as one `async with`. `serve` is this until a signal.

    See `serve` for what a thing is, and in which order all of it starts and stops.
    """

    def __init__(self, *things: Any, grace: float | None = None) -> None:
        if not things:
            raise TypeError("there is nothing to serve; pass servers, event buses or relays")
        if grace is not None and not grace >= 0:
            raise ValueError(f"grace is a number of seconds, not {grace!r}")
        for thing in things:
            _check(thing)
        self.things = things
        self._grace = grace
        self._stack: AsyncExitStack | None = None
        self._tasks: anyio.abc.TaskGroup | None = None
        self._failure: BaseException | None = None

    async def __aenter__(self) -> Group:
        if self._stack is not None:
            raise NotRunning("this group is already running")
        self._failure = None
        async with AsyncExitStack() as stack:
            for thing in self.things:
                if isinstance(thing, AbstractAsyncContextManager):
                    await stack.enter_async_context(thing)
            self._tasks = await stack.enter_async_context(anyio.create_task_group())
            self._stack = stack.pop_all()
        for thing in self.things:
            if not isinstance(thing, AbstractAsyncContextManager):
                self._tasks.start_soon(self._run, thing.run if isinstance(thing, _Runs) else thing)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        """Drain together, end the background, leave everything in reverse order. Bounded by the grace."""
        stack, tasks = self._stack, self._tasks
        assert stack is not None
        assert tasks is not None
        self._stack = self._tasks = None
        with anyio.CancelScope(shield=True):
            async with anyio.create_task_group() as draining:
                for thing in self.things:
                    if isinstance(thing, _Drains):
                        draining.start_soon(thing.drain, self._grace)
        tasks.cancel_scope.cancel()
        if error is not None and not isinstance(error, anyio.get_cancelled_exc_class()):
            # The exception of the block is none of the task group's: it would come out wrapped.
            await stack.__aexit__(None, None, None)
            return None
        swallowed = await stack.__aexit__(kind, error, trace)
        if self._failure is not None:
            raise self._failure
        return swallowed

    async def ready(self, timeout: float | None = None) -> None:
        """Wait until everything that says when it is ready is.

        Raises:
            EntityNotFound, AccessDenied, BusError, ContractError: one of them cannot start.
            Unavailable: Service Bus could not be reached within `timeout` seconds.
        """
        for thing in self.things:
            wait = getattr(thing, "ready", None)
            if callable(wait):
                await wait(timeout)

    async def until_asked_to_stop(self) -> None:
        """Return on SIGTERM or SIGINT; raises like `ready` what keeps one of the things from starting."""
        failure: Exception | None = None
        # Nothing that was entered may be a child of this scope: handlers would be cancelled with it.
        async with anyio.create_task_group() as waiting:

            async def listen() -> None:
                await asked_to_stop()
                waiting.cancel_scope.cancel()

            waiting.start_soon(listen, name="wait for a signal")
            try:
                await self.ready()
                await anyio.sleep_forever()
            except Exception as error:  # raised below, where the task group does not wrap it
                failure = error
                waiting.cancel_scope.cancel()
        if failure is not None:
            raise failure

    @property
    def is_ready(self) -> bool:
        """Whether everything takes work, as far as anybody knows; false from the moment it is left."""
        return self.is_live and all(getattr(thing, "is_ready", True) for thing in self.things)

    @property
    def is_live(self) -> bool:
        """Whether everything runs, even if Service Bus is out of reach; for a liveness probe."""
        return self._tasks is not None and all(getattr(thing, "is_live", True) for thing in self.things)

    async def _run(self, work: Callable[[], Awaitable[Any]]) -> None:
        try:
            await work()
        except Exception as error:  # raised where the group is left, for whoever runs it
            self._failure = self._failure or error
            assert self._tasks is not None
            self._tasks.cancel_scope.cancel()


def _check(thing: object) -> None:
    if isinstance(thing, type):
        raise TypeError(f"{thing.__name__} is a class; to serve it, make one: {thing.__name__}(...)")
    if not (isinstance(thing, AbstractAsyncContextManager | _Runs) or inspect.iscoroutinefunction(thing)):
        raise TypeError(
            f"{thing!r} cannot be served: it is neither an async context manager, as servers and event buses "
            "are, nor has it a run(), as relays have, nor is it an async function"
        )
