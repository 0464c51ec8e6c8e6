"""How a command ends: exit codes, and errors in one line without secrets and without tracebacks.

Owns the table of exit codes and the class of the root command, through which every command goes. Knows no
command.
"""

from __future__ import annotations

import logging
import os
import re
import sys
from enum import IntEnum
from typing import Any

import typer
from typer.core import TyperGroup

__all__ = ["Commands", "Exit", "code_of", "failed", "redacted"]


class Exit(IntEnum):
    """What a command exits with. docs/how-to/command-line.md says the same."""

    DONE = 0
    FAILED = 1
    """It could not be done, or a check found something."""
    USAGE = 2
    """Wrong arguments, or a port that is taken; nothing was attempted."""
    ANSWERED_WITH_ERROR = 3
    """The service answered a call with an error."""
    NO_ANSWER = 4
    """The deadline passed before the answer came."""
    UNREACHABLE = 5
    """Service Bus, or the service, cannot be reached now."""
    NOT_FOUND = 6
    """A queue, topic or subscription does not exist."""
    DENIED = 7
    """The credentials are wrong or lack a right."""
    INTERRUPTED = 130
    """Ctrl-C."""
    PIPE_CLOSED = 141
    """Whoever read the output has gone."""


_SECRETS = re.compile(
    r"((?:SharedAccess(?:Key|Signature)|AccountKey)\s*=\s*)(?!Name)[^;\s\"']+|(\bsig=)[^&;\s\"']+",
    re.IGNORECASE,
)


def redacted(text: str) -> str:
    """The text without keys and signatures."""
    return _SECRETS.sub(lambda found: f"{found[1] or found[2]}***", text)


def code_of(error: BaseException) -> Exit:
    """The exit code that stands for an error."""
    # Here, since most commands that end well do without the SDK, which these need.
    from sbrpc import _sdk, errors

    table: tuple[tuple[type[BaseException], Exit], ...] = (
        (errors.EntityNotFound, Exit.NOT_FOUND),
        (errors.AccessDenied, Exit.DENIED),
        (errors.DeadlineExceeded, Exit.NO_ANSWER),
        (errors.Unavailable, Exit.UNREACHABLE),
        (errors.CannotListen, Exit.USAGE),
        (_sdk.Refused, Exit.FAILED),
        (errors.BusError, Exit.UNREACHABLE),
    )
    for kind, code in table:
        if isinstance(error, kind):
            return code
    if isinstance(error, errors.RpcError) and error.call_id is not None:
        return Exit.ANSWERED_WITH_ERROR
    return Exit.FAILED


def failed(message: str, code: Exit = Exit.FAILED) -> typer.Exit:
    """Say on standard error what went wrong; to be raised."""
    typer.echo(f"sbrpc: {redacted(message)}", err=True)
    return typer.Exit(int(code))


class Commands(TyperGroup):
    """The root command: whatever a command raises ends with one line and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was asked for."""
        from sbrpc.errors import SbrpcError

        # What is logged on the way to an error says it once more; `run` and `emulator` have handlers.
        for name in ("sbrpc", "azure"):
            logging.getLogger(name).addHandler(logging.NullHandler())
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except BaseException as error:
            inner = _inside(error)
            if isinstance(inner, BrokenPipeError):
                # `| head` has seen enough. What is still buffered must not fail once more at the very end.
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                raise typer.Exit(int(Exit.PIPE_CLOSED)) from None
            if isinstance(inner, KeyboardInterrupt):
                raise typer.Exit(int(Exit.INTERRUPTED)) from None
            if isinstance(inner, SbrpcError):
                raise failed(str(inner), code_of(inner)) from None
            if inner is not error:
                raise inner from None
            raise
        return result


def _inside(error: BaseException) -> BaseException:
    """What task groups have wrapped."""
    while len(inner := list[BaseException](getattr(error, "exceptions", ()))) == 1:
        error = inner[0]
    return error
