"""Runs a program of the movies with a database that takes time: `python -m benchmarks.movies.slow MODULE …`.

Owns the pretended work, the same for both applications: a statement about films takes 20 ms, any other 1 ms,
and a process does one after the other. A file that `MOVIES_SLOW` names says how many times that; it is read
for each statement. Knows nothing of what the programs do; they know nothing of it.
"""

from __future__ import annotations

import asyncio
import os
import re
import runpy
import sys
from pathlib import Path
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import Engine

__all__ = ["FILM", "OTHER"]

FILM = 0.02
OTHER = 0.001

_FILMS = re.compile(r"\bmovies\b")


def _pretend(control: Path) -> None:
    """Make every statement of this process take its time, and note the first about films in a file."""
    one_at_a_time = asyncio.Lock()
    worked = control.with_name(f"{control.name}.{os.getpid()}")

    @event.listens_for(Engine, "before_cursor_execute")
    def work(connection: Any, cursor: Any, statement: str, *_: object) -> None:
        film = _FILMS.search(statement) is not None
        if film and not worked.exists():
            worked.touch()

        factor = float(control.read_text())

        async def take_time(_: object) -> None:
            async with one_at_a_time:
                await asyncio.sleep((FILM if film else OTHER) * factor)

        # SQLAlchemy's way to await inside of an event.
        connection.connection.dbapi_connection.run_async(take_time)


if __name__ == "__main__":
    _pretend(Path(os.environ["MOVIES_SLOW"]))
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
