"""The messages that can be delivered, in order of their sequence numbers.

Owns the row from which deliveries are taken: new messages join at the end in constant time, and those that
come back after a lock find their old place. A message that leaves otherwise (expired, purged) is told by
its state and skipped; when such holes are the majority, the row is rebuilt.
"""

from __future__ import annotations

import heapq
from collections import deque

from sbrpc.emulator.broker.messages import Message, MessageState

__all__ = ["Ready"]

_ACTIVE = MessageState.ACTIVE
_WORTH_IT = 64


class Ready:
    """A row of active messages."""

    __slots__ = ("_fresh", "_holes", "_returned")

    def __init__(self) -> None:
        self._fresh: deque[Message] = deque()
        self._returned: list[tuple[int, Message]] = []
        self._holes = 0

    def __len__(self) -> int:
        return len(self._fresh) + len(self._returned) - self._holes

    def push(self, message: Message) -> None:
        """Let a message take its place."""
        fresh = self._fresh
        if fresh and fresh[-1].sequence_number > message.sequence_number:
            heapq.heappush(self._returned, (message.sequence_number, message))
        else:
            fresh.append(message)

    def head(self) -> Message | None:
        """The message whose turn it is."""
        fresh, returned = self._fresh, self._returned
        while fresh and fresh[0].state is not _ACTIVE:
            fresh.popleft()
            self._holes -= 1
        while returned and returned[0][1].state is not _ACTIVE:
            heapq.heappop(returned)
            self._holes -= 1
        if returned and (not fresh or returned[0][0] < fresh[0].sequence_number):
            return returned[0][1]
        return fresh[0] if fresh else None

    def pop(self) -> Message | None:
        """Take the message whose turn it is."""
        message = self.head()
        if message is None:
            return None
        if self._returned and self._returned[0][1] is message:
            heapq.heappop(self._returned)
        else:
            self._fresh.popleft()
        return message

    def left(self) -> None:
        """Note that one message in the row is no longer active."""
        self._holes = holes = self._holes + 1
        if holes > _WORTH_IT and holes > len(self):
            self._fresh = deque(message for message in self._fresh if message.state is _ACTIVE)
            self._returned = [entry for entry in self._returned if entry[1].state is _ACTIVE]
            heapq.heapify(self._returned)
            self._holes = 0
