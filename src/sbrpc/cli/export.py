"""`sbrpc export`: from what is registered to what a namespace, a cluster and other people need to know.

Owns how processes are named, for `plan`, `apply` and `doctor` too. What the files say is up to
`sbrpc.export`; nothing here connects.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sbrpc.cli.loading import named, parts_of
from sbrpc.cli.outcome import failed
from sbrpc.cli.output import Output, put

if TYPE_CHECKING:
    from sbrpc.export import System

__all__ = ["Processes", "app", "system_named"]

app = typer.Typer(
    help=(
        "Write down what registered servers, clients, event buses and contracts need or offer. "
        "Each process is written MODULE:NAME or PROCESS=MODULE:NAME; NAME is a server, a client, a bus, a "
        "contract, or a list of them. Nothing is connected to."
    ),
    no_args_is_help=True,
)

Processes = Annotated[
    list[str], typer.Argument(metavar="[PROCESS=]MODULE:NAME", help="The processes, one or more.")
]


@app.command()
def bicep(processes: Processes, output: Output = None) -> None:
    """Bicep: namespace, queues, topics, subscriptions, rules and role assignments."""
    from sbrpc.export import bicep as export

    _write(processes, output, export)


@app.command()
def terraform(processes: Processes, output: Output = None) -> None:
    """Terraform (azurerm): namespace, queues, topics, subscriptions, rules and role assignments."""
    from sbrpc.export import terraform as export

    _write(processes, output, export)


@app.command()
def az(processes: Processes, output: Output = None) -> None:
    """A shell script for the Azure CLI that makes the same."""
    from sbrpc.export import az as export

    _write(processes, output, export)


@app.command()
def roles(processes: Processes, output: Output = None) -> None:
    """JSON: the least that each process may do, as role assignments per queue, topic and subscription."""
    from sbrpc.export import roles as export

    _write(processes, output, export)


@app.command("emulator-config")
def emulator_config(processes: Processes, output: Output = None) -> None:
    """Config.json of the official emulator, which `sbrpc emulator --config` takes too."""
    from sbrpc.export import emulator_config as export

    def write(system: System) -> str:
        text, warnings = export(system)
        for warning in warnings:
            typer.echo(f"sbrpc: {warning}", err=True)
        return text

    _write(processes, output, write, rights=False)


@app.command()
def keda(
    processes: Processes,
    output: Output = None,
    namespace: Annotated[str, typer.Option(help="Name of the Service Bus namespace.")] = "NAMESPACE",
    most: Annotated[int, typer.Option("--max", min=1, help="The most instances of each process.")] = 10,
) -> None:
    """KEDA: scale each process by the messages that wait for it."""
    from sbrpc.export import keda as export

    _write(processes, output, lambda system: export(system, namespace=namespace, most=most), rights=False)


@app.command()
def asyncapi(
    processes: Processes,
    output: Output = None,
    title: Annotated[str, typer.Option(help="What is described.")] = "sbrpc",
    version: Annotated[str, typer.Option(help="The version of what is described.")] = "1.0.0",
    html: Annotated[bool, typer.Option("--html", help="A page for people instead of JSON.")] = False,
) -> None:
    """AsyncAPI 3.1: calls with their replies, and events, for people and tools in any language."""
    from sbrpc.export import asyncapi as export
    from sbrpc.export import asyncapi_document, asyncapi_page

    def write(system: System) -> str:
        if html:
            return asyncapi_page(asyncapi_document(system, title=title, version=version))
        return export(system, title=title, version=version)

    _write(processes, output, write, rights=False)


@app.command("json-schema")
def json_schema(processes: Processes, output: Output = None) -> None:
    """JSON Schema of every request, reply, error and event, in one document."""
    from sbrpc.export import json_schema as export

    _write(processes, output, export, rights=False)


def _write(
    references: list[str], output: Path | None, export: Callable[[System], str], *, rights: bool = True
) -> None:
    from sbrpc.errors import ContractError

    try:
        system = system_named(references)
        for warning in system.warnings() if rights else ():
            typer.echo(f"sbrpc: {warning}", err=True)
        text = export(system)
    except ContractError as error:
        raise failed(str(error)) from None
    put(text, output)


def system_named(references: list[str]) -> System:
    """The system of processes that are named on the command line."""
    from sbrpc.export import system_of

    processes: dict[str, tuple[object, ...]] = {}
    for reference in references:
        name, rest = named(reference)
        parts = tuple(part for part in parts_of(rest) if not _is_beside(part))
        processes[name] = processes.get(name, ()) + parts
    return system_of(processes)


def _is_beside(part: object) -> bool:
    """Whether it runs beside servers and buses without entities of its own: a relay, a connection."""
    from sbrpc.export import PARTS

    runs = hasattr(part, "__aenter__") or hasattr(part, "run") or inspect.iscoroutinefunction(part)
    return runs and not isinstance(part, (*PARTS, type))
