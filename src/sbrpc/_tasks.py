"""Where a task, a scope or a future's callback for each thing would cost more than the thing itself.

Owns what lets one task do many things as if each had a task of its own. Knows asyncio and anyio only.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Coroutine, Generator
from contextvars import Context
from types import TracebackType
from typing import Any, Generic, TypeVar

import anyio

from . import _sdk

__all__ = ["Turns", "isolated", "telling"]

T = TypeVar("T")


class Turns:
    """A scope in which one task runs handlers, one after the other, until one of them is interrupted.

    A scope for each would take as long as all that is done around a handler. Enter it in the task.
    """

    __slots__ = ("_open",)

    def __init__(self) -> None:
        self._open: anyio.CancelScope | None = None

    def __enter__(self) -> Turns:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave(error)

    def scope(self) -> anyio.CancelScope:
        """The scope, entered, for the next handler."""
        if self._open is None:
            self._open = _sdk.bounded(math.inf)
            self._open.__enter__()
        return self._open

    def over(self, error: BaseException | None) -> bool:
        """The handler has ended, if so with an error; says whether the scope's being cancelled was why."""
        scope = self._open
        if scope is None:
            return False
        if scope.deadline != math.inf:
            scope.deadline = math.inf
        # Cancelled, it would end what comes next as well, even where the handler did not let itself be ended.
        return self._leave(error) if scope.cancel_called else False

    def _leave(self, error: BaseException | None) -> bool:
        scope, self._open = self._open, None
        if scope is None:
            return False
        return bool(scope.__exit__(type(error) if error is not None else None, error, None))


class isolated(Generic[T]):
    """Awaits a coroutine in a context of its own, as a task would, for much less than a task costs.

    What it sets of context variables, nobody sees who is awaited after it by the same task.
    """

    __slots__ = ("_context", "_work")

    def __init__(self, work: Coroutine[Any, Any, T], context: Context) -> None:
        self._work = work
        self._context = context

    def __await__(self) -> Generator[Any, Any, T]:
        step, work = self._context.run, self._work
        try:
            waits = step(work.send, None)
            while True:
                try:
                    answer = yield waits
                except BaseException as error:  # noqa: PERF203 - whatever is thrown in is the coroutine's
                    waits = step(work.throw, error)
                else:
                    waits = step(work.send, answer)
        except StopIteration as end:
            result: T = end.value
            return result


def telling(future: asyncio.Future[None]) -> Callable[[Exception | None], None]:
    """What is to be called once with how something went; the future says the same to whoever awaits it."""

    def done(error: Exception | None) -> None:
        if future.done():
            return
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(error)
            # Nobody has to await it; one that fails must not be reported by the garbage collector.
            future.exception()

    return done
