"""From a name on the command line to an object: what is found, and what is said where nothing is."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from sbrpc.cli.loading import NOWHERE, load, named, nowhere, parts_of

SHOP = """
from contextlib import asynccontextmanager

app = ["server", ["bus", None]]
class Inner:
    deep = 7

def made():
    return ("made", app)

async def later(connection):
    return [connection]

@asynccontextmanager
async def opened(connection):
    yield ["opened"]
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory with a module in it, from which commands are run; nothing of it stays loaded."""
    (tmp_path / "toyshop.py").write_text(SHOP)
    (tmp_path / "broken.py").write_text("import no_such_thing_at_all\n")
    (tmp_path / "failing.py").write_text("\nraise RuntimeError('no database')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    for name in ("toyshop", "broken", "failing"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize(
    ("reference", "name", "rest"),
    [
        ("shop.service:server", "server", "shop.service:server"),
        ("shop.service:app", "service", "shop.service:app"),
        ("shop.service", "service", "shop.service"),
        ("shop.main:main", "main", "shop.main:main"),
        ("api=shop.service:app", "api", "shop.service:app"),
        ("shop:Inner.Deep", "deep", "shop:Inner.Deep"),
    ],
)
def test_processes_have_names(reference: str, name: str, rest: str) -> None:
    """The one that is given, else the object's, else the module's where that says no more than `app`."""
    assert named(reference) == (name, rest)


def test_modules_here_are_found() -> None:
    """And what is inside them, however deep."""
    assert load("toyshop").app[0] == "server"
    assert load("toyshop:Inner.deep") == 7


@pytest.mark.parametrize(
    ("reference", "says"),
    [
        ("toyshop:Iner", "toyshop has no 'Iner'; did you mean 'Inner'?"),
        ("toyshop:nothing_alike", "toyshop has no 'nothing_alike'"),
        ("toyship:app", "there is no module 'toyship' in "),
        ("toyshop.inner:app", "there is no module 'toyshop.inner' in "),
        ("broken:app", "needs 'no_such_thing_at_all', which is not installed"),
        ("failing:app", "failing.py:2: RuntimeError: no database"),
        ("./toyshop.py", "is not written module:name"),
        ("", "is not written module:name"),
    ],
)
def test_what_cannot_be_loaded_is_explained(reference: str, says: str) -> None:
    """In one sentence that says what was looked for, where, and often what was meant."""
    with pytest.raises(typer.BadParameter) as caught:
        load(reference)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("reference", "parts"),
    [
        ("toyshop", ("server", "bus")),
        ("toyshop:made", ("made", "server", "bus")),
        ("toyshop:later", (NOWHERE,)),
        ("toyshop:opened", ("opened",)),
    ],
)
def test_parts_are_flat_however_they_are_made(reference: str, parts: tuple[object, ...]) -> None:
    """By a list, a function, a coroutine or a context manager; a connection they ask for leads nowhere."""
    assert parts_of(reference) == parts


def test_an_address_is_there_only_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    """And one that is set is left alone."""
    monkeypatch.delenv("SERVICEBUS_CONNECTION_STRING", raising=False)
    monkeypatch.delenv("SERVICEBUS_FULLY_QUALIFIED_NAMESPACE", raising=False)
    with nowhere():
        assert os.environ["SERVICEBUS_CONNECTION_STRING"] == NOWHERE
    assert "SERVICEBUS_CONNECTION_STRING" not in os.environ
    monkeypatch.setenv("SERVICEBUS_CONNECTION_STRING", "mine")
    with nowhere():
        assert os.environ["SERVICEBUS_CONNECTION_STRING"] == "mine"
