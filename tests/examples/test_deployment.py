"""The example's declaration of what it needs is what its programs do, and what its emulator has."""

from __future__ import annotations

import ast

import pytest

from movies import deployment
from movies.processes import CONFIG
from sbrpc.export import System, emulator_config, system_of

from .movies_site import EXAMPLES


@pytest.fixture
def system() -> System:
    return system_of({"service": deployment.service, "events": [deployment.events], "api": deployment.api})


def test_the_emulator_has_what_the_programs_need(system: System) -> None:
    """Config.json is what `sbrpc export emulator-config` writes."""
    text, warnings = emulator_config(system)
    assert CONFIG.read_text() == text
    assert warnings == ()


def test_nothing_is_left_open(system: System) -> None:
    """Every queue that somebody sends to is somebody's, and every call has its answer."""
    assert system.foreign() == ()
    assert system.warnings() == ()


def test_the_declaration_is_what_runs() -> None:
    """The handler of `events.py` and the one that stands for it take the same events in the same way."""

    def registered(file: str, call: str) -> set[str]:
        tree = ast.parse((EXAMPLES / "movies" / file).read_text())
        calls = (node for node in ast.walk(tree) if isinstance(node, ast.Call))
        found = [node for node in calls if ast.unparse(node.func) == call]
        return {ast.unparse(part) for node in found for part in (*node.args, *node.keywords)}

    assert registered("deployment.py", "events.on") == registered("events.py", "bus.on") != set()
