"""The bench: one emulator, one client and the links to it, for any number of tests one after the other.

Owns what tests share and their separation from each other. Everything that a test starts on it runs in
tasks of the bench, so that fixtures may begin and end it wherever their plugin likes.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, TypeVar

import anyio
import anyio.abc
from azure.servicebus.aio import ServiceBusClient

from sbrpc.client import RpcClient
from sbrpc.contract import Contract, stub_of
from sbrpc.emulator import Emulator
from sbrpc.emulator.broker import Message
from sbrpc.errors import Cancelled, NotRunning
from sbrpc.events import EventBus
from sbrpc.running import Group
from sbrpc.topology import Queue, Subscription, Topic

from ._apps import bus_in, entities_in, parts_of, running_in, server_in
from ._entities import Entity, entities_of
from ._links import KeptLinks
from ._published import TAP, Published, messages_at
from ._services import Explaining, crashes, server_with

__all__ = ["REPLY_QUEUE", "Bench", "Letter"]

REPLY_QUEUE = "testing.replies"

_OPENING = 30.0
_LOOK = 0.002

C = TypeVar("C", bound=Contract)
T = TypeVar("T")


@dataclass(frozen=True)
class Letter:
    """A message that was dead-lettered."""

    address: str
    """The queue, or `topic/Subscriptions/name`."""
    subject: str
    """The method, or the event's type."""
    reason: str
    description: str


class Bench:
    """A Service Bus and a client for tests. Use it as `async with Bench() as bench`, once for many tests.

    What `service_for` and `bus_for` run is real: client, server, SDK and socket. Only links outlive it, and
    only if they were opened over `connection`; that is what makes the next test cheap. `reset()` between
    tests. Bound to one event loop.

    Args:
        entities: what exists from the start: topology, or contracts, servers and buses that need it. The
            rest is made when it is asked for.
        reply_queue: where the client gets its replies; handlers' servers have to allow it, by default as
            `*.replies`.
    """

    def __init__(self, *entities: Entity, reply_queue: str = REPLY_QUEUE) -> None:
        self.emulator: Emulator = Emulator()
        """The Service Bus: `advance()` its clock, put `faults` in force, look into its `books`."""
        self._reply_queue = reply_queue
        self._given = entities_of(entities, reply_queue)
        self._connection: KeptLinks | None = None
        self._client: RpcClient | None = None
        self._tasks: anyio.abc.TaskGroup | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._owner: asyncio.Task[None] | None = None
        self._leaving = asyncio.Event()
        self._abandoned: set[str] = set()  # subscriptions of earlier tests that this one has not asked for

    # -- life --------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Bench:
        if self._owner is not None:
            raise NotRunning("this bench is open already")
        self._loop = asyncio.get_running_loop()
        self._leaving.clear()
        opened: asyncio.Future[None] = self._loop.create_future()
        self._owner = self._loop.create_task(self._own(opened), name="sbrpc bench")
        try:
            await opened
        except BaseException:
            self._leaving.set()
            self._owner = None
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close everything; takes a second or two, as the SDK does."""
        assert self._owner is not None
        self._leaving.set()
        owner, self._owner = self._owner, None
        await owner

    async def _own(self, opened: asyncio.Future[None]) -> None:
        try:
            async with AsyncExitStack() as stack:
                await stack.enter_async_context(self.emulator)
                self._make(self._given.all)
                self._connection = KeptLinks.to(self.emulator)
                stack.push_async_callback(self._connection.close)
                client = RpcClient(self._connection, reply_queue=self._reply_queue, name="bench")
                self._client = await stack.enter_async_context(client)
                await client.ready(timeout=_OPENING)
                stack.callback(self._connection.shut)  # so that all links close at the same time
                self._tasks = await stack.enter_async_context(anyio.create_task_group())
                opened.set_result(None)
                await self._leaving.wait()
        except BaseException as error:
            if opened.done():
                raise
            opened.set_exception(error)
        finally:
            self._tasks = self._client = self._connection = None

    @property
    def connection(self) -> ServiceBusClient:
        """What to make servers, buses and SDK links with, so that their links are kept for the next test."""
        return self._opened()[0]

    @property
    def client(self) -> RpcClient:
        """The client that all tests share."""
        return self._opened()[1]

    def _opened(self) -> tuple[KeptLinks, RpcClient, anyio.abc.TaskGroup]:
        if self._connection is None or self._client is None or self._tasks is None:
            raise NotRunning("the bench is not open; use it inside `async with Bench() as bench`")
        if asyncio.get_running_loop() is not self._loop:
            raise NotRunning(
                "this bench was opened in another event loop, which its links cannot change. Run the tests "
                "that share it in one loop; with pytest-asyncio: asyncio_default_test_loop_scope = session"
            )
        return self._connection, self._client, self._tasks

    # -- entities ----------------------------------------------------------------------------------------

    def create(self, *entities: Entity) -> None:
        """See that queues and topics exist, as they are given or as their users need them.

        Subscriptions of a bus have no sessions here, unless its handlers say `ordered=True`: taking a
        session costs the SDK half a second. Their events come one at a time instead, and so in order.
        """
        wanted = entities_of(entities)
        for bus in entities:
            if isinstance(bus, EventBus):
                self._without_sessions(bus, wanted.topics)
        self._make(wanted.all)

    def _without_sessions(self, bus: EventBus, topics: dict[str, Topic]) -> None:
        topic = topics[bus.topic.lower()]
        given = {each.name.lower(): each for each in self._given_to(topic.name)}
        subscriptions = []
        for each in topic.subscriptions:
            subscribed = bus.subscriptions.get(each.name)
            if each.name.lower() in given:
                each = given[each.name.lower()]
            elif subscribed is not None and subscribed.ordered is None:
                each = replace(each, requires_session=False)
                subscribed.concurrency = 1
            subscriptions.append(each)
        topics[bus.topic.lower()] = replace(topic, subscriptions=tuple(subscriptions))

    def _given_to(self, topic: str) -> tuple[Subscription, ...]:
        found = self._given.topics.get(topic.lower())
        return found.subscriptions if found is not None else ()

    def _make(self, entities: list[Queue | Topic]) -> None:
        broker, now = self.emulator.broker, self.emulator.clock.now()
        queues = {queue.name.lower(): queue for queue in broker.queues()}
        topics = {topic.name.lower(): topic for topic in broker.topics()}
        for entity in entities:
            name = entity.name.lower()
            if isinstance(entity, Topic):
                self._abandoned -= {*_subscriptions(entity)}
                if name not in topics:
                    subscriptions = (*entity.subscriptions, TAP)
                    self.emulator.create(replace(entity, subscriptions=subscriptions))
                else:
                    self._subscribe(entity, topics[name])
            elif name not in queues:
                self.emulator.create(entity)
            elif queues[name].requires_session != entity.requires_session:
                broker.delete_queue(entity.name, now)
                self.emulator.create(entity)

    def _subscribe(self, wanted: Topic, there: Topic) -> None:
        broker, now = self.emulator.broker, self.emulator.clock.now()
        known = {each.name.lower(): each for each in there.subscriptions}
        for each in wanted.subscriptions:
            found = known.get(each.name.lower())
            if found is not None and (not each.rules or found == each):
                continue
            if found is not None:
                broker.delete_subscription(wanted.name, each.name, now)
            broker.create_subscription(wanted.name, each, now)
        self.emulator.create()

    # -- what a test runs --------------------------------------------------------------------------------

    @asynccontextmanager
    async def service_for(
        self,
        contract: type[C],
        service: object,
        *,
        timeout: float | None = None,
        metadata: Mapping[str, str] | None = None,
        key: str | None = None,
    ) -> AsyncIterator[C]:
        """A service that runs inside the block, as its callers see it.

        `service` is one of: handlers by method, `{Movies.get_movie: get_movie}`; an object with methods that
        are named like the contract's; an `RpcServer` made with `connection`; an app as `sbrpc run` runs it,
        all of which runs inside the block: a function that makes a server from a connection, or a list of a
        server and what belongs to it. Of the first two, what is missing answers UNIMPLEMENTED. The other
        arguments are those of `RpcClient.of`.

        Where a handler fails unexpectedly, the caller gets `Internal` as ever; here, its `__cause__` is what
        the handler raised. Handlers that still run at the end are cancelled, after a second if the test did
        not bring a server.
        """
        connection, client, _ = self._opened()
        app = server_with(connection, contract, service) or service
        with crashes() as found:
            async with self._running(self._app(app, lambda parts: server_in(parts, contract, app))) as server:
                stub = client.of(contract, queue=server.queue, timeout=timeout, metadata=metadata, key=key)
                await server.ready(timeout=_OPENING)
                await client.ready(timeout=_OPENING)
                invoker, options = stub._bound()
                yield stub_of(contract, Explaining(invoker, found), options)

    @asynccontextmanager
    async def bus_for(
        self, bus: EventBus | Sequence[object] | Callable[..., object]
    ) -> AsyncIterator[EventBus]:
        """An event bus that runs inside the block: one made with `connection`, or an app as `sbrpc run` runs
        it, such as a function that makes one from a connection, or a list of a bus and what belongs to it.

        Topics and subscriptions are made as `create` says. `settled()` waits until the handlers are done.
        """
        async with self._running(self._app(bus, lambda parts: bus_in(parts, bus))) as made:
            yield made

    @asynccontextmanager
    async def _app(self, app: object, pick: Callable[[list[Any]], T]) -> AsyncIterator[T]:
        """All parts of an app run inside the block, which gets the one that is asked for."""
        connection, _, _ = self._opened()
        async with parts_of(app, connection) as parts:
            picked = pick(parts)
            things = running_in(parts, connection)
            self.create(*entities_in(parts))
            async with Group(*things):
                yield picked

    @asynccontextmanager
    async def _running(self, thing: AbstractAsyncContextManager[T]) -> AsyncIterator[T]:
        """The thing is entered and left in a task of the bench."""
        _, _, tasks = self._opened()
        done, ended = asyncio.Event(), asyncio.Event()
        failures: list[Exception] = []

        async def run(*, task_status: anyio.abc.TaskStatus[T]) -> None:
            started = False
            try:
                async with thing as entered:
                    started = True
                    task_status.started(entered)
                    await done.wait()
            except Exception as error:  # raised where the block is left, or here to who starts it
                if not started:
                    raise
                failures.append(error)
            finally:
                ended.set()

        entered: T = await tasks.start(run, name="run an app")
        try:
            yield entered
        finally:
            done.set()
            with anyio.CancelScope(shield=True):
                await ended.wait()
        if failures:
            raise failures[0]

    # -- what a test sees --------------------------------------------------------------------------------

    def events(self, *topics: str) -> Published:
        """What is published from now on, on these topics, or on all that exist."""
        self._opened()
        if topics:
            self._make([Topic(name) for name in topics])
        return Published(self.emulator, topics or [topic.name for topic in self.emulator.broker.topics()])

    async def settled(self, timeout: float = 5.0) -> None:
        """Wait until every request and event is dealt with: handled, or dead-lettered. Those that are
        scheduled for later do not count, nor does what comes to subscriptions of earlier tests.

        Raises:
            TimeoutError: something is left after `timeout` seconds; says what and where.
        """
        self._opened()
        with anyio.move_on_after(timeout):
            while self._left():  # noqa: ASYNC110 - the broker tells nobody that it has become empty
                await anyio.sleep(_LOOK)
            return
        left = ", ".join(f"{count} in {address!r}" for address, count in self._left().items())
        raise TimeoutError(f"not settled after {timeout:g} s: {left}")

    def dead_letters(self) -> list[Letter]:
        """What was dead-lettered and why, on all queues and subscriptions."""
        return [
            _letter(address, message)
            for address in self._addresses()
            for message in messages_at(self.emulator, f"{address}/$DeadLetterQueue")
        ]

    def _left(self) -> dict[str, int]:
        counts = {
            address: self.emulator.broker.runtime(address).active
            for address in self._addresses()
            if address.lower() not in self._abandoned
        }
        return {address: count for address, count in counts.items() if count}

    def _addresses(self) -> Iterator[str]:
        """Where an application receives from, replies aside."""
        for queue in self.emulator.broker.queues():
            if queue.name.lower() != self._reply_queue.lower():
                yield queue.name
        for topic in self.emulator.broker.topics():
            for subscription in topic.subscriptions:
                if subscription.name != TAP.name:
                    yield f"{topic.name}/Subscriptions/{subscription.name}"

    def reset(self) -> None:
        """Between two tests: no message, no fault, no session state and no waiting call is left, and the
        clock shows real time. Queues, topics and the links to them stay."""
        if self._client is not None:
            self._client.replies.fail_calls(Cancelled("the test that made this call is over"))
        self.emulator.wipe()
        self.emulator.broker.reset_books()
        self._abandoned = {each for topic in self.emulator.broker.topics() for each in _subscriptions(topic)}
        for topic in self._given.topics.values():
            self._abandoned -= {*_subscriptions(topic)}


def _subscriptions(topic: Topic) -> Iterator[str]:
    for subscription in topic.subscriptions:
        yield f"{topic.name}/Subscriptions/{subscription.name}".lower()


def _letter(address: str, message: Message) -> Letter:
    properties = message.content.user()
    return Letter(
        address,
        str(message.content.system("subject") or ""),
        str(properties.get("DeadLetterReason") or ""),
        str(properties.get("DeadLetterErrorDescription") or ""),
    )
