"""Dead letters: look at them, replay them to where they failed, or purge them.

    letters = DeadLetters(connection, topic="movie-events", subscription="movie-event-handler")
    for letter in await letters.list(Match(reason="ValueError")):
        print(letter.sequence_number, letter.type, letter.description)
    await letters.replay(Match(reason="ValueError"), rate=10, dry_run=True)

A dead letter of a subscription is replayed to that subscription and to no other: the copy on the topic says
whom it is for, the rules that sbrpc makes let it through nowhere else, and a bus that gets it all the same
leaves it alone. Needs the Listen right on the entity, and Send on the queue or topic to replay.
"""

from __future__ import annotations

import builtins
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any

import anyio
from azure.servicebus import ServiceBusMessage, ServiceBusReceivedMessage, ServiceBusSubQueue
from azure.servicebus.aio import ServiceBusClient, ServiceBusReceiver, ServiceBusSender

from ._cloudevents import body_of, type_in
from ._link import PROMPT
from ._sdk import client_for, opening, translated
from ._subscriptions import REPLAY_TO
from ._wire import properties_of
from .errors import DecodeError, NotFound

__all__ = ["DeadLetter", "DeadLetters", "Match", "Outcome"]

_log = logging.getLogger("sbrpc.deadletters")

_REPLAYS = "sbrpc-replays"
_SUBJECT = "sbrpc-subject"
_MARKS = frozenset({"DeadLetterReason", "DeadLetterErrorDescription"})

# A subject that is no event type: the copy must not match the rules by which others get the event.
_REPLAY_SUBJECT = "sbrpc-replay"

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_PAGE = 100
_QUIET = 2.0


@dataclass(frozen=True)
class DeadLetter:
    """A message that nobody could handle, and why."""

    sequence_number: int
    message_id: str | None
    type: str | None
    """The event type, or the method of a call."""
    reason: str | None
    description: str | None
    enqueued_at: datetime | None
    session_id: str | None
    replays: int
    """How often it was replayed already."""
    properties: Mapping[str, object] = field(repr=False)
    body: bytes = field(repr=False)


@dataclass(frozen=True)
class Match:
    """Which dead letters; what is not given matches all."""

    reason: str | None = None
    type: str | None = None
    older_than: float | None = None
    """Seconds since it was enqueued."""
    sequence_numbers: Collection[int] | None = None

    def __call__(self, letter: DeadLetter, now: datetime | None = None) -> bool:
        """Whether a dead letter is one of them."""
        if self.reason is not None and letter.reason != self.reason:
            return False
        if self.type is not None and letter.type != self.type:
            return False
        if self.sequence_numbers is not None and letter.sequence_number not in self.sequence_numbers:
            return False
        if self.older_than is not None:
            if letter.enqueued_at is None:
                return False
            age = (now or datetime.now(timezone.utc)) - letter.enqueued_at
            return age >= timedelta(seconds=self.older_than)
        return True


@dataclass
class Outcome:
    """What was done, or with `dry_run` would have been."""

    done: list[DeadLetter] = field(default_factory=list)
    skipped: list[tuple[DeadLetter, str]] = field(default_factory=list)
    """What matched and was left alone, and why."""


class DeadLetters:
    """The dead letters of a queue, or of one subscription of a topic.

    Each call opens links of its own and closes them, so calls may run at the same time. All raise
    `EntityNotFound`, `AccessDenied` or another `BusError` where Service Bus does not let them.
    """

    def __init__(
        self,
        connection: str | ServiceBusClient,
        *,
        queue: str | None = None,
        topic: str | None = None,
        subscription: str | None = None,
    ) -> None:
        if (queue is None) == (topic is None) or (topic is None) != (subscription is None):
            raise ValueError("name a queue, or a topic and one of its subscriptions")
        self._connection = connection
        self._queue = queue
        self._topic = topic
        self._subscription = subscription
        entity = f"queue {queue!r}" if queue else f"subscription {subscription!r} of topic {topic!r}"
        self._what = f"dead letters of {entity}"

    async def list(self, match: Match | None = None, *, limit: int = 100) -> builtins.list[DeadLetter]:
        """The oldest dead letters that match. They stay as they are, and nobody is kept from them."""
        match = match or Match()
        found: builtins.list[DeadLetter] = []
        async with self._receiving() as (_, receiver):
            async for letter in self._peek(receiver):
                if match(letter):
                    found.append(letter)
                if len(found) >= limit:
                    break
        return found

    async def show(self, sequence_number: int) -> DeadLetter:
        """One dead letter, with its body.

        Raises:
            NotFound: there is none of that number.
        """
        async with self._receiving() as (_, receiver):
            async for letter in self._peek(receiver, sequence_number):
                if letter.sequence_number == sequence_number:
                    return letter
                break
        raise NotFound(f"{self._what}: there is no {sequence_number}")

    async def replay(
        self,
        match: Match | None = None,
        *,
        limit: int | None = None,
        rate: float | None = None,
        max_replays: int = 3,
        dry_run: bool = False,
    ) -> Outcome:
        """Send matching dead letters to where they failed again, oldest first, and remove them here.

        `rate` is the most per second. One that was replayed `max_replays` times is skipped: what made it fail
        is still there. Cancelled in the middle, a message may have been sent and not removed.

        Raises:
            ValueError: the rate is not positive.
        """
        if rate is not None and not rate > 0:
            raise ValueError(f"rate must be a positive number per second, not {rate!r}")

        def worth_it(letter: DeadLetter) -> str | None:
            if letter.replays >= max_replays:
                return f"it was replayed {letter.replays} times already"
            return None

        async with self._receiving() as (client, receiver):
            outcome = await self._choose(receiver, match or Match(), limit, worth_it)
            if dry_run or not outcome.done:
                return outcome
            sender = self._sender(client)
            async with opening(sender, self._what):

                async def send(message: ServiceBusReceivedMessage) -> None:
                    with translated(self._what):
                        await sender.send_messages(self._copy(message))
                    if rate is not None:
                        await anyio.sleep(1 / rate)

                return await self._take(receiver, outcome, send)

    async def purge(self, match: Match, *, limit: int | None = None, dry_run: bool = False) -> Outcome:
        """Delete matching dead letters for good; `Match()` are all of them.

        Cancelled in the middle, those that were deleted are gone and the others stay.
        """
        async with self._receiving() as (_, receiver):
            outcome = await self._choose(receiver, match, limit, lambda letter: None)
            if dry_run:
                return outcome

            async def nothing(message: ServiceBusReceivedMessage) -> None: ...

            return await self._take(receiver, outcome, nothing)

    @asynccontextmanager
    async def _receiving(self) -> AsyncIterator[tuple[ServiceBusClient, ServiceBusReceiver]]:
        dead = ServiceBusSubQueue.DEAD_LETTER
        async with client_for(self._connection) as client:
            if self._queue:
                receiver = client.get_queue_receiver(self._queue, sub_queue=dead)
            else:
                receiver = client.get_subscription_receiver(
                    str(self._topic), str(self._subscription), sub_queue=dead
                )
            async with opening(receiver, self._what):
                yield client, receiver

    def _sender(self, client: ServiceBusClient) -> ServiceBusSender:
        if self._queue:
            return client.get_queue_sender(self._queue, **PROMPT)
        return client.get_topic_sender(str(self._topic), **PROMPT)

    async def _peek(self, receiver: ServiceBusReceiver, first: int = 1) -> AsyncIterator[DeadLetter]:
        while True:
            with translated(self._what):
                messages = await receiver.peek_messages(_PAGE, sequence_number=first)
            if not messages:
                return
            for message in messages:
                yield _letter(message)
            first = (messages[-1].sequence_number or 0) + 1

    async def _choose(
        self,
        receiver: ServiceBusReceiver,
        match: Match,
        limit: int | None,
        worth_it: Callable[[DeadLetter], str | None],
    ) -> Outcome:
        outcome = Outcome()
        async for letter in self._peek(receiver):
            if limit is not None and len(outcome.done) >= limit:
                break
            if match(letter):
                reason = worth_it(letter)
                if reason is None:
                    outcome.done.append(letter)
                else:
                    outcome.skipped.append((letter, reason))
        return outcome

    async def _take(
        self,
        receiver: ServiceBusReceiver,
        chosen: Outcome,
        act: Callable[[ServiceBusReceivedMessage], Awaitable[None]],
    ) -> Outcome:
        """Receive until all chosen ones came by, act on them and complete them. The others go back."""
        wanted = {letter.sequence_number: letter for letter in chosen.done}
        outcome = Outcome(skipped=chosen.skipped)
        others: builtins.list[ServiceBusReceivedMessage] = []
        try:
            while wanted:
                with translated(self._what):
                    messages = await receiver.receive_messages(_PAGE, max_wait_time=_QUIET)
                if not messages:
                    break
                for message in messages:
                    letter = wanted.pop(message.sequence_number or 0, None)
                    if letter is None:
                        others.append(message)
                        continue
                    try:
                        await act(message)
                    except DecodeError as error:
                        outcome.skipped.append((letter, str(error)))
                        others.append(message)
                        continue
                    with translated(self._what):
                        await receiver.complete_message(message)
                    outcome.done.append(letter)
        finally:
            with anyio.CancelScope(shield=True), anyio.move_on_after(30):
                for message in others:
                    with translated(self._what):
                        await receiver.abandon_message(message)
        outcome.skipped += [(letter, "somebody else has it") for letter in wanted.values()]
        return outcome

    def _copy(self, message: ServiceBusReceivedMessage) -> ServiceBusMessage:
        properties: dict[Any, Any] = {
            key: _sendable(key, value)
            for key, value in properties_of(message.application_properties).items()
            if key not in _MARKS
        }
        replays = _count(properties.get(_REPLAYS)) + 1
        properties[_REPLAYS] = replays
        subject = message.subject
        if self._subscription is not None:
            properties[REPLAY_TO] = self._subscription
            if subject is not None and subject != _REPLAY_SUBJECT:
                properties[_SUBJECT] = subject
            subject = _REPLAY_SUBJECT
        return ServiceBusMessage(
            body_of(message),
            application_properties=properties,
            # Another id: duplicate detection would take the same one for a message it has seen.
            message_id=f"{(message.message_id or '').partition('~')[0][:120]}~{replays}",
            subject=subject,
            content_type=message.content_type,
            correlation_id=message.correlation_id,
            session_id=message.session_id,
            reply_to=message.reply_to,
            reply_to_session_id=message.reply_to_session_id,
            to=message.to,
        )


def _letter(message: ServiceBusReceivedMessage) -> DeadLetter:
    properties = properties_of(message.application_properties)
    try:
        body = body_of(message)
    except DecodeError:
        body = repr(message.body).encode()
    kind = type_in(properties) or message.subject
    return DeadLetter(
        sequence_number=message.sequence_number or 0,
        message_id=message.message_id,
        type=str(kind) if kind is not None else None,
        reason=message.dead_letter_reason,
        description=message.dead_letter_error_description,
        enqueued_at=message.enqueued_time_utc,
        session_id=message.session_id,
        replays=_count(properties.get(_REPLAYS)),
        properties=properties,
        body=body,
    )


def _sendable(key: str, value: Any) -> Any:
    """A received property as the SDK can send it again: it sends integers of 32 bits only."""
    if isinstance(value, int) and not -(2**31) <= value < 2**31:
        if key in ("cloudEvents_time", "cloudEvents:time"):
            return _EPOCH + timedelta(milliseconds=value)
        return str(value)
    return value


def _count(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0
