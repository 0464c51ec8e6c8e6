"""How results are printed, for programs and for people."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer

from sbrpc.cli.output import put, show_json, show_table


def test_json_keeps_its_letters(capsys: pytest.CaptureFixture[str]) -> None:
    """It is read by people too."""
    show_json({"title": "Žert"})
    out = capsys.readouterr().out
    assert "Žert" in out
    assert json.loads(out) == {"title": "Žert"}


def test_tables_show_what_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    """Brackets are text and not markup, None is nothing, and no row at all is said in words."""
    show_table(("number", "why"), [(1, "[red]bad[/red]"), (2, None)], "nothing")
    out = capsys.readouterr().out
    assert "[red]bad[/red]" in out
    assert "None" not in out
    show_table(("number",), iter(()), "nothing to show")
    assert capsys.readouterr().out == "nothing to show\n"


def test_text_goes_into_a_file_or_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As it is, to the letter."""
    put("a\nb", None)
    assert capsys.readouterr().out == "a\nb"
    put("Žert\n", tmp_path / "out.txt")
    assert (tmp_path / "out.txt").read_text(encoding="utf-8") == "Žert\n"


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With the reason, and exit code 1."""
    with pytest.raises(typer.Exit) as caught:
        put("x", tmp_path / "nowhere" / "out.txt")
    assert caught.value.exit_code == 1
    assert "out.txt: No such file or directory" in capsys.readouterr().err
