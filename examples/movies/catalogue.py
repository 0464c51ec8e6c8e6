"""The real catalogue: which of its rows are films, and why the others are not.

Pure: rows in, films and rejections out. The import guesses nothing: a row that does not fit the contract is
reported, never repaired, so that whoever owns the file can correct it.
"""

import datetime
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError, field_validator
from pydantic_core import ErrorDetails

from .contract import NewMovie

FILE = Path(__file__).with_name("data") / "movies.json"


class Row(NewMovie):
    """A film as the file has it, which was compiled in 2010 and lists what was announced for 2011. A later
    date is an old film whose two-digit year was read in the wrong century: "Gone with the Wind", 2039."""

    @field_validator("title", mode="before")
    @classmethod
    def single_spaces(cls, title: object) -> object:
        return " ".join(title.split()) if isinstance(title, str) else title

    @field_validator("released")
    @classmethod
    def not_later(cls, released: datetime.date | None) -> datetime.date | None:
        if released and released.year > 2011:
            raise ValueError("is in the future of a catalogue that ends in 2011")
        return released


@dataclass(frozen=True)
class Rejected:
    """A row that is not imported: its place in the file, counted from 0, what it calls itself, and why."""

    index: int
    title: str
    reason: str


def load(file: Path = FILE) -> tuple[list[NewMovie], list[Rejected]]:
    """The films of a JSON file and the rows it rejects, in the order of the file."""
    try:
        return sort_out(TypeAdapter(list[object]).validate_json(file.read_bytes()))
    except ValidationError as error:
        raise ValueError(f"{file} is not a list of films in JSON: {error.errors()[0]['msg']}") from None


def sort_out(rows: Iterable[object]) -> tuple[list[NewMovie], list[Rejected]]:
    """Films and rejections. Of films with the same title and date the first one counts."""
    films: dict[tuple[str, datetime.date | None], tuple[int, NewMovie]] = {}
    rejected: list[Rejected] = []
    for index, row in enumerate(rows):
        try:
            film = Row.model_validate(row)
            first, _ = films.setdefault((film.title.casefold(), film.released), (index, film))
            reason = "" if first == index else f"duplicate: same title and release date as row {first}"
        except ValidationError as error:
            reason = "; ".join(map(_told, error.errors()))
        if reason:
            rejected.append(Rejected(index, str(row.get("title") if isinstance(row, dict) else row), reason))
    return [film for _, film in films.values()], rejected


def _told(wrong: ErrorDetails) -> str:
    what = wrong["msg"].removeprefix("Value error, ")
    return f"{'.'.join(map(str, wrong['loc'])) or 'row'}: {what}, not {json.dumps(wrong['input'])[:40]}"
