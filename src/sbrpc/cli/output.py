"""How results are printed: JSON for programs, tables for people, text into a file."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from sbrpc.cli.outcome import failed

__all__ = ["AsJson", "Output", "put", "show_json", "show_table"]

AsJson = Annotated[bool, typer.Option("--json", help="JSON for programs.")]
Output = Annotated[
    Path | None, typer.Option("--output", "-o", dir_okay=False, help="A file instead of stdout.")
]


def show_json(value: Any) -> None:
    """Print a value for programs, readable for people too."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def show_table(columns: Sequence[str], rows: Iterable[Sequence[object]], empty: str) -> None:
    """Print rows under the names of columns, None as nothing; where there are none, say so."""
    # Here, since most commands do without: it takes longer to import than the emulator's broker.
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(*columns)
    for row in rows:
        table.add_row(*("" if cell is None else escape(str(cell)) for cell in row))
    Console().print(table if table.row_count else empty)


def put(text: str, output: Path | None) -> None:
    """Write to a file, or else to standard output."""
    if output is None:
        typer.echo(text, nl=False)
        return
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise failed(f"cannot write {output}: {error.strerror or error}") from None
