"""What apps are made of."""

from __future__ import annotations

from typing import Any

import pytest

from sbrpc._apps import flat, is_declaration, needed_by
from sbrpc.contract import Contract, method
from sbrpc.event import Event
from sbrpc.topology import Queue, Topic


class Films(Contract, name="films"):
    @method
    async def get(self, request: int) -> str: ...


class FilmShown(Event, type="films.shown.v1"):
    """Something happened."""


def test_nothing_is_none_and_collections_are_what_they_hold() -> None:
    """However they are nested; text is no collection."""
    assert list(flat(None)) == []
    assert list(flat(["one", ("two", [None, {"three"}])])) == ["one", "two", "three"]


@pytest.mark.parametrize("part", [Queue("films"), Topic("shows"), Films, FilmShown])
def test_what_only_says_what_is_needed_is_a_declaration(part: object) -> None:
    """Entities, contracts and events do not run."""
    assert is_declaration(part)


@pytest.mark.parametrize("part", [object(), dict, "films", FilmShown()])
def test_everything_else_is_none(part: object) -> None:
    """Other classes, and an event that has happened, are taken for something that runs, and refused there."""
    assert not is_declaration(part)


def test_a_connection_is_needed_where_there_is_no_default() -> None:
    """A function may have arguments of its author's own, with defaults."""

    def none(films: int = 3) -> None: ...
    def one(connection: Any, films: int = 3) -> None: ...

    assert needed_by(none) == []
    assert [each.name for each in needed_by(one)] == ["connection"]
