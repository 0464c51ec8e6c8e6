"""Faults as the unmodified Azure SDK meets them, through a real socket, and what it makes of them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
from azure.servicebus import ServiceBusMessage
from azure.servicebus.aio import ServiceBusClient, ServiceBusReceiver, ServiceBusSender
from azure.servicebus.exceptions import (
    MessageLockLostError,
    MessagingEntityNotFoundError,
    OperationTimeoutError,
    ServiceBusConnectionError,
    ServiceBusError,
    ServiceBusQuotaExceededError,
    ServiceBusServerBusyError,
    SessionLockLostError,
)

from sbrpc.emulator import Emulator
from sbrpc.topology import Queue

# The SDK leaves sockets of connections that failed to the garbage collector, which complains about them.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture
async def emulator() -> AsyncIterator[Emulator]:
    queues = [Queue("movies"), Queue("orders"), Queue("replies", requires_session=True)]
    async with Emulator(queues=queues, http_port=0) as emulator:
        yield emulator


@asynccontextmanager
async def connected(emulator: Emulator, retries: int = 0) -> AsyncIterator[ServiceBusClient]:
    """A client that tells about errors at once instead of trying again for seconds."""
    async with ServiceBusClient.from_connection_string(
        emulator.connection_string, retry_total=retries, retry_backoff_factor=0.01
    ) as client:
        yield client


async def bodies(receiver: ServiceBusReceiver, count: int) -> list[str]:
    """Receive and complete so many messages, one after the other."""
    found: list[str] = []
    while len(found) < count:
        for message in await receiver.receive_messages(max_wait_time=5):
            found.append(str(message))
            await receiver.complete_message(message)
    return found


async def send(sender: ServiceBusSender, body: str, session_id: str | None = None) -> None:
    await sender.send_messages(ServiceBusMessage(body, session_id=session_id))


async def flood(sender: ServiceBusSender) -> None:
    """Batches of six; a second of real time may end between two of them, but not after each."""
    for _ in range(20):
        await sender.send_messages([ServiceBusMessage("too much") for _ in range(6)])


async def test_receiver_survives_a_cut(emulator: Emulator) -> None:
    """A receiver whose connection is cut connects again and goes on; the sender of another entity stays."""
    async with connected(emulator, retries=3) as client:
        receiver, sender = client.get_queue_receiver("movies"), client.get_queue_sender("orders")
        async with receiver, sender:
            assert emulator.faults.cut(entity="movies").fired == 1
            async with client.get_queue_sender("movies") as to_movies:
                await send(to_movies, "after the cut")
            assert await bodies(receiver, 1) == ["after the cut"]
            await send(sender, "never cut")


async def test_cut_after_frames_loses_the_answer_not_the_message(emulator: Emulator) -> None:
    """A connection that may send one more frame stores the message in it and is gone before the answer."""
    async with connected(emulator) as client, client.get_queue_sender("movies") as sender:
        fault = emulator.faults.cut(container_id="SBSender-*", after=1, count=1)
        with pytest.raises(ServiceBusError):
            await send(sender, "ambiguous")
        assert (fault.fired, fault.active) == (1, False)
        assert emulator.broker.runtime("movies").active == 1


async def test_refused_connections(emulator: Emulator) -> None:
    """While connections are refused no client gets in, afterwards it does."""
    async with connected(emulator) as client:
        with emulator.faults.refuse(), pytest.raises(ServiceBusConnectionError):
            async with client.get_queue_sender("movies"):
                pass
        async with client.get_queue_sender("movies") as sender:
            await send(sender, "let in")


async def test_black_hole_swallows_and_ends_with_a_cut(emulator: Emulator) -> None:
    """A connection in a black hole gets no answer, others do; when the hole closes, the connection ends."""
    async with connected(emulator) as client:
        lost, kept = client.get_queue_sender("movies"), client.get_queue_sender("orders")
        async with lost, kept:
            with emulator.faults.black_hole(entity="movies"):
                with pytest.raises(OperationTimeoutError):
                    await lost.send_messages(ServiceBusMessage("swallowed"), timeout=0.5)
                await send(kept, "answered")
            assert emulator.broker.runtime("movies").active == 0
            await send(kept, "still there")
    async with connected(emulator) as client, client.get_queue_sender("movies") as sender:
        await send(sender, "heard again")


async def test_black_hole_ends_by_the_virtual_clock(emulator: Emulator) -> None:
    """A fault with `seconds` ends when the emulator's time has moved so far."""
    fault = emulator.faults.black_hole(seconds=60)
    await emulator.advance(59)
    assert fault.active
    await emulator.advance(2)
    assert not fault.active
    async with connected(emulator) as client, client.get_queue_sender("movies") as sender:
        await send(sender, "heard")


@pytest.mark.parametrize("direction", ["incoming", "outgoing"])
async def test_delay_is_longer_than_the_client_waits(emulator: Emulator, direction: str) -> None:
    """Bytes that are held back longer than a client's timeout make its operation time out."""
    async with connected(emulator) as client, client.get_queue_sender("movies") as sender:
        delay = {direction: 5.0}
        with emulator.faults.delay(entity="movies", **delay), pytest.raises(OperationTimeoutError):
            await sender.send_messages(ServiceBusMessage("slow"), timeout=0.4)
        # What went in before the answer was held back is there; what was held back itself is not.
        assert emulator.broker.runtime("movies").active == (1 if direction == "outgoing" else 0)


async def test_short_delay_keeps_the_order(emulator: Emulator) -> None:
    """With a short delay both ways everything arrives, in order."""
    async with connected(emulator) as client:
        sender, receiver = client.get_queue_sender("movies"), client.get_queue_receiver("movies")
        async with sender, receiver:
            with emulator.faults.delay(incoming=0.05, outgoing=0.05):
                for number in range(3):
                    await send(sender, str(number))
                assert await bodies(receiver, 3) == ["0", "1", "2"]


async def test_detach_with_a_condition(emulator: Emulator) -> None:
    """A receiver whose link is detached with a condition gets the SDK's error for it."""
    async with connected(emulator) as client:
        sender, receiver = client.get_queue_sender("movies"), client.get_queue_receiver("movies")
        async with sender, receiver:
            emulator.faults.detach("amqp:not-found", "gone", entity="movies", after=1, count=1)
            await send(sender, "delivered, and then no more")
            with pytest.raises(MessagingEntityNotFoundError):
                await bodies(receiver, 2)


async def test_detached_receiver_comes_back(emulator: Emulator) -> None:
    """A receiver whose link is detached now attaches again and goes on; links to other entities stay."""
    async with connected(emulator, retries=3) as client:
        sender, receiver = client.get_queue_sender("movies"), client.get_queue_receiver("movies")
        async with sender, receiver:
            assert emulator.faults.detach(container_id="SBReceiver-*").fired == 1
            await send(sender, "after the detach")
            assert await bodies(receiver, 1) == ["after the detach"]


async def test_detach_on_an_occasion(emulator: Emulator) -> None:
    """A link is detached at its second message, which is kept; the client opens it again and goes on."""
    async with connected(emulator, retries=3) as client, client.get_queue_sender("movies") as sender:
        fault = emulator.faults.detach(entity="movies", after=1, count=1)
        await send(sender, "first")
        assert fault.active
        await send(sender, "second")
        assert not fault.active
        # The SDK cannot know that the second was stored, so it has sent it again.
        assert emulator.broker.runtime("movies").active == 3


async def test_lost_message_lock(emulator: Emulator) -> None:
    """A message whose lock is lost on delivery cannot be completed, and comes again with a higher count."""
    async with connected(emulator) as client:
        sender, receiver = client.get_queue_sender("movies"), client.get_queue_receiver("movies")
        async with sender, receiver:
            emulator.faults.lose_locks(entity="movies", count=1)
            await send(sender, "slippery")
            (message,) = await receiver.receive_messages(max_wait_time=5)
            with pytest.raises(MessageLockLostError):
                await receiver.complete_message(message)
            (again,) = await receiver.receive_messages(max_wait_time=5)
            assert (str(again), again.delivery_count) == ("slippery", 1)
            await receiver.complete_message(again)


async def test_locks_lost_now(emulator: Emulator) -> None:
    """Locks that are held can be taken away at once."""
    async with connected(emulator) as client:
        sender, receiver = client.get_queue_sender("movies"), client.get_queue_receiver("movies")
        async with sender, receiver:
            await send(sender, "held")
            (message,) = await receiver.receive_messages(max_wait_time=5)
            assert emulator.faults.lose_locks(entity="orders").fired == 0
            assert emulator.faults.lose_locks(entity="movies").fired == 1
            with pytest.raises(MessageLockLostError):
                await receiver.complete_message(message)


async def test_lost_session_lock(emulator: Emulator) -> None:
    """A session receiver that loses its session is told so, and the session can be had again."""
    async with connected(emulator) as client:
        async with client.get_queue_sender("replies") as sender:
            await send(sender, "mine", "s1")
        async with client.get_queue_receiver("replies", session_id="s1") as receiver:
            (message,) = await receiver.receive_messages(max_wait_time=5)
            assert emulator.faults.lose_sessions("other").fired == 0
            assert emulator.faults.lose_sessions("s1", entity="replies").fired == 1
            with pytest.raises(SessionLockLostError):
                await receiver.complete_message(message)
        async with client.get_queue_receiver("replies", session_id="s1") as receiver:
            assert await bodies(receiver, 1) == ["mine"]


async def test_throttled_by_credits(emulator: Emulator) -> None:
    """Above the rate of credits operations get ServerBusy, until the next second begins."""
    async with connected(emulator) as client, client.get_queue_sender("movies") as sender:
        # From the beginning of a second of the emulator's time.
        await emulator.advance(1 - emulator.clock.now() % 1)
        emulator.faults.throttle(5)
        await send(sender, "looks at the account first")
        await sender.send_messages([ServiceBusMessage("a credit") for _ in range(5)])
        with pytest.raises(ServiceBusServerBusyError, match="50009"):
            await flood(sender)
        await emulator.advance(1)
        await send(sender, "in the next second")


async def test_server_busy_on_demand(emulator: Emulator) -> None:
    """The next operations get ServerBusy, as many as were asked for, and the SDK's retry gets through."""
    async with connected(emulator) as client, client.get_queue_sender("movies") as sender:
        emulator.faults.busy(count=1)
        with pytest.raises(ServiceBusServerBusyError):
            await send(sender, "refused")
        await send(sender, "taken")
    async with connected(emulator, retries=2) as client, client.get_queue_sender("movies") as sender:
        emulator.faults.busy(count=1)
        await send(sender, "taken at the second attempt")
    assert emulator.broker.runtime("movies").active == 2


async def test_management_can_be_busy(emulator: Emulator) -> None:
    """Requests to `$management` are operations as well."""
    async with connected(emulator) as client, client.get_queue_receiver("movies") as receiver:
        assert await receiver.peek_messages() == []
        emulator.faults.busy(count=1, operations=["management"])
        with pytest.raises(ServiceBusServerBusyError):
            await receiver.peek_messages()


async def test_delivered_twice(emulator: Emulator) -> None:
    """A duplicated message comes again after it was completed, once; the next message comes once."""
    async with connected(emulator) as client:
        sender, receiver = client.get_queue_sender("movies"), client.get_queue_receiver("movies")
        async with sender, receiver:
            fault = emulator.faults.duplicate(entity="movies", count=1)
            await send(sender, "twice")
            await send(sender, "once")
            assert sorted(await bodies(receiver, 3)) == ["once", "twice", "twice"]
            assert fault.fired == 1
        assert emulator.broker.runtime("movies").active == 0


async def test_delivered_twice_to_a_client_with_room(emulator: Emulator) -> None:
    """Where a client has room for it, the second copy comes while the first is still held."""
    async with connected(emulator) as client:
        sender, receiver = client.get_queue_sender("movies"), client.get_queue_receiver("movies")
        async with sender, receiver:
            emulator.faults.duplicate()
            await send(sender, "twice")
            messages = await receiver.receive_messages(max_message_count=2, max_wait_time=5)
            assert [str(message) for message in messages] == ["twice", "twice"]
            assert messages[0].lock_token != messages[1].lock_token
            await receiver.complete_message(messages[0])
            with pytest.raises(MessageLockLostError):
                await receiver.complete_message(messages[1])


async def test_failing_sends(emulator: Emulator) -> None:
    """The next sends fail with the given condition, after those that were to pass."""
    async with connected(emulator) as client, client.get_queue_sender("movies") as sender:
        emulator.faults.fail_sends("amqp:resource-limit-exceeded", "full", after=1, count=2)
        await send(sender, "passes")
        for _ in range(2):
            with pytest.raises(ServiceBusQuotaExceededError, match="full"):
                await send(sender, "fails")
        await send(sender, "passes again")
    assert emulator.broker.runtime("movies").active == 2


async def test_failing_send_that_was_stored(emulator: Emulator) -> None:
    """A send may fail for the client although its message was stored."""
    async with connected(emulator) as client, client.get_queue_sender("movies") as sender:
        emulator.faults.fail_sends(stored=True, count=1)
        with pytest.raises(ServiceBusError):
            await send(sender, "stored all the same")
    async with connected(emulator) as client, client.get_queue_receiver("movies") as receiver:
        (message,) = await receiver.receive_messages(max_wait_time=5)
        assert str(message) == "stored all the same"


async def test_rules_over_http(emulator: Emulator) -> None:
    """A fault put in force over HTTP strikes, counts, and can be ended there."""
    async with (
        connected(emulator) as client,
        client.get_queue_sender("movies") as sender,
        httpx.AsyncClient(base_url=emulator.http_url) as http,
    ):
        rule = {"kind": "fail", "entity": "MOV*", "condition": "com.microsoft:server-busy"}
        fault = (await http.post("/api/faults", json=rule)).json()["fault"]
        with pytest.raises(ServiceBusServerBusyError):
            await send(sender, "refused")
        (listed,) = (await http.get("/api/faults")).json()["faults"]
        assert (listed["id"], listed["fired"], listed["kind"]) == (fault["id"], 1, "fail")
        assert (await http.delete(f"/api/faults/{fault['id']}")).json() == {"faults": []}
        await send(sender, "taken")
        cut = (await http.post("/api/faults", json={"kind": "cut"})).json()["fault"]
        assert (cut["fired"], cut["active"]) == (1, False)
