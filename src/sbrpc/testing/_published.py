"""What was published: the events that topics took, as a test looks at them.

Every topic of a bench has one subscription more than the application knows of, which gets everything and
which nobody receives from. So what a test sees is what Service Bus took, from whatever process it came, and
it is there as soon as publishing has returned. Knows the emulator's messages and CloudEvents.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import anyio
from azure.servicebus import ServiceBusMessage

from sbrpc._cloudevents import from_message
from sbrpc.emulator import Emulator
from sbrpc.emulator.amqp import sections
from sbrpc.emulator.amqp.types import DecodeError
from sbrpc.emulator.broker import Message
from sbrpc.emulator.content import AmqpContent
from sbrpc.event import CloudEvent, Event
from sbrpc.topology import Subscription

__all__ = ["TAP", "Published", "messages_at"]

TAP = Subscription("sbrpc-testing")
"""The subscription that gets everything."""

_PAGE = 100
_LOOK = 0.002

E = TypeVar("E", bound=Event)


class Published:
    """The events that were published since this was made, the oldest first; iterating gives `CloudEvent`s.

    It only grows, so what a test has seen stays where it was.
    """

    def __init__(self, emulator: Emulator, topics: Sequence[str]) -> None:
        self._emulator = emulator
        self._seen: dict[str, int] = {}
        self._events: list[CloudEvent] = []
        for topic in topics:
            letters = messages_at(emulator, f"{topic}/Subscriptions/{TAP.name}")
            self._seen[topic] = max((letter.sequence_number for letter in letters), default=0)

    def __repr__(self) -> str:
        return f"<Published {self.types}>"

    def __iter__(self) -> Iterator[CloudEvent]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())

    @property
    def types(self) -> list[str]:
        """The type of each event, in order."""
        return [event.type for event in self._all()]

    def of(self, kind: type[E]) -> list[E]:
        """The events of this class, decoded; older versions that it is made from are among them."""
        accepted = kind.accepted_types()
        return [kind.decode(event.type, event.data) for event in self._all() if event.type in accepted]

    async def until(self, count: int, timeout: float = 5.0) -> None:
        """Wait until so many events were published, for publishers that nobody waits for.

        Raises:
            TimeoutError: there were fewer after `timeout` seconds.
        """
        with anyio.move_on_after(timeout):
            while len(self) < count:  # noqa: ASYNC110 - the broker tells nobody what it has taken
                await anyio.sleep(_LOOK)
            return
        raise TimeoutError(f"{len(self)} instead of {count} events after {timeout:g} s: {self.types}")

    def _all(self) -> list[CloudEvent]:
        fresh: list[Message] = []
        for topic, last in self._seen.items():
            letters = list(messages_at(self._emulator, f"{topic}/Subscriptions/{TAP.name}", last + 1))
            if letters:
                self._seen[topic] = letters[-1].sequence_number
                fresh += letters
        fresh.sort(key=lambda letter: letter.enqueued_at)
        self._events += [from_message(sdk_message(letter)) for letter in fresh]
        return self._events


def messages_at(emulator: Emulator, address: str, first: int = 1) -> Iterator[Message]:
    """The messages in an entity by sequence number, without taking any."""
    while True:
        page = emulator.broker.look(address, first, _PAGE, None, emulator.clock.now())
        yield from page
        if not page:
            return
        first = page[-1].sequence_number + 1


def sdk_message(letter: Message) -> ServiceBusMessage:
    """A message in the emulator as the SDK would show it, as far as events need."""
    content = letter.content
    assert isinstance(content, AmqpContent)
    parts = sections.split(content.bare)
    content_type = content.system("content_type")
    try:
        body: str | bytes = parts.data()
    except DecodeError:  # another SDK may have sent it as an AMQP string
        body = str(parts.value())
    properties: dict[Any, Any] = dict(content.user())  # the SDK lists the types that AMQP has
    return ServiceBusMessage(
        body,
        application_properties=properties,
        content_type=None if content_type is None else str(content_type),
    )
