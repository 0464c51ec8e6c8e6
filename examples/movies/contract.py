"""What the movies service offers and what it announces: the one file both sides import.

Values, methods and events. It knows no database, no HTTP and no broker.
"""

# A contract only declares: its methods have no body.
# mypy: disable-error-code="empty-body"

import datetime
from typing import Annotated

from pydantic import BaseModel, Field

from sbrpc import Contract, Event, method

# The names that exist in the namespace; Config.json creates them in the emulator.
REPLY_QUEUE = "gateway.replies"
TOPIC = "movie-events"
SUBSCRIPTION = "movie-event-handler"
LANES = 8

MovieId = Annotated[int, Field(ge=1, lt=2**63)]
Count = Annotated[int, Field(ge=0, lt=2**63)]


class NewMovie(BaseModel):
    """A film that has no id yet."""

    title: Annotated[str, Field(strict=True, min_length=1, max_length=300, pattern=r"\S")]
    released: datetime.date | None = None
    genre: str | None = Field(None, max_length=100)
    director: str | None = Field(None, max_length=200)
    distributor: str | None = Field(None, max_length=200)
    rating: str | None = Field(None, max_length=20)
    running_time_min: int | None = Field(None, ge=1, le=10_000)
    imdb_rating: float | None = Field(None, ge=0, le=10)
    imdb_votes: Count | None = None
    worldwide_gross: Count | None = None


class ChangedMovie(NewMovie):
    """All of a film as it shall be from now on, and the version that the change was made from."""

    version: int = Field(ge=1, lt=2**31 - 1)


class Movie(ChangedMovie):
    """A film. Each change makes `version` one larger."""

    id: MovieId


class MovieRef(BaseModel):
    id: MovieId


class ListMovies(BaseModel):
    """One page of films in the order of their ids: those after `after`."""

    after: Count = 0
    limit: int = Field(50, ge=1, le=500)


class MoviePage(BaseModel):
    movies: list[Movie]
    total: int


class Movies(Contract, name="movies"):
    """The films, offered on the queue `movies` by the service that owns them.

    A film that is not there is NOT_FOUND; a change made from another version than the current one is ABORTED.
    """

    @method(idempotent=True)
    async def get_movie(self, request: MovieRef) -> Movie: ...
    @method(idempotent=True)
    async def list_movies(self, request: ListMovies) -> MoviePage: ...
    @method
    async def create_movie(self, request: NewMovie) -> Movie: ...
    @method
    async def update_movie(self, request: Movie) -> Movie: ...
    @method
    async def delete_movie(self, request: MovieRef) -> None: ...


class MovieEvent(Event, key="lane"):
    """Something happened to a film. `movie` is its state afterwards; its version orders the events."""

    movie: Movie

    @property
    def lane(self) -> str:
        """The ordering key. One per film would do too, but each key is a session that has to be opened, and
        that takes longer than handling an event; so films share a few."""
        return f"lane-{self.movie.id % LANES}"


class MovieCreated(MovieEvent, type="movies.movie.created.v1"):
    """A film is new."""


class MovieUpdated(MovieEvent, type="movies.movie.updated.v1"):
    """A film has changed."""


class MovieDeleted(MovieEvent, type="movies.movie.deleted.v1"):
    """A film is gone; `movie` is what it was, one version later."""


EVENTS = (MovieCreated, MovieUpdated, MovieDeleted)
