"""The movies service: owns the films, answers calls, announces every change.

It knows no HTTP and no read model. Run as many as you like: they share the queue `movies`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from sqlalchemy import JSON, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from sbrpc import CallInfo, EventBus, RpcServer, connect
from sbrpc.errors import Aborted, NotFound, RpcError

from . import contract
from .contract import ListMovies, Movie, MovieEvent, MoviePage, MovieRef, Movies, NewMovie
from .database import SERVICE_URL, MovieColumns, film, opened


class Base(DeclarativeBase):
    type_annotation_map = {dict[str, Any]: JSON}  # noqa: RUF012  # SQLAlchemy's way to say it


class MovieRow(MovieColumns, Base):
    __tablename__ = "movies"


class Change(Base):
    """A change that is done, by the id of the call that asked for it."""

    __tablename__ = "changes"

    call_id: Mapped[str] = mapped_column(primary_key=True)
    event: Mapped[str]
    movie: Mapped[dict[str, Any]]


async def create(session: AsyncSession, new: NewMovie) -> MovieEvent:
    row = await session.scalar(insert(MovieRow).values(**new.model_dump(), version=1).returning(MovieRow))
    return contract.MovieCreated(movie=film(row))


async def change(session: AsyncSession, movie: Movie) -> MovieEvent:
    values = movie.model_dump(exclude={"id"}) | {"version": movie.version + 1}
    mine = (MovieRow.id == movie.id, MovieRow.version == movie.version)
    row = await session.scalar(update(MovieRow).where(*mine).values(values).returning(MovieRow))
    if row is None:
        current = await find(session, movie.id)
        raise Aborted(
            f"movie {movie.id} is at version {current.version}, the change was made from {movie.version}",
            details=[{"current_version": current.version}],
        )
    return contract.MovieUpdated(movie=film(row))


async def remove(session: AsyncSession, which: MovieRef) -> MovieEvent:
    row = await session.scalar(delete(MovieRow).where(MovieRow.id == which.id).returning(MovieRow))
    if row is None:
        raise NotFound(f"there is no movie {which.id}")
    gone = film(row)
    return contract.MovieDeleted(movie=gone.model_copy(update={"version": gone.version + 1}))


async def find(session: AsyncSession, id: int) -> Movie:
    row = await session.get(MovieRow, id)
    if row is None:
        raise NotFound(f"there is no movie {id}")
    return film(row)


async def serve(database: str = SERVICE_URL) -> None:
    """Answer calls until SIGTERM or SIGINT; what runs by then is finished first."""
    async with connect() as connection, opened(database, Base.metadata) as engine:
        sessions = async_sessionmaker(engine, expire_on_commit=False)
        bus = EventBus(connection, topic=contract.TOPIC, source="/movies")
        server = RpcServer(connection, Movies)

        async def once(info: CallInfo, work: Callable[[AsyncSession], Awaitable[MovieEvent]]) -> Movie:
            """Do the work and announce it. A call may come twice, after a crash; it works once."""
            async with sessions() as session:
                try:
                    event = await work(session)
                    movie = event.movie.model_dump(mode="json")
                    session.add(Change(call_id=info.call_id, event=type(event).__name__, movie=movie))
                    await session.commit()
                except (RpcError, IntegrityError):
                    await session.rollback()
                    if (done := await session.get(Change, info.call_id)) is None:
                        raise
                    event = getattr(contract, done.event)(movie=done.movie)
            # After the commit, and again for a call that comes again: whoever listens ignores repeats.
            await bus.publish(event, key=event.lane)
            return event.movie

        @server.method(Movies.get_movie)
        async def get_movie(request: MovieRef) -> Movie:
            async with sessions() as session:
                return await find(session, request.id)

        @server.method(Movies.list_movies)
        async def list_movies(request: ListMovies) -> MoviePage:
            async with sessions() as session:
                total = await session.scalar(select(func.count()).select_from(MovieRow))
                after = select(MovieRow).where(MovieRow.id > request.after)
                rows = await session.scalars(after.order_by(MovieRow.id).limit(request.limit))
                return MoviePage(movies=[film(row) for row in rows], total=total or 0)

        @server.method(Movies.create_movie)
        async def create_movie(request: NewMovie, info: CallInfo) -> Movie:
            return await once(info, lambda session: create(session, request))

        @server.method(Movies.update_movie)
        async def update_movie(request: Movie, info: CallInfo) -> Movie:
            return await once(info, lambda session: change(session, request))

        @server.method(Movies.delete_movie)
        async def delete_movie(request: MovieRef, info: CallInfo) -> None:
            await once(info, lambda session: remove(session, request))

        async with bus:
            print("The movies service answers calls.", flush=True)
            await server.serve()
