"""One call on the caller's side: waiting for its reply, sending it once more, and what its reply means.

Knows one call and the sender it goes to, not where replies come from and how many calls there are.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from tenacity import (
    AsyncRetrying,
    retry_if_exception_type,
    stop_after_attempt,
    wait_exponential,
    wait_random,
)
from tenacity.stop import stop_base

from ._bundles import MOST_IN_A_BUNDLE, CallPart
from ._codec import difference
from ._replies import Epoch
from ._sender import Sender
from ._wire import OK, REPLY_QUEUES, Address, Reply, Request, error_of
from .context import CallInfo, Deadline
from .contract import MethodSpec
from .errors import (
    DeadlineExceeded,
    DecodeError,
    FailedPrecondition,
    InvalidArgument,
    RpcError,
    SbrpcError,
    Unavailable,
)

__all__ = ["RETRY", "Call", "Known", "Sent", "StopAt", "Terms", "encode", "result", "too_late"]

# How calls that may be repeated are, unless the client says otherwise.
RETRY = AsyncRetrying(
    retry=retry_if_exception_type(Unavailable),
    stop=stop_after_attempt(4),
    wait=wait_exponential(multiplier=0.1, max=2) + wait_random(0, 0.1),
    reraise=True,
)


class Terms(NamedTuple):
    """What is particular to one call. A `CallInfo` says the same and more, and takes three times as long."""

    call_id: str
    deadline: Deadline
    metadata: Mapping[str, str]
    session_id: str | None


Known = CallInfo | Terms
"""What is known about a call: by middleware, or without any."""


class Call(CallPart):
    """A call that waits for its one reply: what is sent, and what the reply channel expects."""

    __slots__ = ("_again", "_sender", "_spec", "control", "epoch", "future", "timer")

    def __init__(
        self,
        sender: Sender,
        spec: MethodSpec,
        request: Request,
        deadline: Deadline,
        epoch: Epoch,
        future: asyncio.Future[Reply],
    ) -> None:
        super().__init__(request, deadline, alone=not shares(spec, request))
        self._sender = sender
        self._spec = spec
        self._again: Sent | None = None
        self.epoch = epoch
        self.timer: asyncio.TimerHandle | None = None
        self.future: asyncio.Future[Reply] = future
        self.control: Address | None = None
        """Where a cancel goes to."""

    @property
    def call_id(self) -> str:
        """What the reply refers to."""
        return self.request.call_id

    def on_reply(self, reply: Reply) -> bool:
        """Take what has arrived; says whether that was all of it."""
        if reply.bundle is not None:
            self._sender.bundle = max(1, min(reply.bundle, MOST_IN_A_BUNDLE))
        if reply.status is None:
            if reply.alone:
                self._send_again()
            else:
                self.control = reply.control
            return False
        if not self.future.done():
            self.future.set_result(reply)
        return True

    def _send_again(self) -> None:
        """The server that had the bundle is gone. Once, or what doubles the notice would double the call."""
        if self._again is not None or self.key is None:
            return
        self._again = Sent(self.request, self.deadline, self.fail, alone=True)
        try:
            self._sender.post(self._again)
        except SbrpcError as error:
            self.fail(error)

    def fail(self, error: SbrpcError | None) -> None:
        """There will be no reply."""
        if error is not None and not self.future.done():
            self.future.set_exception(error)

    def done(self, error: SbrpcError | None) -> None:
        self.fail(error)

    def late(self) -> None:
        """The deadline has passed."""
        self.fail(too_late(self._sender, self._spec, self.epoch.queue))

    def over(self) -> None:
        """Nobody waits any more; what has not left need not leave."""
        self.abandoned = True
        if self._again is not None:
            self._again.abandoned = True


class Sent(CallPart):
    """A call that is only sent; how its reply is awaited is somebody else's business."""

    __slots__ = ("_done",)

    def __init__(
        self,
        request: Request,
        deadline: Deadline,
        done: Callable[[SbrpcError | None], None],
        *,
        alone: bool = False,
    ) -> None:
        super().__init__(request, deadline, alone=alone)
        self._done = done

    def done(self, error: SbrpcError | None) -> None:
        self._done(error)


def shares(spec: MethodSpec, request: Request) -> bool:
    """Whether the call may share a message. In order per key none does: the message would have one key."""
    return spec.bundle and request.bundles and request.session_id is None


class StopAt(stop_base):
    """Ends retrying when the next attempt would begin after the deadline."""

    def __init__(self, deadline: Deadline) -> None:
        self._deadline = deadline

    def __call__(self, retry_state: Any) -> bool:
        return self._deadline.remaining() <= float(retry_state.upcoming_sleep or 0)


def too_late(sender: Sender, spec: MethodSpec, reply_queue: str) -> RpcError:
    """The error of a call whose deadline has passed: whether it left at all, and where its reply may be."""
    if not sender.ready:
        why = f": {sender.failure}" if sender.failure else ""
        return Unavailable(f"{spec}: {sender.entity!r} could not be reached before the deadline{why}")
    hint = ""
    if not any(fnmatchcase(reply_queue.lower(), pattern) for pattern in REPLY_QUEUES):
        # The server refuses such a request where only its own log and the dead letters tell.
        hint = (
            f"; replies go to {reply_queue!r}, which a server refuses unless its `reply_queues` name it "
            f"(by default they are {', '.join(map(repr, REPLY_QUEUES))})"
        )
    return DeadlineExceeded(f"{spec} did not answer in time{hint}")


def encode(spec: MethodSpec, request: Any) -> bytes:
    """The request as JSON; raises `InvalidArgument` where it is not of the method's type."""
    try:
        return spec.request.encode(request)
    except DecodeError as error:
        raise InvalidArgument(f"{spec}: {error}", details=error.details) from error


def result(spec: MethodSpec, reply: Reply) -> Any:
    """The value in a reply; raises the error that it stands for, or `DecodeError` where it does not fit."""
    if reply.status != OK:
        raise _explained(spec, error_of(reply, spec.errors))
    try:
        return spec.response.decode(reply.body)
    except DecodeError as error:
        raise DecodeError(f"the reply of {spec} does not fit: {error}", details=error.details) from error


def _explained(spec: MethodSpec, error: RpcError) -> RpcError:
    """The error with the difference between both contracts in words, where the server sent its own."""
    if not isinstance(error, FailedPrecondition):
        return error
    theirs = next(
        (detail["schema"] for detail in error.details if isinstance(detail.get("schema"), dict)), None
    )
    lines = difference(spec.request.schema(), theirs)
    if not lines:
        return error
    details = [detail for detail in error.details if "schema" not in detail]
    return FailedPrecondition(
        f"{error.message} (here is this client, there the server): {'; '.join(lines)}", details=details
    )
