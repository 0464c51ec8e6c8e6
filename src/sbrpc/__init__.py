"""Typed request-reply and events over Azure Service Bus."""

from .context import CallInfo, Deadline, deadline
from .contract import Contract, method
from .errors import RpcError, SbrpcError

__all__ = [
    "CallInfo",
    "Contract",
    "Deadline",
    "RpcError",
    "SbrpcError",
    "deadline",
    "method",
]
