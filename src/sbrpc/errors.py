"""Every error sbrpc raises, and the codes they have on the wire.

    SbrpcError
    ├── RpcError(code, message, details)     a call's outcome: handlers raise it, callers catch it
    │   ├── Cancelled                        CANCELLED
    │   ├── Unknown                          UNKNOWN
    │   ├── InvalidArgument  (ValueError)    INVALID_ARGUMENT
    │   ├── DeadlineExceeded (TimeoutError)  DEADLINE_EXCEEDED
    │   ├── NotFound         (LookupError)   NOT_FOUND
    │   ├── AlreadyExists                    ALREADY_EXISTS
    │   ├── PermissionDenied                 PERMISSION_DENIED
    │   ├── ResourceExhausted                RESOURCE_EXHAUSTED
    │   ├── FailedPrecondition               FAILED_PRECONDITION
    │   ├── Aborted                          ABORTED
    │   ├── OutOfRange                       OUT_OF_RANGE
    │   ├── Unimplemented                    UNIMPLEMENTED
    │   ├── Internal                         INTERNAL
    │   ├── Unavailable      (ConnectionError) UNAVAILABLE
    │   ├── DataLoss                         DATA_LOSS
    │   └── Unauthenticated                  UNAUTHENTICATED
    ├── BusError             (ConnectionError) Service Bus refused or is out of reach; reason in __cause__
    │   ├── EntityNotFound                   the queue, topic or subscription does not exist
    │   └── AccessDenied                     the credentials lack the right
    ├── DecodeError          (ValueError)    a message does not fit its model
    ├── MessageTooLarge      (ValueError)    size and limit, in bytes; raised before sending
    ├── CannotListen                         the port of a web application is taken, or not allowed
    ├── ContractError        (TypeError)     fix your code: raised at definition time
    └── NotRunning           (RuntimeError)  fix your code: used outside `async with`

This module owns the classes and the code table. It knows no Service Bus, no wire format and no loop.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any, ClassVar

__all__ = [
    "Aborted",
    "AccessDenied",
    "AlreadyExists",
    "BusError",
    "Cancelled",
    "CannotListen",
    "ContractError",
    "DataLoss",
    "DeadlineExceeded",
    "DecodeError",
    "EntityNotFound",
    "ErrorCode",
    "FailedPrecondition",
    "Internal",
    "InvalidArgument",
    "MessageTooLarge",
    "NotFound",
    "NotRunning",
    "OutOfRange",
    "PermissionDenied",
    "ResourceExhausted",
    "RpcError",
    "SbrpcError",
    "Unauthenticated",
    "Unavailable",
    "Unimplemented",
    "Unknown",
    "error_for",
]


class ErrorCode(str, Enum):
    """The sixteen error names of gRPC, as they stand in `sbrpc-status`."""

    CANCELLED = "CANCELLED"
    """The caller gave up, or the server cancelled the work on its behalf."""
    UNKNOWN = "UNKNOWN"
    """An error without a code, for instance from a peer that is not sbrpc."""
    INVALID_ARGUMENT = "INVALID_ARGUMENT"
    """The request is malformed whatever the state of the system; details name each field."""
    DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
    """The deadline passed before the work was done; it may or may not have had an effect."""
    NOT_FOUND = "NOT_FOUND"
    """What was asked for does not exist."""
    ALREADY_EXISTS = "ALREADY_EXISTS"
    """What was to be created exists."""
    PERMISSION_DENIED = "PERMISSION_DENIED"
    """The caller is known and may not do this."""
    RESOURCE_EXHAUSTED = "RESOURCE_EXHAUSTED"
    """A quota or a size limit is reached, or Service Bus throttles."""
    FAILED_PRECONDITION = "FAILED_PRECONDITION"
    """The system is not in the state the call needs; retrying alone does not help."""
    ABORTED = "ABORTED"
    """A conflict, such as a stale version; retry from the read."""
    OUT_OF_RANGE = "OUT_OF_RANGE"
    """Past the end of a valid range."""
    UNIMPLEMENTED = "UNIMPLEMENTED"
    """The service has no such method."""
    INTERNAL = "INTERNAL"
    """The handler failed unexpectedly; the server's log has the reason under the call id."""
    UNAVAILABLE = "UNAVAILABLE"
    """The service or Service Bus cannot be reached now; retry with backoff."""
    DATA_LOSS = "DATA_LOSS"
    """Data is lost or corrupted for good."""
    UNAUTHENTICATED = "UNAUTHENTICATED"
    """The caller did not say who it is, or not credibly."""


class SbrpcError(Exception):
    """The root of all errors that sbrpc raises."""


class RpcError(SbrpcError):
    """The outcome of a call that did not succeed, the same object on both ends.

    A handler raises it (or a subclass) to answer with that code; the caller gets the subclass that
    belongs to the code. `details` are JSON values: for `INVALID_ARGUMENT` one entry per wrong field.

    A contract may declare errors of its own: a subclass with an annotation `data: SomeModel`, named in
    `@method(errors=[...])`, arrives at the caller as that class with its `data` intact.
    """

    code: ErrorCode = ErrorCode.UNKNOWN
    default_code: ClassVar[ErrorCode | None] = None
    data: Any = None
    call_id: str | None = None
    """Of an error that came in a reply: the call's id, by which the server's log tells the rest."""

    def __init__(
        self,
        message: str = "",
        *,
        code: ErrorCode | str | None = None,
        details: Sequence[Mapping[str, Any]] = (),
        data: Any = None,
    ) -> None:
        super().__init__(message)
        self.data = data
        self.code = ErrorCode(code) if code is not None else self.default_code or ErrorCode.UNKNOWN
        self.message = message
        self.details: list[dict[str, Any]] = [dict(detail) for detail in details]

    def __str__(self) -> str:
        return f"{self.code.value}: {self.message}" if self.message else self.code.value

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (type(self), self.message, self.code.value, self.details, self.data)


def _restore(
    kind: type[RpcError], message: str, code: str, details: Sequence[Mapping[str, Any]], data: Any
) -> RpcError:
    return kind(message, code=code, details=details, data=data)


class Cancelled(RpcError):
    """The call was cancelled."""

    default_code: ClassVar[ErrorCode | None] = ErrorCode.CANCELLED


class Unknown(RpcError):
    """The peer failed without saying how."""

    default_code: ClassVar[ErrorCode | None] = ErrorCode.UNKNOWN


class InvalidArgument(RpcError, ValueError):
    """The request does not fit; `details` names each field."""

    default_code: ClassVar[ErrorCode | None] = ErrorCode.INVALID_ARGUMENT


class DeadlineExceeded(RpcError, TimeoutError):
    """The deadline passed before the reply came."""

    default_code: ClassVar[ErrorCode | None] = ErrorCode.DEADLINE_EXCEEDED


class NotFound(RpcError, LookupError):
    """What was asked for does not exist."""

    default_code: ClassVar[ErrorCode | None] = ErrorCode.NOT_FOUND


class AlreadyExists(RpcError):
    """What was to be created exists."""

    default_code: ClassVar[ErrorCode | None] = ErrorCode.ALREADY_EXISTS


class PermissionDenied(RpcError):
    """The caller may not do this."""

    default_code: ClassVar[ErrorCode | None] = ErrorCode.PERMISSION_DENIED


class ResourceExhausted(RpcError):
    """A quota or a size limit is reached, or Service Bus throttles."""

    default_code: ClassVar[ErrorCode | None] = ErrorCode.RESOURCE_EXHAUSTED


class FailedPrecondition(RpcError):
    """The system is not in the state the call needs."""

    default_code: ClassVar[ErrorCode | None] = ErrorCode.FAILED_PRECONDITION


class Aborted(RpcError):
    """A conflict, such as a stale version."""

    default_code: ClassVar[ErrorCode | None] = ErrorCode.ABORTED


class OutOfRange(RpcError):
    """Past the end of a valid range."""

    default_code: ClassVar[ErrorCode | None] = ErrorCode.OUT_OF_RANGE


class Unimplemented(RpcError):
    """The service has no such method."""

    default_code: ClassVar[ErrorCode | None] = ErrorCode.UNIMPLEMENTED


class Internal(RpcError):
    """The handler failed unexpectedly; what went wrong stays in the server's log."""

    default_code: ClassVar[ErrorCode | None] = ErrorCode.INTERNAL


class Unavailable(RpcError, ConnectionError):
    """The service or Service Bus cannot be reached now."""

    default_code: ClassVar[ErrorCode | None] = ErrorCode.UNAVAILABLE


class DataLoss(RpcError):
    """Data is lost or corrupted for good."""

    default_code: ClassVar[ErrorCode | None] = ErrorCode.DATA_LOSS


class Unauthenticated(RpcError):
    """The caller did not say who it is, or not credibly."""

    default_code: ClassVar[ErrorCode | None] = ErrorCode.UNAUTHENTICATED


class BusError(SbrpcError, ConnectionError):
    """Service Bus refused an operation or cannot be reached; the SDK's exception is `__cause__`."""


class EntityNotFound(BusError):
    """The queue, topic or subscription does not exist; provision it, names are in the message."""


class AccessDenied(BusError):
    """The credentials are wrong, or lack the Send or Listen right on the entity."""


class DecodeError(SbrpcError, ValueError):
    """A message does not fit its model; `details` names each field."""

    def __init__(self, message: str, *, details: Sequence[Mapping[str, Any]] = ()) -> None:
        super().__init__(message)
        self.details: list[dict[str, Any]] = [dict(detail) for detail in details]


class MessageTooLarge(SbrpcError, ValueError):
    """A message is larger than Service Bus takes; nothing was sent. Sizes in bytes."""

    def __init__(self, size: int, limit: int, what: str = "message") -> None:
        super().__init__(size, limit, what)
        self.size = size
        self.limit = limit
        self.what = what

    def __str__(self) -> str:
        return f"the {self.what} has {self.size} bytes, the limit is {self.limit}"


class CannotListen(SbrpcError):
    """Nobody can listen at an address: the port is taken, or not allowed, or the host is none of this one."""


class ContractError(SbrpcError, TypeError):
    """A contract, event or handler is declared wrongly; raised where it is declared."""


class NotRunning(SbrpcError, RuntimeError):
    """Something was used before `async with` entered it or after it left."""


_BY_CODE: dict[ErrorCode, type[RpcError]] = {
    kind.default_code: kind for kind in RpcError.__subclasses__() if kind.default_code is not None
}


def error_for(
    code: ErrorCode | str, message: str = "", details: Sequence[Mapping[str, Any]] = ()
) -> RpcError:
    """The exception that belongs to a code; a code nobody knows becomes `Unknown` with the name in front."""
    try:
        kind = _BY_CODE[ErrorCode(code)]
    except ValueError:
        return Unknown(f"{code}: {message}" if message else str(code), details=details)
    return kind(message, details=details)
