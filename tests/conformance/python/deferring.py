"""Scenarios of setting messages aside and asking for them by number."""

from __future__ import annotations

from typing import Any

import pytest
from azure.servicebus import ServiceBusMessageState, ServiceBusReceiveMode, ServiceBusSubQueue
from azure.servicebus.exceptions import MessageNotFoundError

from .bench import Bench, bodies, message, text, texts
from .registry import scenario
from .settling import LOCK


async def _deferred(bench: Bench, **options: Any) -> tuple[Any, int]:
    """A receiver of a queue with one deferred message, and its number."""
    sender, receiver = await bench.pair(**options)
    await sender.send_messages(message("later"))
    received = await bench.take_one(receiver)
    await receiver.defer_message(received)
    return receiver, received.sequence_number


async def _finish(bench: Bench, receiver: Any, number: int, deliveries: int) -> None:
    """Complete the deferred message, whose deliveries must have been counted like this."""
    (deferred,) = await receiver.receive_deferred_messages(number)
    assert (text(deferred), deferred.delivery_count) == ("later", deliveries)
    await receiver.complete_message(deferred)
    await bench.is_empty(receiver)


@scenario
async def defer(bench: Bench) -> None:
    receiver, number = await _deferred(bench)
    await bench.silence(receiver)
    (deferred,) = await receiver.receive_deferred_messages(number)
    assert text(deferred) == "later"
    assert deferred.sequence_number == number
    assert deferred.delivery_count == 1
    assert deferred.state == ServiceBusMessageState.DEFERRED
    assert deferred.lock_token is not None
    assert deferred.locked_until_utc is not None
    await receiver.complete_message(deferred)
    await bench.is_empty(receiver)


@scenario
async def defer_several(bench: Bench) -> None:
    sender, receiver = await bench.pair()
    await sender.send_messages(texts(5))
    received = await bench.take(receiver, 5)
    for each in received:
        await receiver.defer_message(each)
    numbers = [each.sequence_number for each in received]
    deferred = await receiver.receive_deferred_messages([numbers[3], numbers[0], numbers[4]])
    assert sorted(bodies(deferred)) == ["0", "3", "4"]
    deferred += await receiver.receive_deferred_messages(numbers[1:3])
    for each in deferred:
        await receiver.complete_message(each)
    await bench.is_empty(receiver)


@scenario
async def deferred_abandoned(bench: Bench) -> None:
    receiver, number = await _deferred(bench)
    (deferred,) = await receiver.receive_deferred_messages(number)
    await receiver.abandon_message(deferred)
    await bench.silence(receiver)
    await _finish(bench, receiver, number, deliveries=2)


@scenario
async def deferred_again(bench: Bench) -> None:
    receiver, number = await _deferred(bench)
    (deferred,) = await receiver.receive_deferred_messages(number)
    await receiver.defer_message(deferred)
    await bench.silence(receiver)
    await _finish(bench, receiver, number, deliveries=2)


@scenario
async def deferred_dead_lettered(bench: Bench) -> None:
    receiver, number = await _deferred(bench)
    (deferred,) = await receiver.receive_deferred_messages(number)
    await receiver.dead_letter_message(deferred, reason="Late", error_description="Too late.")
    await bench.is_empty(receiver)
    dead_letters = await bench.receiver(sub_queue=ServiceBusSubQueue.DEAD_LETTER)
    (dead,) = await bench.take_and_complete(dead_letters)
    assert (dead.dead_letter_reason, dead.dead_letter_error_description) == ("Late", "Too late.")
    assert dead.delivery_count == 1
    assert dead.state == ServiceBusMessageState.ACTIVE


@scenario
async def deferred_deleted(bench: Bench) -> None:
    receiver, number = await _deferred(bench)
    remover = await bench.receiver(receive_mode=ServiceBusReceiveMode.RECEIVE_AND_DELETE)
    (deferred,) = await remover.receive_deferred_messages(number)
    assert text(deferred) == "later"
    await bench.is_empty(receiver)


@scenario
async def deferred_renewed(bench: Bench) -> None:
    receiver, number = await _deferred(bench)
    (deferred,) = await receiver.receive_deferred_messages(number)
    before = deferred.locked_until_utc
    await bench.sdk.sleep(1.1)
    assert await receiver.renew_message_lock(deferred) > before
    await receiver.defer_message(deferred)
    await _finish(bench, receiver, number, deliveries=2)


@scenario
async def deferred_lock_expiry(bench: Bench) -> None:
    receiver, number = await _deferred(bench)
    await receiver.receive_deferred_messages(number)
    await bench.advance(LOCK + 1)
    await bench.silence(receiver)
    (deferred,) = await receiver.receive_deferred_messages(number)
    assert text(deferred) == "later"
    await receiver.complete_message(deferred)
    await bench.is_empty(receiver)


@scenario
async def lock_token_in_message(bench: Bench) -> None:
    def sent(received: Any) -> Any:
        # Where earlier versions of the SDK look for the lock of a deferred message, and nowhere else.
        return (received.raw_amqp_message.delivery_annotations or {}).get(b"x-opt-lock-token")

    sender, receiver = await bench.pair()
    await sender.send_messages(message())
    received = await bench.take_one(receiver)
    on_link = sent(received), received.lock_token
    await receiver.defer_message(received)
    (deferred,) = await receiver.receive_deferred_messages(received.sequence_number)
    by_number = sent(deferred), deferred.lock_token
    await receiver.complete_message(deferred)
    assert on_link[0] == on_link[1]
    assert by_number[0] == by_number[1]


@scenario
async def deferred_unknown(bench: Bench) -> None:
    sender, receiver = await bench.pair(retries=0)
    with pytest.raises(MessageNotFoundError):
        await receiver.receive_deferred_messages(987654321)
    await sender.send_messages(message("active"))
    (active,) = await receiver.peek_messages(1)
    with pytest.raises(MessageNotFoundError):
        await receiver.receive_deferred_messages(active.sequence_number)
