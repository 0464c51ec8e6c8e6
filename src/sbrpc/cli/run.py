"""`sbrpc run`: servers, event buses and relays of programs, until a signal; one process, or workers.

Owns what is said on the way from names to things that run, in one process. How they start and stop together
is up to `sbrpc.running`, and other processes are up to `supervisor`.
"""

from __future__ import annotations

import gc
import inspect
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from types import ModuleType
from typing import TYPE_CHECKING, Annotated, Any

import anyio
import typer

from sbrpc.cli import health
from sbrpc.cli.loading import load
from sbrpc.cli.options import Connection, Namespace, connecting, put_in_environment
from sbrpc.cli.outcome import code_of, failed
from sbrpc.cli.supervisor import supervise
from sbrpc.cli.worker import Parent

if TYPE_CHECKING:
    from sbrpc.running import Group

__all__ = ["run"]

_log = logging.getLogger("sbrpc.run")

_LEVELS = ("debug", "info", "warning", "error")
_LOOK = 0.5


def run(
    apps: Annotated[
        list[str],
        typer.Argument(
            metavar="MODULE:APP...",
            help="What to run: a server, an event bus, a relay, a list of them, or a function that makes any "
            "of these. A function may take the connection, be async, or be an @asynccontextmanager.",
        ),
    ],
    workers: Annotated[int, typer.Option(min=1, max=256, help="Processes; one that ends is replaced.")] = 1,
    apart: Annotated[
        bool, typer.Option("--apart", help="Each app in processes of its own; name it twice for two.")
    ] = False,
    emulator: Annotated[
        bool,
        typer.Option(
            "--emulator",
            help="On an emulator with what the apps need; prints its connection string once they are ready.",
        ),
    ] = False,
    reload: Annotated[bool, typer.Option("--reload", help="Start anew when a source file changes.")] = False,
    reload_dir: Annotated[
        list[str] | None, typer.Option(help="Where files are watched; the current directory by default.")
    ] = None,
    health_at: Annotated[
        str | None,
        typer.Option("--health", metavar="[HOST:]PORT", help="Serve /health/live and /health/ready there."),
    ] = None,
    grace: Annotated[
        float | None,
        typer.Option(min=0, help="Seconds for what runs when it is told to stop; each its own by default."),
    ] = None,
    log_level: Annotated[str, typer.Option(help=f"One of {', '.join(_LEVELS)}.")] = "info",
    connection_string: Connection = None,
    namespace: Namespace = None,
) -> None:
    """Run servers, event buses and relays until SIGTERM or Ctrl-C, then drain them.

    All of them stop taking work at once, finish what runs within the grace, and hand the rest back. A second
    Ctrl-C ends the process without waiting.
    """
    _set_up_logging(log_level)
    if emulator and (connection_string or namespace):
        raise typer.BadParameter("it is where Service Bus is; name no other", param_hint="--emulator")
    put_in_environment(connection_string, namespace)
    address = health.address_of(health_at) if health_at is not None else None
    try:
        if workers > 1 or reload or apart or emulator:
            from sbrpc.cli.export import system_named

            programs = [[app] for app in apps] if apart else [apps]
            options = ["--log-level", log_level, *(["--grace", str(grace)] if grace is not None else [])]
            dirs = (reload_dir or ["."]) if reload else None
            system = system_named([*dict.fromkeys(apps)]) if emulator else None
            code = anyio.run(supervise, programs * workers, options, dirs, address, grace, system)
            raise typer.Exit(code)
        anyio.run(_serve, apps, address, grace)
    except OSError as error:
        if health_at is None or not isinstance(error.errno, int) or isinstance(error, ConnectionError):
            raise
        raise failed(f"cannot serve health at {health_at}: {error.strerror or error}") from None


def _set_up_logging(level: str) -> None:
    if level.lower() not in _LEVELS:
        raise typer.BadParameter(f"{level!r} is none of {', '.join(_LEVELS)}", param_hint="--log-level")
    logging.basicConfig(
        level=level.upper(),
        stream=sys.stderr,
        format="%(asctime)s %(levelname)s %(process)d %(name)s: %(message)s",
    )
    # What the SDK tells about every frame and every lost link, sbrpc says once and in its own words.
    logging.getLogger("azure").setLevel(logging.CRITICAL if level.lower() != "debug" else logging.INFO)


# -- one process ---------------------------------------------------------------------------------------


async def _serve(apps: Sequence[str], address: tuple[str, int] | None, grace: float | None) -> None:
    from sbrpc.errors import SbrpcError
    from sbrpc.running import Group

    parent = Parent()
    async with _made(apps) as things:
        group = Group(*things, grace=grace)

        def report() -> tuple[bool, bool, Mapping[str, Any]]:
            return group.is_live, group.is_ready, {"parts": list(_parts(things))}

        async with health.answering(address, report) as port, anyio.create_task_group() as beside:
            if port is not None:
                _log.info("health at port %d", port)
            beside.start_soon(_end_at_second_signal)
            beside.start_soon(_tell_when_ready, group, things, parent)
            try:
                async with group:
                    await group.until_asked_to_stop()
                    _log.info("stopping: finishing what runs")
                    parent.tell(ready=False)
            except SbrpcError as error:
                raise failed(str(error), code_of(error)) from None
            beside.cancel_scope.cancel()


async def _end_at_second_signal() -> None:
    from sbrpc._signals import asked_to_stop

    await asked_to_stop()
    # What Python does with Ctrl-C would cancel the draining and wait for that.
    signal.signal(signal.SIGINT, signal.SIG_DFL)


async def _tell_when_ready(group: Group, things: Sequence[Any], parent: Parent) -> None:
    said = False
    while True:
        await anyio.sleep(_LOOK)
        parent.tell(ready=group.is_ready)
        if group.is_ready and not said:
            said = True
            # What is loaded by now stays; the garbage collector need not walk through it again and again.
            gc.collect()
            gc.freeze()
            _log.info("ready: %s", ", ".join(part["name"] for part in _parts(things)))


def _parts(things: Sequence[Any]) -> Iterator[dict[str, Any]]:
    for thing in things:
        where = getattr(thing, "queue", None) or getattr(thing, "topic", None)
        # Of an @asynccontextmanager, its function.
        named = getattr(getattr(thing, "func", thing), "__qualname__", None) or type(thing).__name__
        part: dict[str, Any] = {"name": f"{named} {where}" if isinstance(where, str) else named}
        if hasattr(thing, "is_ready"):
            part["ready"] = bool(thing.is_ready)
        yield part


# -- from names to things ------------------------------------------------------------------------------


@asynccontextmanager
async def _made(apps: Sequence[str]) -> AsyncIterator[list[Any]]:
    """What the references name, ready to be entered. What a factory opens is open inside the block."""
    from sbrpc._apps import flat, is_declaration

    things: list[Any] = []
    async with AsyncExitStack() as stack:
        for reference in apps:
            found = load(reference)
            if isinstance(found, ModuleType):
                found = _app_of(found, reference)
            if inspect.isfunction(found):
                found = await _called(found, reference, stack)
            parts = [*flat(found)]
            made = [thing for thing in parts if not is_declaration(thing)]
            if made:
                _check(made, reference)
            elif not parts or len(apps) == 1:  # declarations may stand beside what runs
                raise _nothing_in(reference)
            things += made
        if not things:
            raise _nothing_in(" ".join(apps))
        yield things


def _nothing_in(reference: str) -> typer.BadParameter:
    return typer.BadParameter(
        f"{reference!r} has nothing to run; name a server, an event bus, a relay, or a list of them"
    )


def _app_of(module: ModuleType, reference: str) -> Any:
    found = getattr(module, "app", None)
    if found is None:
        candidates = [name for name, value in vars(module).items() if _is_served(value)]
        named = ", ".join(f"{reference}:{name}" for name in candidates)
        raise typer.BadParameter(
            f"{reference!r} has no `app`; "
            + (f"there is {named}" if named else "say which object: module:name")
        )
    return found


async def _called(factory: Any, reference: str, stack: AsyncExitStack) -> Any:
    from sbrpc._apps import needed_by

    needed = needed_by(factory)
    if len(needed) > 1:
        raise typer.BadParameter(
            f"{reference!r} takes {len(needed)} arguments; a factory takes the connection or none"
        )
    arguments: list[Any] = []
    if needed:
        arguments.append(os.environ.get("SERVICEBUS_CONNECTION_STRING"))
        if not arguments[0]:
            arguments[0] = await stack.enter_async_context(connecting())
    result = factory(*arguments)
    if inspect.isasyncgenfunction(inspect.unwrap(factory)):
        return await stack.enter_async_context(result)
    return await result if inspect.isawaitable(result) else result


def _is_served(thing: object) -> bool:
    from sbrpc.events import EventBus
    from sbrpc.server import RpcServer

    return isinstance(thing, RpcServer | EventBus)


def _check(things: Sequence[Any], reference: str) -> None:
    from sbrpc.running import Group

    try:
        Group(*things)
    except TypeError as error:
        raise typer.BadParameter(f"{reference!r}: {error}") from None
