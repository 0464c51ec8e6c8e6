"""Errors: classes, codes, and what they carry."""

from __future__ import annotations

import copy
import pickle

import pytest

from sbrpc import errors
from sbrpc.errors import ErrorCode, MessageTooLarge, NotFound, RpcError, SbrpcError, Unknown, error_for


def test_each_code_has_its_class() -> None:
    """Sixteen codes, sixteen classes, both ways."""
    assert len(ErrorCode) == 16
    for code in ErrorCode:
        error = error_for(code, "why")
        assert type(error) is not RpcError
        assert error.code is code
        assert type(error)("why").code is code
        assert str(error) == f"{code.value}: why"


def test_an_unknown_code_is_kept_in_words() -> None:
    """A newer peer may know more codes."""
    error = error_for("TEAPOT", "short")
    assert type(error) is Unknown
    assert str(error) == "UNKNOWN: TEAPOT: short"


def test_one_root_catches_everything() -> None:
    """And builtins catch what they would expect to."""
    for name in errors.__all__:
        value = getattr(errors, name)
        if isinstance(value, type) and issubclass(value, Exception):
            assert issubclass(value, SbrpcError)
    assert issubclass(errors.DeadlineExceeded, TimeoutError)
    assert issubclass(errors.Unavailable, ConnectionError)
    assert issubclass(errors.NotFound, LookupError)
    assert issubclass(errors.InvalidArgument, ValueError)


def test_a_plain_rpc_error_takes_any_code() -> None:
    """Handlers may choose the code at run time; a code that does not exist is refused."""
    assert RpcError("x", code="ABORTED").code is ErrorCode.ABORTED
    assert RpcError("x").code is ErrorCode.UNKNOWN
    with pytest.raises(ValueError, match="TEAPOT"):
        RpcError("x", code="TEAPOT")


@pytest.mark.parametrize(
    "error", [NotFound("x", details=[{"field": "id"}], data={"a": 1}), RpcError("y", code="ABORTED")]
)
def test_errors_survive_pickling_and_copying(error: RpcError) -> None:
    """They may cross process boundaries in test runners and executors."""
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert (type(twin), twin.message, twin.code, twin.details, twin.data) == (
            type(error),
            error.message,
            error.code,
            error.details,
            error.data,
        )


def test_too_large_says_sizes() -> None:
    """In bytes, with the limit."""
    error = MessageTooLarge(300, 256, "message to 'movies'")
    assert str(error) == "the message to 'movies' has 300 bytes, the limit is 256"
    assert (error.size, error.limit) == (300, 256)
