"""`sbrpc plan` and `sbrpc apply`: what a namespace lacks of what programs need, said and then made.

Owns the way to the management API, what is asked before a change, and how changes are shown. Which changes
there are is up to `sbrpc.provisioning`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sbrpc.cli.export import Processes, system_named
from sbrpc.cli.options import Connection, Namespace, administering, put_in_environment, understood
from sbrpc.cli.outcome import Exit, failed
from sbrpc.cli.output import AsJson, show_json

if TYPE_CHECKING:
    from azure.servicebus.management import ServiceBusAdministrationClient

    from sbrpc.provisioning import Step
    from sbrpc.topology import Queue, Topic

__all__ = ["apply", "plan"]

Authority = Annotated[
    Path | None,
    typer.Option(
        "--ca-file", exists=True, dir_okay=False, help="Whom to trust, in PEM; for an emulator's certificate."
    ),
]

_SIGNS = {"create": "+", "replace": "~", "remove": "-"}


def plan(
    processes: Processes,
    as_json: AsJson = False,
    check: Annotated[
        bool, typer.Option("--check", help="Exit code 1 when there is something to change.")
    ] = False,
    ca_file: Authority = None,
    connection_string: Connection = None,
    namespace: Namespace = None,
) -> None:
    """Say what a namespace lacks of what these processes need. Needs Manage, and changes nothing.

    Queues, topics, subscriptions and their rules are compared. Exit codes: 5 out of reach, 7 no right to.
    """
    wanted = _wanted(processes)
    with _administration(connection_string, namespace, ca_file) as admin:
        steps = _steps(admin, wanted)
    _show(steps, as_json)
    if check and steps:
        raise typer.Exit(int(Exit.FAILED))


def apply(
    processes: Processes,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: AsJson = False,
    ca_file: Authority = None,
    connection_string: Connection = None,
    namespace: Namespace = None,
) -> None:
    """Make what `sbrpc plan` says, after asking. Needs Manage; nothing is deleted but rules.

    A step that fails ends it. What is done stays done, and the next run goes on from there.
    """
    if not yes and not sys.stdin.isatty():
        raise failed("nobody can be asked without a terminal; give --yes to apply without asking", Exit.USAGE)
    from sbrpc.provisioning import apply as make

    wanted = _wanted(processes)
    with _administration(connection_string, namespace, ca_file) as admin:
        steps = _steps(admin, wanted)
        _show(steps, as_json)
        if not steps:
            return
        if not yes:
            typer.confirm("Make these changes?", abort=True, err=True)
        made = 0
        try:
            for step in steps:
                make(admin, [step])
                made += 1
        except BaseException:  # also Ctrl-C: what is done already has to be said
            typer.echo(
                f"sbrpc: {made} of {len(steps)} changes made; this one failed: {steps[made]}", err=True
            )
            raise
    typer.echo(f"{len(steps)} changes made", err=as_json)


def _wanted(references: list[str]) -> tuple[Queue | Topic, ...]:
    wanted = system_named(references).entities()
    if not wanted:
        raise typer.BadParameter(f"{', '.join(references)}: needs no queue and no topic")
    return wanted


def _steps(admin: ServiceBusAdministrationClient, wanted: tuple[Queue | Topic, ...]) -> list[Step]:
    from sbrpc.provisioning import plan as compare
    from sbrpc.provisioning import read

    return compare(wanted, read(admin, wanted))


@contextmanager
def _administration(
    connection_string: str | None, namespace: str | None, ca_file: Path | None
) -> Iterator[ServiceBusAdministrationClient]:
    """The management API; what it raises inside the block ends the command with one line."""
    from azure.core.exceptions import AzureError, HttpResponseError

    from sbrpc._sdk import connect

    put_in_environment(connection_string, namespace)
    try:
        with understood():
            connect()  # connects to nothing, and says what is wrong with the address
            admin = administering(**({} if ca_file is None else {"connection_verify": str(ca_file)}))
        with admin:
            yield admin
    except HttpResponseError as error:
        refused = error.status_code in (401, 403)
        raise failed(
            f"{_line(error)}{'; this needs the right to Manage' if refused else ''}",
            Exit.DENIED if refused else Exit.FAILED,
        ) from None
    except AzureError as error:
        text = _line(error)
        hint = ""
        if "CERTIFICATE" in text:
            hint = "; an emulator's certificate is trusted with --ca-file"
        elif "WRONG_VERSION_NUMBER" in text:
            hint = "; an emulator's is on its HTTP port: name that one in --connection-string"
        raise failed(f"the management API cannot be reached: {text}{hint}", Exit.UNREACHABLE) from None


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


def _show(steps: list[Step], as_json: bool) -> None:
    if as_json:
        rows = [
            {
                "action": step.action,
                "kind": type(step.entity).__name__.lower(),
                "name": step.entity.name,
                "topic": step.topic,
                "subscription": step.subscription,
                "text": str(step),
            }
            for step in steps
        ]
        show_json(rows)
        return
    colours = {"+": typer.colors.GREEN, "~": typer.colors.YELLOW, "-": typer.colors.RED}
    for step in steps:
        sign = _SIGNS[step.action]
        typer.echo(typer.style(f"{sign} {step}", fg=colours[sign]))
    if not steps:
        typer.echo("nothing to change")
