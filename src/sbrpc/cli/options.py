"""What several commands take: where Service Bus is."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from sbrpc.cli.outcome import redacted

if TYPE_CHECKING:
    from azure.servicebus.aio import ServiceBusClient

__all__ = ["Connection", "Namespace", "connecting", "put_in_environment"]

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


def connecting(connection_string: str | None = None, namespace: str | None = None) -> ServiceBusClient:
    """The client of what was given, or of what the environment says."""
    from sbrpc._sdk import connect

    put_in_environment(connection_string, namespace)
    with understood():
        return connect()
