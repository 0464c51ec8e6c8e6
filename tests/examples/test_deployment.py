"""What the programs need, as `sbrpc export` finds it, is what their emulator and their containers have."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from azure.servicebus import parse_connection_string
from sqlalchemy import make_url
from typer.main import get_command

import sbrpc
from sbrpc.cli import app as cli
from sbrpc.cli.export import system_named
from sbrpc.cli.loading import load
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


COMPOSE: dict[str, Any] = yaml.safe_load((EXAMPLES / "movies" / "compose.yaml").read_text(encoding="utf-8"))
OURS = {name: service for name, service in COMPOSE["services"].items() if service["image"] == "movies"}


@pytest.mark.parametrize("name", OURS)
def test_what_compose_starts_is_a_command_with_options_it_knows(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each command line is parsed by the `sbrpc` command itself, and names a program that is there."""
    monkeypatch.chdir(EXAMPLES)
    program, *arguments = OURS[name]["command"]
    assert program == "sbrpc"
    context = get_command(cli).make_context("sbrpc", arguments, resilient_parsing=False)
    chosen, command, rest = context.command.resolve_command(context, arguments)
    with command.make_context(chosen, [*rest], parent=context) as parsed:
        if name == "emulator":
            assert parsed.params["config"].read_text() == (EXAMPLES / "movies" / "Config.json").read_text()
        else:
            assert parsed.params["apps"] == [f"movies.{name}:app"]
            assert callable(load(parsed.params["apps"][0]))
            assert parsed.params["health_at"] in str(OURS[name]["healthcheck"]["test"])


@pytest.mark.parametrize("name", OURS)
def test_what_compose_sets_is_what_the_programs_read(name: str) -> None:
    """Every variable is read somewhere, and the connection string leads to the emulator."""
    sources = [*(EXAMPLES / "movies").glob("*.py"), Path(sbrpc.__file__).with_name("_sdk.py")]
    read = "".join(path.read_text() for path in sources)
    for variable, value in OURS[name].get("environment", {}).items():
        assert f'"{variable}"' in read, variable
        if variable == "SERVICEBUS_CONNECTION_STRING":
            found = parse_connection_string(value)
            assert found.fully_qualified_namespace == "emulator:5672"
        elif variable in ("MOVIES_DATABASE", "MOVIES_READ_MODEL"):
            url = make_url(value)
            assert url.get_dialect(_is_async=True).driver == "asyncpg"
            assert url.host in COMPOSE["services"]
    assert set(OURS[name].get("depends_on", {})) <= set(COMPOSE["services"])


def test_compose_runs_every_program_and_the_service_twice() -> None:
    """The whole application is there, with a second database for the read model."""
    assert set(COMPOSE["services"]) == {"emulator", "postgres", "service", "events", "api"}
    assert COMPOSE["services"]["service"]["deploy"]["replicas"] == 2
    assert "CREATE DATABASE views" in COMPOSE["configs"]["views"]["content"]
    copied = (EXAMPLES / "movies" / "Dockerfile").read_text()
    for source in re.findall(r"^COPY (.+) \S+$", copied, re.MULTILINE):
        assert all((EXAMPLES.parent / each).exists() for each in source.split())
