"""What happened to films, and who cares."""

from __future__ import annotations

from sbrpc import Event, EventBus


class MovieCreated(Event, type="movies.movie.created.v1", key="id"):
    id: int
    title: str


def bus(connection: str) -> EventBus:
    """One that handles them in order."""
    made = EventBus(connection, topic="movie-events", source="/movies")

    @made.on(MovieCreated, subscription="views", ordered=True)
    async def show(event: MovieCreated) -> None: ...

    return made


def app(connection: str) -> EventBus:
    """The same."""
    return bus(connection)
