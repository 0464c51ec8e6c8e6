"""Typed request-reply and events over Azure Service Bus.

`RpcServer` and `RpcClient` are the two ends of a call, a `Contract` is what they share. `EventBus` publishes
and handles an `Event`. Everything else that is public is found by module: `sbrpc.errors` has one exception
per code, `sbrpc.topology` the words for queues and topics.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._sdk import connect
    from .client import RpcClient
    from .context import CallInfo, Deadline, deadline
    from .contract import Contract, method
    from .errors import (
        BusError,
        ContractError,
        DeadlineExceeded,
        ErrorCode,
        MessageTooLarge,
        RpcError,
        SbrpcError,
    )
    from .event import Event, EventInfo
    from .events import EventBus
    from .running import serve
    from .server import RpcServer
    from .topology import Queue, Rule, Subscription, Topic

__all__ = [
    "RpcClient",
    "RpcServer",
    "EventBus",
    "connect",
    "serve",
    "Contract",
    "method",
    "CallInfo",
    "Event",
    "EventInfo",
    "Deadline",
    "deadline",
    "Queue",
    "Topic",
    "Subscription",
    "Rule",
    "SbrpcError",
    "RpcError",
    "ErrorCode",
    "DeadlineExceeded",
    "BusError",
    "ContractError",
    "MessageTooLarge",
]

# Where the names live. A module is imported when the first of its names is asked for: the Azure SDK takes
# 0.4 seconds and 25 MB, which the emulator, a contract on its own, or `--help` have no use for.
_HOMES = {
    "_sdk": ("connect",),
    "client": ("RpcClient",),
    "context": ("CallInfo", "Deadline", "deadline"),
    "contract": ("Contract", "method"),
    "errors": (
        "BusError",
        "ContractError",
        "DeadlineExceeded",
        "ErrorCode",
        "MessageTooLarge",
        "RpcError",
        "SbrpcError",
    ),
    "event": ("Event", "EventInfo"),
    "events": ("EventBus",),
    "running": ("serve",),
    "server": ("RpcServer",),
    "topology": ("Queue", "Rule", "Subscription", "Topic"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{home}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
