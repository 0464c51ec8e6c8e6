"""What several commands take: where Service Bus is, JSON from wherever it comes.

Owns the options that mean the same everywhere, and puts an address where programs that are loaded later find
it. Knows no command.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sbrpc.cli.outcome import redacted

if TYPE_CHECKING:
    from azure.servicebus.aio import ServiceBusClient
    from azure.servicebus.management import ServiceBusAdministrationClient

__all__ = [
    "Connection",
    "Metadata",
    "Namespace",
    "Timeout",
    "administering",
    "connecting",
    "json_of",
    "pairs_of",
    "put_in_environment",
    "understood",
]

Connection = Annotated[
    str | None,
    typer.Option(
        "--connection-string",
        metavar="STRING",
        show_default=False,
        help="Where Service Bus is; SERVICEBUS_CONNECTION_STRING unless given.",
    ),
]
Namespace = Annotated[
    str | None,
    typer.Option(
        "--namespace",
        metavar="HOST",
        show_default=False,
        help="Sign in with your Azure identity; SERVICEBUS_FULLY_QUALIFIED_NAMESPACE unless given.",
    ),
]
Timeout = Annotated[float, typer.Option("--timeout", "-t", min=0.001, help="Seconds to wait at most.")]
Metadata = Annotated[
    list[str] | None,
    typer.Option("--metadata", "-m", metavar="KEY=VALUE", help="Sent along; may be repeated."),
]


@contextmanager
def understood() -> Iterator[None]:
    """A connection that makes no sense is wrong usage."""
    try:
        yield
    except ValueError as error:
        raise typer.BadParameter(redacted(str(error))) from None


def put_in_environment(connection_string: str | None, namespace: str | None) -> None:
    """Let `connect()` find what was given on the command line, also in programs that are loaded later."""
    if connection_string is not None and namespace is not None:
        raise typer.BadParameter("give --connection-string or --namespace, not both")
    if connection_string is not None:
        from sbrpc._sdk import connect

        with understood():
            connect(connection_string)  # connects to nothing yet
        os.environ["SERVICEBUS_CONNECTION_STRING"] = connection_string
    if namespace is not None:
        os.environ.pop("SERVICEBUS_CONNECTION_STRING", None)
        os.environ["SERVICEBUS_FULLY_QUALIFIED_NAMESPACE"] = namespace


def connecting(
    connection_string: str | None = None, namespace: str | None = None, *, websockets: bool = False
) -> ServiceBusClient:
    """The client of what was given, or of what the environment says."""
    from sbrpc._sdk import connect

    put_in_environment(connection_string, namespace)
    with understood():
        return connect(websockets=websockets)


def administering(connection_string: str | None = None, **options: Any) -> ServiceBusAdministrationClient:
    """The client of the management API: of a connection string, or of what the environment says."""
    from azure.servicebus.management import ServiceBusAdministrationClient

    from sbrpc._sdk import CONNECTION_STRING, NAMESPACE

    string = connection_string or os.environ.get(CONNECTION_STRING)
    if string:
        return ServiceBusAdministrationClient.from_connection_string(string.strip(), **options)
    from azure.identity import DefaultAzureCredential

    return ServiceBusAdministrationClient(os.environ[NAMESPACE].strip(), DefaultAzureCredential(), **options)


def json_of(given: str | None, what: str = "the request") -> Any:
    """A JSON value: the text itself, `@file`, or `-` for standard input; None where nothing is given.

    Raises:
        typer.BadParameter: it is not JSON, or the file cannot be read.
    """
    source = what
    if given is None:
        return None
    if given == "-":
        text, source = sys.stdin.read(), "standard input"
    elif given.startswith("@"):
        source = given[1:]
        try:
            text = Path(source).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise typer.BadParameter(f"cannot read {source}: {error}") from None
    else:
        text = given
    try:
        return json.loads(text)
    except ValueError as error:
        hint = "; text has to be quoted, as in '\"text\"'" if source == what else ""
        raise typer.BadParameter(f"{source} is not JSON: {error}{hint}") from None


def pairs_of(given: list[str] | None, option: str) -> dict[str, str]:
    """`key=value` pairs as a dictionary."""
    pairs: dict[str, str] = {}
    for each in given or ():
        key, equals, value = each.partition("=")
        if not equals or not key:
            raise typer.BadParameter(f"{each!r} is not written KEY=VALUE", param_hint=option)
        pairs[key] = value
    return pairs
