"""Scenarios of getting messages out: modes, waiting, streaming, prefetching, sharing, closing."""

from __future__ import annotations

import time

import pytest
from azure.servicebus import ServiceBusReceiveMode

from .bench import Bench, bodies, message, text, texts
from .registry import scenario


@scenario
async def receive_and_delete(bench: Bench) -> None:
    sender, receiver = await bench.pair(receive_mode=ServiceBusReceiveMode.RECEIVE_AND_DELETE)
    await sender.send_messages(texts(3))
    received = await bench.take(receiver, 3)
    assert bodies(received) == ["0", "1", "2"]
    await bench.is_empty(receiver)
    with pytest.raises(ValueError, match="RECEIVE_AND_DELETE"):
        await receiver.complete_message(received[0])


@scenario
async def receive_nothing(bench: Bench) -> None:
    receiver = await bench.receiver()
    began = time.monotonic()
    assert await receiver.receive_messages(1, max_wait_time=1) == []
    assert time.monotonic() - began >= 0.9


@scenario
async def receive_waits(bench: Bench) -> None:
    sender, receiver = await bench.pair()

    async def send_later() -> None:
        await bench.sdk.sleep(0.5)
        await sender.send_messages(message("at last"))

    received, _ = await bench.sdk.gather(bench.take_and_complete(receiver), send_later())
    assert bodies(received) == ["at last"]


@scenario
async def receive_fewer(bench: Bench) -> None:
    sender, receiver = await bench.pair()
    await sender.send_messages(texts(3))
    received = await receiver.receive_messages(10, max_wait_time=5)
    assert bodies(received) == ["0", "1", "2"]
    for each in received:
        await receiver.complete_message(each)


@scenario
async def receive_stream(bench: Bench) -> None:
    sender, receiver = await bench.pair(max_wait_time=2)
    await sender.send_messages(texts(20))
    received = []
    async for each in receiver:
        received.append(text(each))
        await receiver.complete_message(each)
        if len(received) == 20:
            break
    assert received == [str(number) for number in range(20)]
    await bench.is_empty(receiver)


@scenario
async def prefetch(bench: Bench) -> None:
    sender, receiver = await bench.pair(prefetch_count=20)
    await sender.send_messages(texts(100))
    received = []
    for _ in range(20):
        some = await bench.take(receiver, 5)
        received += bodies(some)
        for each in some:
            await receiver.complete_message(each)
    assert received == [str(number) for number in range(100)]
    await bench.is_empty(receiver)


@scenario
async def competing_receivers(bench: Bench) -> None:
    sender, one, two = await bench.sdk.gather(bench.sender(), bench.receiver(), bench.receiver())
    await sender.send_messages(texts(20))

    async def ten(receiver: object) -> list[str]:
        return bodies(await bench.take_and_complete(receiver, 10))

    of_one, of_two = await bench.sdk.gather(ten(one), ten(two))
    assert sorted(of_one + of_two, key=int) == [str(number) for number in range(20)]
    await bench.is_empty(one)


@scenario
async def close_returns_prefetched(bench: Bench) -> None:
    sender, first = await bench.pair(prefetch_count=20)
    await sender.send_messages(texts(10))
    await receiver_completes(bench, first)
    await bench.end(first)
    second = await bench.receiver()
    received = await bench.take(second, 9)
    assert bodies(received) == [str(number) for number in range(1, 10)]
    assert {each.delivery_count for each in received} == {0}
    for each in received:
        await second.complete_message(each)


async def receiver_completes(bench: Bench, receiver: object) -> None:
    """Complete the first message only, with the others in the receiver's buffer."""
    assert bodies(await bench.take_and_complete(receiver)) == ["0"]


@scenario
async def close_returns_credit(bench: Bench) -> None:
    sender, first = await bench.pair()
    await bench.silence(first)
    await bench.end(first)
    await sender.send_messages(message("for the second"))
    second = await bench.receiver()
    received = await bench.take_one(second)
    assert text(received) == "for the second"
    assert received.delivery_count == 0
    await second.complete_message(received)
