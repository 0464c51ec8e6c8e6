"""What a client and a server are told, and what they say of what cannot work."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import anyio
import pytest

from sbrpc import _sdk
from sbrpc.context import CallInfo
from sbrpc.emulator import Emulator
from sbrpc.errors import (
    Aborted,
    Cancelled,
    EntityNotFound,
    NotRunning,
    RpcError,
    Unauthenticated,
    Unavailable,
)
from sbrpc.middleware import Next
from sbrpc.server import RpcServer
from tests.integration.laboratory import Bench, Item, Lab, Wait, make_client, make_server

from .world import World


async def test_middleware_on_both_sides(world: World) -> None:
    """Metadata put in by the client's reaches the server's, which may refuse the call."""
    seen: list[str] = []

    async def sign(request: Any, info: CallInfo, call_next: Next) -> Any:
        reply = await call_next(request, replace(info, metadata={**info.metadata, "token": "secret"}))
        seen.append(f"client {info.method}")
        return reply

    async def check(request: Any, info: CallInfo, call_next: Next) -> Any:
        if info.metadata.get("token") != "secret":
            raise Unauthenticated("who are you?")
        seen.append(f"server {info.method}")
        return await call_next(request, info)

    string = world.emulator.connection_string
    async with (
        make_server(string, Bench(), queue="other", middleware=[check]) as server,
        make_client(string, middleware=[sign]) as client,
    ):
        await server.ready(60)
        assert await client.of(Lab, queue="other").echo(Item(id=1)) == Item(id=1)
        assert [i.id async for i in client.of(Lab, queue="other").count(3)] == [0, 1, 2]
        with pytest.raises(Unauthenticated, match="who are you"):
            await world.client.of(Lab, queue="other").echo(Item(id=1))
    assert sorted(seen) == ["client count", "client echo", "server count", "server echo"]


async def test_a_missing_handler_is_found_at_the_start(world: World) -> None:
    """Not by the first caller."""
    with pytest.raises(TypeError, match=r"no handler for lab\.echo"):
        async with RpcServer(world.emulator.connection_string, Lab):
            pass


async def test_nothing_works_outside_of_its_block(world: World) -> None:
    """The error says what to do."""
    client = make_client(world.emulator.connection_string)
    with pytest.raises(NotRunning, match="async with"):
        client.of(Lab)
    with pytest.raises(NotRunning, match="async with"):
        await make_server(world.emulator.connection_string, Bench()).ready()
    with pytest.raises(NotRunning, match="already running"):
        await world.client.__aenter__()


async def test_missing_queues_are_named(world: World) -> None:
    """By whoever waits for readiness, at once."""
    string = world.emulator.connection_string
    async with make_client(string, reply_queue="missing.replies") as client:
        with pytest.raises(EntityNotFound, match=r"missing\.replies"):
            await client.ready(60)
        with pytest.raises(EntityNotFound, match=r"missing\.replies"):
            await client.of(Lab).echo(Item(id=1))
    async with make_server(string, Bench(), queue="missing") as server:
        with pytest.raises(EntityNotFound, match="missing"):
            await server.ready(60)
        assert not server.is_ready
        assert server.is_live


async def test_calls_that_came_before_the_reply_queue_was_found_missing_fail_with_it() -> None:
    """When the client learns that nobody can answer them, not at the end of their time."""
    async with Emulator(queues=["lab"]) as emulator:
        string = emulator.connection_string
        async with make_client(string, reply_queue="missing.replies") as client:
            with pytest.raises(EntityNotFound, match=r"missing\.replies"):
                await client.of(Lab).echo(Item(id=1), timeout=3600)
        async with (
            make_client(string, reply_queue="missing.replies") as client,
            aclosing(client.of(Lab, timeout=3600).count(3)) as items,
        ):
            with pytest.raises(EntityNotFound, match=r"missing\.replies"):
                await anext(items)


async def test_a_queue_with_sessions_needs_the_option(world: World) -> None:
    """The error names it."""
    async with make_server(world.emulator.connection_string, Bench(), queue="ordered") as server:
        with pytest.raises(_sdk.MustNotRequireSessions, match="max_concurrent_sessions"):
            await server.ready(60)


async def test_an_exception_leaves_the_blocks_as_it_is(world: World) -> None:
    """Whoever writes `except Aborted` around the block gets just that."""
    string = world.emulator.connection_string
    with pytest.raises(Aborted, match="mine"):
        async with make_server(string, Bench(), queue="other"), make_client(string):
            raise Aborted("mine")


async def test_closing_ends_calls_that_wait(world: World) -> None:
    """They fail at once, and nothing is left."""
    client = make_client(world.emulator.connection_string)
    outcomes: list[BaseException] = []

    async def call(lab: Lab) -> None:
        try:
            await lab.wait(Wait(seconds=5, tag="closing"))
        except RpcError as error:
            outcomes.append(error)

    async with anyio.create_task_group() as tasks, client:
        tasks.start_soon(call, client.of(Lab))
        await world.bench.until(lambda: "closing" in world.bench.running)
    assert [type(outcome) for outcome in outcomes] == [Unavailable]


async def test_ordered_calls(world: World) -> None:
    """The calls of a key run one after the other, those of different keys side by side."""
    bench = Bench()
    string = world.emulator.connection_string
    async with make_server(string, bench, queue="ordered", max_concurrent_sessions=3) as server:
        await server.ready(60)
        lab = world.client.of(Lab, queue="ordered")

        async def call(key: str, number: int) -> None:
            info = await lab.wait(Wait(seconds=0.02, tag=f"{key}{number}"), key=key)
            assert info == f"{key}{number}"

        async with anyio.create_task_group() as tasks:
            for number in range(5):
                for key in "abc":
                    tasks.start_soon(call, key, number)
                    await anyio.sleep(0.005)
        for key in "abc":
            mine = [what for what in bench.seen if what.split()[1].startswith(key)]
            assert mine == [f"{verb} {key}{n}" for n in range(5) for verb in ("started", "ended")]
        assert (await lab.info(None, key="k"))["session_id"] == "k"


def test_cancelled_is_an_error_code_not_a_cancellation() -> None:
    """A server that answers CANCELLED raises an ordinary exception at the caller."""
    assert not issubclass(Cancelled, asyncio.CancelledError)
