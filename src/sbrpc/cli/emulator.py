"""`sbrpc emulator`: a Service Bus in the foreground until it is interrupted, or commands for one.

Owns the process: options, signals, and the line that says it is ready. What the emulator does is
`sbrpc.emulator`'s business.
"""

from __future__ import annotations

import logging
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import anyio
import typer

from sbrpc.cli import control
from sbrpc.cli.outcome import failed

if TYPE_CHECKING:
    from sbrpc.emulator import Emulator
    from sbrpc.emulator.config import Config

__all__ = ["app"]

app = typer.Typer(help="Run the Service Bus emulator, or command a running one.")
app.add_typer(control.faults, name="faults")
app.command("advance")(control.advance)
app.command("books")(control.books)


@app.callback(invoke_without_command=True)
def run(
    context: typer.Context,
    host: Annotated[
        str, typer.Option(help="Address to listen on. Anything but loopback lets others in.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="AMQP port; 0 picks a free one.")] = 5672,
    http_port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port of management API and page; 0 picks a free one.")
    ] = 5300,
    config: Annotated[
        Path | None,
        typer.Option(
            exists=True, dir_okay=False, readable=True, help="Config.json of the official emulator."
        ),
    ] = None,
    idle_timeout: Annotated[
        float | None,
        typer.Option(
            min=1, metavar="SECONDS", help="Detach idle links, as Azure does after 600; never by default."
        ),
    ] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log what peers do.")] = False,
) -> None:
    """Run the Service Bus emulator until interrupted; with a command, do that to one that runs.

    Once it is ready it prints one line on stdout that starts with Endpoint=sb:// : the connection string.
    """
    if context.invoked_subcommand is not None:
        return
    from sbrpc.emulator import Emulator

    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING,
        stream=sys.stderr,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    wanted = _loaded(config)
    emulator = Emulator(
        queues=wanted.queues,
        topics=wanted.topics,
        host=host,
        port=port,
        http_port=http_port,
        access_keys=wanted.access_keys,
        namespace=wanted.namespace,
        idle_timeout=idle_timeout,
    )
    try:
        anyio.run(_serve, emulator)
    except OSError as error:
        raise failed(
            f"cannot listen on {host}, port {port} (HTTP {http_port}): {error.strerror or error}. "
            "Choose another with --port and --http-port; 0 picks a free one."
        ) from None


def _loaded(file: Path | None) -> Config:
    from sbrpc.emulator.config import Config, ConfigError, load

    if file is None:
        return Config("sbemulatorns", (), (), (), ())
    try:
        wanted = load(file)
    except (ConfigError, OSError) as error:
        raise failed(str(error)) from None
    for warning in wanted.warnings:
        typer.echo(f"sbrpc: {file}: {warning}", err=True)
    return wanted


async def _serve(emulator: Emulator) -> None:
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with emulator:
            print(f"sbrpc emulator: look into it at {emulator.http_url}/", file=sys.stderr, flush=True)
            # Flushed at once: whoever started this process waits for the line.
            print(emulator.connection_string, flush=True)
            async for _ in signals:
                break
