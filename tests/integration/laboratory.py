"""A service whose handlers do what they are told, for tests of calls."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import anyio
from azure.servicebus import ServiceBusMessage, ServiceBusReceivedMessage
from azure.servicebus.aio import ServiceBusClient, ServiceBusReceiver, ServiceBusSender
from pydantic import BaseModel

from sbrpc.client import RpcClient
from sbrpc.context import CallInfo, Deadline, current_deadline
from sbrpc.contract import Contract, method
from sbrpc.emulator import Emulator
from sbrpc.errors import Aborted, RpcError, error_for
from sbrpc.server import RpcServer
from sbrpc.topology import Queue

QUEUES = [
    Queue("lab"),
    Queue("ordered", requires_session=True),
    Queue("other"),
    Queue("lab.replies", requires_session=True, lock_duration=300),
    Queue("plain.replies"),
    Queue("elsewhere", requires_session=True),
]


class Item(BaseModel):
    id: int
    text: str = ""


class Wait(BaseModel):
    seconds: float
    tag: str = ""


class Version(BaseModel):
    expected: int
    actual: int


class Stale(Aborted):
    data: Version


class Lab(Contract, name="lab"):
    @method
    async def echo(self, request: Item) -> Item:
        raise NotImplementedError

    @method(idempotent=True)
    async def echo_again(self, request: Item) -> Item:
        raise NotImplementedError

    @method
    async def fail(self, request: str) -> None:
        raise NotImplementedError

    @method(errors=[Stale])
    async def conflict(self, request: int) -> None:
        raise NotImplementedError

    @method
    async def wait(self, request: Wait) -> str:
        raise NotImplementedError

    @method(cancellable=True)
    async def wait_cancellable(self, request: Wait) -> str:
        raise NotImplementedError

    @method
    async def block(self, request: Wait) -> str:
        raise NotImplementedError

    @method
    async def info(self, request: None) -> dict[str, Any]:
        raise NotImplementedError

    @method
    async def remaining(self, request: None) -> float:
        raise NotImplementedError

    @method(timeout=0.5)
    async def short(self, request: float) -> str:
        raise NotImplementedError

    @method
    async def big(self, request: int) -> str:
        raise NotImplementedError

    @method
    async def wrong(self, request: None) -> Item:
        raise NotImplementedError

    @method(one_way=True)
    async def note(self, request: str) -> None:
        raise NotImplementedError

    @method(window=8)
    def count(self, request: int) -> AsyncIterator[Item]:
        raise NotImplementedError

    @method(window=8)
    def count_and_fail(self, request: int) -> AsyncIterator[Item]:
        raise NotImplementedError


class Bench:
    """What the handlers did, and what they are to do."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.running: set[str] = set()
        self.produced = 0
        self.changed = asyncio.Event()
        self.flaky = 0

    def note(self, what: str) -> None:
        self.seen.append(what)
        self.changed.set()

    async def until(self, condition: Any) -> None:
        """Wait until something holds; fails after ten seconds."""
        with anyio.fail_after(10):
            while not condition():
                self.changed.clear()
                with anyio.move_on_after(0.05):
                    await self.changed.wait()


def make_server(connection: str | ServiceBusClient, bench: Bench, **options: Any) -> RpcServer:
    """A server of `Lab`; what its handlers do is noted on the bench."""
    server = RpcServer(connection, Lab, **options)

    @server.method(Lab.echo)
    async def echo(request: Item) -> Item:
        return request

    @server.method(Lab.echo_again)
    async def echo_again(request: Item, info: CallInfo) -> Item:
        bench.note(f"echo {request.id}")
        if bench.flaky > 0:
            bench.flaky -= 1
            raise error_for("UNAVAILABLE", "try again")
        return request

    @server.method(Lab.fail)
    async def fail(request: str) -> None:
        if request == "crash":
            raise KeyError("the password is 12345")
        if request == "wait for what is cancelled":
            task = asyncio.create_task(asyncio.sleep(60))
            asyncio.get_running_loop().call_soon(task.cancel)
            await task
        raise error_for(request, "as told", [{"field": "x", "problem": "y"}])

    @server.method(Lab.conflict)
    async def conflict(request: int) -> None:
        raise Stale("conflict", data=Version(expected=request, actual=request + 1))

    @server.method(Lab.wait)
    async def wait(request: Wait) -> str:
        return await sleeping(request)

    @server.method(Lab.wait_cancellable)
    async def wait_cancellable(request: Wait) -> str:
        return await sleeping(request)

    async def sleeping(request: Wait) -> str:
        bench.running.add(request.tag)
        bench.note(f"started {request.tag}")
        try:
            await anyio.sleep(request.seconds)
            bench.note(f"ended {request.tag}")
        except asyncio.CancelledError:
            bench.note(f"cancelled {request.tag}")
            raise
        finally:
            bench.running.discard(request.tag)
        return request.tag

    @server.method(Lab.block)
    def block(request: Wait, info: CallInfo) -> str:
        until = time.monotonic() + request.seconds
        while time.monotonic() < until and not info.cancelled:
            time.sleep(0.01)
        return "cancelled" if info.cancelled else "done"

    @server.method(Lab.info)
    async def info(request: None, info: CallInfo) -> dict[str, Any]:
        return {
            "method": info.method,
            "call_id": info.call_id,
            "metadata": dict(info.metadata),
            "delivery_count": info.delivery_count,
            "session_id": info.session_id,
            "reply_to": info.reply_to,
            "fencing_token": info.fencing_token,
            "enqueued": info.enqueued_at is not None,
        }

    @server.method(Lab.remaining)
    async def remaining(request: None, info: CallInfo) -> float:
        assert current_deadline() == info.deadline
        return -1.0 if info.deadline == Deadline.never() else info.deadline.remaining()

    @server.method(Lab.short)
    async def short(request: float) -> str:
        await anyio.sleep(request)
        return "done"

    @server.method(Lab.big)
    async def big(request: int) -> str:
        return "x" * request

    @server.method(Lab.wrong)
    async def wrong(request: None) -> Item:
        return "no item"  # type: ignore[return-value]

    @server.method(Lab.note)
    async def note(request: str) -> None:
        bench.note(request)
        if request == "fail":
            raise RpcError("no use", code="ABORTED")
        if request == "crash":
            raise KeyError(request)

    @server.method(Lab.count)
    async def count(request: int) -> AsyncIterator[Item]:
        bench.note("counting")
        try:
            for number in range(request):
                bench.produced = number + 1
                yield Item(id=number)
        finally:
            bench.note("stopped counting")

    @server.method(Lab.count_and_fail)
    async def count_and_fail(request: int) -> AsyncIterator[Item]:
        for number in range(request):
            yield Item(id=number)
        raise error_for("DATA_LOSS", "broken")

    return server


def make_client(connection: str | ServiceBusClient, **options: Any) -> RpcClient:
    """A client of the lab."""
    return RpcClient(connection, **{"reply_queue": "lab.replies", **options})


@dataclass
class Ends:
    """A client and a server of the lab, and what is between them."""

    emulator: Emulator
    bench: Bench
    server: RpcServer
    client: RpcClient

    @property
    def lab(self) -> Lab:
        return self.client.of(Lab)


class Raw:
    """The Azure SDK by hand: what a caller in another language sends and sees. Keeps its links open."""

    def __init__(self, bus: ServiceBusClient, stack: AsyncExitStack) -> None:
        self._bus = bus
        self._stack = stack
        self._senders: dict[str, ServiceBusSender] = {}
        self._receivers: dict[tuple[str, str | None, str | None], ServiceBusReceiver] = {}

    async def send(self, queue: str, body: bytes | str, **properties: Any) -> None:
        sender = self._senders.get(queue)
        if sender is None:
            sender = await self._stack.enter_async_context(self._bus.get_queue_sender(queue))
            self._senders[queue] = sender
        await sender.send_messages(ServiceBusMessage(body, **properties))

    async def receive(
        self, queue: str, session: str | None = None, sub_queue: str | None = None
    ) -> ServiceBusReceivedMessage:
        key = (queue, session, sub_queue)
        receiver = self._receivers.get(key)
        if receiver is None:
            opened = self._bus.get_queue_receiver(
                queue, session_id=session, sub_queue=sub_queue, prefetch_count=1
            )
            receiver = self._receivers[key] = await self._stack.enter_async_context(opened)
        messages = await receiver.receive_messages(max_message_count=1, max_wait_time=10)
        assert messages, f"nothing arrived on {queue}"
        await receiver.complete_message(messages[0])
        return messages[0]

    async def dead_letter(self, queue: str) -> ServiceBusReceivedMessage:
        """The next dead letter of a queue."""
        return await self.receive(queue, sub_queue="deadletter")


def text(message: ServiceBusReceivedMessage) -> str:
    return b"".join(message.body).decode()


def status(message: ServiceBusReceivedMessage) -> str:
    value = (message.application_properties or {}).get(b"sbrpc-status")
    return value.decode() if isinstance(value, bytes) else str(value)
