"""`sbrpc contract`: write a contract down, and find out what a change of it breaks.

Owns where the two sides of a comparison come from: files, modules, classes. What a change means is decided in
`sbrpc.compatibility`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sbrpc.cli.loading import load, nowhere
from sbrpc.cli.outcome import Exit
from sbrpc.cli.output import AsJson, Output, put, show_json

if TYPE_CHECKING:
    from sbrpc.contract import Contract
    from sbrpc.event import Event

__all__ = ["app"]

app = typer.Typer(
    help="Write contracts down, and compare them with what they were.",
    no_args_is_help=True,
)

WHAT = "MODULE, or MODULE:NAME of a contract or an event"


@app.command()
def export(
    things: Annotated[list[str], typer.Argument(metavar="MODULE[:NAME]", help=f"{WHAT}; one or more.")],
    output: Output = None,
) -> None:
    """Write contracts and events down as JSON, to be kept and compared with later."""
    from sbrpc.compatibility import document_of

    found = [each for thing in things for each in _declared(thing)]
    put(json.dumps(document_of(found), indent=2, ensure_ascii=False) + "\n", output)


@app.command()
def diff(
    old: Annotated[str, typer.Argument(help=f"An exported file; {WHAT}.")],
    new: Annotated[str, typer.Argument(help="The same.")],
    strict: Annotated[bool, typer.Option("--strict", help="Risky changes fail as well.")] = False,
    all: Annotated[bool, typer.Option("--all", help="List compatible changes too.")] = False,
    as_json: AsJson = False,
) -> None:
    """Say what a change of contracts breaks.

    Exit code 0: nothing. 1: somebody who knows the old contract will fail; what does it is listed. 2: there
    is nothing to compare.
    """
    from sbrpc.compatibility import Verdict, compare

    found = compare(_document(old), _document(new))
    shown = [each for each in found if all or each.verdict is not Verdict.COMPATIBLE]
    if as_json:
        rows = [
            {
                "verdict": each.verdict.value,
                "kind": each.kind,
                "subject": each.subject,
                "where": each.where,
                "text": each.text,
            }
            for each in shown
        ]
        show_json(rows)
    else:
        for each in shown:
            typer.echo(f"{each.verdict.value}: {each}")
        if not shown:
            typer.echo("compatible")
    fatal = {Verdict.BREAKING, Verdict.RISKY} if strict else {Verdict.BREAKING}
    if any(each.verdict in fatal for each in found):
        raise typer.Exit(int(Exit.FAILED))


def _document(source: str) -> dict[str, Any]:
    from sbrpc.compatibility import check_document, document_of
    from sbrpc.errors import ContractError

    if not Path(source).is_file():
        if source.endswith(".json"):
            raise typer.BadParameter(f"there is no file {source!r}")
        return document_of(list(_declared(source)))
    try:
        return check_document(json.loads(Path(source).read_text(encoding="utf-8")), source)
    except (ContractError, OSError, ValueError) as error:
        text = str(error) if isinstance(error, ContractError) else f"{source}: {error}"
        raise typer.BadParameter(text) from None


def _declared(reference: str) -> Iterator[type[Contract] | type[Event]]:
    """The contract or event that a reference names, or all of those in the module that it names."""
    from sbrpc.contract import Contract
    from sbrpc.event import Event

    with nowhere():
        found = load(reference)
    named = vars(found).values() if isinstance(found, ModuleType) else [found]
    count = 0
    for each in named:
        if isinstance(each, type) and (
            (issubclass(each, Contract) and each is not Contract)
            or (issubclass(each, Event) and each.__event_type__ is not None)
        ):
            count += 1
            yield each
    if not count:
        what = "has no" if isinstance(found, ModuleType) else "is no"
        raise typer.BadParameter(f"{reference!r} {what} contract, and no event with a type")
