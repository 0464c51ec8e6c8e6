"""The root of the `sbrpc` command: what all commands share, and the list of them."""

from __future__ import annotations

import typer

from sbrpc.cli import bench, call, contract, dlq, doctor, emulator, events, export, provision, run
from sbrpc.cli.outcome import Commands

__all__ = ["app"]

app = typer.Typer(
    cls=Commands,
    help="Typed request-reply and events over Azure Service Bus.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def root() -> None:
    """Typed request-reply and events over Azure Service Bus."""


app.command("run")(run.run)
app.command("call")(call.call)
app.command("stream")(call.stream)
app.command("send")(call.send)
app.command("doctor")(doctor.doctor)
app.command("bench")(bench.bench)
app.command("publish")(events.publish)
app.command("tail")(events.tail)
app.command("plan")(provision.plan)
app.command("apply")(provision.apply)
app.add_typer(emulator.app, name="emulator")
app.add_typer(dlq.app, name="dlq")
app.add_typer(export.app, name="export")
app.add_typer(contract.app, name="contract")
