"""Modules and functions stay small enough to be read at once."""

from __future__ import annotations

import ast
import statistics
from collections.abc import Iterator
from pathlib import Path

import sbrpc

ROOT = Path(sbrpc.__file__).parent

# Longer than a function may be, since it is a table.
LONG = {
    (
        "emulator/amqp/frames.py",
        "read_fields",
    ): "one branch for each code of AMQP, on the way of every message",
}


def sizes() -> dict[str, int]:
    """The lines of each module."""
    return {
        path.relative_to(ROOT).as_posix(): len(path.read_text().splitlines()) for path in ROOT.rglob("*.py")
    }


def functions() -> Iterator[tuple[tuple[str, str], int]]:
    """Every function by file and name, with the lines behind its parameters, which are a table."""
    for path in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert node.end_lineno is not None
                name = path.relative_to(ROOT).as_posix(), node.name
                yield name, node.end_lineno - node.body[0].lineno + 1


def test_modules_fit_into_a_head() -> None:
    """At most 600 lines each; half of them have fewer than 200."""
    found = sizes()
    assert {name: size for name, size in found.items() if size > 600} == {}
    assert statistics.median(found.values()) < 200


def test_functions_fit_on_a_screen() -> None:
    """At most 60 lines, unless they are a table; nine of ten have fewer than 30."""
    found = list(functions())
    assert {name: size for name, size in found if size > 60 and name not in LONG} == {}
    assert statistics.quantiles([size for _, size in found], n=10)[-1] < 30


def test_what_is_allowed_is_needed() -> None:
    """What has become short is allowed nothing any more."""
    assert {name for name, size in functions() if size > 60} == set(LONG)


def test_modules_say_what_they_are() -> None:
    """Each begins with a sentence, and a longer one goes on to what it owns and what it need not know."""
    for path in ROOT.rglob("*.py"):
        text = path.read_text()
        if not text.strip():
            continue
        first, *more = (ast.get_docstring(ast.parse(text)) or "").split("\n\n")
        assert first.endswith((".", ":")), path
        assert more or len(text.splitlines()) < 100, path
