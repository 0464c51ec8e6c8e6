"""Errors as problem details: which status, which code, and what the caller may know."""

from __future__ import annotations

import pytest
from starlette.exceptions import HTTPException
from starlette.requests import Request

from movies.problems import STATUS, answer, describe
from sbrpc import errors
from sbrpc.errors import ErrorCode, RpcError, error_for


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
    assert describe(error) == (status, error.code.value, "x", [])


def test_details_are_handed_on() -> None:
    """What the service says about each field reaches the caller."""
    wrong = [{"field": "title", "problem": "missing"}]
    assert describe(error_for("INVALID_ARGUMENT", "x", wrong))[3] == wrong


def test_only_errors_are_mapped() -> None:
    """Each row of the table is a code, and a status that HTTP calls an error."""
    assert set(STATUS) <= set(ErrorCode)
    assert all(400 <= status < 600 for status in STATUS.values())


def test_a_service_bus_that_is_away_is_503() -> None:
    """Where Service Bus refuses or cannot be reached, trying again later helps."""
    assert describe(errors.BusError("gone"))[:3] == (503, "UNAVAILABLE", "gone")


def test_an_error_of_the_framework_keeps_its_status() -> None:
    """404 and 405 of the web framework are problems like any other."""
    assert describe(HTTPException(405)) == (405, "METHOD_NOT_ALLOWED", "Method Not Allowed", [])


def test_an_unexpected_error_gives_nothing_away() -> None:
    """What nobody expected is 500, and its message stays inside."""
    status, code, detail, _ = describe(RuntimeError("the password is 1234"))
    assert (status, code) == (500, "INTERNAL")
    assert "1234" not in detail


@pytest.mark.parametrize(("error", "wait"), [(errors.Unavailable(), "1"), (errors.NotFound(), None)])
async def test_who_may_try_again_is_told_when(error: RpcError, wait: str | None) -> None:
    """Responses that ask for patience say for how long."""
    response = await answer(Request({"type": "http"}), error)
    assert response.headers.get("retry-after") == wait
    assert response.media_type == "application/problem+json"
