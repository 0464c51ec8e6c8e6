"""What `sbrpc export roles` assigns is what the programs need: all works with it, nothing with less."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any
from urllib.parse import quote_plus, urlsplit

import anyio
import pytest
from azure.core.credentials import AccessToken
from azure.servicebus.aio import ServiceBusClient

from sbrpc import EventBus, RpcClient, RpcServer
from sbrpc.cli.loading import nowhere
from sbrpc.emulator import AccessKey, Emulator, Right
from sbrpc.emulator.access import signature
from sbrpc.emulator.config import parse
from sbrpc.errors import DeadlineExceeded

from .test_export_command import PROCESSES, sbrpc

with nowhere():
    from tests.exported import GetMovie, Movie, MovieCreated, Movies, Ratings

ROOT = AccessKey("root", "cm9vdA==", frozenset({Right.MANAGE}))
NOBODY = AccessKey("nobody", "bm9ib2R5", frozenset({Right.LISTEN}), entity="nothing")
PARTS = 100


class Identity:
    """An identity with role assignments: a token for an entity allows what is assigned there, and only that.

    Each entity has a key of its own, as a shared access token cannot stand for several.
    """

    token_type = b"servicebus.windows.net:sastoken"

    def __init__(self, process: str, assignments: list[dict[str, Any]]) -> None:
        rights: dict[str, set[Right]] = {}
        for each in assignments:
            if each["process"] == process:
                rights.setdefault(each["entity"], set()).add(Right(each["right"]))
        self.keys = [
            AccessKey(f"{process}-{number}", f"a2V5{number}", frozenset(allowed), entity)
            for number, (entity, allowed) in enumerate(rights.items())
        ]

    async def get_token(self, audience: str, **_: Any) -> AccessToken:
        path = urlsplit(audience).path.strip("/")
        key = next((key for key in self.keys if key.covers(path)), NOBODY)
        expires = int(time.time()) + 3600
        signed = signature(key.key, quote_plus(audience), str(expires))
        token = (
            f"SharedAccessSignature sr={quote_plus(audience)}&sig={quote_plus(signed)}"
            f"&se={expires}&skn={key.name}"
        )
        return AccessToken(token, expires)

    async def close(self) -> None: ...


@pytest.fixture(scope="module")
def exported() -> tuple[str, list[dict[str, Any]]]:
    """The configuration of an emulator, and the role assignments, as the command writes them."""
    config = sbrpc("export", "emulator-config", *PROCESSES).stdout
    roles = json.loads(sbrpc("export", "roles", *PROCESSES).stdout)
    return config, roles["assignments"]


async def work(config: str, assignments: list[dict[str, Any]], patience: float) -> None:
    """Run the three programs with these rights and do everything that they do; fails where one cannot."""
    wanted = parse(config)
    identities = {name: Identity(name, assignments) for name in ("service", "api", "events")}
    keys = [ROOT, NOBODY, *(key for identity in identities.values() for key in identity.keys)]
    handled, forgotten = asyncio.Event(), asyncio.Event()
    async with AsyncExitStack() as stack:
        emulator = await stack.enter_async_context(
            Emulator(queues=wanted.queues, topics=wanted.topics, access_keys=keys)
        )
        connections = {
            name: await stack.enter_async_context(
                ServiceBusClient(f"{emulator.host}:{emulator.port}", identity, retry_total=0, use_tls=False)  # type: ignore[arg-type]
            )
            for name, identity in identities.items()
        }
        bus = EventBus(connections["service"], topic="movie-events", source="/movies", timeout=patience)
        server = RpcServer(connections["service"], Movies, grace=0)
        views = EventBus(connections["events"], topic="movie-events", grace=0)

        @server.method(Movies.get_movie)
        async def get_movie(request: GetMovie) -> Movie:
            await bus.publish(MovieCreated(id=request.id))
            return Movie(id=request.id, title="Alien")

        @server.method(Movies.export)
        async def export(request: GetMovie) -> AsyncIterator[Movie]:
            for number in range(PARTS):
                yield Movie(id=number, title="Alien")

        @server.method(Movies.forget)
        async def forget(request: GetMovie) -> None:
            forgotten.set()

        @views.on(MovieCreated, subscription="views")
        async def project(event: MovieCreated) -> None:
            handled.set()

        for thing in (bus, server, views):
            await stack.enter_async_context(thing)  # type: ignore[arg-type]
        client = await stack.enter_async_context(
            RpcClient(connections["api"], reply_queue="gateway.replies", timeout=patience)
        )
        movies, ratings = client.of(Movies), client.of(Ratings)
        await server.ready(patience)
        await client.ready(patience)
        assert await movies.get_movie(GetMovie(id=1)) == Movie(id=1, title="Alien")
        assert len([part async for part in movies.export(GetMovie(id=1))]) == PARTS
        await movies.forget(GetMovie(id=1))
        with pytest.raises(DeadlineExceeded):  # nobody serves ratings here, but the request is there
            await ratings.rate(GetMovie(id=1), timeout=1)
        assert emulator.broker.runtime("ratings").active == 1
        with anyio.fail_after(patience):
            await forgotten.wait()
            await handled.wait()


async def test_the_roles_are_enough(exported: tuple[str, list[dict[str, Any]]]) -> None:
    """Calls, streams, commands and events work, with an identity per program and no key of the namespace."""
    await work(*exported, patience=60)


class Refusals(logging.Handler):
    """Whether the broker refused something for want of a right, by what the library says."""

    def __init__(self, right: str, entity: str) -> None:
        super().__init__()
        self.wanted = (f"'{right}' claim(s) are required", f"Resource: '{entity}'")
        self.found = asyncio.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.hear(record.getMessage())

    def hear(self, text: str) -> None:
        if all(each in text for each in self.wanted):
            self.found.set()


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # the SDK leaves connections that failed
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_no_role_is_too_much(exported: tuple[str, list[dict[str, Any]]]) -> None:
    """Without any one of them, the programs are refused something that they do."""
    config, assignments = exported
    log = logging.getLogger("sbrpc")
    needless: list[tuple[dict[str, Any], object]] = []

    for assignment in assignments:
        refusals = Refusals(assignment["right"], assignment["entity"])
        log.addHandler(refusals)
        working = asyncio.create_task(
            work(config, [each for each in assignments if each is not assignment], 60)
        )
        heard = asyncio.create_task(refusals.found.wait())
        await asyncio.wait((working, heard), return_when=asyncio.FIRST_COMPLETED)
        working.cancel()
        heard.cancel()
        outcome, _ = await asyncio.gather(working, heard, return_exceptions=True)
        log.removeHandler(refusals)
        refusals.hear(str(outcome))
        if not refusals.found.is_set():
            needless.append((assignment, outcome))

    assert needless == []
