"""Calls that change something: the effect once, and the result each time that the call is delivered.

Owns the table of calls, and what a handler is made of. What a call does is the user's.
"""

from __future__ import annotations

import inspect
import os
import socket
from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeVar, get_type_hints, overload

from pydantic import TypeAdapter
from sqlalchemy import Column, Float, MetaData, String, Table, Text, delete, select, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, async_sessionmaker

from sbrpc.context import CallInfo
from sbrpc.errors import ContractError

from ._dialect import insert, now
from ._wrapping import named_as

__all__ = ["Calls", "reading"]

R = TypeVar("R")
Req = TypeVar("Req")


class _Handling(Protocol):
    """What `reading` and `Calls.handler` return."""

    @overload
    def __call__(
        self, work: Callable[[AsyncSession, Req], Awaitable[R]], /
    ) -> Callable[[Req, CallInfo], Awaitable[R]]: ...
    @overload
    def __call__(
        self, work: Callable[[AsyncSession, Req, CallInfo], Awaitable[R]], /
    ) -> Callable[[Req, CallInfo], Awaitable[R]]: ...


def reading(sessions: async_sessionmaker[AsyncSession]) -> _Handling:
    """Make a handler of a function `(session, request)` or `(session, request, info)` that changes nothing.

        @server.method(Movies.get_movie)
        @reading(sessions)
        async def get_movie(session: AsyncSession, request: MovieRef) -> Movie: ...

    It has a session of its own, which is closed in the end and never committed.

    Raises:
        ContractError: the function takes other arguments.
    """

    def decorate(work: Callable[..., Awaitable[Any]]) -> Callable[[Any, CallInfo], Awaitable[Any]]:
        takes_info = _takes_info(work)

        async def handler(request: Any, info: CallInfo) -> Any:
            async with sessions() as session:
                return await work(session, *((request, info) if takes_info else (request,)))

        return named_as(work, handler)

    return decorate


class Calls:
    """Remembers which calls were done, and with what result, in the transaction of the handler.

        calls = Calls(Base.metadata)

        @server.method(Movies.create_movie)
        @calls.handler(sessions)
        async def create_movie(session: AsyncSession, request: NewMovie) -> Movie: ...

    Service Bus delivers a request again when the server dies before it has settled it. What the handler
    writes, events that it adds to an `Outbox`, and the result of the call become true together or not at all:
    a call that comes again gets its result and does nothing. `ReplyStore` does without a transaction of the
    handler, and is another one. Any number of servers may share the table.
    """

    def __init__(self, metadata: MetaData, table: str = "sbrpc_calls") -> None:
        self.table: Table = Table(
            table,
            metadata,
            # An id is the caller's choice: two callers may have had the same idea.
            Column("reply_to", String(260), primary_key=True),
            Column("call_id", String(128), primary_key=True),
            Column("method", String(256), nullable=False),
            Column("result", Text, nullable=False),
            Column("done_by", String(300), nullable=False),
            Column("done_at", Float, nullable=False, index=True),
        )

    async def once(
        self,
        sessions: async_sessionmaker[AsyncSession],
        info: CallInfo,
        work: Callable[[AsyncSession], Awaitable[R]],
        result: type[R],
    ) -> R:
        """Do the work in a transaction of its own and commit it; or give the result that it had before.

        `result` is the type of what `work` returns, to read it back. An exception of `work` leaves nothing
        behind and is raised; when such a call comes again, it is tried again. Of two deliveries that run at
        the same time, the second one waits until the first has ended.
        """
        return await self._once(sessions, info, work, TypeAdapter(result))

    def handler(self, sessions: async_sessionmaker[AsyncSession]) -> _Handling:
        """Make a handler of a function `(session, request)` or `(session, request, info)`: see `once`.

        The function works in a transaction of its own, which is committed once it has returned. Cancelled, as
        when the deadline passes, it leaves nothing behind.

        Raises:
            ContractError: the function does not say what it returns, or takes other arguments.
        """

        def decorate(work: Callable[..., Awaitable[Any]]) -> Callable[[Any, CallInfo], Awaitable[Any]]:
            result, takes_info = _result_of(work), _takes_info(work)

            async def handler(request: Any, info: CallInfo) -> Any:
                arguments = (request, info) if takes_info else (request,)
                return await self._once(sessions, info, lambda session: work(session, *arguments), result)

            return named_as(work, handler)

        return decorate

    async def _once(
        self,
        sessions: async_sessionmaker[AsyncSession],
        info: CallInfo,
        work: Callable[[AsyncSession], Awaitable[R]],
        adapter: TypeAdapter[R],
    ) -> R:
        columns = self.table.c
        key = {"reply_to": info.reply_to or "", "call_id": info.call_id}
        mine = (columns.reply_to == key["reply_to"], columns.call_id == key["call_id"])
        async with sessions.begin() as session:
            claim = (
                insert(session, self.table)
                .values(**key, method=info.method, result="", done_by=_process(), done_at=now(session))
                .on_conflict_do_nothing()
                .returning(columns.call_id)
            )
            if (await session.execute(claim)).first() is None:
                earlier = await session.execute(select(columns.result).where(*mine))
                return adapter.validate_json(earlier.scalar_one())
            done = await work(session)
            text = adapter.dump_json(done).decode()
            await session.execute(update(self.table).where(*mine).values(result=text))
        return done

    async def forget(self, session: AsyncSession | AsyncConnection, *, older_than: float) -> int:
        """Forget calls done more than so many seconds ago; returns how many.

        Longer than a request can take to come again, which its time to live says. One that is replayed from
        the dead letters is another call, under an id of its own.
        """
        old = delete(self.table).where(self.table.c.done_at < now(session) - older_than)
        return len((await session.execute(old.returning(self.table.c.call_id))).all())


def _result_of(work: Callable[..., Any]) -> TypeAdapter[Any]:
    try:
        return TypeAdapter(get_type_hints(work, include_extras=True)["return"])
    except (KeyError, NameError) as error:
        raise ContractError(
            f"{work.__qualname__} does not say what it returns, with a type that its module knows: {error}"
        ) from error


def _takes_info(work: Callable[..., Any]) -> bool:
    parameters = len(inspect.signature(work).parameters)
    if parameters not in (2, 3):
        raise ContractError(
            f"{work.__qualname__} must take (session, request) or (session, request, info), "
            f"not {inspect.signature(work)}"
        )
    return parameters == 3


def _process() -> str:
    return f"{socket.gethostname()}:{os.getpid()}"
