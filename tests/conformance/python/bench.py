"""What a Python scenario works with: clients of its namespace, and words for what it does with them.

The bench is written against the asynchronous SDK. For the blocking one, `SyncSdk` wraps its objects so
that each method is a coroutine that never suspends; `complete` runs such a coroutine to its end in the
calling thread. So both SDKs run the same steps, each on its own machinery.
"""

from __future__ import annotations

import asyncio
import inspect
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, TypeVar

import azure.servicebus
import azure.servicebus.aio
from azure.servicebus import ServiceBusMessage, ServiceBusReceivedMessage, ServiceBusSession

from sbrpc._sdk import without_tls
from tests.conformance.namespaces import Namespace
from tests.conformance.scenarios import PREFIX, Scenario

__all__ = [
    "MANY",
    "AsyncSdk",
    "Bench",
    "Sdk",
    "SyncSdk",
    "bodies",
    "body",
    "message",
    "text",
    "texts",
]

T = TypeVar("T")

ARRIVAL = 30.0
"""Seconds within which a message that is there arrives, on a busy machine too."""
MANY = 100
"""How many messages to prefetch where there are many. Without, a thread of the blocking SDK reads from the
connection every five seconds, beside the one that receives, and one may lose what is there."""
SILENCE = 0.6
"""Seconds without a message that are taken to mean that none comes."""


class Sdk(Protocol):
    """One of the two Python SDKs."""

    def client(self, connection_string: str, **options: Any) -> Any:
        """A `ServiceBusClient` whose methods are awaitable."""

    async def sleep(self, seconds: float) -> None:
        """Wait."""

    async def gather(self, *steps: Coroutine[Any, Any, Any]) -> list[Any]:
        """Run steps side by side and return what they returned."""

    async def aside(self, call: Callable[..., T], *arguments: Any) -> T:
        """Call something that blocks for a moment."""

    def renewer(self) -> Any:
        """An `AutoLockRenewer`, for the option of that name of receivers; its `close` is awaitable."""


class AsyncSdk:
    """`azure.servicebus.aio`, as it is."""

    def client(self, connection_string: str, **options: Any) -> Any:
        options |= without_tls(connection_string)
        return azure.servicebus.aio.ServiceBusClient.from_connection_string(connection_string, **options)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def gather(self, *steps: Coroutine[Any, Any, Any]) -> list[Any]:
        return list(await asyncio.gather(*steps))

    async def aside(self, call: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.to_thread(call, *arguments)

    def renewer(self) -> Any:
        return azure.servicebus.aio.AutoLockRenewer()


class SyncSdk:
    """`azure.servicebus`, each object wrapped in an `_Awaitable`."""

    def client(self, connection_string: str, **options: Any) -> Any:
        return _Awaitable(
            azure.servicebus.ServiceBusClient.from_connection_string(connection_string, **options)
        )

    async def sleep(self, seconds: float) -> None:
        time.sleep(seconds)  # noqa: ASYNC251 - the thread is this scenario's own

    async def gather(self, *steps: Coroutine[Any, Any, Any]) -> list[Any]:
        with ThreadPoolExecutor(max(1, len(steps))) as pool:
            return [each.result() for each in [pool.submit(self.complete, step) for step in steps]]

    async def aside(self, call: Callable[..., T], *arguments: Any) -> T:
        return call(*arguments)

    def renewer(self) -> Any:
        return _Awaitable(azure.servicebus.AutoLockRenewer())

    def complete(self, steps: Awaitable[T]) -> T:
        """Run a coroutine that never suspends and return what it returned."""
        try:
            steps.__await__().send(None)
        except StopIteration as stop:
            return stop.value
        raise RuntimeError("a scenario waited for something that is not of the SDK")


class _Awaitable:
    """An object of the blocking SDK whose methods are coroutine functions and whose iterator is async."""

    _WRAPPED = (
        azure.servicebus.ServiceBusClient,
        azure.servicebus.ServiceBusReceiver,
        azure.servicebus.ServiceBusSender,
        ServiceBusSession,
    )
    _IMMEDIATE = frozenset(
        {
            "get_queue_sender",
            "get_queue_receiver",
            "get_topic_sender",
            "get_subscription_receiver",
            "list_queue_sessions",
            "list_subscription_sessions",
        }
    )
    """Methods that do no I/O and are no coroutine functions in the asynchronous SDK either."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._inner, name)
        if isinstance(value, self._WRAPPED):
            return _Awaitable(value)
        if not inspect.isroutine(value):
            return value
        if name in self._IMMEDIATE:
            return lambda *args, **options: _Awaitable(value(*args, **_plain(options)))

        async def call(*args: Any, **options: Any) -> Any:
            return value(*args, **options)

        return call

    async def __aenter__(self) -> _Awaitable:
        self._inner.__enter__()
        return self

    async def __aexit__(self, *exc: Any) -> None:
        self._inner.__exit__(*exc)

    async def __aiter__(self) -> AsyncIterator[Any]:
        for item in self._inner:
            yield item


def _plain(options: dict[str, Any]) -> dict[str, Any]:
    return {name: each._inner if isinstance(each, _Awaitable) else each for name, each in options.items()}


class Bench:
    """One scenario's clients. Each sender and receiver has a client of its own, so they close together."""

    def __init__(self, sdk: Sdk, scenario: Scenario, namespace: Namespace) -> None:
        self.sdk = sdk
        self.name = PREFIX + scenario.name
        """The queue or topic that is called like the scenario."""
        self.connection_string = namespace.connection_string
        self._namespace = namespace
        self._clients: list[Any] = []
        self._links: list[Any] = []

    def unique(self, what: str = "x") -> str:
        """A name nobody used before, for sessions and message ids."""
        return f"{what}-{uuid.uuid4().hex[:12]}"

    def client(self, **options: Any) -> Any:
        """A client of the namespace, closed at the end."""
        client = self.sdk.client(self.connection_string, **options)
        self._clients.append(client)
        return client

    async def sender(self, entity: str | None = None, *, topic: bool = False, retries: int = 3) -> Any:
        """An open sender; to the entity called like the scenario unless another one is given."""
        client = self.client(retry_total=retries)
        get = client.get_topic_sender if topic else client.get_queue_sender
        sender = self._kept(get(entity or self.name))
        await sender.__aenter__()
        return sender

    async def receiver(
        self, entity: str | None = None, *, subscription: str | None = None, retries: int = 3, **options: Any
    ) -> Any:
        """An open receiver; options are the SDK's."""
        client = self.client(retry_total=retries)
        entity = entity or self.name
        if subscription is None:
            receiver = self._kept(client.get_queue_receiver(entity, **options))
        else:
            receiver = self._kept(client.get_subscription_receiver(entity, subscription, **options))
        await receiver.__aenter__()
        return receiver

    async def pair(self, **options: Any) -> tuple[Any, Any]:
        """A sender and a receiver of the queue that is called like the scenario."""
        sender, receiver = await self.sdk.gather(self.sender(), self.receiver(**options))
        return sender, receiver

    def _kept(self, link: Any) -> Any:
        # A client closes those of its links that somebody still refers to.
        self._links.append(link)
        return link

    async def refused_receiver(self, **options: Any) -> None:
        """Open a receiver and receive from it once: what a refusal of either is expected to end."""
        receiver = await self.receiver(retries=0, **options)
        await receiver.receive_messages(1, max_wait_time=2)

    async def end(self, *links: Any) -> None:
        """Close senders or receivers now rather than at the end of the scenario."""
        await self.sdk.gather(*(link.close() for link in links))

    async def close(self) -> None:
        """Close what is still open, all at once."""
        await self.sdk.gather(*(client.close() for client in self._clients))

    async def take(self, receiver: Any, count: int = 1, within: float = ARRIVAL) -> list[Any]:
        """Receive exactly this many messages, or fail."""
        messages: list[ServiceBusReceivedMessage] = []
        end = time.monotonic() + within
        while len(messages) < count and (left := end - time.monotonic()) > 0:
            messages += await receiver.receive_messages(count - len(messages), max_wait_time=left)
        assert len(messages) == count, (
            f"expected {count} messages within {within:g} s, got {bodies(messages)}"
        )
        return messages

    async def take_one(self, receiver: Any, within: float = ARRIVAL) -> Any:
        """Receive one message, or fail."""
        return (await self.take(receiver, 1, within))[0]

    async def take_and_complete(self, receiver: Any, count: int = 1) -> list[Any]:
        """Receive exactly this many messages and complete them."""
        messages = await self.take(receiver, count)
        for message in messages:
            await receiver.complete_message(message)
        return messages

    async def silence(self, receiver: Any, seconds: float = SILENCE) -> None:
        """Fail if a message comes. Leaves credit on the link, so no other receiver should follow."""
        messages = await receiver.receive_messages(1, max_wait_time=seconds)
        assert not messages, f"expected no message, got {bodies(messages)}"

    async def seen(self, receiver: Any, count: int = 10) -> list[Any]:
        """Peek from the first message on; without a number the SDK goes on after what it received."""
        messages: list[Any] = await receiver.peek_messages(count, sequence_number=1)
        return messages

    async def is_empty(self, receiver: Any) -> None:
        """Fail if the entity holds a message of whatever kind."""
        seen = await self.seen(receiver)
        assert not seen, f"expected nothing to be left, found {bodies(seen)}"

    async def advance(self, seconds: float) -> None:
        """Let the namespace's clock run ahead."""
        await self.sdk.aside(self._namespace.advance, seconds)


def message(content: Any = "hello", **options: Any) -> ServiceBusMessage:
    """A message to send."""
    return ServiceBusMessage(content, **options)


def texts(count: int, **options: Any) -> list[ServiceBusMessage]:
    """Messages `0`, `1`, ... to send."""
    return [ServiceBusMessage(str(number), **options) for number in range(count)]


def body(received: Any) -> bytes:
    """The binary body of a message, its sections joined."""
    return b"".join(received.body)


def text(received: Any) -> str:
    """The binary body of a message as text."""
    return body(received).decode()


def bodies(received: Iterable[Any]) -> list[str]:
    """The bodies of messages as text, for comparing and for showing."""
    return [str(each) for each in received]
