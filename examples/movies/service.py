"""The movies service: owns the films, answers calls, announces every change.

It knows no HTTP and no read model. Run as many as you like: they share the queue `movies`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NoReturn

from sqlalchemy import MetaData, delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import DeclarativeBase

from sbrpc import CallInfo, EventBus, Queue, RpcServer
from sbrpc.errors import Aborted, NotFound
from sbrpc.sql import Calls, Outbox, OutboxRelay

from . import contract
from .contract import ListMovies, Movie, MovieEvent, MoviePage, MovieRef, Movies, NewMovie
from .database import SERVICE_URL, MovieColumns, engine_at, film, prepared


class Base(DeclarativeBase):
    metadata = MetaData(info={"database": "service"})


class MovieRow(MovieColumns, Base):
    __tablename__ = "movies"


calls = Calls(Base.metadata)
outbox = Outbox(Base.metadata, source="/movies")


async def create(session: AsyncSession, new: NewMovie) -> MovieEvent:
    row = MovieRow(**new.model_dump(), version=1)
    session.add(row)
    await session.flush()  # gives it its id
    return contract.MovieCreated(movie=film(row))


async def change(session: AsyncSession, movie: Movie) -> MovieEvent:
    values = movie.model_dump(exclude={"id"}) | {"version": movie.version + 1}
    mine = (MovieRow.id == movie.id, MovieRow.version == movie.version)
    if row := await session.scalar(update(MovieRow).where(*mine).values(values).returning(MovieRow)):
        return contract.MovieUpdated(movie=film(row))
    current = await find(session, movie.id)
    raise Aborted(
        f"movie {movie.id} is at version {current.version}, the change was made from {movie.version}",
        details=[{"current_version": current.version}],
    )


async def remove(session: AsyncSession, which: MovieRef) -> MovieEvent:
    row = await session.scalar(delete(MovieRow).where(MovieRow.id == which.id).returning(MovieRow))
    gone = film(row or missing(which.id))
    return contract.MovieDeleted(movie=gone.model_copy(update={"version": gone.version + 1}))


async def find(session: AsyncSession, id: int) -> Movie:
    return film(await session.get(MovieRow, id) or missing(id))


def missing(id: int) -> NoReturn:
    raise NotFound(f"there is no movie {id}")


def app(connection: str) -> list[object]:
    """What `sbrpc run movies.service:app` runs, and `sbrpc export` reads: all that this program needs."""
    engine = engine_at(SERVICE_URL)
    sessions = async_sessionmaker(engine, expire_on_commit=False)
    server = RpcServer(connection, Movies)
    bus = EventBus(connection, topic=contract.TOPIC, source="/movies")

    async def once(info: CallInfo, work: Callable[[AsyncSession], Awaitable[MovieEvent]]) -> Movie:
        """Do the work and announce it, all or nothing. A call may come twice; it works once."""

        async def announced(session: AsyncSession) -> Movie:
            event = await work(session)
            await outbox.add(session, event, key=event.lane)
            return event.movie

        return await calls.once(sessions, info, announced, Movie)

    @server.method(Movies.get_movie)
    async def get_movie(request: MovieRef) -> Movie:
        async with sessions() as session:
            return await find(session, request.id)

    @server.method(Movies.list_movies)
    async def list_movies(request: ListMovies) -> MoviePage:
        page = select(MovieRow).where(MovieRow.id > request.after).order_by(MovieRow.id).limit(request.limit)
        async with sessions() as session:
            total = await session.scalar(select(func.count()).select_from(MovieRow))
            return MoviePage(movies=[film(row) for row in await session.scalars(page)], total=total or 0)

    @server.method(Movies.create_movie)
    async def create_movie(request: NewMovie, info: CallInfo) -> Movie:
        return await once(info, lambda session: create(session, request))

    @server.method(Movies.update_movie)
    async def update_movie(request: Movie, info: CallInfo) -> Movie:
        return await once(info, lambda session: change(session, request))

    @server.method(Movies.delete_movie)
    async def delete_movie(request: MovieRef, info: CallInfo) -> None:
        await once(info, lambda session: remove(session, request))

    # Publishes what the outbox has. Short leases and locks: when a service dies, another one soon goes on.
    relay = OutboxRelay(engine, outbox, bus, lease=10)
    queue = Queue("movies", lock_duration=5)
    return [prepared(engine, Base.metadata), server, bus, relay, queue, *contract.EVENTS]
