"""The import of the catalogue: which rows are films, and what is said about the others."""

from __future__ import annotations

import datetime
import json
from pathlib import Path

import pytest

from movies import catalogue
from movies.catalogue import Rejected


def reasons(*rows: object) -> list[str]:
    """Why these rows are rejected."""
    return [rejected.reason for rejected in catalogue.sort_out(rows)[1]]


def test_the_real_catalogue_is_sorted_out_completely() -> None:
    """Each of the 3,201 rows is either a film or a rejection with its index and a reason."""
    films, rejected = catalogue.load()
    rows = json.loads(catalogue.FILE.read_text())
    assert len(rows) == 3201
    assert (len(films), len(rejected)) == (3169, 32)
    assert [row.index for row in rejected] == sorted({row.index for row in rejected})
    for row in rejected:
        assert row.title == str(rows[row.index]["title"])
        assert row.reason


def test_the_rejected_rows_of_the_real_catalogue_are_the_dirty_ones() -> None:
    """One title is missing, nine are numbers, and 22 dates lie behind the catalogue's own time."""
    _, rejected = catalogue.load()
    said = {row.index: row.reason for row in rejected}
    assert said[3053] == "title: Input should be a valid string, not null"
    assert said[21] == "title: Input should be a valid string, not 1776"
    assert said[400] == 'released: is in the future of a catalogue that ends in 2011, not "2039-12-15"'
    assert sum(reason.startswith("title:") for reason in said.values()) == 10
    assert sum(reason.startswith("released:") for reason in said.values()) == 22


def test_a_film_keeps_its_facts() -> None:
    """What a good row says arrives unchanged; what it does not say stays unknown."""
    (film,), rejected = catalogue.sort_out(
        [{"title": "Crash", "released": "2005-05-06", "genre": None, "imdb_rating": 8, "imdb_votes": 100}]
    )
    assert rejected == []
    assert film.model_dump(exclude_none=True) == {
        "title": "Crash",
        "released": datetime.date(2005, 5, 6),
        "imdb_rating": 8.0,
        "imdb_votes": 100,
    }


def test_spaces_in_a_title_are_evened_out() -> None:
    """Doubled spaces are typing, not part of the title."""
    (film,), _ = catalogue.sort_out([{"title": " Halloween:  The Curse "}])
    assert film.title == "Halloween: The Curse"


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({}, "title: Field required"),
        ({"title": None}, "title: Input should be a valid string, not null"),
        ({"title": 300}, "title: Input should be a valid string, not 300"),
        ({"title": ["300"]}, 'title: Input should be a valid string, not ["300"]'),
        ({"title": True}, "title: Input should be a valid string, not true"),
        (["300"], "row: Input should be a valid dictionary"),
        (None, "row: Input should be a valid dictionary"),
        ({"title": "Wings", "released": "2027-08-12"}, "released: is in the future"),
    ],
)
def test_a_row_that_is_no_film_says_why(row: object, reason: str) -> None:
    """The reason names the field and what stands in it."""
    (said,) = reasons(row)
    assert said.startswith(reason)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("title", ""),
        ("title", "  "),
        ("released", "12-June-98"),
        ("released", "2001-02-30"),
        ("imdb_rating", 11),
        ("imdb_votes", -1),
        ("running_time_min", "long"),
        ("worldwide_gross", 0.5),
    ],
)
def test_a_wrong_value_is_named_with_its_field(field: str, value: object) -> None:
    """Whatever the contract refuses is rejected with the field in front and the value behind."""
    (said,) = reasons({"title": "Crash", field: value})
    assert said.startswith(f"{field}: ")
    assert said.endswith(json.dumps(value.strip() if isinstance(value, str) else value))


def test_all_wrong_fields_of_a_row_are_named() -> None:
    """Someone who corrects the file sees everything at once."""
    (said,) = reasons({"title": "Crash", "imdb_votes": -1, "released": "soon"})
    assert "imdb_votes: " in said
    assert "released: " in said


def test_the_first_of_two_equal_films_counts() -> None:
    """Same title, whatever the case, and same date is a duplicate; another date is a remake."""
    films, rejected = catalogue.sort_out(
        [
            {"title": "Crash", "released": "1996-10-04"},
            {"title": "Crash", "released": "2005-05-06"},
            {"title": "CRASH", "released": "2005-05-06"},
            {"title": "Crash"},
            {"title": "Crash"},
        ]
    )
    assert len(films) == 3
    assert rejected == [
        Rejected(2, "CRASH", "duplicate: same title and release date as row 1"),
        Rejected(4, "Crash", "duplicate: same title and release date as row 3"),
    ]


def test_a_rejected_row_is_no_first_of_its_kind() -> None:
    """A film is not a duplicate of a row that was not imported."""
    films, rejected = catalogue.sort_out(
        [{"title": "Crash", "imdb_votes": -1}, {"title": "Crash", "imdb_votes": 1}]
    )
    assert (len(films), len(rejected)) == (1, 1)


def test_a_file_that_is_not_json_is_named(tmp_path: Path) -> None:
    """An empty one, or one that was cut off."""
    file = tmp_path / "movies.json"
    for text in ("", '[{"title": "Cra'):
        file.write_text(text)
        with pytest.raises(ValueError, match=r"movies\.json is not a list of films in JSON: Invalid JSON: "):
            catalogue.load(file)


def test_a_file_that_is_no_list_is_refused(tmp_path: Path) -> None:
    """A JSON file of another shape is an error that says so."""
    file = tmp_path / "movies.json"
    file.write_text('{"movies": []}')
    with pytest.raises(ValueError, match="is not a list of films in JSON: Input should be"):
        catalogue.load(file)
