"""The stream of changes, on a read model of its own: what it says when nothing happens, or too much."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncEngine

from movies import changes
from movies.changes import READY, Changes
from movies.database import opened
from movies.events import VIEWS, MovieView, ReadModel, positions


@pytest.fixture
async def read_model(tmp_path: Path) -> AsyncIterator[AsyncEngine]:
    async with opened(f"sqlite+aiosqlite:///{tmp_path / 'read-model.sqlite3'}", ReadModel.metadata) as engine:
        yield engine


async def test_silence_is_filled_with_comments(
    read_model: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stream on which nothing happens says so from time to time, and ends with `close`."""
    monkeypatch.setattr(changes, "HEARTBEAT", 0.01)
    told = Changes(read_model)
    stream = told.follow()
    assert [await anext(stream) for _ in range(3)] == [READY, ": heartbeat\n\n", ": heartbeat\n\n"]
    told.close()
    assert [text async for text in stream] == []
    assert [text async for text in told.follow()] == []


async def test_many_changes_at_once_are_all_told_and_a_listener_far_behind_is_given_up(
    read_model: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More films than a statement asks for come as one text; who does not read is not waited for."""
    monkeypatch.setattr(changes, "BACKLOG", 1)
    monkeypatch.setattr(changes, "PAUSE", 0.001)
    async with changes.watching(read_model) as told:
        stream, idle = told.follow(), told.follow()
        assert await anext(stream) == await anext(idle) == READY
        for first in (1, 1201, 2401):
            rows = [{"id": first + n, "version": 1, "title": "Crash"} for n in range(1200)]
            async with read_model.begin() as database:
                await database.execute(insert(MovieView), rows)
                reached = [{"projection": VIEWS, "key": str(row["id"]), "position": 1} for row in rows]
                await database.execute(insert(positions.table), reached)
            assert (await anext(stream)).count('"kind":"created"') == 1200
        assert [text.count("data: ") async for text in idle] == [1200]
