"""Scenarios of sessions: who holds one, what comes in which order, what stays and what is refused."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from azure.servicebus import NEXT_AVAILABLE_SESSION, ServiceBusReceiveMode, ServiceBusSubQueue
from azure.servicebus.exceptions import (
    OperationTimeoutError,
    ServiceBusError,
    SessionCannotBeLockedError,
    SessionLockLostError,
)

from .bench import Bench, bodies, message, text
from .registry import scenario
from .settling import LOCK


def _of(session: str, *contents: str) -> list[Any]:
    return [message(content, session_id=session) for content in contents]


async def _next(bench: Bench, wait: float = 8, **options: Any) -> Any:
    """A receiver of the next available session; it is opened once, without retries."""
    return await bench.receiver(session_id=NEXT_AVAILABLE_SESSION, max_wait_time=wait, retries=0, **options)


@scenario
async def session_by_id(bench: Bench) -> None:
    mine, other = bench.unique("mine"), bench.unique("other")
    sender, receiver = await bench.pair(session_id=mine)
    assert receiver.session.session_id == mine
    await sender.send_messages(_of(other, "x") + _of(mine, "a", "b") + _of(other, "y") + _of(mine, "c"))
    received = await bench.take_and_complete(receiver, 3)
    assert bodies(received) == ["a", "b", "c"]
    assert {each.session_id for each in received} == {mine}
    assert {each.delivery_count for each in received} == {0}
    await bench.silence(receiver)


@scenario
async def session_next(bench: Bench) -> None:
    session = bench.unique()
    sender = await bench.sender()
    await sender.send_messages(_of(session, "a", "b"))
    receiver = await _next(bench)
    assert receiver.session.session_id == session
    now = datetime.now(timezone.utc)
    assert now < receiver.session.locked_until_utc <= now + timedelta(seconds=90)
    assert bodies(await bench.take_and_complete(receiver, 2)) == ["a", "b"]


@scenario
async def session_next_waits(bench: Bench) -> None:
    session = bench.unique()
    sender = await bench.sender()

    async def send_later() -> None:
        await bench.sdk.sleep(1.5)
        await sender.send_messages(_of(session, "a"))

    receiver, _ = await bench.sdk.gather(_next(bench), send_later())
    assert receiver.session.session_id == session
    assert bodies(await bench.take_and_complete(receiver)) == ["a"]


@scenario
async def session_next_times_out(bench: Bench) -> None:
    with pytest.raises(OperationTimeoutError):
        await _next(bench, wait=2)


@scenario
async def session_next_skips_locked(bench: Bench) -> None:
    first, second = bench.unique("first"), bench.unique("second")
    sender = await bench.sender()
    await sender.send_messages(_of(first, "a") + _of(second, "b"))
    holder = await bench.receiver(session_id=first)
    receiver = await _next(bench)
    assert receiver.session.session_id == second
    with pytest.raises(OperationTimeoutError):
        await _next(bench, wait=2)
    await bench.take_and_complete(holder)
    await bench.take_and_complete(receiver)


@scenario
async def session_locked_elsewhere(bench: Bench) -> None:
    session = bench.unique()
    sender, holder = await bench.pair(session_id=session)
    await sender.send_messages(_of(session, "a"))
    with pytest.raises(SessionCannotBeLockedError):
        await bench.receiver(session_id=session, retries=0)
    assert bodies(await bench.take(holder)) == ["a"]
    await bench.end(holder)
    receiver = await bench.receiver(session_id=session)
    assert bodies(await bench.take_and_complete(receiver)) == ["a"]


@scenario
async def session_order(bench: Bench) -> None:
    one, two = bench.unique("one"), bench.unique("two")
    sender, of_one, of_two = await bench.sdk.gather(
        bench.sender(), bench.receiver(session_id=one), bench.receiver(session_id=two)
    )
    for number in range(20):
        await sender.send_messages(_of(one, f"1.{number}") + _of(two, f"2.{number}"))
    seen_one = bodies(await bench.take_and_complete(of_one, 20))
    seen_two = bodies(await bench.take_and_complete(of_two, 20))
    assert seen_one == [f"1.{number}" for number in range(20)]
    assert seen_two == [f"2.{number}" for number in range(20)]


@scenario
async def session_empty(bench: Bench) -> None:
    session = bench.unique()
    receiver = await bench.receiver(session_id=session)
    assert receiver.session.session_id == session
    assert await receiver.receive_messages(1, max_wait_time=0.5) == []
    sender = await bench.sender()
    await sender.send_messages(_of(session, "a"))
    assert bodies(await bench.take_and_complete(receiver)) == ["a"]


@scenario
async def session_several(bench: Bench) -> None:
    sessions = [bench.unique(str(number)) for number in range(4)]
    sender = await bench.sender()
    for session in sessions:
        await sender.send_messages(_of(session, session))
    receivers = await bench.sdk.gather(*(_next(bench) for _ in sessions))
    assert sorted(receiver.session.session_id for receiver in receivers) == sorted(sessions)
    for receiver in receivers:
        received = await bench.take_and_complete(receiver)
        assert bodies(received) == [receiver.session.session_id]


@scenario
async def session_state(bench: Bench) -> None:
    session = (await bench.receiver(session_id=bench.unique())).session
    assert not await session.get_state()
    await session.set_state(b"first")
    assert await session.get_state() == b"first"
    await session.set_state(bytes(range(256)) * 20)
    assert await session.get_state() == bytes(range(256)) * 20
    await session.set_state(None)
    assert not await session.get_state()


@scenario
async def session_state_stays(bench: Bench) -> None:
    name = bench.unique()
    sender, receiver = await bench.pair(session_id=name)
    await sender.send_messages(_of(name, "a"))
    await bench.take_and_complete(receiver)
    await receiver.session.set_state(b"kept")
    await bench.end(receiver)
    again = await bench.receiver(session_id=name)
    assert await again.session.get_state() == b"kept"
    await again.session.set_state(None)


@scenario
async def session_renew(bench: Bench) -> None:
    session = (await bench.receiver(session_id=bench.unique())).session
    before = session.locked_until_utc
    await bench.sdk.sleep(1.1)
    renewed = await session.renew_lock()
    assert renewed > before
    assert session.locked_until_utc == renewed


@scenario
async def session_renew_keeps(bench: Bench) -> None:
    name = bench.unique()
    sender, receiver = await bench.pair(session_id=name)
    await sender.send_messages(_of(name, "a"))
    received = await bench.take_one(receiver)
    for _ in range(3):
        await bench.advance(LOCK * 0.7)
        await receiver.session.renew_lock()
    await receiver.complete_message(received)
    await bench.is_empty(receiver)


@scenario
async def session_lock_lost(bench: Bench) -> None:
    name = bench.unique()
    sender, holder = await bench.pair(session_id=name, retries=0)
    await sender.send_messages(_of(name, "a", "b"))
    held = await bench.take_one(holder)
    await bench.advance(LOCK + 1)
    with pytest.raises(SessionLockLostError):
        await holder.receive_messages(1, max_wait_time=5)
    with pytest.raises(SessionLockLostError):
        await holder.complete_message(held)
    with pytest.raises(SessionLockLostError):
        await holder.session.renew_lock()
    receiver = await bench.receiver(session_id=name)
    first, second = await bench.take_and_complete(receiver, 2)
    assert (text(first), first.delivery_count) == ("a", 1)
    assert (text(second), second.delivery_count) == ("b", 0)


@scenario
async def session_close_releases(bench: Bench) -> None:
    name = bench.unique()
    sender, holder = await bench.pair(session_id=name)
    await sender.send_messages(_of(name, "a", "b", "c"))
    assert bodies(await bench.take(holder, 2)) == ["a", "b"]
    await bench.end(holder)
    receiver = await bench.receiver(session_id=name)
    received = await bench.take_and_complete(receiver, 3)
    assert bodies(received) == ["a", "b", "c"]
    assert {each.delivery_count for each in received} == {0}


@scenario
async def session_abandon(bench: Bench) -> None:
    name = bench.unique()
    sender, receiver = await bench.pair(session_id=name)
    await sender.send_messages(_of(name, "a", "b"))
    await receiver.abandon_message(await bench.take_one(receiver))
    first, second = await bench.take_and_complete(receiver, 2)
    assert (text(first), first.delivery_count) == ("a", 1)
    assert (text(second), second.delivery_count) == ("b", 0)


@scenario
async def session_dead_letter(bench: Bench) -> None:
    name = bench.unique()
    sender, receiver = await bench.pair(session_id=name)
    await sender.send_messages(_of(name, "a", "b"))
    bad, good = await bench.take(receiver, 2)
    await receiver.dead_letter_message(bad, reason="Because")
    await receiver.complete_message(good)
    dead_letters = await bench.receiver(sub_queue=ServiceBusSubQueue.DEAD_LETTER)
    (dead,) = await bench.take_and_complete(dead_letters)
    assert (text(dead), dead.session_id, dead.dead_letter_reason) == ("a", name, "Because")


@scenario
async def session_defer(bench: Bench) -> None:
    name = bench.unique()
    sender, receiver = await bench.pair(session_id=name)
    await sender.send_messages(_of(name, "a", "b"))
    first = await bench.take_one(receiver)
    await receiver.defer_message(first)
    assert bodies(await bench.take_and_complete(receiver)) == ["b"]
    await bench.end(receiver)
    again = await bench.receiver(session_id=name)
    (deferred,) = await again.receive_deferred_messages(first.sequence_number)
    assert (text(deferred), deferred.session_id, deferred.delivery_count) == ("a", name, 1)
    await again.complete_message(deferred)
    await bench.is_empty(again)


@scenario
async def session_receive_and_delete(bench: Bench) -> None:
    name = bench.unique()
    sender, receiver = await bench.pair(
        session_id=name, receive_mode=ServiceBusReceiveMode.RECEIVE_AND_DELETE
    )
    await sender.send_messages(_of(name, "a", "b"))
    assert bodies(await bench.take(receiver, 2)) == ["a", "b"]
    await bench.is_empty(receiver)


@scenario
async def session_stream(bench: Bench) -> None:
    name = bench.unique()
    sender, receiver = await bench.pair(session_id=name, max_wait_time=2)
    await sender.send_messages(_of(name, *(str(number) for number in range(10))))
    received = []
    async for each in receiver:
        received.append(text(each))
        await receiver.complete_message(each)
        if len(received) == 10:
            break
    assert received == [str(number) for number in range(10)]
    await bench.is_empty(receiver)


@scenario
async def session_peek(bench: Bench) -> None:
    mine, other = bench.unique("mine"), bench.unique("other")
    sender, receiver = await bench.pair(session_id=mine)
    await sender.send_messages(_of(other, "x") + _of(mine, "a") + _of(other, "y") + _of(mine, "b"))
    seen = await receiver.peek_messages(10)
    assert bodies(seen) == ["a", "b"]
    assert {each.session_id for each in seen} == {mine}
    await bench.take_and_complete(receiver, 2)


@scenario
async def session_schedule(bench: Bench) -> None:
    name = bench.unique()
    sender, receiver = await bench.pair(session_id=name)
    due = datetime.now(timezone.utc) + timedelta(seconds=1.5)
    await sender.schedule_messages(_of(name, "soon"), due)
    (received,) = await bench.take_and_complete(receiver)
    assert (text(received), received.session_id) == ("soon", name)


@scenario
async def session_list(bench: Bench) -> None:
    active, stateful, done = bench.unique("active"), bench.unique("stateful"), bench.unique("done")
    sender, with_state, emptied = await bench.sdk.gather(
        bench.sender(), bench.receiver(session_id=stateful), bench.receiver(session_id=done)
    )
    before = datetime.now(timezone.utc) - timedelta(seconds=5)
    await sender.send_messages(_of(active, "a") + _of(done, "b"))
    await bench.take_and_complete(emptied)
    await with_state.session.set_state(b"x")
    client = bench.client()
    everything = [name async for name in client.list_queue_sessions(bench.name)]
    assert {active, stateful} <= set(everything)
    assert done not in everything
    changed = [name async for name in client.list_queue_sessions(bench.name, state_updated_after=before)]
    assert stateful in changed
    assert done not in changed
    later = before + timedelta(hours=1)
    assert [name async for name in client.list_queue_sessions(bench.name, state_updated_after=later)] == []
    await with_state.session.set_state(None)
    await bench.take_and_complete(await bench.receiver(session_id=active))


@scenario
async def session_id_required(bench: Bench) -> None:
    sender = await bench.sender(retries=0)
    with pytest.raises(ServiceBusError, match="SessionId"):
        await sender.send_messages(message("nobody's"))
    session = bench.unique()
    await sender.send_messages(_of(session, "somebody's"))
    receiver = await bench.receiver(session_id=session)
    assert bodies(await bench.take_and_complete(receiver)) == ["somebody's"]


@scenario
async def session_receiver_required(bench: Bench) -> None:
    with pytest.raises(ServiceBusError):
        await bench.refused_receiver()


@scenario
async def session_id_missing(bench: Bench) -> None:
    sender, plain = await bench.sdk.gather(bench.sender(topic=True), bench.receiver(subscription="plain"))
    await sender.send_messages(message("nobody's"))
    assert bodies(await bench.take_and_complete(plain)) == ["nobody's"]
    dead_letters = await bench.receiver(subscription="ordered", sub_queue=ServiceBusSubQueue.DEAD_LETTER)
    (dead,) = await bench.take_and_complete(dead_letters)
    assert text(dead) == "nobody's"
    assert dead.dead_letter_reason.casefold().startswith("session id is null")


@scenario
async def session_not_supported(bench: Bench) -> None:
    with pytest.raises(ServiceBusError):
        await bench.refused_receiver(session_id="any")


@scenario
async def session_subscription(bench: Bench) -> None:
    one, two = bench.unique("one"), bench.unique("two")
    sender = await bench.sender(topic=True)
    await sender.send_messages(_of(one, "a") + _of(two, "x") + _of(one, "b"))
    receiver = await bench.receiver(subscription="ordered", session_id=one)
    assert bodies(await bench.take_and_complete(receiver, 2)) == ["a", "b"]
    following = await _next(bench, subscription="ordered")
    assert following.session.session_id == two
    assert bodies(await bench.take_and_complete(following)) == ["x"]
