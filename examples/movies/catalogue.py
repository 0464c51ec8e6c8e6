"""The real catalogue: which of its rows are films, and why the others are not.

Pure: rows in, films and rejections out. The import guesses nothing: a row that does not fit the contract is
reported, never repaired, so that whoever owns the file can correct it.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from .contract import NewMovie

FILE = Path(__file__).with_name("data") / "movies.json"

# The file was compiled in 2010 and lists what was announced for 2011. A later date is an old film whose
# two-digit year was read in the wrong century: "Gone with the Wind", 2039.
LAST_RELEASE = datetime.date(2011, 12, 31)


@dataclass(frozen=True)
class Rejected:
    """A row that is not imported: its place in the file, counted from 0, what it calls itself, and why."""

    index: int
    title: str
    reason: str


def load(file: Path = FILE) -> tuple[list[NewMovie], list[Rejected]]:
    """The films of a JSON file and the rows it rejects, in the order of the file."""
    rows = json.loads(file.read_text(encoding="utf-8"))
    if not isinstance(rows, list):
        raise ValueError(f"{file} holds a JSON {type(rows).__name__}; a catalogue is a list of objects")
    return sort_out(rows)


def sort_out(rows: Iterable[object]) -> tuple[list[NewMovie], list[Rejected]]:
    """Films and rejections. Of films with the same title and date the first one counts."""
    films: list[NewMovie] = []
    rejected: list[Rejected] = []
    seen: dict[tuple[str, datetime.date | None], int] = {}
    for index, row in enumerate(rows):
        film = _film(row)
        if isinstance(film, NewMovie):
            first = seen.setdefault((film.title.casefold(), film.released), index)
            if first == index:
                films.append(film)
                continue
            film = f"duplicate: same title and release date as row {first}"
        title = row.get("title") if isinstance(row, dict) else row
        rejected.append(Rejected(index, str(title), film))
    return films, rejected


def _film(row: object) -> NewMovie | str:
    """The film of one row, or why it is none."""
    if not isinstance(row, dict):
        return f"not an object but {json.dumps(row)[:40]}"
    title = row.get("title")
    if title is None:
        return "title: missing"
    if not isinstance(title, str):
        return f"title: {json.dumps(title)[:40]} is not text"
    try:
        film = NewMovie.model_validate(row | {"title": " ".join(title.split())})
    except ValidationError as error:
        return "; ".join(
            f"{'.'.join(map(str, wrong['loc']))}: {wrong['msg']}, not {str(wrong['input'])[:40]!r}"
            for wrong in error.errors()
        )
    if film.released and film.released > LAST_RELEASE:
        return f"released: {film.released} is in the future of a catalogue that ends in {LAST_RELEASE.year}"
    return film
