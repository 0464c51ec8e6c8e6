"""How a bus stops, and what it says of what it cannot work with."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import anyio
import pytest
from tenacity import AsyncRetrying, stop_after_attempt, wait_fixed

from sbrpc.emulator import Emulator
from sbrpc.errors import ContractError, EntityNotFound, NotRunning
from sbrpc.events import EventBus

from .world import HANGS, Created, Deleted, Seen, true


async def test_stopping_loses_nothing(new_bus: Callable[..., EventBus], emulator: Emulator) -> None:
    """A bus that stops amid events finishes what runs; the next one handles the rest, each event once."""
    handled: list[int] = []
    for _ in range(4):
        bus, enough = new_bus(), Seen()

        @bus.on(Created, subscription="ordered")
        async def handle(event: Created, enough: Seen = enough) -> None:
            enough.add(event)
            await anyio.sleep(0.005)
            handled.append(event.n)

        async with bus:
            if not handled:
                await bus.publish_many([Created(movie=str(n % 7), n=n) for n in range(120)])
            await enough.until(20)
    bus, rest = new_bus(), Seen()

    @bus.on(Created, subscription="ordered")
    async def finish(event: Created) -> None:
        rest.add(event)
        handled.append(event.n)

    async with bus:
        await true(lambda: len(handled) >= 120)
    assert sorted(handled) == list(range(120))


@pytest.mark.parametrize("subscription", ["ordered", "parallel"])
async def test_handler_that_outlives_the_grace_gives_its_event_back(
    new_bus: Callable[..., EventBus], emulator: Emulator, subscription: str
) -> None:
    """After the grace a handler is cancelled, and its event is there at once for the next bus."""
    bus, seen = new_bus(grace=0.05), Seen()

    @bus.on(Created, subscription=subscription)
    async def stuck(event: Created) -> None:
        seen.add(event)
        await anyio.sleep_forever()

    async with bus:
        await bus.publish(Created(movie="7", n=1))
        await seen.until(1)
    bus, again = new_bus(), Seen()

    @bus.on(Created, subscription=subscription)
    async def handle(event: Created) -> None:
        again.add(event)

    async with bus:
        await again.until(1)
    assert again.events == [Created(movie="7", n=1)]


@pytest.mark.parametrize("subscription", ["ordered", "parallel"])
async def test_stopping_does_not_wait_for_retries(
    new_bus: Callable[..., EventBus], subscription: str
) -> None:
    """An event that waits for its next attempt is given back when the bus stops."""
    bus, seen = new_bus(), Seen()

    @bus.on(
        Created,
        subscription=subscription,
        retry=AsyncRetrying(stop=stop_after_attempt(2), wait=wait_fixed(3600)),
    )
    async def failing(event: Created) -> None:
        seen.add(event)
        raise RuntimeError("no")

    async with bus:
        await bus.publish(Created(movie="7"))
        await seen.until(1)
    assert bus.counts["dead_lettered"] == 0


async def test_serve_ends_on_sigterm(new_bus: Callable[..., EventBus]) -> None:
    """SIGTERM ends `serve()` after what is being handled is done."""
    bus, seen = new_bus(), Seen()
    finished: list[int] = []

    @bus.on(Created, subscription="ordered")
    async def handle(event: Created) -> None:
        seen.add(event)
        await anyio.sleep(0.05)
        finished.append(event.n)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(bus.serve)
        async with new_bus() as publisher:
            await publisher.publish(Created(movie="7", n=5))
        await seen.until(1)
        os.kill(os.getpid(), signal.SIGTERM)
    assert finished == [5]


@pytest.mark.parametrize(
    ("subscription", "ordered", "match"),
    [
        ("parallel", True, "does not require sessions.*requires_session=True"),
        ("ordered", False, "requires sessions.*ordered=True"),
    ],
)
async def test_subscription_that_does_not_fit_says_so(
    new_bus: Callable[..., EventBus], subscription: str, ordered: bool, match: str
) -> None:
    """Order that a subscription cannot keep, or keeps unasked, is an error with the remedy."""
    bus = new_bus()

    @bus.on(Created, subscription=subscription, ordered=ordered)
    async def handle(event: Created) -> None: ...

    with pytest.raises(ContractError, match=match), anyio.fail_after(HANGS):
        await bus.serve()


async def test_missing_subscription_is_named(new_bus: Callable[..., EventBus]) -> None:
    """A subscription that does not exist ends `serve()` with its name."""
    bus = new_bus()

    @bus.on(Created, subscription="missing")
    async def handle(event: Created) -> None: ...

    with pytest.raises(EntityNotFound, match="'missing' of topic 'events'"), anyio.fail_after(HANGS):
        await bus.serve()


async def test_failing_consumer_ends_the_block(new_bus: Callable[..., EventBus]) -> None:
    """A bus that cannot listen does not let the program go on as if it did."""
    bus = new_bus()

    @bus.on(Created, subscription="missing")
    async def handle(event: Created) -> None: ...

    with pytest.raises(EntityNotFound), anyio.fail_after(HANGS):
        async with bus:
            await anyio.sleep_forever()


async def test_missing_topic_is_named(new_bus: Callable[..., EventBus]) -> None:
    """Publishing to a topic that does not exist raises at once."""
    async with new_bus(topic="missing") as bus:
        with pytest.raises(EntityNotFound, match="missing"):
            await bus.publish(Created(movie="7"))


async def test_misuse_is_named(new_bus: Callable[..., EventBus]) -> None:
    """Publishing without a running bus or without a source, and registering too late, say what to do."""
    bus = new_bus()
    with pytest.raises(NotRunning, match="async with"):
        await bus.publish(Created(movie="7"))
    async with bus:
        with pytest.raises(ContractError, match="before the bus runs"):
            bus.on(Created, subscription="parallel")
        with pytest.raises(NotRunning, match="runs already"):
            await bus.__aenter__()
        with pytest.raises(ContractError, match="derives from Event"):
            await bus.publish({"movie": "7"})  # type: ignore[arg-type]
    async with new_bus(source=None) as listener:
        with pytest.raises(ContractError, match="source="):
            await listener.publish(Created(movie="7"))
    with pytest.raises(ContractError, match="source"):
        new_bus(source=" ")


async def test_exception_of_the_block_comes_out_unwrapped(new_bus: Callable[..., EventBus]) -> None:
    """Leaving the block with an exception stops the bus and raises just that."""
    with pytest.raises(KeyError):
        async with new_bus():
            raise KeyError("mine")


async def test_topology_of_a_bus_delivers_what_its_handlers_take() -> None:
    """A namespace made from the handlers gets them their events, old versions included, and nothing else."""
    bus, seen = EventBus("Endpoint=sb://unused", topic="events", source="/movies"), Seen()

    @bus.on(Deleted, subscription="deletions", ordered=False)
    async def handle(event: Deleted) -> None:
        seen.add(event)

    async with Emulator(topics=[bus.topology()]) as emulator:
        bus._connection = emulator.connection_string
        async with bus:
            await bus.publish_many(
                [Created(movie="1"), Deleted(movie="1"), Created(movie="2"), Deleted(movie="2")]
            )
            await seen.until(2)
    assert bus.counts["unknown"] == 0
