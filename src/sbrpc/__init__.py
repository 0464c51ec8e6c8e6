"""Typed request-reply and events over Azure Service Bus.

`RpcServer` and `RpcClient` are the two ends of a call, a `Contract` is what they share. Everything else that
is public is found by module: `sbrpc.errors` has one exception per code, `sbrpc.topology` the words for queues
and topics.
"""

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
from .server import RpcServer
from .topology import Queue, Rule, Subscription, Topic

__all__ = [
    "RpcClient",
    "RpcServer",
    "connect",
    "Contract",
    "method",
    "CallInfo",
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
