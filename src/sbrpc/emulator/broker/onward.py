"""Where a message goes that leaves its store for another one: dead letters, and forwarding.

Owns reasons, the hop limit, and what happens when the way on is closed. It is given messages that have left
their store already.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from sbrpc.emulator.broker.errors import BrokerError
from sbrpc.emulator.broker.exchange import Exchange, Origin
from sbrpc.emulator.broker.messages import Message

__all__ = ["REASONS", "Keeper", "Onward"]

REASONS = ("DeadLetterReason", "DeadLetterErrorDescription")
"""The application properties that say why a message is a dead letter."""


class Keeper(Protocol):
    """A store that takes in what has left another one."""

    def adopt(self, message: Message, now: float, source: str) -> None:
        """Keep a message that came from the entity `source`."""


class Onward:
    """The ways out of one store into others."""

    __slots__ = ("_exchange", "_source", "dead_letters", "dead_letters_to", "transfers")

    def __init__(self, exchange: Exchange, source: str, dead_letters: Keeper, transfers: Keeper) -> None:
        self._exchange = exchange
        self._source = source
        self.dead_letters = dead_letters
        self.transfers = transfers
        self.dead_letters_to: str | None = None
        """The entity that dead letters are forwarded to, if any."""

    def dead_letter(
        self,
        message: Message,
        now: float,
        reason: str | None,
        description: str | None,
        properties: Mapping[str, object] | None = None,
    ) -> None:
        """Keep a message as a dead letter, or send it to where dead letters are to go."""
        self._explain(message, reason, description, properties)
        if self.dead_letters_to is None:
            self.dead_letters.adopt(message, now, self._source)
        else:
            self._send(message, self.dead_letters_to, now, self._source)

    def forward(self, message: Message, to: str, now: float) -> None:
        """Send a message to another entity."""
        self._send(message, to, now, message.dead_letter_source)

    def _send(self, message: Message, to: str, now: float, source: str | None) -> None:
        hops = message.hops + 1
        if hops > self._exchange.limits.hops:
            text = f"The message was forwarded {message.hops} times already."
            self._explain(message, "MaxTransferHopCountExceeded", text)
            self.dead_letters.adopt(message, now, self._source)
            return
        number = message.enqueued_sequence_number or message.sequence_number
        try:
            self._exchange.forward(message.as_incoming(), to, now, Origin(hops, number, source))
        except BrokerError as error:
            self._explain(message, error.condition, error.description)
            self.transfers.adopt(message, now, self._source)

    def _explain(
        self,
        message: Message,
        reason: str | None,
        description: str | None,
        properties: Mapping[str, object] | None = None,
    ) -> None:
        changes = dict(properties or {})
        if reason is not None:
            changes[REASONS[0]] = reason
        if description is not None:
            changes[REASONS[1]] = description
        if changes:
            content = message.content.revised(user=changes)
            message.header_size += content.size - message.content.size
            message.content = content
