"""The routes of the API that are not asked over HTTP in test_movies: the stream, when very much happens."""

from __future__ import annotations

from pathlib import Path

from fastapi import FastAPI, Request
from sqlalchemy import insert

from movies.api import movie_events
from movies.database import MIGRATIONS
from movies.events import VIEWS, MovieView, positions
from sbrpc.sql import Watch, engine_for, migrated


async def test_more_changes_than_a_statement_takes_are_all_told(tmp_path: Path) -> None:
    """Each of 1,200 new films is told once; one that is gone is told as that."""
    app = FastAPI()
    url = f"sqlite+aiosqlite:///{tmp_path / 'read-model.sqlite3'}"
    async with (
        migrated(engine_for(url), MIGRATIONS, database="read model") as engine,
        Watch(engine, positions, VIEWS) as watch,
    ):
        app.state.read_model, app.state.watch = engine, watch
        stream = movie_events(Request({"type": "http", "app": app}))
        assert (await anext(stream)).event == "ready"
        async with engine.begin() as database:
            films = [{"id": n, "version": 1, "title": f"Film {n}"} for n in range(1, 1201)]
            await database.execute(insert(MovieView), films)
            await positions.advance_all(database, VIEWS, {str(n): 1 for n in range(1, 1202)})
        told = [(await anext(stream)).data for _ in range(1201)]
        assert sorted(change.id for change in told) == [*range(1, 1202)]
        assert {change.id for change in told if change.movie is None} == {1201}
        await stream.aclose()
