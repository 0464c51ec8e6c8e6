"""`sbrpc contract`, through its entry point."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from .test_export_command import sbrpc


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A contract that was written down."""
    file = tmp_path_factory.mktemp("contract") / "contract.json"
    sbrpc("contract", "export", "tests.exported", "--output", str(file))
    return file


def changed(old: Path, tmp_path: Path, **request: Any) -> str:
    """A file in which the request of a method is another one."""
    document = json.loads(old.read_text())
    document["contracts"]["movies"]["get_movie"]["request"].update(request)
    file = tmp_path / "changed.json"
    file.write_text(json.dumps(document))
    return str(file)


def test_a_module_has_all_of_its_contracts_and_events(old: Path) -> None:
    """In one document, which is the same as that of each of them together."""
    document = json.loads(old.read_text())
    assert sorted(document["contracts"]) == ["movies", "ratings"]
    assert sorted(document["events"]) == ["movies.movie.created.v1", "movies.movie.deleted.v1"]
    one = json.loads(sbrpc("contract", "export", "tests.exported:Movies").stdout)
    assert (one["contracts"]["movies"], one["events"]) == (document["contracts"]["movies"], {})


def test_what_did_not_change_is_compatible(old: Path) -> None:
    """Silent but for one word, and successful."""
    assert sbrpc("contract", "diff", str(old), "tests.exported").stdout == "compatible\n"


def test_a_breaking_change_fails_and_is_named(old: Path, tmp_path: Path) -> None:
    """With the field and what happened to it; for programs as JSON."""
    new = changed(old, tmp_path, required=["id", "year"], properties={"id": {"type": "integer"}, "year": {}})
    done = sbrpc("contract", "diff", str(old), new, status=1)
    assert done.stdout == "breaking: movies.get_movie: request.year is new and required; give it a default\n"
    rows = json.loads(sbrpc("contract", "diff", str(old), new, "--json", "--all", status=1).stdout)
    assert [(row["verdict"], row["kind"]) for row in rows] == [
        ("breaking", "required-field-added"),
        ("compatible", "bound-loosened"),
    ]


def test_a_risky_change_is_said_and_fails_if_asked_to(old: Path, tmp_path: Path) -> None:
    """What depends on the circumstances does not stop a build by itself."""
    new = changed(old, tmp_path, required=[], properties={})
    assert "risky: movies.get_movie: request.id is gone" in sbrpc("contract", "diff", str(old), new).stdout
    sbrpc("contract", "diff", str(old), new, "--strict", status=1)


@pytest.mark.parametrize(
    ("old", "problem"),
    [
        ("nothing.json", "there is no file"),
        ("pyproject.toml", "pyproject.toml"),
        ("tests/integration/asyncapi/package.json", "is no exported contract"),
        ("tests.exported:GetMovie", "is no contract, and no event with a type"),
        ("tests.conftest", "has no contract"),
    ],
)
def test_what_cannot_be_compared_is_named(old: str, problem: str) -> None:
    """And is another failure than a breaking change."""
    assert problem in sbrpc("contract", "diff", old, "tests.exported", status=2).stderr
