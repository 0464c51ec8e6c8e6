"""What all peers say to each other, and whether it was said right."""

from __future__ import annotations

from pydantic import BaseModel

__all__ = ["GetMovie", "Movie", "MovieChanged", "WrongAnswer", "changed", "check", "find"]


class GetMovie(BaseModel):
    """The request."""

    id: int


class Movie(BaseModel):
    """The reply: some 250 bytes of JSON."""

    id: int
    title: str
    version: int
    genre: str
    director: str
    running_time_min: int
    imdb_rating: float
    worldwide_gross: int


class MovieChanged(BaseModel):
    """The event. `sent_at` is the publisher's monotonic clock, which all processes of a machine share."""

    id: int
    title: str
    version: int
    sent_at: float


class WrongAnswer(AssertionError):
    """A reply was not the one to its request."""


def find(number: int) -> Movie:
    """What every server answers; all of it follows from the number, so that every reply can be checked."""
    return Movie(
        id=number,
        title=f"The {number}th Film That Was Made for a Benchmark",
        version=number % 7 + 1,
        genre="Documentary",
        director="Agnes Example",
        running_time_min=60 + number % 120,
        imdb_rating=number % 100 / 10,
        worldwide_gross=number * 1000,
    )


def check(number: int, movie: Movie) -> None:
    """Raise unless this is the movie that was asked for."""
    if (
        movie.id != number
        or movie.version != number % 7 + 1
        or movie.worldwide_gross != number * 1000
        or not movie.title.startswith(f"The {number}th ")
    ):
        raise WrongAnswer(f"asked for movie {number}, got {movie!r}")


def changed(number: int, sent_at: float) -> MovieChanged:
    """An event about a movie."""
    return MovieChanged(id=number, title=f"The {number}th Film", version=number % 7 + 1, sent_at=sent_at)
