"""Python in the documentation that needs what its page says around it: run here with that around it."""

from __future__ import annotations

import ast
import inspect
import json
import os
import re
import sqlite3
from collections import defaultdict
from contextlib import closing
from pathlib import Path
from types import FunctionType
from typing import Any

import anyio
import httpx
import pytest
from fastapi import FastAPI
from pydantic import BaseModel
from sqlalchemy import MetaData, text
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker

from sbrpc import Contract, Event, EventBus, Queue, RpcClient, RpcServer, Subscription, Topic, method
from sbrpc.emulator import Emulator
from sbrpc.errors import NotRunning
from sbrpc.export import system_of
from sbrpc.running import Group
from sbrpc.sql import Outbox, Positions, Watch, engine_for
from sbrpc.testing import Bench, emulator
from sbrpc.web import Web
from tests import forked
from tests.integration.events.world import true

from .pages import BLOCKS, ROOT, Block, on

pytest_plugins = ["pytester"]

HANGS = 60

FRAGMENTS: dict[str, list[Block]] = defaultdict(list)
for each in BLOCKS:
    if each.language in ("python", "promql") and not each.is_program:
        FRAGMENTS[each.page].append(each)

SHOWN: set[Block] = set()
"""The blocks that the tests of this file run."""


def fragment(page: str, number: int, name: str = "code") -> pytest.MarkDecorator:
    """Gives a test the code of one of a page's fragments, counted from 0."""
    block = FRAGMENTS[page][number]
    SHOWN.add(block)
    return pytest.mark.parametrize(name, [pytest.param(block.code, id=str(block))])


class GetMovie(BaseModel):
    id: int


class Movie(BaseModel):
    id: int
    title: str


class Movies(Contract, name="movies"):
    @method
    async def get_movie(self, request: GetMovie) -> Movie:
        raise NotImplementedError


async def get_movie(request: GetMovie) -> Movie:
    return Movie(id=request.id, title="Alien")


class Numbered(Contract, name="movies"):
    @method
    async def get_movie(self, request: int) -> str:
        raise NotImplementedError


async def get_number(request: int) -> str:
    return f"movie {request}"


class MovieAdded(Event, type="movies.movie.added.v1", key="id"):
    id: int


async def execute(code: str, names: dict[str, Any]) -> None:
    """Run it as the body of a module in which one may also `await`."""
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    result = FunctionType(compile(code, "documentation", "exec", flags=flags, dont_inherit=True), names)()
    if inspect.isawaitable(result):
        await result


@fragment("docs/events.md", 0)
async def test_an_event_is_published_and_handled(code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the bus that serves until it is stopped."""
    names: dict[str, Any] = {"__name__": "shop"}
    topic = Topic("movie-events", subscriptions=(Subscription("movie-event-handler"),))
    async with Emulator(topics=[topic]) as there, anyio.create_task_group() as tasks:
        monkeypatch.setenv("SERVICEBUS_CONNECTION_STRING", there.connection_string)
        tasks.start_soon(execute, code, names)
        await true(lambda: "bus" in names and names["bus"].is_ready)
        await names["bus"].publish(names["MovieCreated"](movie_id=7, title="Alien"))
        await true(lambda: names["bus"].counts["handled"] == 1)
        tasks.cancel_scope.cancel()


@fragment("docs/events.md", 1)
async def test_an_old_version_is_read_as_the_new_one(code: str) -> None:
    """With what it does not have filled in."""
    names: dict[str, Any] = {"__name__": "shop", "Event": Event, "Any": Any}
    await execute(code, names)
    created = names["MovieCreated"]
    old = created.decode("movies.movie.created.v1", b'{"movie_id": 7, "title": "Alien"}')
    assert old == created(movie_id=7, title="Alien", year=None)


@fragment("docs/how-to/command-line.md", 0)
async def test_an_app_opens_what_its_parts_need(code: str) -> None:
    """And a bench runs it, as `sbrpc run` does."""
    engines: list[AsyncEngine] = []

    def make_server(connection: str, engine: AsyncEngine) -> RpcServer:
        engines.append(engine)
        server = RpcServer(connection, Movies)
        server.method(Movies.get_movie)(get_movie)
        return server

    def make_bus(connection: str, engine: AsyncEngine) -> EventBus:
        return EventBus(connection, topic="shop-events", source="/shop")

    names: dict[str, Any] = {"make_server": make_server, "make_bus": make_bus}
    await execute(code, names)
    async with Bench() as bench, bench.service_for(Movies, names["app"]) as movies:
        assert (await movies.get_movie(GetMovie(id=1))).title == "Alien"
    assert [engine.url.database for engine in engines] == ["shop.db"]


@fragment("docs/how-to/emulator-to-azure.md", 0)
async def test_a_server_finds_its_namespace_in_the_environment(
    code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It serves there until it is stopped."""
    names: dict[str, Any] = {"Movies": Movies, "get_movie": get_movie}
    async with emulator(Movies, reply_queue="gateway.replies") as there, anyio.create_task_group() as tasks:
        monkeypatch.setenv("SERVICEBUS_CONNECTION_STRING", there.connection_string)
        tasks.start_soon(execute, code, names)
        async with RpcClient(there.connection_string, reply_queue="gateway.replies") as client:
            assert (await client.of(Movies).get_movie(GetMovie(id=1))).title == "Alien"
        tasks.cancel_scope.cancel()


@fragment("docs/how-to/http-api.md", 0)
async def test_http_is_answered_with_calls(code: str) -> None:
    """By the programs of the page, one of which listens at a port that is free."""
    names: dict[str, Any] = {"__name__": "gateway", "Movies": Movies, "Movie": Movie, "GetMovie": GetMovie}
    await execute(code, names)
    async with (
        Bench(reply_queue="gateway.replies") as bench,
        bench.service_for(Movies, {"get_movie": get_movie}),
    ):
        client, contract, web = names["app"](bench.emulator.connection_string)
        assert (contract, web.port) == (Movies, 8000)
        web.port = 0
        async with client, web, httpx.AsyncClient(base_url=f"http://127.0.0.1:{web.port}") as http:
            assert (await http.get("/movies/7")).json() == {"id": 7, "title": "Alien"}
            assert (await http.get("/movies/seven")).status_code == 422


@fragment("docs/how-to/http-api.md", 1)
async def test_changes_are_shown_live(code: str, tmp_path: Path) -> None:
    """From the moment in which the stream says that it is ready."""
    api, positions = FastAPI(), Positions(metadata := MetaData())
    names: dict[str, Any] = {"__name__": "gateway", "api": api}
    await execute(code, names)
    engine = engine_for(f"sqlite+aiosqlite:///{tmp_path}/views.db")
    async with engine.begin() as database:
        await database.run_sync(metadata.create_all)
    api.state.watch = watch = Watch(engine, positions, "views", pause=0.001)
    async with (
        Group(watch, web := Web(api, port=0)),
        httpx.AsyncClient(timeout=HANGS) as http,
        http.stream("GET", f"http://127.0.0.1:{web.port}/movies/events") as response,
    ):
        lines = (line async for line in response.aiter_lines() if line.startswith("data: "))
        assert json.loads((await anext(lines)).removeprefix("data: ")) == {}
        async with engine.begin() as database:
            await positions.advance_all(database, "views", {"7": 1})
        assert json.loads((await anext(lines)).removeprefix("data: ")) == {"changed": ["7"]}
    await engine.dispose()


@fragment("docs/how-to/observe.md", 0)
async def test_telemetry_is_put_around_calls_and_events(code: str) -> None:
    """Which pass through it as they would without."""
    topic = Topic("movie-events", subscriptions=(Subscription("all"),))
    queues = [Queue("movies"), Queue("gateway.replies", requires_session=True)]
    async with Emulator(queues=queues, topics=[topic]) as there:
        names: dict[str, Any] = {"connection": there.connection_string, "Movies": Movies}
        names |= {"RpcClient": RpcClient, "RpcServer": RpcServer, "EventBus": EventBus}
        await execute(code, names)
        names["server"].method(Movies.get_movie)(get_movie)
        async with names["server"], names["client"] as client, names["bus"] as bus:
            assert (await client.of(Movies).get_movie(GetMovie(id=1))).title == "Alien"
            await bus.publish(MovieAdded(id=1))
        assert there.books["movie-events"].sends == 1


@fragment("docs/how-to/observe.md", 1)
def test_the_dashboard_asks_for_metrics_that_are_measured(code: str) -> None:
    """By the names that the exporter for Prometheus makes of the names and units of the page's table."""
    page = (ROOT / "docs" / "how-to" / "observe.md").read_text(encoding="utf-8")
    source = (ROOT / "src" / "sbrpc" / "otel.py").read_text(encoding="utf-8")
    exported = set()
    for name, kind, unit in re.findall(r"^\| `([a-z_.]+)` \| ([a-z-]+) \| (\S+) \|", page, re.MULTILINE):
        assert f'"{name}"' in source
        base = name.replace(".", "_") + ("_seconds" if unit == "s" else "")
        exported |= {f"{base}_bucket", f"{base}_count"} if kind == "histogram" else {f"{base}_total"}
    asked = set(re.findall(r"\b(?:rpc|messaging|sbrpc)_\w+(?=[\[{])", code))
    assert len(asked) == 6
    assert asked <= exported


@fragment("docs/how-to/operate.md", 0)
async def test_what_a_program_needs_follows_from_what_it_registers(code: str) -> None:
    """Queues, topics and a lock duration that nothing else says."""
    from movies import contract

    names: dict[str, Any] = {"RpcServer": RpcServer, "EventBus": EventBus, "Queue": Queue, **vars(contract)}
    await execute(code, names)
    async with Emulator() as there:
        entities = system_of({"movies": names["app"](there.connection_string)}).entities()
    assert [(queue.name, queue.lock_duration) for queue in entities if isinstance(queue, Queue)] == [
        ("movies", 5)
    ]
    assert [topic.name for topic in entities if isinstance(topic, Topic)] == ["movie-events"]


@fragment("docs/how-to/operate.md", 1)
def test_a_job_brings_the_database_up_to_date(code: str, tmp_path: Path) -> None:
    """Beside the programs of the example."""
    (tmp_path / "movies").symlink_to(ROOT / "examples" / "movies")
    (tmp_path / "program.py").write_text(code, encoding="utf-8")
    env = {**os.environ, "MOVIES_DATABASE": f"sqlite+aiosqlite:///{tmp_path}/movies.db"}
    done = forked.run(str(tmp_path / "program.py"), cwd=tmp_path, env=env)
    assert (done.returncode, done.stdout) == (0, b"up to date\n"), done.stderr.decode()
    with closing(sqlite3.connect(tmp_path / "movies.db")) as database:
        assert database.execute("SELECT count(*) FROM movies").fetchall() == [(0,)]


@fragment("docs/how-to/operate.md", 2)
async def test_a_program_is_ready_while_its_client_is(code: str) -> None:
    """And not before or after."""
    names: dict[str, Any] = {"__name__": "gateway"}
    await execute(code, names)
    async with emulator(Movies, reply_queue="gateway.replies") as there:
        names["client"] = client = RpcClient(there.connection_string, reply_queue="gateway.replies")
        transport = httpx.ASGITransport(app=names["app"])
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as http:
            assert (await http.get("/health/ready")).status_code == 503
            async with client:
                await client.ready(HANGS)
                assert (await http.get("/health/ready")).status_code == 200


@fragment("docs/how-to/outbox.md", 0)
async def test_refused_events_are_decided_about(
    code: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each is shown, and what is tried again waits for a relay as before."""
    outbox = Outbox(metadata := MetaData(), source="/movies")
    engine = engine_for(f"sqlite+aiosqlite:///{tmp_path}/movies.db")
    sessions = async_sessionmaker(engine)
    async with sessions.begin() as session:
        await (await session.connection()).run_sync(metadata.create_all)
        await outbox.add(session, MovieAdded(id=7))
        await session.execute(text("UPDATE sbrpc_outbox SET refused = 'MessageTooLarge: it was'"))
    await execute(code, {"sessions": sessions, "outbox": outbox})
    assert "MessageTooLarge: it was" in capsys.readouterr().out
    async with sessions.begin() as session:
        assert (await outbox.refused(session), await outbox.waiting(session)) == ([], 1)
    await engine.dispose()


@fragment("docs/how-to/test-a-handler.md", 0)
@fragment("docs/how-to/test-a-handler.md", 1, name="conftest")
def test_a_bench_is_a_fixture(code: str, conftest: str, pytester: pytest.Pytester) -> None:
    """Of the page's first program in pytest, with the loop that the page asks for."""
    program, _, _ = on("docs/how-to/test-a-handler.md", "python")[0].partition("async def test_")
    pytester.makeconftest(conftest)
    pytester.makepyfile(f"{program}\nfrom sbrpc.testing import Bench\n\n\n{code}")
    pytester.makepyprojecttoml('[tool.pytest.ini_options]\nanyio_mode = "auto"\n')
    pytester.runpytest_subprocess("-p", "no:asyncio", "-W", "error", timeout=HANGS).assert_outcomes(passed=1)


@fragment("docs/how-to/test-a-handler.md", 2)
@pytest.mark.applications
async def test_a_whole_application_runs_in_a_test(
    code: str, programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of it is ready inside the block."""
    monkeypatch.chdir(programs)
    names: dict[str, Any] = {}
    await execute(code, names)
    with anyio.fail_after(2 * HANGS):
        await names["test_an_order_is_shipped"]()


@fragment("docs/how-to/test-a-handler.md", 3)
async def test_a_bench_is_used_from_cell_to_cell(code: str) -> None:
    """Each in a task of its own, as a notebook runs them."""
    names: dict[str, Any] = {"Bench": Bench, "Movies": Numbered, "get_movie": get_number}
    for cell in ast.parse(code).body:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(execute, ast.unparse(cell), names)
    with pytest.raises(NotRunning):
        await names["movies"].get_movie(1)
