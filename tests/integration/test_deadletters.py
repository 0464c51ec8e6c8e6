"""Dead letters seen, replayed and purged through the real SDK."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime, timedelta, timezone

import anyio
import pytest
from azure.servicebus import ServiceBusMessage
from tenacity import AsyncRetrying, stop_after_attempt

from sbrpc._sdk import connect
from sbrpc.deadletters import DeadLetter, DeadLetters, Match
from sbrpc.emulator import Emulator
from sbrpc.errors import NotFound
from sbrpc.event import Event, EventInfo
from sbrpc.events import EventBus
from sbrpc.topology import Queue, Subscription, Topic

HANGS = 30
ONCE = AsyncRetrying(stop=stop_after_attempt(1))


class Created(Event, type="movies.created.v1", key="movie"):
    movie: str
    n: int = 0


@pytest.fixture
async def emulator() -> AsyncIterator[Emulator]:
    # Neither subscription has rules, so both get whatever is on the topic: the harder case.
    subscriptions = (Subscription("views", requires_session=True), Subscription("mails"))
    topic = Topic("events", subscriptions=subscriptions)
    async with Emulator(topics=[topic], queues=[Queue("orders")]) as running:
        yield running


def count(emulator: Emulator, address: str) -> int:
    return emulator.broker.runtime(address).dead_letter


class Broken:
    """A subscription whose handler fails for odd numbers until it is mended."""

    def __init__(self, emulator: Emulator) -> None:
        self.emulator = emulator
        self.mended = False
        self.handled: list[int] = []
        self.mailed: list[int] = []
        self.replays: list[object] = []
        self.bus = EventBus(emulator.connection_string, topic="events", source="/movies")

        @self.bus.on(Created, subscription="views", retry=ONCE)
        async def view(event: Created, info: EventInfo) -> None:
            if event.n % 2 and not self.mended:
                raise ValueError(f"{event.n} is odd")
            self.handled.append(event.n)

        @self.bus.on(Created, subscription="mails")
        async def mail(event: Created) -> None:
            self.mailed.append(event.n)

    async def until(self, handled: int, dead: int, mailed: int) -> None:
        def reached() -> bool:
            letters = count(self.emulator, "events/Subscriptions/views")
            return len(self.handled) >= handled and letters == dead and len(self.mailed) >= mailed

        with anyio.fail_after(HANGS):
            while not reached():  # noqa: ASYNC110
                await anyio.sleep(0.01)


async def test_dead_letters_are_listed_shown_and_replayed_to_one_subscription(emulator: Emulator) -> None:
    """The failed ones are found by reason, and replayed in order to the subscription that failed, only."""
    broken = Broken(emulator)
    letters = DeadLetters(emulator.connection_string, topic="events", subscription="views")
    async with broken.bus:
        await broken.bus.publish_many([Created(movie="7", n=n) for n in range(6)])
        await broken.until(handled=3, dead=3, mailed=6)

        listed = await letters.list(Match(reason="ValueError"))
        assert [letter.description for letter in listed] == ["1 is odd", "3 is odd", "5 is odd"]
        assert {letter.type for letter in listed} == {"movies.created.v1"}
        assert await letters.list(Match(reason="KeyError")) == []
        assert len(await letters.list(limit=2)) == 2
        shown = await letters.show(listed[1].sequence_number)
        assert shown.body == b'{"movie":"7","n":3}'
        assert shown.session_id == "7"
        with pytest.raises(NotFound):
            await letters.show(999)

        tried = await letters.replay(dry_run=True)
        assert [letter.description for letter in tried.done] == ["1 is odd", "3 is odd", "5 is odd"]
        assert count(emulator, "events/Subscriptions/views") == 3

        broken.mended = True
        done = await letters.replay(rate=1000)
        assert len(done.done) == 3
        await broken.until(handled=6, dead=0, mailed=6)
        await broken.bus.publish(Created(movie="7", n=100))
        await broken.until(handled=7, dead=0, mailed=7)
    assert broken.handled == [0, 2, 4, 1, 3, 5, 100]
    assert sorted(broken.mailed) == [0, 1, 2, 3, 4, 5, 100]


async def test_replays_do_not_go_round_for_ever(emulator: Emulator) -> None:
    """A message that keeps failing is replayed so many times and then left where it is."""
    broken = Broken(emulator)
    letters = DeadLetters(emulator.connection_string, topic="events", subscription="views")
    async with broken.bus:
        await broken.bus.publish(Created(movie="7", n=1))
        for replays in range(2):
            await broken.until(handled=0, dead=1, mailed=1)
            (letter,) = await letters.list()
            assert letter.replays == replays
            outcome = await letters.replay(max_replays=2)
            assert len(outcome.done) == 1
        await broken.until(handled=0, dead=1, mailed=1)
        outcome = await letters.replay(max_replays=2)
    assert outcome.done == []
    assert [reason for _, reason in outcome.skipped] == ["it was replayed 2 times already"]
    assert count(emulator, "events/Subscriptions/views") == 1


async def test_purge_takes_only_what_matches(emulator: Emulator) -> None:
    """Purging by reason leaves the others, a dry run all; a queue's letters are replayed to the queue."""
    async with connect(emulator.connection_string) as client:
        async with client.get_queue_sender("orders") as sender:
            await sender.send_messages(
                [ServiceBusMessage(str(n), subject="order", message_id=str(n)) for n in range(4)]
            )
        async with client.get_queue_receiver("orders") as receiver:
            for n, message in enumerate(await receiver.receive_messages(4, max_wait_time=5)):
                await receiver.dead_letter_message(message, reason="even" if n % 2 == 0 else "odd")
    letters = DeadLetters(emulator.connection_string, queue="orders")
    assert len((await letters.purge(Match(reason="odd"), dry_run=True)).done) == 2
    assert count(emulator, "orders") == 4
    assert len((await letters.purge(Match(reason="odd"), limit=1)).done) == 1
    assert [letter.message_id for letter in await letters.list()] == ["0", "2", "3"]
    assert len((await letters.replay(Match(reason="even"))).done) == 2
    assert count(emulator, "orders") == 1
    assert emulator.broker.runtime("orders").active == 2


@pytest.mark.parametrize("names", [{}, {"topic": "t"}, {"queue": "q", "topic": "t"}, {"subscription": "s"}])
def test_entity_must_be_named(names: dict[str, str]) -> None:
    """Neither nothing nor a topic without its subscription has dead letters."""
    with pytest.raises(ValueError, match="name a queue, or a topic"):
        DeadLetters("Endpoint=sb://x/", **names)


def test_match_looks_at_all_that_is_given() -> None:
    """Reason, type, number and age all have to fit."""
    now = datetime(2026, 3, 1, tzinfo=timezone.utc)
    letter = DeadLetter(5, "m", "t", "r", "d", now - timedelta(hours=1), None, 0, {}, b"")
    assert Match()(letter, now)
    assert Match(reason="r", type="t", older_than=3600, sequence_numbers=[5])(letter, now)
    assert not Match(reason="x")(letter, now)
    assert not Match(type="x")(letter, now)
    assert not Match(sequence_numbers=[])(letter, now)
    assert not Match(older_than=3601)(letter, now)
