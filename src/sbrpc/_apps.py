"""What an app is, for `sbrpc run` and for tests: things, lists of them, or a function that makes these.

Owns how its parts are found, and which of them only say what is needed. What runs them is up to `running`;
nothing is imported, opened or entered here.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

from .contract import Contract
from .event import Event
from .topology import Queue, Topic

__all__ = ["flat", "is_declaration", "needed_by"]


def flat(found: Any) -> Iterator[Any]:
    """One thing, or all that collections hold, however deep; None is nothing."""
    if isinstance(found, list | tuple | set | frozenset):
        for each in found:
            yield from flat(each)
    elif found is not None:
        yield found


def is_declaration(part: object) -> bool:
    """Whether it stands beside what runs to say what is needed: an entity, a contract, an event."""
    return isinstance(part, Queue | Topic) or (isinstance(part, type) and issubclass(part, Contract | Event))


def needed_by(factory: Callable[..., Any]) -> list[inspect.Parameter]:
    """What has to be passed to a function that makes an app: nothing, or a connection."""
    parameters = inspect.signature(factory).parameters.values()
    return [each for each in parameters if each.default is each.empty]
