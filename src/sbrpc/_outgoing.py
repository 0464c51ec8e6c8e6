"""What waits to be sent to one destination: which of it leaves together, and in how many messages.

Owns the kinds of things that a `Sender` takes, and the order in which they leave. Pure; what a call or a
reply looks like as a message stands in `_bundles`.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Sequence
from time import monotonic
from typing import Any

from azure.servicebus import ServiceBusMessage
from azure.servicebus.aio import ServiceBusSender
from azure.servicebus.amqp import AmqpAnnotatedMessage

from .context import Deadline
from .errors import SbrpcError

__all__ = ["Message", "Messages", "Operation", "Outgoing", "Waiting", "pack", "take_together"]

Message = ServiceBusMessage | AmqpAnnotatedMessage

# Standard namespaces take batches of 256 KB. Sizes are estimates from above, and the batch has an envelope.
BATCH_COUNT = 100
_BATCH_BYTES = 240_000


class Outgoing:
    """One thing to be sent, and who wants to know how it went.

    What is one object here could be four: the thing, its place in the queue, who waits, and how to tell. For
    each call there is one on either side, and the garbage collector looks at every one of them.
    """

    __slots__ = ("abandoned", "deadline", "group", "key", "size")

    alone: bool = False
    """Whether it must not share a batch."""

    def __init__(
        self, size: int, deadline: Deadline, *, group: str | None = None, key: str | None = None
    ) -> None:
        self.size: int = size
        """Bytes, estimated from above."""
        self.deadline: Deadline = deadline
        self.group: str | None = group
        """Only one group shares a batch; the session id, where order or addressing depends on it."""
        self.key: str | None = key
        """Neighbours of one key share a message; with None it is a message of its own."""
        self.abandoned: bool = False
        """Nobody wants to know any more, or everybody does."""

    def live(self, now: float | None = None) -> bool:
        """Whether anybody still wants it to be sent."""
        return not self.abandoned and self.deadline.at > (monotonic() if now is None else now)

    def messages(self) -> Sequence[Message]:
        """It by itself, built when it leaves."""
        raise NotImplementedError

    def together(self, items: Sequence[Any], /) -> Message:
        """One message of one or several of one key, this one first among them."""
        raise NotImplementedError

    def done(self, error: SbrpcError | None) -> None:
        """Service Bus has it, or will not get it. Called once, unless it is abandoned before."""
        raise NotImplementedError


class Messages(Outgoing):
    """Messages that are there already. `whole`: all of them in one batch of their own, or not at all."""

    __slots__ = ("_done", "_messages", "alone")

    def __init__(
        self,
        messages: Sequence[Message],
        size: int,
        deadline: Deadline,
        done: Callable[[SbrpcError | None], None],
        *,
        group: str | None = None,
        whole: bool = False,
    ) -> None:
        super().__init__(size, deadline, group=group)
        self._messages = messages
        self._done = done
        self.alone: bool = whole

    def messages(self) -> Sequence[Message]:
        return self._messages

    def done(self, error: SbrpcError | None) -> None:
        self._done(error)


class Operation(Outgoing):
    """Something else to do with the SDK sender, in line with what is sent."""

    __slots__ = ("_done", "act")

    alone: bool = True

    def __init__(
        self,
        act: Callable[[ServiceBusSender], Awaitable[None]],
        deadline: Deadline,
        done: Callable[[SbrpcError | None], None],
    ) -> None:
        super().__init__(0, deadline)
        self.act: Callable[[ServiceBusSender], Awaitable[None]] = act
        self._done = done

    def done(self, error: SbrpcError | None) -> None:
        self._done(error)


Waiting = OrderedDict["str | None", "deque[Outgoing]"]


def take_together(
    waiting: Waiting, *, most: int = BATCH_COUNT, most_bytes: int = _BATCH_BYTES
) -> list[Outgoing]:
    """Take what leaves next: the first group's first item and all that may share a batch with it.

    The group goes to the end of the line if something of it is left, so that no group starves another.
    """
    group, items = next(iter(waiting.items()))
    taken = [items.popleft()]
    size = taken[0].size
    while items and not taken[0].alone and not items[0].alone and len(taken) < most:
        if size + items[0].size > most_bytes:
            break
        size += items[0].size
        taken.append(items.popleft())
    if items:
        waiting.move_to_end(group)
    else:
        del waiting[group]
    return taken


def pack(items: Sequence[Outgoing], most: int) -> list[Message]:
    """The messages that carry these items, in order: neighbours of one key share one, up to `most`.

    Where they may, an item without neighbours is written the same way: that takes less than a message of its
    own does.
    """
    messages: list[Message] = []
    position = 0
    while position < len(items):
        first = items[position]
        end = position + 1
        if first.key is not None:
            last = min(position + most, len(items))
            while end < last and items[end].key == first.key:
                end += 1
        if first.key is None or most == 1:
            messages += first.messages()
        else:
            messages.append(first.together(items[position:end]))
        position = end
    return messages
