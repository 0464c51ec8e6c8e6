"""HTTP in front of calls: a web application beside clients and servers, and what such an application says.

    app = FastAPI()
    app.state.client = client
    describe_problems(app)
    describe_calls(app, Movies)
    report_health(app)
    report_origin(app, "movies-api")
    await serve(client, Web(app, port=8000))

Owns how uvicorn starts and ends beside others, and which HTTP status stands for which error code. Knows no
contract.

Needs `pip install "sbrpc[web]"`.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager
from http import HTTPStatus
from time import perf_counter
from types import MappingProxyType, TracebackType
from typing import Any, TypeVar

import anyio
import anyio.abc
from pydantic import BaseModel

try:
    import uvicorn
    from fastapi import FastAPI, Header, Request
    from fastapi.exceptions import RequestValidationError
    from fastapi.responses import HTMLResponse, JSONResponse
    from starlette.datastructures import MutableHeaders
    from starlette.exceptions import HTTPException
    from starlette.types import ASGIApp, Message, Receive, Scope, Send
except ModuleNotFoundError as _error:
    raise ModuleNotFoundError(
        f'sbrpc.web needs {_error.name}: pip install "sbrpc[web]"', name=_error.name
    ) from _error

from .contract import Contract
from .errors import (
    BusError,
    CannotListen,
    ErrorCode,
    NotRunning,
    RpcError,
    SbrpcError,
    Unavailable,
    error_for,
)
from .export import asyncapi_document, asyncapi_page, system_of

__all__ = [
    "STATUS",
    "Problem",
    "Web",
    "calls_to",
    "describe_calls",
    "describe_problems",
    "report_health",
    "report_origin",
]

C = TypeVar("C", bound=Contract)

MEDIA_TYPE = "application/problem+json"

_log = logging.getLogger("sbrpc.web")
_CHECKED_WITHIN = 5.0

# Seconds; longer than callers keep a connection that idles: httpx 5, nginx 60, Go 90. It is for them to end
# it: a request on its way to a server that has just closed is lost. uvicorn's default is 5, as httpx's.
_KEEP_ALIVE = 120

STATUS: Mapping[ErrorCode, int] = {
    ErrorCode.INVALID_ARGUMENT: 400,
    ErrorCode.OUT_OF_RANGE: 400,
    ErrorCode.UNAUTHENTICATED: 401,
    ErrorCode.PERMISSION_DENIED: 403,
    ErrorCode.NOT_FOUND: 404,
    ErrorCode.ABORTED: 409,
    ErrorCode.ALREADY_EXISTS: 409,
    ErrorCode.FAILED_PRECONDITION: 409,
    ErrorCode.RESOURCE_EXHAUSTED: 429,
    ErrorCode.UNIMPLEMENTED: 501,
    ErrorCode.UNAVAILABLE: 503,
    ErrorCode.DEADLINE_EXCEEDED: 504,
}
"""The HTTP status of each code, as `google/rpc/code.proto` has it, but for FAILED_PRECONDITION: nothing is
wrong with such a request. Codes without a row are 500, since the caller can do nothing about them."""


def _listening(host: str, port: int) -> socket.socket:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, kind, protocol, _, address = found[0]
    # With its protocol named: asyncio turns Nagle's algorithm off for such sockets only, and what waits for
    # an acknowledgement waits 40 ms.
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(2048)  # as uvicorn does
    except OSError:
        listener.close()
        raise
    return listener


class _Uvicorn(uvicorn.Server):
    """uvicorn that says when it answers, and leaves signals to whoever runs it together with others."""

    def __init__(self, config: uvicorn.Config, answering: Callable[[], None]) -> None:
        super().__init__(config)
        self._answering = answering

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._answering()


class Web:
    """An ASGI application, served by uvicorn beside clients, servers and event buses.

    As a thing of `serve` or `sbrpc run` it is entered after what stands before it, so that what the
    application needs is there with the first request. On `drain` it takes no more connections and lets
    requests end, for `grace` seconds at most; then they are cut off, as are streams that have no end.
    `options` are those of `uvicorn.Config`; a connection that idles is kept for two minutes unless they say
    otherwise. Port 0 picks a free one, which `port` says inside the block.
    """

    def __init__(
        self, app: Any, *, host: str = "127.0.0.1", port: int = 8000, grace: float = 20, **options: Any
    ) -> None:
        self.app = app
        self.host: str = host
        self.port: int = port
        self._grace = grace
        self._options = {"log_level": "warning", "timeout_keep_alive": _KEEP_ALIVE, **options}
        self._server: _Uvicorn | None = None
        self._stack: AsyncExitStack | None = None
        self._ended = anyio.Event()

    async def __aenter__(self) -> Web:
        """Listen, and start the application.

        Raises:
            CannotListen: the port is taken, for instance.
            SbrpcError: the application's lifespan has failed.
        """
        if self._server is not None:
            raise NotRunning("this web application is already running")
        try:
            listener = _listening(self.host, self.port)
        except OSError as error:
            raise CannotListen(
                f"cannot listen on {self.host}, port {self.port}: {error.strerror or error}; choose another"
            ) from error
        self.port = int(listener.getsockname()[1])
        self._ended = anyio.Event()
        async with AsyncExitStack() as stack:
            stack.callback(listener.close)
            tasks = await stack.enter_async_context(anyio.create_task_group())
            if await tasks.start(self._serve, listener):
                self._stack = stack.pop_all()
                return self
        self._server = None  # raised here, where the task group does not wrap it
        raise SbrpcError("the web application did not start: its lifespan failed, as the log says")

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        await self.drain()
        stack, self._stack, self._server = self._stack, None, None
        assert stack is not None
        return await stack.__aexit__(kind, error, trace)

    async def drain(self, grace: float | None = None) -> None:
        """Take no more requests and let those that run end, for `grace` seconds at most. Shielded."""
        if self._server is None:
            return
        if not self._server.should_exit:
            # uvicorn hands it to `asyncio.wait_for`, which takes fractions.
            self._server.config.timeout_graceful_shutdown = self._grace if grace is None else grace  # type: ignore[assignment]
            self._server.should_exit = True
        with anyio.CancelScope(shield=True):
            await self._ended.wait()

    @property
    def is_ready(self) -> bool:
        """Whether requests are answered."""
        return self._server is not None and self._server.started and not self._server.should_exit

    async def _serve(self, listener: socket.socket, *, task_status: anyio.abc.TaskStatus[bool]) -> None:
        """Run uvicorn to its end; the status is whether it has started."""
        self._server = _Uvicorn(uvicorn.Config(self.app, **self._options), lambda: task_status.started(True))
        try:
            await self._server.serve([listener])
        except SystemExit:
            pass  # what uvicorn does where it cannot start, and has logged why
        finally:
            self._ended.set()
        if not self._server.started:
            task_status.started(False)


class Problem(BaseModel):
    """What went wrong, as RFC 9457 has it, with the code of the error and its details."""

    title: str
    status: int
    detail: str
    code: str
    errors: list[dict[str, Any]] = []

    @classmethod
    def of(cls, error: Exception) -> Problem:
        """The problem that an error is for a caller over HTTP; an unexpected one gives nothing away."""
        code: str = ErrorCode.INTERNAL.value
        status, detail, errors = 500, "this failed unexpectedly; the log says how", []
        if isinstance(error, RpcError):
            status, code = STATUS.get(error.code, 500), error.code.value
            detail, errors = error.message, error.details
        elif isinstance(error, BusError):
            status, code, detail = 503, ErrorCode.UNAVAILABLE.value, str(error)
        elif isinstance(error, RequestValidationError):
            status = 400 if any(wrong["type"] == "json_invalid" for wrong in error.errors()) else 422
            code = ErrorCode.INVALID_ARGUMENT.value
            errors = [
                {"field": ".".join(map(str, wrong["loc"])), "message": wrong["msg"]}
                for wrong in error.errors()
            ]
            detail = "; ".join(f"{wrong['field']}: {wrong['message']}" for wrong in errors)
        elif isinstance(error, HTTPException):
            status, code = error.status_code, HTTPStatus(error.status_code).name
            detail = str(error.detail)
        return cls(title=HTTPStatus(status).phrase, status=status, detail=detail, code=code, errors=errors)

    def error(self) -> RpcError:
        """The error that it was made of, for whoever asked over HTTP; what has no code is `Unknown`."""
        return error_for(self.code, self.detail, self.errors)


def describe_problems(app: FastAPI) -> None:
    """Answer every error of this application with a `Problem`, and say so in its OpenAPI document.

    429 and 503 ask for patience with `Retry-After`, in seconds.
    """
    for kind in (RpcError, BusError, RequestValidationError, HTTPException, Exception):
        app.add_exception_handler(kind, _answer)
    for status in (*sorted({*STATUS.values()}), 422):
        app.router.responses[status] = {"model": Problem, "content": {MEDIA_TYPE: {}}}


async def _answer(_: Request, error: Exception) -> JSONResponse:
    problem = Problem.of(error)
    headers = dict(getattr(error, "headers", None) or {})
    if problem.status in (429, 503):
        headers["Retry-After"] = "1"
    return JSONResponse(problem.model_dump(), problem.status, headers, MEDIA_TYPE)


def describe_calls(app: FastAPI, *parts: object, path: str = "/asyncapi") -> None:
    """Answer with AsyncAPI: what these servers, contracts, buses and events offer, as `sbrpc export` has it.

    At `path` a page for people, which loads nothing from elsewhere; at `path`.json a document for tools.

    Raises:
        ContractError: a part is none of these, or contradicts another; at once.
    """
    document = asyncapi_document(system_of({app.title: parts}), title=app.title, version=app.version)
    page = asyncapi_page(document)

    @app.get(f"{path}.json")
    async def asyncapi() -> dict[str, Any]:
        """The calls and events as AsyncAPI, for tools."""
        return document

    @app.get(path, response_class=HTMLResponse)
    async def asyncapi_for_people() -> str:
        """The same as a page."""
        return page


def calls_to(
    contract: type[C], *, timeout: float = 10, most: float = 300
) -> Callable[[Request, float], Awaitable[C]]:
    """What a route depends on to call a service, within the time that its own caller gives it.

        Service = Annotated[Movies, Depends(calls_to(Movies))]

        @app.get("/movies/{id}")
        async def get_movie(id: int, movies: Service) -> Movie: ...

    It is `client.of(contract, timeout=...)` of the client at `app.state.client`. The time is what the header
    `Request-Timeout` says, in seconds up to `most`, or else `timeout`; another value is answered with 422.
    """

    async def stub(
        request: Request,
        request_timeout: float = Header(
            timeout, gt=0, le=most, description="Seconds that the caller waits; then 504."
        ),
    ) -> C:
        found: C = request.app.state.client.of(contract, timeout=request_timeout)
        return found

    return stub


class _Origin:
    """Says in each response which process it is from, and how long that took."""

    def __init__(self, app: ASGIApp, name: str, headers: Mapping[str, str]) -> None:
        self._app = app
        self._headers = {"Served-By": f"{name} {socket.gethostname()}:{os.getpid()}", **headers}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        began = perf_counter()

        async def say(message: Message) -> None:
            if message["type"] == "http.response.start":
                took = f"total;dur={(perf_counter() - began) * 1000:.1f}"
                MutableHeaders(scope=message).update({**self._headers, "Server-Timing": took})
            await send(message)

        await self._app(scope, receive, say if scope["type"] == "http" else send)


def report_origin(app: FastAPI, name: str, headers: Mapping[str, str] = MappingProxyType({})) -> None:
    """Say in each response which process of `name` gave it, and the milliseconds until it began.

    These are `Served-By` and `Server-Timing`; `headers` are set besides, and win over those of routes.
    """
    app.add_middleware(_Origin, name=name, headers=headers)


def report_health(
    app: FastAPI, ready: Callable[[], Awaitable[object]] | None = None, prefix: str = "/health"
) -> None:
    """Answer probes: `prefix`/live while the process runs, `prefix`/ready while `ready` raises nothing.

    Without `ready` it is the client at `app.state.client` that has to be ready. Whatever it raises is logged
    and answered with 503, as is a check that takes more than five seconds.
    """

    @app.get(f"{prefix}/live")
    async def live() -> dict[str, str]:
        """This process runs."""
        return {"status": "live"}

    @app.get(f"{prefix}/ready")
    async def is_ready() -> dict[str, str]:
        """Send traffic here."""
        try:
            with anyio.fail_after(_CHECKED_WITHIN):
                await (app.state.client.ready if ready is None else ready)()
        except Exception as error:  # an operator looks for the reason in the log
            _log.warning("not ready: %s", error or type(error).__name__)
            raise Unavailable("not ready; the log says why") from error
        return {"status": "ready"}
