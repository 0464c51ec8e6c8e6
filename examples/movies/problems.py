"""How the HTTP API says that something went wrong: problem details, RFC 9457, whoever found it wrong.

It knows the library's errors and HTTP; it knows nothing of movies.
"""

from __future__ import annotations

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
MEDIA_TYPE = "application/problem+json"


class Problem(BaseModel):
    title: str
    status: int
    detail: str
    code: str
    errors: list[dict[str, Any]] = []


def describe(error: Exception) -> tuple[int, str, str, list[dict[str, Any]]]:
    """The HTTP status, the code, a sentence and the details of an error."""
    if isinstance(error, RpcError):
        return STATUS.get(error.code, 500), error.code.value, error.message, error.details
    if isinstance(error, BusError):
        return 503, ErrorCode.UNAVAILABLE.value, str(error), []
    if isinstance(error, RequestValidationError):
        wrong = [{"field": ".".join(map(str, e["loc"])), "message": e["msg"]} for e in error.errors()]
        status = 400 if any(e["type"] == "json_invalid" for e in error.errors()) else 422
        detail = "; ".join(f"{e['field']}: {e['message']}" for e in wrong)
        return status, ErrorCode.INVALID_ARGUMENT.value, detail, wrong
    if isinstance(error, HTTPException):
        return error.status_code, HTTPStatus(error.status_code).name, str(error.detail), []
    return 500, ErrorCode.INTERNAL.value, "the API failed unexpectedly; its log says how", []


async def answer(_: Request, error: Exception) -> JSONResponse:
    status, code, detail, errors = describe(error)
    title = HTTPStatus(status).phrase
    body = Problem(title=title, status=status, detail=detail, code=code, errors=errors)
    headers = dict(getattr(error, "headers", None) or {})
    if status in (429, 503):
        headers["Retry-After"] = "1"
    return JSONResponse(body.model_dump(), status, headers, MEDIA_TYPE)


def install(app: FastAPI) -> None:
    """Make every error of this app a problem, and say so in its documentation."""
    for kind in (RpcError, BusError, RequestValidationError, HTTPException, Exception):
        app.add_exception_handler(kind, answer)
    for status in (400, 404, 409, 422, 429, 503, 504):
        app.router.responses[status] = {"model": Problem, "content": {MEDIA_TYPE: {}}}
