"""The movies service: owns the films, answers calls, announces every change.

It knows no HTTP and no read model. Run as many as you like: they share the queue `movies`.
"""

from sqlalchemy import delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import DeclarativeBase

from sbrpc import EventBus, Queue, RpcServer
from sbrpc.errors import Aborted, NotFound
from sbrpc.sql import Calls, Outbox, OutboxRelay, engine_for, migrated, reading

from . import contract
from .contract import ListMovies, Movie, MoviePage, MovieRef, Movies, NewMovie
from .database import MIGRATIONS, SERVICE_URL, MovieColumns, film


class Base(DeclarativeBase):
    """The tables of the service."""


class MovieRow(MovieColumns, Base):
    __tablename__ = "movies"


calls = Calls(Base.metadata)
outbox = Outbox(Base.metadata, source="/movies")


async def get_movie(session: AsyncSession, which: MovieRef) -> Movie:
    if row := await session.get(MovieRow, which.id):
        return film(row)
    raise NotFound(f"there is no movie {which.id}")


async def list_movies(session: AsyncSession, wanted: ListMovies) -> MoviePage:
    page = select(MovieRow).where(MovieRow.id > wanted.after).order_by(MovieRow.id).limit(wanted.limit)
    total = await session.scalar(select(func.count()).select_from(MovieRow))
    return MoviePage(movies=[film(row) for row in await session.scalars(page)], total=total or 0)


async def create_movie(session: AsyncSession, new: NewMovie) -> Movie:
    row = MovieRow(**new.model_dump(), version=1)
    session.add(row)
    await session.flush()  # gives it its id
    await outbox.add(session, contract.MovieCreated(movie=film(row)))
    return film(row)


async def update_movie(session: AsyncSession, movie: Movie) -> Movie:
    values = movie.model_dump(exclude={"id"}) | {"version": movie.version + 1}
    mine = (MovieRow.id == movie.id, MovieRow.version == movie.version)
    if row := await session.scalar(update(MovieRow).where(*mine).values(values).returning(MovieRow)):
        await outbox.add(session, contract.MovieUpdated(movie=film(row)))
        return film(row)
    current = await get_movie(session, MovieRef(id=movie.id))
    raise Aborted(
        f"movie {movie.id} is at version {current.version}, the change was made from {movie.version}",
        details=[{"current_version": current.version}],
    )


async def delete_movie(session: AsyncSession, which: MovieRef) -> None:
    mine = delete(MovieRow).where(MovieRow.id == which.id)
    if not (row := await session.scalar(mine.returning(MovieRow))):
        raise NotFound(f"there is no movie {which.id}")
    last = film(row).model_copy(update={"version": row.version + 1})
    await outbox.add(session, contract.MovieDeleted(movie=last))


def app(connection: str) -> list[object]:
    """What `sbrpc run movies.service:app` runs, and `sbrpc export` reads: all that this program needs."""
    engine = engine_for(SERVICE_URL)
    sessions = async_sessionmaker(engine, expire_on_commit=False)
    server = RpcServer(connection, Movies)
    bus = EventBus(connection, topic=contract.TOPIC, source="/movies")

    # A change, its event and the result of the call are one transaction: delivered twice, a call works once.
    read, once = reading(sessions), calls.handler(sessions)
    server.method(Movies.get_movie)(read(get_movie))
    server.method(Movies.list_movies)(read(list_movies))
    server.method(Movies.create_movie)(once(create_movie))
    server.method(Movies.update_movie)(once(update_movie))
    server.method(Movies.delete_movie)(once(delete_movie))

    # Publishes what the outbox has. Short leases and locks: when a service dies, another one soon goes on.
    relay = OutboxRelay(engine, outbox, bus, lease=10)
    queue = Queue("movies", lock_duration=5)
    return [migrated(engine, MIGRATIONS, database="service"), server, bus, relay, queue, *contract.EVENTS]
