"""The movies service: owns the films, answers calls, announces every change.

It knows no HTTP and no read model. Run as many as you like: they share the queue `movies`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, NoReturn

from sqlalchemy import JSON, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection
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


async def create(database: AsyncConnection, new: NewMovie) -> MovieEvent:
    row = await database.execute(insert(MovieRow).values(**new.model_dump(), version=1).returning(MovieRow))
    return contract.MovieCreated(movie=film(row.one()))


async def change(database: AsyncConnection, movie: Movie) -> MovieEvent:
    values = movie.model_dump(exclude={"id"}) | {"version": movie.version + 1}
    mine = (MovieRow.id == movie.id, MovieRow.version == movie.version)
    row = await database.execute(update(MovieRow).where(*mine).values(values).returning(MovieRow))
    if changed := row.one_or_none():
        return contract.MovieUpdated(movie=film(changed))
    current = await find(database, movie.id)
    raise Aborted(
        f"movie {movie.id} is at version {current.version}, the change was made from {movie.version}",
        details=[{"current_version": current.version}],
    )


async def remove(database: AsyncConnection, which: MovieRef) -> MovieEvent:
    row = await database.execute(delete(MovieRow).where(MovieRow.id == which.id).returning(MovieRow))
    gone = film(row.one_or_none() or missing(which.id))
    return contract.MovieDeleted(movie=gone.model_copy(update={"version": gone.version + 1}))


async def find(database: AsyncConnection, id: int) -> Movie:
    row = await database.execute(select(MovieRow).where(MovieRow.id == id))
    return film(row.one_or_none() or missing(id))


def missing(id: int) -> NoReturn:
    raise NotFound(f"there is no movie {id}")


async def serve(url: str = SERVICE_URL) -> None:
    """Answer calls until SIGTERM or SIGINT; what runs by then is finished first."""
    async with connect() as connection, opened(url, Base.metadata) as engine:
        bus = EventBus(connection, topic=contract.TOPIC, source="/movies")
        server = RpcServer(connection, Movies)

        async def once(info: CallInfo, work: Callable[[AsyncConnection], Awaitable[MovieEvent]]) -> Movie:
            """Do the work and announce it. A call may come twice, after a crash; it works once."""
            async with engine.connect() as database:
                try:
                    event = await work(database)
                    done = {"event": type(event).__name__, "movie": event.movie.model_dump(mode="json")}
                    await database.execute(insert(Change).values(call_id=info.call_id, **done))
                    await database.commit()
                except (RpcError, IntegrityError):
                    await database.rollback()
                    same = await database.execute(select(Change).where(Change.call_id == info.call_id))
                    if (earlier := same.one_or_none()) is None:
                        raise
                    event = getattr(contract, earlier.event)(movie=earlier.movie)
            # After the commit, and again for a call that comes again: whoever listens ignores repeats.
            await bus.publish(event, key=event.lane)
            return event.movie

        @server.method(Movies.get_movie)
        async def get_movie(request: MovieRef) -> Movie:
            async with engine.connect() as database:
                return await find(database, request.id)

        @server.method(Movies.list_movies)
        async def list_movies(request: ListMovies) -> MoviePage:
            page = (
                select(MovieRow).where(MovieRow.id > request.after).order_by(MovieRow.id).limit(request.limit)
            )
            async with engine.connect() as database:
                total = await database.scalar(select(func.count()).select_from(MovieRow))
                return MoviePage(movies=[film(row) for row in await database.execute(page)], total=total or 0)

        @server.method(Movies.create_movie)
        async def create_movie(request: NewMovie, info: CallInfo) -> Movie:
            return await once(info, lambda database: create(database, request))

        @server.method(Movies.update_movie)
        async def update_movie(request: Movie, info: CallInfo) -> Movie:
            return await once(info, lambda database: change(database, request))

        @server.method(Movies.delete_movie)
        async def delete_movie(request: MovieRef, info: CallInfo) -> None:
            await once(info, lambda database: remove(database, request))

        async with bus:
            print("The movies service answers calls.", flush=True)
            await server.serve()
