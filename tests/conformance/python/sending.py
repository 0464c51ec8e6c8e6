"""Scenarios of getting messages in: singly, in lists, in batches, large, many, and where they cannot go."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from azure.servicebus import ServiceBusMessage, ServiceBusReceiveMode
from azure.servicebus.exceptions import (
    MessageSizeExceededError,
    MessagingEntityDisabledError,
    MessagingEntityNotFoundError,
    ServiceBusError,
    ServiceBusQuotaExceededError,
)

from .bench import MANY, Bench, bodies, body, message, text, texts
from .registry import scenario

# How far apart the clocks of the client and the namespace may be.
SKEW = timedelta(seconds=30)


@scenario
async def send_and_complete(bench: Bench) -> None:
    sender, receiver = await bench.pair()
    await sender.send_messages(message("hello"))
    received = await bench.take_one(receiver)
    now = datetime.now(timezone.utc)
    assert text(received) == "hello"
    assert received.delivery_count == 0
    assert received.sequence_number > 0
    assert abs(received.enqueued_time_utc - now) < SKEW
    assert received.lock_token is not None
    assert now < received.locked_until_utc <= now + timedelta(seconds=60) + SKEW
    assert received.dead_letter_reason is None
    assert received.dead_letter_source is None
    await receiver.complete_message(received)
    await bench.is_empty(receiver)


@scenario
async def send_list(bench: Bench) -> None:
    sender, receiver = await bench.pair()
    await sender.send_messages(texts(10))
    received = await bench.take_and_complete(receiver, 10)
    assert bodies(received) == [str(number) for number in range(10)]
    numbers = [each.sequence_number for each in received]
    assert numbers == sorted(set(numbers))


@scenario
async def send_batch(bench: Bench) -> None:
    sender, receiver = await bench.pair()
    batch = await sender.create_message_batch(max_size_in_bytes=4096)
    for number in range(6):
        batch.add_message(message(b"x" * 500, subject=str(number)))
    with pytest.raises(ValueError, match="size"):
        batch.add_message(message(b"x" * 1000))
    await sender.send_messages(batch)
    received = await bench.take_and_complete(receiver, 6)
    assert [each.subject for each in received] == [str(number) for number in range(6)]


@scenario
async def send_large_batch(bench: Bench) -> None:
    sender, receiver = await bench.pair()
    batch = await sender.create_message_batch()
    for number in range(24):
        batch.add_message(message(bytes([number]) * 8000))
    assert batch.size_in_bytes > 190_000
    await sender.send_messages(batch)
    received = await bench.take_and_complete(receiver, 24)
    assert [body(each) for each in received] == [bytes([number]) * 8000 for number in range(24)]


@scenario
async def send_large_message(bench: Bench) -> None:
    sender, receiver = await bench.pair()
    content = bytes(range(256)) * (900_000 // 256)
    await sender.send_messages(message(content))
    received = await bench.take_one(receiver)
    assert body(received) == content
    await receiver.complete_message(received)
    await bench.is_empty(receiver)


@scenario
async def send_oversize(bench: Bench) -> None:
    sender, receiver = await bench.pair()
    with pytest.raises(MessageSizeExceededError):
        # Beyond what any entity of the suite takes, on either tier.
        await sender.send_messages(message(b"x" * (1024 * 1024 + 1000)))
    await sender.send_messages(message("small"))
    received = await bench.take_and_complete(receiver)
    assert bodies(received) == ["small"]


@scenario
async def send_singly(bench: Bench) -> None:
    sender, receiver = await bench.pair(
        receive_mode=ServiceBusReceiveMode.RECEIVE_AND_DELETE, prefetch_count=MANY
    )
    for number in range(1100):
        await sender.send_messages(message(str(number)))
    received = await bench.take(receiver, 1100)
    assert bodies(received) == [str(number) for number in range(1100)]


@scenario
async def two_thousand(bench: Bench) -> None:
    sender, receiver = await bench.pair(
        prefetch_count=300, receive_mode=ServiceBusReceiveMode.RECEIVE_AND_DELETE
    )
    for start in range(0, 2000, 100):
        await sender.send_messages([message(str(number)) for number in range(start, start + 100)])
    received: list[ServiceBusMessage] = []
    while len(received) < 2000:
        received += await bench.take(receiver, 100)
    assert bodies(received) == [str(number) for number in range(2000)]
    await bench.is_empty(receiver)


@scenario
async def concurrent_senders(bench: Bench) -> None:
    *senders, receiver = await bench.sdk.gather(*(bench.sender() for _ in range(3)), bench.receiver())

    async def send(mark: int) -> None:
        for number in range(40):
            await senders[mark].send_messages(message(f"{mark}.{number}"))

    await bench.sdk.gather(*(send(mark) for mark in range(3)))
    received = bodies(await bench.take_and_complete(receiver, 120))
    for mark in range(3):
        of_mark = [each for each in received if each.startswith(f"{mark}.")]
        assert of_mark == [f"{mark}.{number}" for number in range(40)]


@scenario
async def unknown_entity(bench: Bench) -> None:
    async def refuses(link: object) -> None:
        with pytest.raises(MessagingEntityNotFoundError):
            await link  # type: ignore[misc]

    await bench.sdk.gather(
        refuses(bench.sender(retries=0)),
        refuses(bench.receiver(retries=0)),
        refuses(bench.sender(topic=True, retries=0)),
        refuses(bench.receiver(subscription="none", retries=0)),
    )


@scenario
async def name_ignores_case(bench: Bench) -> None:
    sender, receiver = await bench.sdk.gather(
        bench.sender(bench.name.upper()), bench.receiver(bench.name.title())
    )
    await sender.send_messages(message("same"))
    assert bodies(await bench.take_and_complete(receiver)) == ["same"]


@scenario
async def send_to_subscription(bench: Bench) -> None:
    async def send() -> None:
        sender = await bench.sender(f"{bench.name}/Subscriptions/all", retries=0)
        await sender.send_messages(message())

    with pytest.raises(ServiceBusError):
        await send()


@scenario
async def any_credentials(bench: Bench) -> None:
    parts = dict(part.split("=", 1) for part in bench.connection_string.rstrip(";").split(";"))
    parts.update(SharedAccessKeyName="nobody", SharedAccessKey="bm90IGEga2V5IG9mIHRoaXMgbmFtZXNwYWNl")
    bench.connection_string = ";".join(f"{key}={value}" for key, value in parts.items()) + ";"
    sender, receiver = await bench.pair()
    await sender.send_messages(message("welcome"))
    assert bodies(await bench.take_and_complete(receiver)) == ["welcome"]


@scenario
async def disabled(bench: Bench) -> None:
    async def refuses_to_send(entity: str) -> None:
        with pytest.raises(MessagingEntityDisabledError):
            await bench.sender(entity, retries=0)

    async def refuses_to_receive(entity: str) -> None:
        with pytest.raises(MessagingEntityDisabledError):
            await bench.receiver(entity, retries=0)

    async def sends(entity: str) -> None:
        await (await bench.sender(entity)).send_messages(message())

    async def receives(entity: str) -> None:
        await bench.silence(await bench.receiver(entity))

    await bench.sdk.gather(
        refuses_to_send(f"{bench.name}.sending"),
        receives(f"{bench.name}.sending"),
        refuses_to_receive(f"{bench.name}.receiving"),
        sends(f"{bench.name}.receiving"),
        refuses_to_send(f"{bench.name}.both"),
        refuses_to_receive(f"{bench.name}.both"),
    )


@scenario
async def queue_full(bench: Bench) -> None:
    sender = await bench.sender(retries=0)
    receiver = await bench.receiver(receive_mode=ServiceBusReceiveMode.RECEIVE_AND_DELETE)
    for _ in range(4):
        await sender.send_messages(message(b"x" * 240_000))

    async def two_more() -> None:  # the first may fill the queue and yet be taken
        for _ in range(2):
            await sender.send_messages(message(b"x" * 240_000))

    with pytest.raises(ServiceBusQuotaExceededError):
        await two_more()
    await bench.take(receiver, 4)
    await sender.send_messages(message("room"))


@scenario
async def auto_delete(bench: Bench) -> None:
    sender = await bench.sender()
    await bench.advance(200)
    await sender.send_messages(message("used"))
    await bench.end(sender)
    await bench.advance(200)
    receiver = await bench.receiver()
    assert bodies(await bench.take_and_complete(receiver)) == ["used"]
    await bench.end(receiver)
    await bench.advance(400)
    with pytest.raises(MessagingEntityNotFoundError):
        await bench.receiver(retries=0)


@scenario
async def idle_sender(bench: Bench) -> None:
    sender, receiver = await bench.pair()
    await sender.send_messages(message("before"))
    assert bodies(await bench.take_and_complete(receiver)) == ["before"]
    await bench.advance(720)
    await sender.send_messages(message("after"))
    await bench.end(receiver)
    receiver = await bench.receiver()
    assert bodies(await bench.take_and_complete(receiver)) == ["after"]


@scenario
async def idle_receiver(bench: Bench) -> None:
    receiver = await bench.receiver()
    await bench.advance(720)
    sender = await bench.sender()
    await sender.send_messages(message("after"))
    assert bodies(await bench.take_and_complete(receiver)) == ["after"]
