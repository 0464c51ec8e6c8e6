"""How the HTTP API says that something went wrong: problem details, RFC 9457, whoever found it wrong.

It knows the library's errors and HTTP; it knows nothing of movies.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from sbrpc.errors import BusError, ErrorCode, RpcError

# Codes without a row are 500: the caller can do nothing about them.
STATUS = {
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


class Problem(BaseModel):
    title: str
    status: int
    detail: str
    code: str
    errors: list[dict[str, Any]] = []


# For the API's own documentation.
RESPONSES: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem, "content": {"application/problem+json": {}}}
    for status in (400, 404, 409, 422, 429, 503, 504)
}


def problem(
    status: int, code: str, detail: str, errors: Sequence[Any] = (), headers: Mapping[str, str] | None = None
) -> JSONResponse:
    title = HTTPStatus(status).phrase
    body = Problem(title=title, status=status, detail=detail, code=code, errors=list(errors))
    retry = {"Retry-After": "1"} if status in (429, 503) else {}
    media_type = "application/problem+json"
    return JSONResponse(body.model_dump(), status, {**(headers or {}), **retry}, media_type)


async def rpc_failed(_: Request, error: RpcError) -> JSONResponse:
    return problem(STATUS.get(error.code, 500), error.code.value, error.message, error.details)


async def bus_failed(_: Request, error: BusError) -> JSONResponse:
    return problem(503, ErrorCode.UNAVAILABLE.value, str(error))


async def request_is_wrong(_: Request, error: RequestValidationError) -> JSONResponse:
    wrong = [{"field": ".".join(map(str, e["loc"])), "message": e["msg"]} for e in error.errors()]
    detail = "; ".join(f"{e['field']}: {e['message']}" for e in wrong)
    status = 400 if any(e["type"] == "json_invalid" for e in error.errors()) else 422
    return problem(status, ErrorCode.INVALID_ARGUMENT.value, detail, wrong)


async def http_failed(_: Request, error: HTTPException) -> JSONResponse:
    code = HTTPStatus(error.status_code).name
    return problem(error.status_code, code, error.detail, headers=error.headers)


async def crashed(_: Request, error: Exception) -> JSONResponse:
    """What nobody expected. The server logs it; the caller learns nothing of the inside."""
    return problem(500, ErrorCode.INTERNAL.value, "the API failed unexpectedly; its log says how")


def install(app: FastAPI) -> None:
    """Make every error of this app a problem."""
    app.add_exception_handler(RpcError, rpc_failed)
    app.add_exception_handler(BusError, bus_failed)
    app.add_exception_handler(RequestValidationError, request_is_wrong)
    app.add_exception_handler(HTTPException, http_failed)
    app.add_exception_handler(Exception, crashed)
