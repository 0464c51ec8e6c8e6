"""From `module:name` on a command line to the object it names, with errors that say what to do.

Owns imports on behalf of the person at the command line, factories included. Knows no command, and nothing of
what the objects are for.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from types import ModuleType
from typing import Any

import anyio
import typer

__all__ = ["load", "named", "nowhere", "parts_of"]

# What stands for a connection where nothing is connected to.
NOWHERE = "Endpoint=sb://nowhere.invalid/;SharedAccessKeyName=none;SharedAccessKey=bm9uZQ=="


def named(reference: str) -> tuple[str, str]:
    """A name and a reference: those of `name=module:object`, or a name made from the reference."""
    name, equals, rest = reference.partition("=")
    if equals:
        return name.strip(), rest
    module, _, attribute = reference.partition(":")
    plain = attribute.rpartition(".")[2].lower()
    return (plain if plain not in ("", "app", "main") else module.rpartition(".")[2]), reference


def load(reference: str) -> Any:
    """The object that `module:name` names, or the module of `module`; modules here are found first.

    Raises:
        typer.BadParameter: there is none, or importing it fails.
    """
    name, _, attributes = reference.partition(":")
    found: Any = _module(name, reference)
    for attribute in filter(None, attributes.split(".")):
        if not hasattr(found, attribute):
            close = difflib.get_close_matches(attribute, dir(found), n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise typer.BadParameter(f"{reference!r}: {name} has no {attribute!r}{hint}")
        found = getattr(found, attribute)
    return found


def _module(name: str, reference: str) -> ModuleType:
    if not name or not all(part.isidentifier() for part in name.split(".")):
        raise typer.BadParameter(f"{reference!r} is not written module:name, such as movies.service:app")
    here = os.getcwd()
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise typer.BadParameter(f"{reference!r}: there is no module {error.name!r} in {here}") from None
        raise typer.BadParameter(f"{reference!r} needs {error.name!r}, which is not installed") from None
    except Exception as error:
        # The innermost frame is where to look; the frames of this command and of importlib are no news.
        frame = traceback.extract_tb(error.__traceback__)[-1]
        raise typer.BadParameter(
            f"importing {name} failed at {frame.filename}:{frame.lineno}: {type(error).__name__}: {error}"
        ) from error


@contextmanager
def nowhere() -> Iterator[None]:
    """Inside, `connect()` finds an address even where none is set: what is built is looked at, not run."""
    from sbrpc._sdk import CONNECTION_STRING, NAMESPACE

    if os.environ.get(CONNECTION_STRING) or os.environ.get(NAMESPACE):
        yield
        return
    os.environ[CONNECTION_STRING] = NOWHERE
    try:
        yield
    finally:
        del os.environ[CONNECTION_STRING]


def parts_of(reference: str) -> tuple[Any, ...]:
    """What `module:name` names, as a flat tuple: one thing, a list of them, or a function that makes either.

    A module alone stands for its `app`. A function may take one argument, a connection, which leads nowhere,
    and may be async or an async context manager; what it opens is closed again.
    """
    from sbrpc._apps import flat

    with nowhere():
        found = load(reference)
        if isinstance(found, ModuleType):
            if not hasattr(found, "app"):
                raise typer.BadParameter(f"{reference!r} has no `app`; say which object: module:name")
            found = found.app
        if inspect.isfunction(found):
            found = anyio.run(_made_by, found)
    return tuple(flat(found))


async def _made_by(factory: Callable[..., Any]) -> Any:
    from sbrpc._apps import needed_by

    made = factory(*[NOWHERE for _ in needed_by(factory)[:1]])
    if isinstance(made, AbstractAsyncContextManager) and inspect.isasyncgenfunction(inspect.unwrap(factory)):
        async with made as things:
            return things
    return await made if inspect.isawaitable(made) else made
