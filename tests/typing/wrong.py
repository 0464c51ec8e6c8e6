"""What must not pass a type checker, each line with the error it has to be. Never executed.

The comments have mypy and pyright ignore exactly that error, and a comment that ignores nothing is an error
itself: should a wrong use begin to pass, or to fail for another reason, both say so.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta

from sbrpc import (
    CallInfo,
    Contract,
    Event,
    EventBus,
    EventInfo,
    RpcClient,
    RpcServer,
    connect,
    deadline,
    method,
)
from sbrpc.store import CachedReply

from .right import GetMovie, Movie, MovieCreated, MovieDeleted, Movies

# -- contracts -------------------------------------------------------------------------------------------


class NoContract:
    pass


class Wrong(Contract, name="wrong"):
    @method  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
    async def without_request(self) -> Movie:
        raise NotImplementedError

    @method  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
    def plain(self, request: GetMovie) -> Movie:
        raise NotImplementedError

    @method(timout=5)  # type: ignore[call-overload, untyped-decorator]  # pyright: ignore[reportCallIssue]
    async def misspelt(self, request: GetMovie) -> Movie:
        raise NotImplementedError


# -- calls -----------------------------------------------------------------------------------------------


async def call(client: RpcClient) -> None:
    movies = client.of(Movies)
    await movies.get_movie(Movie(id=1, title="x"))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await movies.get_movie()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await movies.get_movie(GetMovie(id=1), 5)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await movies.get_movie(GetMovie(id=1), timeout="5")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await movies.drop_movie(GetMovie(id=1))  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
    text: str = await movies.count(None)  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    movie: Movie = movies.get_movie(GetMovie(id=1))  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    await movies.export(GetMovie(id=1))  # type: ignore[misc]  # pyright: ignore[reportGeneralTypeIssues]
    async for each in movies.get_movie(GetMovie(id=1)):  # type: ignore[attr-defined]  # pyright: ignore[reportGeneralTypeIssues, reportUnknownVariableType]
        del each
    Movies.get_movie(GetMovie(id=1))  # type: ignore[operator]  # pyright: ignore[reportCallIssue]
    client.of(NoContract)  # type: ignore[type-var]  # pyright: ignore[reportArgumentType]
    client.of("movies")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    with deadline("2"):  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        pass
    RpcClient(connect())  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    del text, movie


# -- servers ---------------------------------------------------------------------------------------------


def handle(server: RpcServer) -> None:
    @server.method(Movies.get_movie)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
    async def wrong_reply(request: GetMovie) -> int:
        return 1

    @server.method(Movies.get_movie)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
    async def wrong_request(request: int) -> Movie:
        return Movie(id=1, title="x")

    @server.method(Movies.get_movie)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
    async def wrong_info(request: GetMovie, info: EventInfo) -> Movie:
        return Movie(id=1, title="x")

    @server.method(Movies.export)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
    async def no_stream(request: GetMovie) -> Movie:
        return Movie(id=1, title="x")

    @server.method(Movies.get_movie)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
    async def stream(request: GetMovie, info: CallInfo) -> AsyncIterator[Movie]:
        yield Movie(id=1, title="x")

    server.method("get_movie")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]


class HalfAStore:
    async def get(self, key: str) -> CachedReply | None:
        return None


RpcServer(connect(), Movies, store=HalfAStore())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
RpcServer(connect(), NoContract)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


# -- events ----------------------------------------------------------------------------------------------


class Unrelated:
    pass


def listen(bus: EventBus) -> None:
    @bus.on(MovieCreated, MovieDeleted, subscription="views")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
    async def only_one(event: MovieCreated) -> None: ...

    @bus.on(MovieCreated, subscription="mails")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
    async def wrong_info(event: MovieCreated, info: CallInfo) -> None: ...

    @bus.on(MovieCreated, subscription="search", batch=50)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
    async def one_by_one(event: MovieCreated) -> None: ...

    bus.on(MovieCreated)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    bus.on(MovieCreated, subscription="mails", retries=3)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    bus.on(Unrelated, subscription="mails")  # type: ignore[type-var]  # pyright: ignore[reportArgumentType, reportCallIssue]


async def publish(bus: EventBus) -> None:
    await bus.publish(Unrelated())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await bus.publish(MovieCreated)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await bus.publish_many(MovieCreated(id=1, title="x"))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await bus.schedule(MovieDeleted(id=1))  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await bus.schedule(MovieDeleted(id=1), at=60)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    number: int = await bus.publish(MovieDeleted(id=1))  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    del number


class Fine(Event, type="fine"):
    wait: timedelta


Fine(wait="soon")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
