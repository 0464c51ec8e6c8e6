"""Scenarios of what becomes of a received message: outcomes, delivery counts, locks and dead letters."""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest
from azure.servicebus import ServiceBusSubQueue
from azure.servicebus.exceptions import MessageLockLostError

from .bench import MANY, Bench, bodies, message, text, texts
from .registry import scenario

LOCK = 60.0
"""Seconds a lock lasts on the entities of the suite that say nothing else."""
SOON = timedelta(seconds=5)
"""How long a lock lasts on the queue of `lock-expiry-soon`."""


async def _dead_letters(bench: Bench) -> Any:
    return await bench.receiver(sub_queue=ServiceBusSubQueue.DEAD_LETTER)


@scenario
async def abandon(bench: Bench) -> None:
    sender, receiver = await bench.pair()
    await sender.send_messages(texts(2))
    first = await bench.take_one(receiver)
    assert (text(first), first.delivery_count) == ("0", 0)
    await receiver.abandon_message(first)
    again = await bench.take_one(receiver)
    assert (text(again), again.delivery_count) == ("0", 1)
    assert again.sequence_number == first.sequence_number
    assert again.enqueued_time_utc == first.enqueued_time_utc
    assert again.lock_token != first.lock_token
    await receiver.complete_message(again)
    assert bodies(await bench.take_and_complete(receiver)) == ["1"]


@scenario
async def max_delivery_count(bench: Bench) -> None:
    sender, receiver = await bench.pair()
    await sender.send_messages(message("poison", application_properties={"own": "kept"}))
    for count in range(3):
        received = await bench.take_one(receiver)
        assert received.delivery_count == count
        await receiver.abandon_message(received)
    (dead,) = await bench.take_and_complete(await _dead_letters(bench))
    assert text(dead) == "poison"
    assert dead.dead_letter_reason == "MaxDeliveryCountExceeded"
    assert dead.dead_letter_error_description
    assert dead.application_properties[b"own"] == b"kept"
    await bench.is_empty(receiver)


@scenario
async def dead_letter(bench: Bench) -> None:
    sender, receiver = await bench.pair()
    sent = message("bad", message_id=bench.unique("id"), application_properties={"own": 1})
    await sender.send_messages(sent)
    received = await bench.take_one(receiver)
    await receiver.dead_letter_message(received, reason="Because", error_description="It was bad.")
    await bench.is_empty(receiver)
    dead_letters = await _dead_letters(bench)
    dead = await bench.take_one(dead_letters)
    assert (text(dead), dead.message_id) == ("bad", sent.message_id)
    assert dead.dead_letter_reason == "Because"
    assert dead.dead_letter_error_description == "It was bad."
    assert dead.application_properties == {
        b"own": 1,
        b"DeadLetterReason": b"Because",
        b"DeadLetterErrorDescription": b"It was bad.",
    }
    assert dead.enqueued_time_utc == received.enqueued_time_utc
    await dead_letters.complete_message(dead)
    await bench.is_empty(dead_letters)


@scenario
async def dead_letter_plain(bench: Bench) -> None:
    sender, receiver = await bench.pair()
    await sender.send_messages(message("bad"))
    await receiver.dead_letter_message(await bench.take_one(receiver))
    dead_letters = await _dead_letters(bench)
    (dead,) = await bench.take_and_complete(dead_letters)
    assert text(dead) == "bad"
    assert not dead.dead_letter_reason
    assert not dead.dead_letter_error_description


@scenario
async def dead_letter_keeps(bench: Bench) -> None:
    sender, receiver = await bench.pair()
    await sender.send_messages(message("bad"))
    await receiver.dead_letter_message(await bench.take_one(receiver), reason="Because")
    dead_letters = await _dead_letters(bench)
    for _ in range(4):
        await dead_letters.abandon_message(await bench.take_one(dead_letters))
    (dead,) = await bench.take_and_complete(dead_letters)
    assert dead.dead_letter_reason == "Because"


@scenario
async def complete_in_any_order(bench: Bench) -> None:
    sender, receiver = await bench.pair()
    await sender.send_messages(texts(6))
    received = await bench.take(receiver, 6)
    for position in (3, 0, 5, 1, 4, 2):
        await receiver.complete_message(received[position])
    await bench.is_empty(receiver)


@scenario
async def settle_mixed(bench: Bench) -> None:
    sender, receiver = await bench.pair()
    await sender.send_messages(texts(4))
    first, second, third, fourth = await bench.take(receiver, 4)
    await receiver.dead_letter_message(third, reason="third")
    await receiver.defer_message(second)
    await receiver.complete_message(first)
    await receiver.abandon_message(fourth)
    again = await bench.take_one(receiver)
    assert (text(again), again.delivery_count) == ("3", 1)
    await receiver.complete_message(again)
    (deferred,) = await receiver.receive_deferred_messages(second.sequence_number)
    assert text(deferred) == "1"
    await receiver.complete_message(deferred)
    await bench.is_empty(receiver)
    (dead,) = await bench.take_and_complete(await _dead_letters(bench))
    assert (text(dead), dead.dead_letter_reason) == ("2", "third")


@scenario
async def many_locked(bench: Bench) -> None:
    sender, receiver = await bench.pair(prefetch_count=MANY)
    for start in range(0, 1500, 100):
        await sender.send_messages([message(str(number)) for number in range(start, start + 100)])
    received: list[Any] = []
    while len(received) < 1500:
        received += await bench.take(receiver, 100)
    # Not their order: the SDK releases what comes between two of its receives, and that comes again later.
    assert sorted(int(each) for each in bodies(received)) == list(range(1500))
    for each in reversed(received):
        # Where the blocking SDK misses a confirmation, which its keep-alive thread may read, it settles again
        # and is told that there is nothing left to settle. A message that was not settled would be found.
        with suppress(MessageLockLostError):
            await receiver.complete_message(each)
    await bench.is_empty(receiver)


@scenario
async def auto_renewal(bench: Bench) -> None:
    renewer = bench.sdk.renewer()
    sender, receiver = await bench.pair(auto_lock_renewer=renewer)
    await sender.send_messages(message())
    received = await bench.take_one(receiver)
    await bench.sdk.sleep(7)
    assert received.auto_renew_error is None
    await receiver.complete_message(received)
    await renewer.close()
    await bench.is_empty(receiver)


@scenario
async def lock_expiry_soon(bench: Bench) -> None:
    sender, first, second = await bench.sdk.gather(bench.sender(), bench.receiver(), bench.receiver())
    await sender.send_messages(message())
    received = await bench.take_one(first)
    assert received.locked_until_utc - received.enqueued_time_utc < timedelta(seconds=20)
    again = await bench.take_one(second)
    # The namespace's own times: this machine may be busy for longer than a lock lasts.
    assert again.locked_until_utc - SOON >= received.locked_until_utc - timedelta(seconds=0.1)
    assert again.delivery_count == 1
    with pytest.raises(MessageLockLostError):
        await first.complete_message(received)
    await second.complete_message(again)
    await bench.is_empty(second)


@scenario
async def transfer_dead_letters(bench: Bench) -> None:
    receiver = await bench.receiver(sub_queue=ServiceBusSubQueue.TRANSFER_DEAD_LETTER)
    await bench.silence(receiver)
    await bench.is_empty(receiver)


@scenario
async def renew_lock(bench: Bench) -> None:
    sender, receiver = await bench.pair()
    await sender.send_messages(message())
    received = await bench.take_one(receiver)
    before = received.locked_until_utc
    await bench.sdk.sleep(1.1)
    renewed = await receiver.renew_message_lock(received)
    assert renewed > before
    assert received.locked_until_utc == renewed
    await receiver.complete_message(received)
    await bench.is_empty(receiver)


@scenario
async def renew_keeps_lock(bench: Bench) -> None:
    sender, receiver = await bench.pair()
    await sender.send_messages(message())
    received = await bench.take_one(receiver)
    for _ in range(3):
        await bench.advance(LOCK * 0.7)
        await receiver.renew_message_lock(received)
    await receiver.complete_message(received)
    await bench.is_empty(receiver)


@scenario
async def lock_expiry(bench: Bench) -> None:
    sender, first, second = await bench.sdk.gather(bench.sender(), bench.receiver(), bench.receiver())
    await sender.send_messages(texts(2))
    received = await bench.take_one(first)
    await bench.advance(LOCK + 1)
    again, other = await bench.take(second, 2)
    assert (text(again), again.delivery_count) == ("0", 1)
    assert (text(other), other.delivery_count) == ("1", 0)
    assert again.sequence_number == received.sequence_number
    with pytest.raises(MessageLockLostError):
        await first.complete_message(received)
    await second.complete_message(again)
    await second.complete_message(other)
    await bench.is_empty(second)


@scenario
async def lock_lost(bench: Bench) -> None:
    sender, receiver = await bench.pair(retries=0)
    await sender.send_messages(texts(5))
    received = await bench.take(receiver, 5)
    await bench.advance(LOCK + 1)
    settle = [
        receiver.complete_message,
        receiver.abandon_message,
        receiver.defer_message,
        receiver.dead_letter_message,
        receiver.renew_message_lock,
    ]
    for each, call in zip(received, settle, strict=True):
        with pytest.raises(MessageLockLostError):
            await call(each)
    again = await bench.take_and_complete(receiver, 5)
    assert bodies(again) == bodies(received)
    assert {each.delivery_count for each in again} == {1}


@scenario
async def lock_expiry_dead_letters(bench: Bench) -> None:
    sender, receiver = await bench.pair()
    await sender.send_messages(message("slow"))
    for count in range(2):
        received = await bench.take_one(receiver)
        assert received.delivery_count == count
        await bench.advance(LOCK + 1)
    (dead,) = await bench.take_and_complete(await _dead_letters(bench))
    assert (text(dead), dead.dead_letter_reason) == ("slow", "MaxDeliveryCountExceeded")


@scenario
async def lock_outlives_receiver(bench: Bench) -> None:
    sender, first = await bench.pair()
    await sender.send_messages(texts(2))
    assert text(await bench.take_one(first)) == "0"
    await bench.end(first)
    second = await bench.receiver()
    assert bodies(await bench.take_and_complete(second)) == ["1"]
    await bench.silence(second)
    await bench.advance(LOCK + 1)
    again = await bench.take_one(second)
    assert (text(again), again.delivery_count) == ("0", 1)
    await second.complete_message(again)
