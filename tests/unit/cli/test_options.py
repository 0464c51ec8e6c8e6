"""What commands are given: JSON, pairs, and where Service Bus is."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path

import pytest
import typer

from sbrpc.cli.options import connecting, json_of, pairs_of, put_in_environment

STRING = "Endpoint=sb://x.servicebus.windows.net/;SharedAccessKeyName=n;SharedAccessKey=c2VjcmV0"


def test_json_comes_from_three_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The argument, a file, or standard input; nothing is null."""
    file = tmp_path / "request.json"
    file.write_text('{"title": "Žert"}', encoding="utf-8")
    monkeypatch.setattr(sys, "stdin", io.StringIO("[1, 2]"))
    assert json_of('{"id": 7}') == {"id": 7}
    assert json_of(f"@{file}") == {"title": "Žert"}
    assert json_of("-") == [1, 2]
    assert json_of(None) is None


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("Alien", """the event is not JSON: .*; text has to be quoted, as in '"text"'"""),
        ("@/no/such/file", "cannot read /no/such/file"),
        ("-", "standard input is not JSON"),
    ],
)
def test_what_is_no_json_is_named(given: str, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By where it came from."""
    monkeypatch.setattr(sys, "stdin", io.StringIO("{"))
    with pytest.raises(typer.BadParameter, match=says):
        json_of(given, "the event")


def test_pairs_are_split_at_the_first_equals_sign() -> None:
    """Values may have more of them, or none at all."""
    assert pairs_of(["a=1", "b=x=y", "c="], "--metadata") == {"a": "1", "b": "x=y", "c": ""}
    assert pairs_of(None, "--metadata") == {}
    for wrong in ("a", "=1"):
        with pytest.raises(typer.BadParameter, match="KEY=VALUE"):
            pairs_of([wrong], "--metadata")


def test_the_command_line_stands_above_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also for programs that are loaded later and look there."""
    monkeypatch.setenv("SERVICEBUS_CONNECTION_STRING", "Endpoint=sb://elsewhere/")
    monkeypatch.setenv("SERVICEBUS_FULLY_QUALIFIED_NAMESPACE", "elsewhere")
    put_in_environment(STRING, None)
    assert os.environ["SERVICEBUS_CONNECTION_STRING"] == STRING
    put_in_environment(None, "ns.servicebus.windows.net")
    assert "SERVICEBUS_CONNECTION_STRING" not in os.environ
    assert os.environ["SERVICEBUS_FULLY_QUALIFIED_NAMESPACE"] == "ns.servicebus.windows.net"


def test_one_place_at_a_time() -> None:
    """Which of two is meant cannot be guessed."""
    with pytest.raises(typer.BadParameter, match="not both"):
        put_in_environment(STRING, "ns.servicebus.windows.net")


@pytest.mark.parametrize("string", ["rubbish", STRING.replace("Endpoint", "Entpoint")])
def test_a_string_that_makes_no_sense_is_wrong_usage(string: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is said before anything is tried, without the key."""
    monkeypatch.delenv("SERVICEBUS_CONNECTION_STRING", raising=False)
    with pytest.raises(typer.BadParameter) as caught:
        connecting(string)
    assert "c2VjcmV0" not in str(caught.value)


def test_nowhere_to_go_is_wrong_usage(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names what to set."""
    monkeypatch.delenv("SERVICEBUS_CONNECTION_STRING", raising=False)
    monkeypatch.delenv("SERVICEBUS_FULLY_QUALIFIED_NAMESPACE", raising=False)
    with pytest.raises(typer.BadParameter, match="SERVICEBUS_CONNECTION_STRING"):
        connecting()
