"""Scenarios of topics: who gets a copy, and what an action makes of it."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

from azure.servicebus import ServiceBusReceiveMode, ServiceBusSubQueue

from .bench import Bench, bodies, message, text, texts
from .registry import scenario

# An item of a table of messages: its name, options of the message, application properties.
Sent = tuple[str, dict[str, Any], dict[str, Any]]


async def _send(bench: Bench, *sent: Sent) -> None:
    sender = await bench.sender(topic=True)
    for name, options, properties in sent:
        await sender.send_messages(message(name, application_properties=properties, **options))


async def _copies(bench: Bench, **expected: list[str]) -> None:
    """Receive what each subscription holds; dashes are underscores in the names given."""

    async def check(subscription: str, names: list[str]) -> None:
        receiver = await bench.receiver(
            subscription=subscription, receive_mode=ServiceBusReceiveMode.RECEIVE_AND_DELETE
        )
        if names:
            received = bodies(await bench.take(receiver, len(names)))
            assert received == names, f"{subscription} got {received}, not {names}"
        left = bodies(await bench.seen(receiver))
        assert not left, f"{subscription} got {left} besides {names}"

    await bench.sdk.gather(*(check(name.replace("_", "-"), names) for name, names in expected.items()))


async def _subscribed(bench: Bench, *subscriptions: str) -> tuple[Any, ...]:
    """A sender to the topic, and a receiver of each subscription."""
    links = [bench.receiver(subscription=subscription) for subscription in subscriptions]
    return tuple(await bench.sdk.gather(bench.sender(topic=True), *links))


@scenario
async def fan_out(bench: Bench) -> None:
    sender, one, two = await _subscribed(bench, "one", "two")
    await sender.send_messages(texts(3))
    assert bodies(await bench.take_and_complete(one, 3)) == ["0", "1", "2"]
    await bench.is_empty(one)
    assert bodies(await bench.take_and_complete(two, 3)) == ["0", "1", "2"]


@scenario
async def no_match(bench: Bench) -> None:
    sender, receiver = await _subscribed(bench, "none")
    await sender.send_messages(message())
    await bench.silence(receiver)
    await bench.is_empty(receiver)


@scenario
async def no_subscription(bench: Bench) -> None:
    sender = await bench.sender(topic=True)
    await sender.send_messages(message())
    await sender.send_messages(texts(3))


@scenario
async def correlation(bench: Bench) -> None:
    await _send(
        bench,
        ("red", {"subject": "red"}, {}),
        ("red c1", {"subject": "red", "correlation_id": "c1"}, {}),
        ("Red", {"subject": "Red", "correlation_id": "c1"}, {}),
        ("red property", {}, {"colour": "red", "size": 3}),
        ("text three", {}, {"size": "3"}),
        ("all", {"message_id": "m1", "to": "t", "reply_to": "r", "content_type": "c"}, {}),
        ("not all", {"message_id": "m1", "to": "t", "reply_to": "r"}, {}),
    )
    await _copies(
        bench,
        subject=["red", "red c1"],
        both=["red c1"],
        text=["red property"],
        number=["red property"],
        system=["all"],
    )


@scenario
async def sql(bench: Bench) -> None:
    await _send(
        bench,
        ("red 3", {}, {"colour": "red", "size": 3, "flag": True, "note": "it's"}),
        ("red 1", {}, {"colour": "red", "size": 1, "flag": False}),
        ("blue 4", {}, {"colour": "blue", "size": 4.5}),
        ("rudder", {}, {"colour": "rudder", "size": 2}),
        ("Red 3", {}, {"Colour": "Red", "size": 3}),
    )
    await _copies(
        bench,
        equal=["red 3", "red 1"],
        greater=["blue 4"],
        combined=["red 3"],
        sum=["red 3", "Red 3"],
        like=["red 3", "red 1", "rudder"],
        flag=["red 3"],
        quoted=["red 3"],
        **{"in": ["blue 4"]},
    )


@scenario
async def sql_absent(bench: Bench) -> None:
    await _send(
        bench,
        ("none", {}, {"size": 1}),
        ("red", {}, {"colour": "red"}),
        ("blue", {}, {"colour": "blue", "size": 1}),
    )
    await _copies(
        bench,
        different=["blue"],
        negated=["blue"],
        null=["none"],
        not_null=["red", "blue"],
        exists=["red", "blue"],
        either=["none", "red", "blue"],
    )


@scenario
async def sql_system(bench: Bench) -> None:
    await _send(
        bench,
        ("label", {"subject": "urgent"}, {}),
        ("id", {"message_id": bench.unique("order")}, {}),
        ("correlation", {"correlation_id": "c1"}, {"Label": "urgent"}),
        ("correlation 2", {"correlation_id": "c1", "reply_to": "r"}, {}),
        ("content", {"content_type": "application/json", "to": "here"}, {}),
    )
    await _copies(bench, label=["label"], id=["id"], correlation=["correlation"], content=["content"])


@scenario
async def action(bench: Bench) -> None:
    _, plain, changed = await _subscribed(bench, "plain", "changed")
    await _send(
        bench,
        ("two", {"subject": "as sent"}, {"size": 2, "colour": "red", "note": "x"}),
        ("one", {}, {"size": 1}),
    )
    original, _ = await bench.take_and_complete(plain, 2)
    assert original.application_properties == {b"size": 2, b"colour": b"red", b"note": b"x"}
    assert original.subject == "as sent"
    (copy,) = await bench.take_and_complete(changed)
    properties = copy.application_properties
    assert properties[b"size"] == 12
    assert properties[b"colour"] == b"blue"
    assert b"note" not in properties
    assert copy.subject == "new"
    assert text(copy) == "two"
    await bench.is_empty(changed)


@scenario
async def several_actions(bench: Bench) -> None:
    sender, copies = await _subscribed(bench, "copies")
    await sender.send_messages(message("three", application_properties={"size": 3}))
    received = await bench.take_and_complete(copies, 3)
    by = [each.application_properties.get(b"by", b"nobody") for each in received]
    assert sorted(by) == [b"first", b"nobody", b"second"]
    await sender.send_messages(message("two", application_properties={"size": 2}))
    received = await bench.take_and_complete(copies, 2)
    by = [each.application_properties.get(b"by", b"nobody") for each in received]
    assert sorted(by) == [b"first", b"nobody"]
    await bench.is_empty(copies)


@scenario
async def topic_batch(bench: Bench) -> None:
    sender = await bench.sender(topic=True)
    batch = await sender.create_message_batch()
    for number in range(6):
        batch.add_message(message(str(number), application_properties={"n": number}))
    await sender.send_messages(batch)
    await _copies(bench, even=["0", "2", "4"], all=["0", "1", "2", "3", "4", "5"])


@scenario
async def topic_dead_letter(bench: Bench) -> None:
    sender, one, two = await _subscribed(bench, "one", "two")
    await sender.send_messages(message("bad"))
    await one.dead_letter_message(await bench.take_one(one), reason="Because")
    dead_letters = await bench.receiver(subscription="one", sub_queue=ServiceBusSubQueue.DEAD_LETTER)
    (dead,) = await bench.take_and_complete(dead_letters)
    assert (text(dead), dead.dead_letter_reason) == ("bad", "Because")
    others = await bench.receiver(subscription="two", sub_queue=ServiceBusSubQueue.DEAD_LETTER)
    await bench.is_empty(others)
    assert bodies(await bench.take_and_complete(two)) == ["bad"]


@scenario
async def topic_schedule(bench: Bench) -> None:
    sender, receiver = await _subscribed(bench, "all")
    due = datetime.now(timezone.utc) + timedelta(minutes=10)
    _, cancelled = await sender.schedule_messages([message("due"), message("cancelled")], due)
    await bench.is_empty(receiver)
    await sender.cancel_scheduled_messages(cancelled)
    await bench.silence(receiver)
    await bench.advance(610)
    assert bodies(await bench.take_and_complete(receiver)) == ["due"]
    await bench.is_empty(receiver)
