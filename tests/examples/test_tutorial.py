"""The movies' own programs on a Service Bus in this process, with databases that are gone afterwards."""

from pathlib import Path

import pytest
from sqlalchemy import select

from movies import events, service
from movies.contract import TOPIC, Movie, MovieCreated, MovieDeleted, Movies, MovieUpdated, NewMovie
from movies.database import film
from sbrpc import EventBus
from sbrpc.errors import Aborted
from sbrpc.sql import engine_for
from sbrpc.testing import Bench


@pytest.fixture(autouse=True)
def databases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "SERVICE_URL", f"sqlite+aiosqlite:///{tmp_path}/movies.sqlite3")
    monkeypatch.setattr(events, "READ_MODEL_URL", f"sqlite+aiosqlite:///{tmp_path}/views.sqlite3")


async def test_each_change_is_announced_once(sbrpc_bench: Bench) -> None:
    """With the film as it is then. A change from a version that is no longer current is none."""
    announced = sbrpc_bench.events(TOPIC)
    async with sbrpc_bench.service_for(Movies, service.app) as movies:
        movie = await movies.create_movie(NewMovie(title="Crash"))
        changed = await movies.update_movie(movie.model_copy(update={"title": "Crash!"}))
        with pytest.raises(Aborted, match="is at version 2"):
            await movies.update_movie(movie)
        await announced.until(2)  # published by the relay, which no call waits for
    assert [*announced.of(MovieCreated), *announced.of(MovieUpdated)] == [
        MovieCreated(movie=movie),
        MovieUpdated(movie=changed),
    ]


async def test_the_read_model_ends_at_the_last_version(sbrpc_bench: Bench) -> None:
    """Whichever event arrives last, and however often."""
    movie = Movie(id=7, version=1, title="Crash")
    changed = movie.model_copy(update={"version": 2, "title": "Crash!"})
    gone = Movie(id=8, version=2, title="Alien")
    publisher = EventBus(sbrpc_bench.connection, topic=TOPIC, source="/movies")
    async with sbrpc_bench.bus_for(events.app), publisher as bus:
        for event in (MovieUpdated(movie=changed), MovieCreated(movie=movie), MovieDeleted(movie=gone)):
            await bus.publish(event)
            await bus.publish(event)
        await sbrpc_bench.settled()
        engine = engine_for(events.READ_MODEL_URL)
        async with engine.connect() as database:
            films = [film(row) for row in await database.execute(select(events.MovieView))]
        await engine.dispose()
    assert films == [changed]
