"""Scenarios in which time decides: schedules, expiry and windows of duplicate detection."""

from __future__ import annotations

import contextlib
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from azure.servicebus import ServiceBusMessage, ServiceBusSubQueue
from azure.servicebus.exceptions import MessageNotFoundError

from .bench import Bench, bodies, message, text, texts
from .registry import scenario


def _in(**ahead: float) -> datetime:
    return datetime.now(timezone.utc) + timedelta(**ahead)


def _expiring(content: str, seconds: float, **options: Any) -> ServiceBusMessage:
    return message(content, time_to_live=timedelta(seconds=seconds), **options)


async def _dead_letters(bench: Bench) -> Any:
    return await bench.receiver(sub_queue=ServiceBusSubQueue.DEAD_LETTER)


@scenario
async def schedule_and_cancel(bench: Bench) -> None:
    sender, receiver = await bench.pair()
    (number,) = await sender.schedule_messages(message("later"), _in(hours=1))
    await bench.silence(receiver)
    (seen,) = await receiver.peek_messages(10)
    assert (text(seen), seen.sequence_number) == ("later", number)
    await sender.cancel_scheduled_messages(number)
    await bench.is_empty(receiver)


@scenario
async def schedule_list(bench: Bench) -> None:
    sender, receiver = await bench.pair()
    numbers = await sender.schedule_messages(texts(5), _in(hours=1))
    assert len(set(numbers)) == 5
    seen = await receiver.peek_messages(10)
    assert {each.sequence_number: text(each) for each in seen} == dict(zip(numbers, "01234", strict=True))
    await sender.cancel_scheduled_messages(numbers[:2])
    assert bodies(await bench.seen(receiver)) == ["2", "3", "4"]
    await sender.cancel_scheduled_messages(numbers[2:])
    await bench.is_empty(receiver)


@scenario
async def schedule_soon(bench: Bench) -> None:
    sender, receiver = await bench.pair()
    due = _in(seconds=1.5)
    await sender.schedule_messages(message("soon"), due)
    received = await bench.take_one(receiver)
    assert text(received) == "soon"
    assert received.enqueued_time_utc >= due - timedelta(milliseconds=5)
    assert abs(received.scheduled_enqueue_time_utc - due) < timedelta(milliseconds=2)
    await receiver.complete_message(received)


@scenario
async def schedule_past(bench: Bench) -> None:
    sender, receiver = await bench.pair()
    await sender.schedule_messages(message("overdue"), _in(hours=-1))
    assert bodies(await bench.take_and_complete(receiver)) == ["overdue"]


@scenario
async def schedule_due(bench: Bench) -> None:
    sender, receiver = await bench.pair()
    due = _in(minutes=10)
    (number,) = await sender.schedule_messages(message("scheduled"), due)
    await sender.send_messages(message("sent"))
    sent = await bench.take_one(receiver)
    assert text(sent) == "sent"
    await receiver.complete_message(sent)
    await bench.advance(580)
    await bench.silence(receiver)
    await bench.advance(40)
    received = await bench.take_one(receiver)
    assert text(received) == "scheduled"
    assert due - timedelta(seconds=1) <= received.enqueued_time_utc <= due + timedelta(seconds=60)
    assert received.sequence_number > sent.sequence_number
    assert received.sequence_number != number
    await receiver.complete_message(received)
    await bench.is_empty(receiver)


@scenario
async def schedule_by_property(bench: Bench) -> None:
    sender, receiver = await bench.pair()
    await sender.send_messages(
        [message("scheduled", scheduled_enqueue_time_utc=_in(minutes=10)), message("sent")]
    )
    assert bodies(await bench.take_and_complete(receiver)) == ["sent"]
    await bench.silence(receiver)
    await bench.advance(610)
    assert bodies(await bench.take_and_complete(receiver)) == ["scheduled"]


@scenario
async def cancel_unknown(bench: Bench) -> None:
    sender = await bench.sender(retries=0)
    with pytest.raises(MessageNotFoundError):
        await sender.cancel_scheduled_messages(987654321)
    (number,) = await sender.schedule_messages(message("later"), _in(hours=1))
    await sender.cancel_scheduled_messages(number)
    with pytest.raises(MessageNotFoundError):
        await sender.cancel_scheduled_messages(number)


@scenario
async def expiry_drops(bench: Bench) -> None:
    sender, receiver = await bench.pair()
    await sender.send_messages([_expiring("brief", 30), message("lasting")])
    await bench.advance(31)
    assert bodies(await bench.take_and_complete(receiver)) == ["lasting"]
    await bench.silence(receiver)
    await bench.is_empty(await _dead_letters(bench))


@scenario
async def expiry_dead_letters(bench: Bench) -> None:
    sender, receiver = await bench.pair()
    await sender.send_messages(_expiring("brief", 30, application_properties={"own": 1}))
    await bench.advance(31)
    await bench.silence(receiver)
    (dead,) = await bench.take_and_complete(await _dead_letters(bench))
    assert (text(dead), dead.dead_letter_reason) == ("brief", "TTLExpiredException")
    assert dead.dead_letter_error_description
    assert dead.application_properties[b"own"] == 1


@scenario
async def expiry_default(bench: Bench) -> None:
    sender, receiver = await bench.pair()
    await sender.send_messages([message("default"), _expiring("longer", 3600), _expiring("shorter", 5)])
    await bench.advance(10)
    seen = await bench.take(receiver, 2)
    assert bodies(seen) == ["default", "longer"]
    for each in seen:
        await receiver.abandon_message(each)
    await bench.advance(11)
    await bench.silence(receiver)


@scenario
async def expiry_spares_locked(bench: Bench) -> None:
    sender, receiver = await bench.pair()
    await sender.send_messages([_expiring("kept", 30), _expiring("lost", 30)])
    kept, lost = await bench.take(receiver, 2)
    await bench.advance(40)
    await receiver.complete_message(kept)
    await receiver.abandon_message(lost)
    await bench.silence(receiver)


@scenario
async def expiry_soon(bench: Bench) -> None:
    sender, receiver = await bench.pair()
    await sender.send_messages([_expiring("brief", 1), message("lasting")])
    await bench.sdk.sleep(2)
    assert bodies(await bench.take_and_complete(receiver)) == ["lasting"]
    await bench.silence(receiver)


@scenario
async def expiry_on_topic(bench: Bench) -> None:
    sender, keeps, drops = await bench.sdk.gather(
        bench.sender(topic=True), bench.receiver(subscription="keeps"), bench.receiver(subscription="drops")
    )
    await sender.send_messages(_expiring("capped", 3600))
    await bench.advance(31)
    await bench.silence(keeps)
    await bench.silence(drops)
    kept, dropped = await bench.sdk.gather(
        *(
            bench.receiver(subscription=subscription, sub_queue=ServiceBusSubQueue.DEAD_LETTER)
            for subscription in ("keeps", "drops")
        )
    )
    (dead,) = await bench.take_and_complete(kept)
    assert (text(dead), dead.dead_letter_reason) == ("capped", "TTLExpiredException")
    await bench.is_empty(dropped)


@scenario
async def expiry_of_deferred(bench: Bench) -> None:
    sender, receiver = await bench.pair(retries=0)
    await sender.send_messages(_expiring("deferred", 30))
    received = await bench.take_one(receiver)
    await receiver.defer_message(received)
    await bench.advance(40)
    await bench.silence(receiver)
    assert bodies(await bench.seen(receiver)) == ["deferred"]
    dead_letters = await _dead_letters(bench)
    await bench.is_empty(dead_letters)
    # What the caller is told is not documented; that the message is not handed out is.
    with contextlib.suppress(MessageNotFoundError):
        assert await receiver.receive_deferred_messages(received.sequence_number) == []
    (dead,) = await bench.take_and_complete(dead_letters)
    assert (text(dead), dead.dead_letter_reason) == ("deferred", "TTLExpiredException")


@scenario
async def expiry_of_scheduled(bench: Bench) -> None:
    sender, receiver = await bench.pair()
    await sender.schedule_messages(_expiring("scheduled", 60), _in(minutes=10))
    await bench.advance(630)
    received = await bench.take_one(receiver)
    assert text(received) == "scheduled"
    await receiver.abandon_message(received)
    await bench.advance(60)
    await bench.silence(receiver)


@scenario
async def duplicates(bench: Bench) -> None:
    sender, receiver = await bench.pair()
    one, two = bench.unique("one"), bench.unique("two")
    await sender.send_messages(message("first", message_id=one))
    await sender.send_messages(message("second", message_id=one))
    await sender.send_messages(
        [
            message("third", message_id=two),
            message("fourth", message_id=one),
            message("fifth", message_id=two),
        ]
    )
    assert bodies(await bench.take_and_complete(receiver, 2)) == ["first", "third"]
    await sender.send_messages([message("sixth", message_id=one), message("last")])
    assert bodies(await bench.take_and_complete(receiver)) == ["last"]
    await bench.is_empty(receiver)


@scenario
async def duplicates_later(bench: Bench) -> None:
    sender, receiver = await bench.pair()
    same = bench.unique("same")
    await sender.send_messages(message("first", message_id=same))
    await bench.advance(50)
    await sender.send_messages(message("second", message_id=same))
    await bench.advance(15)
    await sender.send_messages(message("third", message_id=same))
    assert bodies(await bench.take_and_complete(receiver, 2)) == ["first", "third"]
    await bench.is_empty(receiver)


@scenario
async def duplicates_on_topic(bench: Bench) -> None:
    sender, receiver = await bench.sdk.gather(bench.sender(topic=True), bench.receiver(subscription="all"))
    same = bench.unique("same")
    for content in ("first", "second"):
        await sender.send_messages(message(content, message_id=same))
    await sender.send_messages(message("last"))
    assert bodies(await bench.take_and_complete(receiver, 2)) == ["first", "last"]
    await bench.is_empty(receiver)
