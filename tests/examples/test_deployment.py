"""What the programs need, as `sbrpc export` finds it in them, is what their emulator has."""

from __future__ import annotations

from pathlib import Path

import pytest

from sbrpc.cli.export import system_named
from sbrpc.export import System, emulator_config

from .movies_site import EXAMPLES

PROGRAMS = [f"movies.{program}:app" for program in ("service", "events", "api")]


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> System:
    """Found in the programs, which open nothing for it."""
    monkeypatch.chdir(tmp_path)
    system = system_named(PROGRAMS)
    assert [*tmp_path.iterdir()] == []
    return system


def test_the_emulator_has_what_the_programs_need(system: System) -> None:
    """Config.json is what `sbrpc export emulator-config` writes."""
    text, warnings = emulator_config(system)
    assert (EXAMPLES / "movies" / "Config.json").read_text() == text
    assert warnings == ()


def test_nothing_is_left_open(system: System) -> None:
    """Every queue that somebody sends to is somebody's, and every call has its answer."""
    assert [process.name for process in system.processes] == ["api", "events", "service"]
    assert system.foreign() == ()
    assert system.warnings() == ()
