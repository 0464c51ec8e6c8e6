"""Scenarios of looking at messages without taking them."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from azure.servicebus import ServiceBusMessageState, ServiceBusSubQueue

from .bench import Bench, bodies, body, message, text, texts
from .registry import scenario


@scenario
async def peek(bench: Bench) -> None:
    sender, receiver = await bench.pair()
    await sender.send_messages(
        [message(str(number), application_properties={"n": number}) for number in range(3)]
    )
    seen = await receiver.peek_messages(10)
    assert bodies(seen) == ["0", "1", "2"]
    assert [each.application_properties[b"n"] for each in seen] == [0, 1, 2]
    assert all(each.enqueued_time_utc is not None for each in seen)
    assert all(each.lock_token is None for each in seen)
    received = await bench.take_and_complete(receiver, 3)
    assert [each.sequence_number for each in received] == [each.sequence_number for each in seen]
    assert {each.delivery_count for each in received} == {0}


@scenario
async def peek_states(bench: Bench) -> None:
    sender, receiver = await bench.pair()
    await sender.send_messages([message("deferred"), message("locked"), message("active")])
    due = datetime.now(timezone.utc) + timedelta(hours=1)
    (number,) = await sender.schedule_messages(message("scheduled"), due)
    deferred, locked = await bench.take(receiver, 2)
    await receiver.defer_message(deferred)
    seen = {text(each): each for each in await bench.seen(receiver)}
    assert {name: each.state for name, each in seen.items()} == {
        "deferred": ServiceBusMessageState.DEFERRED,
        "locked": ServiceBusMessageState.ACTIVE,
        "active": ServiceBusMessageState.ACTIVE,
        "scheduled": ServiceBusMessageState.SCHEDULED,
    }
    assert seen["scheduled"].sequence_number == number
    assert abs(seen["scheduled"].scheduled_enqueue_time_utc - due) < timedelta(milliseconds=2)
    await receiver.complete_message(locked)
    await sender.cancel_scheduled_messages(number)
    assert sorted(bodies(await bench.seen(receiver))) == ["active", "deferred"]


@scenario
async def peek_pages(bench: Bench) -> None:
    sender, receiver = await bench.pair()
    await sender.send_messages(texts(25))
    pages = []
    while page := await receiver.peek_messages(10):
        assert len(page) <= 10
        pages += page
    assert bodies(pages) == [str(number) for number in range(25)]
    assert await receiver.peek_messages(10) == []
    again = await receiver.peek_messages(5, sequence_number=pages[7].sequence_number)
    assert bodies(again) == ["7", "8", "9", "10", "11"]


@scenario
async def peek_nothing(bench: Bench) -> None:
    receiver = await bench.receiver()
    assert await receiver.peek_messages(5) == []
    assert await receiver.peek_messages(5, sequence_number=1000) == []


@scenario
async def large_when_managed(bench: Bench) -> None:
    content = bytes(range(256)) * 800
    sender, receiver = await bench.pair()
    due = datetime.now(timezone.utc) + timedelta(hours=1)
    (number,) = await sender.schedule_messages(message(content), due)
    (scheduled,) = await bench.seen(receiver)
    assert body(scheduled) == content
    await sender.cancel_scheduled_messages(number)
    await sender.send_messages(message(content))
    received = await bench.take_one(receiver)
    await receiver.defer_message(received)
    (deferred,) = await receiver.receive_deferred_messages(received.sequence_number)
    assert body(deferred) == content
    await receiver.complete_message(deferred)
    await bench.is_empty(receiver)


@scenario
async def peek_dead_letters(bench: Bench) -> None:
    sender, receiver = await bench.pair()
    await sender.send_messages(texts(2))
    for each in await bench.take(receiver, 2):
        await receiver.dead_letter_message(each, reason=f"reason {text(each)}")
    await bench.is_empty(receiver)
    dead_letters = await bench.receiver(sub_queue=ServiceBusSubQueue.DEAD_LETTER)
    seen = await dead_letters.peek_messages(10)
    assert [(text(each), each.dead_letter_reason) for each in seen] == [("0", "reason 0"), ("1", "reason 1")]
    await bench.take_and_complete(dead_letters, 2)
