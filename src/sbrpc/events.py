"""The event bus: publish events to a topic, handle events of its subscriptions.

    bus = EventBus(connection, topic="movie-events", source="/movies")
    await bus.publish(MovieCreated(...), key="7")

    @bus.on(MovieCreated, MovieUpdated, subscription="movie-event-handler")
    async def project(event: MovieCreated | MovieUpdated, info: EventInfo) -> None: ...

    await bus.serve()

Owns the sender of the topic and the life of the consumers. Decides nothing about single events.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from functools import partial
from operator import itemgetter
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Any, Protocol, TypedDict, TypeVar, overload

import anyio
import anyio.abc
from azure.servicebus import ServiceBusMessage
from azure.servicebus.aio import ServiceBusClient, ServiceBusSender
from tenacity import AsyncRetrying

from ._cloudevents import in_batches, published
from ._consumer import Consumer
from ._link import PROMPT
from ._sdk import CLOSE_TIMEOUT, Refused, client_for
from ._sender import Sender
from ._signals import asked_to_stop
from ._subscriptions import Handler, Subscribed, UnknownPolicy, default_retry, rules_for
from ._wire import size_of
from .context import Deadline, current_deadline
from .errors import ContractError, NotRunning, SbrpcError, Unavailable
from .event import NO_EXTENSIONS, AttributeValue, CloudEvent, Event, EventInfo, current_event, envelope
from .middleware import Delivered, EventMiddleware, Publication, handling, publishing
from .topology import Rule, Subscription, Topic

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

__all__ = ["EventBus", "Scheduled"]

_log = logging.getLogger("sbrpc.events")

# AMQP has 32 bits for the milliseconds.
_LONGEST_LIFE = timedelta(days=49)

A = TypeVar("A", bound=Event)
B = TypeVar("B", bound=Event)
C = TypeVar("C", bound=Event)
E = TypeVar("E")
I = TypeVar("I")  # noqa: E741 - the info, or a list of them
R = TypeVar("R")


class Registration(Protocol[E, I]):
    """The decorator that `EventBus.on` returns: takes handlers with or without the info."""

    @overload
    def __call__(self, handler: Callable[[E], R], /) -> Callable[[E], R]: ...
    @overload
    def __call__(self, handler: Callable[[E, I], R], /) -> Callable[[E, I], R]: ...


class Options(TypedDict, total=False):
    """What `EventBus.on` takes besides; see there."""

    ordered: bool | None
    concurrency: int | None
    max_concurrent_sessions: int | None
    unknown: UnknownPolicy | None
    retry: AsyncRetrying | None


@dataclass(frozen=True)
class Scheduled:
    """An event that Service Bus will publish at a time to come."""

    id: str
    at: datetime
    sequence_number: int
    _cancel: Callable[[int, float | None], Awaitable[bool]] = field(repr=False, compare=False)

    async def cancel(self, *, timeout: float | None = None) -> bool:
        """Take it back; false when it was published or cancelled already.

        Raises:
            DeadlineExceeded, BusError: Service Bus could not be asked.
        """
        return await self._cancel(self.sequence_number, timeout)


class EventBus:
    """One topic: publishes to it, and handles what its subscriptions get.

    `connection` is a connection string or a `ServiceBusClient`, best made by `sbrpc.connect()`. Use it as
    `async with bus`, or let `await bus.serve()` run it until SIGTERM or SIGINT. Safe for concurrent use in
    one event loop. Needs only the Send right on the topic, the Listen right on its subscriptions, or both.

    Args:
        topic: must exist, and so must the subscriptions.
        source: who publishes, as a URI reference such as `/movies`; without it nothing can be published.
        timeout: seconds that publishing may take; a nearer deadline of the surrounding call wins.
        grace: seconds that handlers may go on when the bus stops. Then they are cancelled, and their events
            given back.
        max_message_size: bytes, 256 KB on Standard, up to 100 MB on Premium.
        middleware: code around publishing and handling, the first outermost.

    Raises:
        ContractError: the topic or the source is empty.
    """

    def __init__(
        self,
        connection: str | ServiceBusClient,
        *,
        topic: str,
        source: str | None = None,
        timeout: float = 30.0,
        grace: float = 20.0,
        max_message_size: int = 256 * 1024,
        middleware: Sequence[EventMiddleware] = (),
    ) -> None:
        if not isinstance(topic, str) or not topic:
            raise ContractError(f"EventBus: topic={topic!r} must be the name of a topic")
        if source is not None and not source.strip():
            raise ContractError("EventBus: source must say who publishes, such as source='/movies'")
        self.topic = topic
        self.source = source
        self.counts: Counter[str] = Counter()
        """What happened so far: published, handled, retried, dead_lettered, unknown, and unknown per type."""
        self._connection = connection
        self._timeout = timeout
        self._grace = grace
        self.max_message_size = max_message_size
        self._middleware = tuple(middleware)
        self._subscriptions: dict[str, Subscribed] = {}
        self._consumers: list[Consumer] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._client: ServiceBusClient | None = None
        self._sender: Sender | None = None
        self._tasks: anyio.abc.TaskGroup | None = None
        self._stack: AsyncExitStack | None = None
        self._failure: SbrpcError | None = None
        self._draining = False

    def __repr__(self) -> str:
        state = "running" if self._tasks is not None else "not running"
        return f"<EventBus topic={self.topic!r} subscriptions={sorted(self._subscriptions)} {state}>"

    # -- handling --------------------------------------------------------------------------------------

    @overload
    def on(
        self, a: type[A], /, *, subscription: str, **options: Unpack[Options]
    ) -> Registration[A, EventInfo]: ...
    @overload
    def on(
        self, a: type[A], b: type[B], /, *, subscription: str, **options: Unpack[Options]
    ) -> Registration[A | B, EventInfo]: ...
    @overload
    def on(
        self, a: type[A], b: type[B], c: type[C], /, *, subscription: str, **options: Unpack[Options]
    ) -> Registration[A | B | C, EventInfo]: ...
    @overload
    def on(
        self, a: type[A], /, *, subscription: str, batch: int, **options: Unpack[Options]
    ) -> Registration[list[A], list[EventInfo]]: ...
    @overload
    def on(
        self, a: type[A], b: type[B], /, *, subscription: str, batch: int, **options: Unpack[Options]
    ) -> Registration[list[A | B], list[EventInfo]]: ...
    @overload
    def on(
        self, *events: type[Event], subscription: str, batch: int | None = None, **options: Unpack[Options]
    ) -> Registration[Any, Any]: ...

    def on(
        self, *events: type[Event], subscription: str, batch: int | None = None, **options: Unpack[Options]
    ) -> Any:
        """Register a handler, `(event)` or `(event, info)`, async or plain, for these events.

        Buses with the same `subscription` share its events; each subscription gets every event. Where the
        subscription requires sessions, events come in order per key, `max_concurrent_sessions` keys at a time
        (8). Elsewhere they come in no order, `concurrency` at a time (16). `ordered` makes sure which it is.
        With `batch`, the handler gets a list of up to that many events, and of infos.

        A handler that raises is called again as `retry` says (a tenacity policy; five attempts in about ten
        seconds): in place, so that what comes after it in its key waits. Then the event is dead-lettered with
        the exception's type and message, and so is one that does not decode. Events of other types are
        settled as `unknown` says: `"dead_letter"`, `"complete"` or `"abandon"`.

        Raises:
            ContractError: the registration makes no sense, or contradicts another one.
        """
        if self._tasks is not None:
            raise ContractError("register handlers before the bus runs; it would not listen for this one")
        if not isinstance(subscription, str) or not subscription:
            raise ContractError(f"subscription={subscription!r} must be the name of a subscription")
        retry = options.pop("retry", None)

        def register(function: Callable[..., Any]) -> Callable[..., Any]:
            around = partial(self._handle, subscription) if self._middleware else None
            handler = Handler(function, events, batch=batch, retry=retry or default_retry(), around=around)
            subscribed = self._subscriptions.get(subscription) or Subscribed(subscription)
            subscribed.set_options(**options)
            subscribed.add(handler)
            self._subscriptions[subscription] = subscribed
            return function

        return register

    async def _handle(
        self,
        subscription: str,
        events: Sequence[Event],
        infos: Sequence[EventInfo],
        call: Callable[[], Awaitable[None]],
    ) -> None:
        delivered = Delivered(self.topic, subscription, tuple(events), tuple(infos))
        await handling(self._middleware, delivered, call)()

    def rules(self, subscription: str) -> tuple[Rule, ...]:
        """The rules that bring a subscription what its handlers take."""
        handlers = self._subscriptions[subscription].handlers
        return rules_for(subscription, (event for handler in handlers for event in handler.events))

    @property
    def subscriptions(self) -> Mapping[str, Subscribed]:
        """What is registered, by the name of the subscription."""
        return MappingProxyType(self._subscriptions)

    def topology(self) -> Topic:
        """The topic as the handlers of this bus need it, for provisioning."""
        return Topic(
            self.topic,
            subscriptions=tuple(
                Subscription(name, rules=self.rules(name), requires_session=subscribed.ordered is not False)
                for name, subscribed in self._subscriptions.items()
            ),
        )

    # -- publishing ------------------------------------------------------------------------------------

    async def publish(
        self,
        event: Event,
        *,
        key: str | None = None,
        id: str | None = None,
        time: datetime | None = None,
        subject: str | None = None,
        cause: EventInfo | None = None,
        time_to_live: timedelta | None = None,
        extensions: Mapping[str, AttributeValue] = NO_EXTENSIONS,
        timeout: float | None = None,
    ) -> str:
        """Publish an event; returns its id once Service Bus has it.

        Events with the same `key` are handled in the order in which they were published. Concurrent calls
        leave together. Inside a handler, the event that is being handled is the `cause`, unless one is given.
        Cancelled or timed out, the event may have been published or not; publishing it again with the same
        `id` lets duplicate detection and inboxes tell.

        Raises:
            DeadlineExceeded: Service Bus did not take it in time.
            MessageTooLarge: the event is larger than the namespace takes; nothing was sent.
            BusError: the topic does not exist, or may not be sent to.
            ContractError, ValueError: the event cannot be published as it is.
        """
        if time_to_live is not None and not timedelta(0) < time_to_live <= _LONGEST_LIFE:
            raise ValueError(f"an event lives for up to {_LONGEST_LIFE.days} days, not for {time_to_live!r}")
        made = self._envelope(
            event, key=key, id=id, time=time, subject=subject, cause=cause, extensions=extensions
        )
        (sent,) = await self._send(Publication(self.topic, (made,)), timeout, time_to_live)
        return sent

    async def publish_many(
        self,
        events: Iterable[Event],
        *,
        key: str | None = None,
        cause: EventInfo | None = None,
        timeout: float | None = None,
    ) -> list[str]:
        """Publish events in their order; returns their ids once Service Bus has them all.

        As many as fit leave in one batch, which arrives whole or not at all: up to 1,000 events that have
        `max_message_size` bytes together. Where it takes more than one, an error may leave the first ones
        published. Raises like `publish`.
        """
        made = tuple(self._envelope(event, key=key, cause=cause) for event in events)
        return await self._send(Publication(self.topic, made), timeout)

    async def publish_as_is(self, events: Iterable[CloudEvent], *, timeout: float | None = None) -> list[str]:
        """Publish events that have their attributes already, as an outbox keeps them. Like `publish_many`."""
        return await self._send(Publication(self.topic, tuple(events), as_is=True), timeout)

    async def _send(
        self, publication: Publication, timeout: float | None, time_to_live: timedelta | None = None
    ) -> list[str]:
        async def send(publication: Publication) -> list[str]:
            return await self._send_many(
                [published(event, time_to_live) for event in publication.events], timeout
            )

        if not publication.events:
            return []
        sent: list[str] = await publishing(self._middleware, send)(publication)
        return sent

    async def _send_many(self, messages: Sequence[ServiceBusMessage], timeout: float | None) -> list[str]:
        sender, deadline = self._sending(), self._deadline(timeout)
        measured = [(message, size_of(message)) for message in messages]
        for batch in in_batches(measured, itemgetter(1), self.max_message_size):
            together = [message for message, _ in batch]
            size = sum(each for _, each in batch)
            await sender.send(together, size, deadline=deadline, together=len(batch) > 1)
            self.counts["published"] += len(batch)
        return [str(message.message_id) for message in messages]

    async def schedule(
        self,
        event: Event,
        *,
        at: datetime | timedelta,
        key: str | None = None,
        id: str | None = None,
        cause: EventInfo | None = None,
        extensions: Mapping[str, AttributeValue] = NO_EXTENSIONS,
        timeout: float | None = None,
    ) -> Scheduled:
        """Let Service Bus publish an event at a time, or after a while; returns what can take it back.

        Raises like `publish`.
        """
        now = datetime.now(timezone.utc)
        when = now + at if isinstance(at, timedelta) else at
        if when.tzinfo is None:
            raise ValueError(f"the time to publish an event at needs a time zone: {at!r}")
        made = self._envelope(event, key=key, id=id, cause=cause, extensions=extensions)

        async def send(publication: Publication) -> Scheduled:
            message = published(publication.events[0])
            numbers = await self._sending().operate(
                lambda sender: sender.schedule_messages(message, when), self._deadline(timeout)
            )
            self.counts["scheduled"] += 1
            return Scheduled(str(message.message_id), when, numbers[0], self._cancel)

        publication = Publication(self.topic, (made,), operation="schedule")
        scheduled: Scheduled = await publishing(self._middleware, send)(publication)
        return scheduled

    async def _cancel(self, sequence_number: int, timeout: float | None) -> bool:
        try:
            await self._sending().operate(
                lambda sender: sender.cancel_scheduled_messages(sequence_number), self._deadline(timeout)
            )
        except Refused:
            return False
        return True

    def _envelope(
        self,
        event: Event,
        *,
        key: str | None,
        cause: EventInfo | None,
        id: str | None = None,
        time: datetime | None = None,
        subject: str | None = None,
        extensions: Mapping[str, AttributeValue] = NO_EXTENSIONS,
    ) -> CloudEvent:
        if self.source is None:
            raise ContractError('this EventBus only listens; to publish, say who does: source="/movies"')
        if not isinstance(event, Event):
            raise ContractError(
                f"{event!r} is not an event; publish an object of a class that derives from Event"
            )
        return envelope(
            event,
            id=id or str(uuid.uuid4()),
            source=self.source,
            time=time or datetime.now(timezone.utc),
            key=key,
            subject=subject,
            cause=cause or current_event.get(),
            extensions=extensions,
        )

    def _deadline(self, timeout: float | None) -> Deadline:
        return min(Deadline.after(self._timeout if timeout is None else timeout), current_deadline())

    def _sending(self) -> Sender:
        if self._tasks is None or self._client is None:
            raise NotRunning("the event bus does not run: publish inside `async with bus`")
        if self._loop is not asyncio.get_running_loop():
            raise NotRunning("the event bus runs in another event loop; publish there")
        if self._failure is not None:
            raise self._failure
        if self._sender is None:
            client, topic = self._client, self.topic

            def create() -> ServiceBusSender:
                return client.get_topic_sender(topic, **PROMPT)

            self._sender = Sender(create, topic, limit=self.max_message_size)
            self._tasks.start_soon(self._sender.run, name=f"sender to {topic!r}")
        return self._sender

    # -- life ------------------------------------------------------------------------------------------

    async def serve(self) -> None:
        """Run until SIGTERM or SIGINT, then finish what is being handled.

        Raises:
            ContractError, BusError: a subscription does not exist, may not be listened to, or does not fit.
        """
        async with self:
            await asked_to_stop()

    async def __aenter__(self) -> Self:
        if self._tasks is not None:
            raise NotRunning("this event bus runs already; make another one for another `async with`")
        self._failure = None
        self._draining = False
        self._loop = asyncio.get_running_loop()
        async with AsyncExitStack() as stack:
            self._client = await stack.enter_async_context(client_for(self._connection))
            self._tasks = await anyio.create_task_group().__aenter__()
            self._stack = stack.pop_all()
        self._consumers = [
            Consumer(self._connected, self.topic, subscribed, self.counts)
            for subscribed in self._subscriptions.values()
        ]
        for consumer in self._consumers:
            self._tasks.start_soon(self._consume, consumer)
        if self.source is not None and not self._consumers:
            # Opening takes half a second, which the first event need not wait for. A bus that also listens
            # may never publish, nor have the right to.
            self._sending()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        assert self._tasks is not None
        assert self._stack is not None
        try:
            with anyio.CancelScope(shield=True):
                await self.drain()
                await self._finish_sending()
            # What still runs now cleans up after itself, bounded and shielded.
            self._tasks.cancel_scope.cancel()
            cancelled = isinstance(error, anyio.get_cancelled_exc_class())
            suppress = await self._tasks.__aexit__(
                kind if cancelled else None, error if cancelled else None, traceback if cancelled else None
            )
        finally:
            self._tasks = self._sender = None
            self._client = None
            with anyio.CancelScope(shield=True):
                await self._stack.aclose()
        if self._failure is not None and (error is None or cancelled):
            raise self._failure
        return suppress if cancelled else None

    @property
    def throttled(self) -> int:
        """How often Service Bus has put off what this bus published."""
        return self._sender.throttled if self._sender is not None else 0

    async def ready(self, timeout: float | None = None) -> None:
        """Wait until Service Bus has let this bus listen to its subscriptions, and publish if that is all.

        Where a subscription requires sessions and none has a message, that takes two seconds.

        Raises:
            ContractError, BusError: a subscription does not exist, may not be listened to, or does not fit.
            Unavailable: Service Bus could not be reached within `timeout` seconds.
        """
        with anyio.move_on_after(timeout):
            while not all(consumer.listening for consumer in self._consumers):
                if self._tasks is None:
                    raise NotRunning("the event bus does not run: wait for it inside `async with bus`")
                if self._failure is not None:
                    raise self._failure
                await anyio.sleep(0.05)
            if self._sender is not None:
                await self._sender.wait_ready()
            return
        raise Unavailable(f"{self!r} was not ready after {timeout:g} s")

    @property
    def is_ready(self) -> bool:
        """Whether events are taken, as far as anybody knows; false from the moment draining begins."""
        return self.is_live and not self._draining and all(each.listening for each in self._consumers)

    @property
    def is_live(self) -> bool:
        """Whether the bus runs, even if Service Bus is out of reach; for a liveness probe."""
        return self._tasks is not None and self._failure is None

    async def drain(self, grace: float | None = None) -> None:
        """Take no more events, and wait until those that are being handled are done.

        What is not done after `grace` seconds, the bus' own unless given, is given back. Publishing remains
        possible until the block is left, which does this too. Idempotent.
        """
        self._draining = True
        for consumer in self._consumers:
            consumer.stop()
        with anyio.move_on_after(self._grace if grace is None else grace):
            for consumer in self._consumers:
                await consumer.ended.wait()
        for consumer in self._consumers:
            consumer.give_up()
        for consumer in self._consumers:
            await consumer.ended.wait()

    async def _finish_sending(self) -> None:
        if self._sender is not None:
            self._sender.stop()
            with anyio.move_on_after(CLOSE_TIMEOUT):
                await self._sender.flush()

    async def _consume(self, consumer: Consumer) -> None:
        try:
            await consumer.run()
        except SbrpcError as error:
            _log.error("%s", error)
            self._failure = self._failure or error
            assert self._tasks is not None
            self._tasks.cancel_scope.cancel()

    def _connected(self) -> ServiceBusClient:
        assert self._client is not None
        return self._client
