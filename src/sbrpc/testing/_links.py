"""Links that outlive those who use them: what makes one test after another cheap.

The SDK takes half a second to open a link and a second to close it. `KeptLinks` is a `ServiceBusClient`
whose senders and receivers are put back when they are closed and handed out again when the like is asked
for. What is put back is set aside in the emulator: it gets no message, and holds none. Knows the SDK and the
emulator; not what the messages mean.
"""

from __future__ import annotations

import asyncio
import gc
import inspect
import warnings
from collections import defaultdict
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, cast
from uuid import UUID

from azure.servicebus import NEXT_AVAILABLE_SESSION, ServiceBusReceivedMessage, ServiceBusReceiveMode
from azure.servicebus.aio import ServiceBusClient, ServiceBusReceiver, ServiceBusSender

from sbrpc import _sdk
from sbrpc.emulator import Emulator
from sbrpc.emulator.broker import BrokerError
from sbrpc.emulator.nodes import ReceiverNode
from sbrpc.errors import NotRunning

__all__ = ["KeptLinks"]

Create = Callable[[str], Any]


class KeptLinks(ServiceBusClient):
    """A client of an emulator in this process. Receivers that hold a session are not kept."""

    _emulator: Emulator

    @classmethod
    def to(cls, emulator: Emulator) -> KeptLinks:
        """A client whose own retries are off, as sbrpc wants it."""
        string = emulator.connection_string
        client = cls.from_connection_string(string, retry_total=0, **_sdk.without_tls(string))
        assert isinstance(client, cls)
        client._emulator = emulator
        return client

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._idle: defaultdict[Hashable, list[_Kept]] = defaultdict(list)
        self._closing: set[asyncio.Task[None]] = set()
        self._made = 0
        self._shut = False
        self._broken = False

    def get_queue_sender(self, queue_name: str, **kwargs: Any) -> ServiceBusSender:
        """A sender that was kept, or a new one."""
        create = super().get_queue_sender
        lease = self._lease(
            ("send", queue_name, kwargs), lambda name: create(queue_name, client_identifier=name, **kwargs)
        )
        return cast("ServiceBusSender", lease)

    def get_topic_sender(self, topic_name: str, **kwargs: Any) -> ServiceBusSender:
        """A sender that was kept, or a new one."""
        create = super().get_topic_sender
        lease = self._lease(
            ("send", topic_name, kwargs), lambda name: create(topic_name, client_identifier=name, **kwargs)
        )
        return cast("ServiceBusSender", lease)

    def get_queue_receiver(self, queue_name: str, **kwargs: Any) -> ServiceBusReceiver:
        """A receiver that was kept, or a new one; one with a session is always new."""
        create = super().get_queue_receiver
        if not _can_be_kept(kwargs):
            return create(queue_name, **kwargs)
        lease = self._lease(
            ("receive", queue_name, kwargs), lambda name: create(queue_name, client_identifier=name, **kwargs)
        )
        return cast("ServiceBusReceiver", lease)

    def get_subscription_receiver(
        self, topic_name: str, subscription_name: str, **kwargs: Any
    ) -> ServiceBusReceiver:
        """A receiver that was kept, or a new one; one with a session is always new."""
        create = super().get_subscription_receiver
        if not _can_be_kept(kwargs):
            next_session = kwargs.get("session_id") is NEXT_AVAILABLE_SESSION
            if next_session and not self._has_sessions(topic_name, subscription_name):
                return cast("ServiceBusReceiver", _Sessionless(topic_name, subscription_name))
            return create(topic_name, subscription_name, **kwargs)
        lease = self._lease(
            ("receive", topic_name, subscription_name, kwargs),
            lambda name: create(topic_name, subscription_name, client_identifier=name, **kwargs),
        )
        return cast("ServiceBusReceiver", lease)

    def _has_sessions(self, topic: str, subscription: str) -> bool:
        try:
            return self._emulator.broker.get_subscription(topic, subscription).requires_session
        except BrokerError:
            return True  # Service Bus knows better what to say about one that does not exist

    # -- what is kept ------------------------------------------------------------------------------------

    def _lease(self, key: tuple[Any, ...], create: Create) -> _Lease:
        *name, kwargs = key
        hashable = (*(str(part).lower() for part in name), *sorted(kwargs.items()))
        if kwargs.pop("client_identifier", None) is not None:
            raise ValueError("links that are kept have names of their own; leave client_identifier out")
        return _Lease(self, hashable, create)

    async def _take(self, key: Hashable, create: Create) -> _Kept:
        """An open link: one that was put back, or a new one."""
        if self._shut:
            raise NotRunning("the bench is closed")
        idle = self._idle[key]
        while idle:
            kept = idle.pop()
            if kept.take_up():
                return kept
            self._dispose(kept.sdk, broken=True)
        self._made += 1
        name = f"bench-{self._made}"
        sdk = create(name)
        try:
            await sdk.__aenter__()
        except BaseException:
            self._dispose(sdk, broken=True)
            raise
        return _Kept(self._emulator, name, key, sdk)

    def _put_back(self, kept: _Kept) -> None:
        if not self._shut and kept.set_aside():
            self._idle[kept.key].append(kept)
        else:
            self._dispose(kept.sdk, broken=not self._shut)

    def _dispose(self, sdk: Any, *, broken: bool = False) -> None:
        self._broken = self._broken or broken
        task = asyncio.get_running_loop().create_task(_close(sdk, broken=broken), name="close a link")
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    def shut(self) -> None:
        """Keep nothing any more, and begin to close what is kept."""
        self._shut = True
        for kept in [kept for idle in self._idle.values() for kept in idle]:
            self._dispose(kept.sdk)
        self._idle.clear()

    async def close(self) -> None:
        """Close all that was put back; leases that are still out are closed by the SDK's client."""
        self.shut()
        while self._closing:
            await asyncio.wait(self._closing)
        await super().close()
        if self._broken:
            _sweep()


async def _close(sdk: Any, *, broken: bool) -> None:
    await _sdk.close(sdk, "a link")
    if broken:
        del sdk
        _sweep()


def _sweep() -> None:
    """Free the sockets of broken connections. The SDK leaves that to the garbage collector, which complains
    about it; in a test it would complain to somebody who can do nothing about it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


def _can_be_kept(kwargs: dict[str, Any]) -> bool:
    mode = kwargs.get("receive_mode", ServiceBusReceiveMode.PEEK_LOCK)
    return (
        kwargs.get("session_id") is None
        and kwargs.get("auto_lock_renewer") is None
        and mode in (ServiceBusReceiveMode.PEEK_LOCK, ServiceBusReceiveMode.PEEK_LOCK.value)
    )


class _Kept:
    """One SDK sender or receiver on a connection of its own, by whose name the emulator knows it."""

    def __init__(self, emulator: Emulator, name: str, key: Hashable, sdk: Any) -> None:
        self.key = key
        self.sdk = sdk
        self.suspect = False
        """An operation ended in a way after which the SDK's object may not be what it was."""
        self.void: set[UUID] = set()
        """Lock tokens of messages that may still come out of the SDK's buffer, but were taken back."""
        self._emulator = emulator
        self._name = name

    def set_aside(self) -> bool:
        """Let the emulator deliver nothing here until it is taken up; false when it is of no more use."""
        nodes = self._nodes()
        now = self._emulator.clock.now()
        for node in nodes:
            if isinstance(node, ReceiverNode):
                self.void.update(node.set_aside(now))
        self._emulator.front.transmit()
        return bool(nodes) and not self.suspect

    def take_up(self) -> bool:
        """Let messages come again; false when the link has ended meanwhile."""
        nodes = self._nodes()
        now = self._emulator.clock.now()
        for node in nodes:
            if isinstance(node, ReceiverNode):
                node.take_up(now)
        self._emulator.front.transmit()
        return bool(nodes)

    def _nodes(self) -> list[Any]:
        nodes = self._emulator.gateway.links_of(self._name)
        return [node for node in nodes if not isinstance(node, ReceiverNode) or node.consumer is not None]


class _Lease:
    """A sender or receiver as its user sees it: opening takes one that is kept, closing puts it back."""

    def __init__(self, pool: KeptLinks, key: Hashable, create: Create) -> None:
        self._pool = pool
        self._key = key
        self._create = create
        self._kept: _Kept | None = None

    async def __aenter__(self) -> _Lease:
        if self._kept is None:
            self._kept = await self._pool._take(self._key, self._create)
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.close()

    async def close(self) -> None:
        kept, self._kept = self._kept, None
        if kept is not None:
            self._pool._put_back(kept)

    async def receive_messages(self, *args: Any, **kwargs: Any) -> list[ServiceBusReceivedMessage]:
        kept = await self._opened()
        try:
            messages = await kept.sdk.receive_messages(*args, **kwargs)
        except Exception:  # raised again; what is left in the SDK's buffer nobody knows
            kept.suspect = True
            raise
        if not kept.void:
            return cast("list[ServiceBusReceivedMessage]", messages)
        return [message for message in messages if UUID(str(message.lock_token)) not in kept.void]

    def __getattr__(self, name: str) -> Any:
        if self._kept is None:
            raise NotRunning(f"this link is not open, so it has no {name}; use it inside `async with`")
        value = getattr(self._kept.sdk, name)
        return _watched(self._kept, value) if inspect.iscoroutinefunction(value) else value

    async def _opened(self) -> _Kept:
        await self.__aenter__()
        assert self._kept is not None
        return self._kept


class _Sessionless:
    """A receiver of a session where there are none: says at once what takes Service Bus half a second."""

    def __init__(self, topic: str, subscription: str) -> None:
        self._what = f"subscription {subscription!r} of topic {topic!r}"

    async def __aenter__(self) -> _Sessionless:
        raise _sdk.MustRequireSessions(f"{self._what} does not require sessions")

    async def __aexit__(self, *exception: object) -> None:
        return

    async def close(self) -> None:
        return


def _watched(
    kept: _Kept, operation: Callable[..., Coroutine[Any, Any, Any]]
) -> Callable[..., Coroutine[Any, Any, Any]]:
    async def watched(*args: Any, **kwargs: Any) -> Any:
        try:
            return await operation(*args, **kwargs)
        except BaseException:  # cancelled in the middle, it may have left half of an exchange behind
            kept.suspect = True
            raise

    return watched
