"""Scenarios of entities that hand their messages on to others."""

from __future__ import annotations

import pytest
from azure.servicebus import ServiceBusSubQueue
from azure.servicebus.exceptions import ServiceBusError

from .bench import Bench, bodies, message, text, texts
from .registry import scenario


@scenario
async def forward(bench: Bench) -> None:
    sender, receiver = await bench.sdk.gather(bench.sender(), bench.receiver(f"{bench.name}.to"))
    await sender.send_messages(texts(3))
    received = await bench.take_and_complete(receiver, 3)
    assert bodies(received) == ["0", "1", "2"]
    assert {each.delivery_count for each in received} == {0}
    assert all(each.enqueued_sequence_number for each in received)


@scenario
async def forward_chain(bench: Bench) -> None:
    sender, receiver = await bench.sdk.gather(bench.sender(topic=True), bench.receiver(f"{bench.name}.last"))
    await sender.send_messages(message("through", application_properties={"own": 1}, subject="s"))
    (received,) = await bench.take_and_complete(receiver)
    assert (text(received), received.subject) == ("through", "s")
    assert received.application_properties[b"own"] == 1


@scenario
async def forward_dead_letters(bench: Bench) -> None:
    sender, receiver = await bench.pair()
    target = await bench.receiver(f"{bench.name}.to")
    await sender.send_messages(message("bad"))
    await receiver.dead_letter_message(await bench.take_one(receiver), reason="Because")
    (forwarded,) = await bench.take_and_complete(target)
    assert (text(forwarded), forwarded.dead_letter_reason) == ("bad", "Because")
    assert forwarded.dead_letter_source.casefold() == bench.name.casefold()


@scenario
async def forward_too_far(bench: Bench) -> None:
    sender, *dead_letters = await bench.sdk.gather(
        bench.sender(f"{bench.name}.1"),
        *(
            bench.receiver(f"{bench.name}.{hop}", sub_queue=ServiceBusSubQueue.DEAD_LETTER)
            for hop in range(1, 8)
        ),
    )
    await sender.send_messages(message("far"))
    await bench.sdk.sleep(1)
    found = [each for receiver in dead_letters for each in await bench.seen(receiver)]
    assert [(text(each), each.dead_letter_reason) for each in found] == [
        ("far", "MaxTransferHopCountExceeded")
    ]
    await bench.is_empty(await bench.receiver(f"{bench.name}.7"))


@scenario
async def forward_not_received(bench: Bench) -> None:
    with pytest.raises(ServiceBusError):
        await bench.refused_receiver()
    # What has been forwarded is where it should be, and the queue's dead letters can still be read.
    sender, target, dead_letters = await bench.sdk.gather(
        bench.sender(),
        bench.receiver(f"{bench.name}.to"),
        bench.receiver(sub_queue=ServiceBusSubQueue.DEAD_LETTER),
    )
    await sender.send_messages(message("on"))
    assert bodies(await bench.take_and_complete(target)) == ["on"]
    await bench.is_empty(dead_letters)
