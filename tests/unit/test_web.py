"""A web application beside others, on a real socket; and errors as problem details."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import anyio
import httpx
import pytest
from fastapi import Depends, FastAPI, Request
from starlette.exceptions import HTTPException

from sbrpc import Contract, errors, method, web
from sbrpc.errors import ErrorCode, RpcError, SbrpcError, error_for
from sbrpc.running import Group
from sbrpc.web import (
    STATUS,
    Problem,
    Web,
    _listening,
    calls_to,
    describe_calls,
    describe_problems,
    report_health,
    report_origin,
)


class Films(Contract, name="films"):
    @method
    async def get_film(self, request: int) -> str:
        raise NotImplementedError


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.InvalidArgument("x"), 400),
        (errors.OutOfRange("x"), 400),
        (errors.NotFound("x"), 404),
        (errors.AlreadyExists("x"), 409),
        (errors.Aborted("x"), 409),
        (errors.FailedPrecondition("x"), 409),
        (errors.ResourceExhausted("x"), 429),
        (errors.Unavailable("x"), 503),
        (errors.DeadlineExceeded("x"), 504),
        (errors.Internal("x"), 500),
        (errors.DataLoss("x"), 500),
    ],
)
def test_a_code_of_the_service_has_a_status(error: RpcError, status: int) -> None:
    """What the service answers is told in the words of HTTP, with its code and its message."""
    problem = Problem.of(error)
    assert (problem.status, problem.code, problem.detail, problem.errors) == (status, error.code, "x", [])


def test_details_are_handed_on() -> None:
    """What the service says about each field reaches the caller."""
    wrong = [{"field": "title", "problem": "missing"}]
    problem = Problem.of(error_for("INVALID_ARGUMENT", "x", wrong))
    assert problem.errors == wrong
    error = problem.error()
    assert (type(error), error.message, error.details) == (errors.InvalidArgument, "x", wrong)


def test_only_errors_are_mapped() -> None:
    """Each row of the table is a code, and a status that HTTP calls an error."""
    assert set(STATUS) <= set(ErrorCode)
    assert all(400 <= status < 600 for status in STATUS.values())


def test_a_service_bus_that_is_away_is_503() -> None:
    """Where Service Bus refuses or cannot be reached, trying again later helps."""
    problem = Problem.of(errors.BusError("gone"))
    assert (problem.status, problem.code, problem.detail) == (503, "UNAVAILABLE", "gone")


def test_an_error_of_the_framework_keeps_its_status() -> None:
    """404 and 405 of the web framework are problems like any other."""
    problem = Problem.of(HTTPException(405))
    assert (problem.status, problem.code, problem.title) == (405, "METHOD_NOT_ALLOWED", "Method Not Allowed")


def test_an_unexpected_error_gives_nothing_away() -> None:
    """What nobody expected is 500, and its message stays inside."""
    problem = Problem.of(RuntimeError("the password is 1234"))
    assert (problem.status, problem.code) == (500, "INTERNAL")
    assert "1234" not in problem.detail


@asynccontextmanager
async def serving(app: FastAPI, **options: float) -> AsyncIterator[tuple[Group, httpx.AsyncClient]]:
    """The application as a thing of a group, and a caller of it."""
    served = Web(app, port=0, **options)
    async with Group(served) as group, httpx.AsyncClient(base_url=f"http://127.0.0.1:{served.port}") as http:
        yield group, http


@pytest.mark.parametrize(("error", "wait"), [(errors.Unavailable("x"), "1"), (errors.NotFound("x"), None)])
async def test_who_may_try_again_is_told_when(error: RpcError, wait: str | None) -> None:
    """An error in a route is a problem on the wire; those that ask for patience say for how long."""
    app = FastAPI()
    describe_problems(app)

    @app.get("/")
    async def fail(number: int = 0) -> None:
        raise error

    async with serving(app) as (group, http):
        assert group.is_ready
        response = await http.get("/")
        assert response.headers["content-type"] == "application/problem+json"
        assert response.json()["code"] == error.code
        assert response.headers.get("retry-after") == wait
        wrong = (await http.get("/?number=one")).json()
        assert (wrong["status"], wrong["errors"][0]["field"]) == (422, "query.number")
        assert {"404", "409", "422", "503", "504"} <= {*app.openapi()["paths"]["/"]["get"]["responses"]}


async def test_it_describes_its_calls_to_people_and_tools() -> None:
    """As AsyncAPI, with the title of the application; what cannot be described is an error at once."""
    app = FastAPI(title="Cinema")
    describe_calls(app, Films)
    async with serving(app) as (_, http):
        document = (await http.get("/asyncapi.json")).json()
        assert document["info"]["title"] == "Cinema"
        assert "films.get_film" in document["operations"]
        page = await http.get("/asyncapi")
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        assert "films.get_film" in page.text
    with pytest.raises(errors.ContractError, match="is no server"):
        describe_calls(app, "films")


async def test_probes_are_answered(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """Live while it runs; ready while the check passes, whatever it raises, and not when it hangs."""
    monkeypatch.setattr(web, "_CHECKED_WITHIN", 0.01)
    app, trouble = FastAPI(), [None, OSError("no database"), anyio.sleep_forever]
    describe_problems(app)

    async def ready() -> None:
        wrong = trouble.pop(0)
        if isinstance(wrong, OSError):
            raise wrong
        if wrong:
            await wrong()

    report_health(app, ready)
    async with serving(app) as (_, http):
        assert (await http.get("/health/live")).json() == {"status": "live"}
        assert (await http.get("/health/ready")).json() == {"status": "ready"}
        for _ in range(2):
            refused = await http.get("/health/ready")
            assert (refused.status_code, refused.json()["code"]) == (503, "UNAVAILABLE")
            assert "database" not in refused.text
    assert "not ready: no database" in caplog.text


async def test_without_a_check_the_client_has_to_be_ready() -> None:
    """The one that routes call; where there is none, nobody is ready."""

    class Client:
        async def ready(self) -> None:
            pass

    app = FastAPI()
    describe_problems(app)
    report_health(app)
    async with serving(app) as (_, http):
        assert (await http.get("/health/ready")).status_code == 503
        app.state.client = Client()
        assert (await http.get("/health/ready")).json() == {"status": "ready"}


class Timed:
    """Notes for which time it was asked for the stub of which contract."""

    def of(self, contract: type[Contract], timeout: float) -> str:
        return f"{contract.__name__} within {timeout:g} s"


async def test_a_route_calls_within_the_time_that_its_caller_gives() -> None:
    """The header decides, up to a limit; what makes no sense is refused, and the document says so."""
    app = FastAPI()
    app.state.client = Timed()
    describe_problems(app)

    @app.get("/")
    async def ask(films: Annotated[Any, Depends(calls_to(Films, timeout=3, most=60))]) -> str:
        return str(films)

    async with serving(app) as (_, http):
        assert (await http.get("/")).json() == "Films within 3 s"
        assert (await http.get("/", headers={"Request-Timeout": "0.5"})).json() == "Films within 0.5 s"
        for wrong in ("0", "61", "nan", "soon"):
            refused = await http.get("/", headers={"Request-Timeout": wrong})
            assert (refused.status_code, refused.json()["errors"][0]["field"]) == (
                422,
                "header.request-timeout",
            )
    assert app.openapi()["paths"]["/"]["get"]["parameters"][0]["name"] == "request-timeout"


async def test_each_response_says_where_it_is_from() -> None:
    """Good ones and problems carry process and duration, and the headers that all shall have."""
    app = FastAPI()
    describe_problems(app)
    report_origin(app, "cinema", {"Cache-Control": "no-cache"})

    @app.get("/")
    async def ask(number: int = 0) -> int:
        return number

    async with serving(app) as (_, http):
        for path in ("/", "/?number=one", "/nowhere"):
            headers = (await http.get(path)).headers
            assert headers["served-by"] == f"cinema {socket.gethostname()}:{os.getpid()}"
            assert float(headers["server-timing"].removeprefix("total;dur=")) >= 0
            assert headers["cache-control"] == "no-cache"


async def test_requests_that_run_are_answered_before_it_ends() -> None:
    """Draining takes no more connections and waits for what runs; then nobody listens there any more."""
    app, began, finish = FastAPI(), anyio.Event(), anyio.Event()

    @app.get("/")
    async def slow() -> str:
        began.set()
        await finish.wait()
        return "done"

    served = Web(app, port=0)
    answers: list[str] = []
    async with anyio.create_task_group() as tasks, served:

        async def ask() -> None:
            async with httpx.AsyncClient() as http:
                answers.append((await http.get(f"http://127.0.0.1:{served.port}/")).json())

        tasks.start_soon(ask)
        await began.wait()
        tasks.start_soon(served.drain)
        await anyio.wait_all_tasks_blocked()
        assert not served.is_ready
        finish.set()
    assert answers == ["done"]
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", served.port))


async def test_a_request_that_does_not_end_is_cut_off_after_the_grace() -> None:
    """A group's grace of no seconds leaves no time: the end does not hang on a request."""
    app, began = FastAPI(), anyio.Event()

    @app.get("/")
    async def endless() -> None:
        began.set()
        await anyio.sleep_forever()

    served = Web(app, port=0)
    async with anyio.create_task_group() as tasks:

        async def ask() -> None:
            async with httpx.AsyncClient() as http:
                assert (await http.get(f"http://127.0.0.1:{served.port}/", timeout=60)).status_code == 500

        async with Group(served, grace=0):
            tasks.start_soon(ask)
            await began.wait()


@pytest.mark.parametrize(("idle", "kept"), [(100, True), (130, False)])
async def test_a_connection_that_idles_is_kept_longer_than_callers_keep_it(
    idle: float, kept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a request could meet a connection that is just being closed. It is not kept for ever."""
    app, forever = FastAPI(), httpx.Limits(keepalive_expiry=None)

    @app.get("/")
    async def connection(request: Request) -> int:
        assert request.client is not None
        return request.client.port

    async with serving(app) as (_, http), httpx.AsyncClient(base_url=http.base_url, limits=forever) as caller:
        first = (await caller.get("/")).json()
        monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: time.monotonic() + idle)
        await anyio.sleep(0.01)
        assert ((await caller.get("/")).json() == first) is kept


async def test_the_socket_names_its_protocol() -> None:
    """asyncio turns Nagle's algorithm off only then; with it, an answer in two packets takes 40 ms."""
    listener = _listening("127.0.0.1", 0)
    assert listener.proto == socket.IPPROTO_TCP
    listener.close()


async def test_a_port_that_is_taken_is_named() -> None:
    """Nothing is started, and the message says where nobody can listen."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(errors.CannotListen, match=f"cannot listen on 127.0.0.1, port {port}: "):
            async with Web(FastAPI(), port=port):
                raise AssertionError


async def test_a_lifespan_that_fails_is_an_error_and_not_an_end_of_the_process() -> None:
    """uvicorn would exit here; this raises, and lets go of the port."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        raise RuntimeError("no database")
        yield

    served = Web(FastAPI(lifespan=lifespan), port=0, log_level="critical")
    with pytest.raises(SbrpcError, match="did not start"):
        async with served:
            raise AssertionError
    socket.create_server(("127.0.0.1", served.port)).close()
