"""How commands end: exit codes by kind of error, and no secret in what is said."""

from __future__ import annotations

import pytest
import typer

from sbrpc import _sdk, errors
from sbrpc.cli.outcome import Exit, code_of, failed, redacted


def answered(error: errors.RpcError) -> errors.RpcError:
    """The error as it comes from a service."""
    error.call_id = "7"
    return error


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.EntityNotFound("x"), Exit.NOT_FOUND),
        (errors.AccessDenied("x"), Exit.DENIED),
        (errors.DeadlineExceeded("x"), Exit.NO_ANSWER),
        (errors.Unavailable("x"), Exit.UNREACHABLE),
        (_sdk.LinkLost("x"), Exit.UNREACHABLE),
        (_sdk.MustRequireSessions("x"), Exit.FAILED),
        (errors.BusError("x"), Exit.UNREACHABLE),
        (answered(errors.NotFound("x")), Exit.ANSWERED_WITH_ERROR),
        (errors.NotFound("x"), Exit.FAILED),
        (errors.ContractError("x"), Exit.FAILED),
        (errors.CannotListen("x"), Exit.USAGE),
    ],
)
def test_each_kind_of_error_has_its_code(error: errors.SbrpcError, code: Exit) -> None:
    """Scripts tell by it whether to try again."""
    assert code_of(error) is code


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("SharedAccessKeyName=n;SharedAccessKey=c2VjcmV0=;x", "SharedAccessKeyName=n;SharedAccessKey=***;x"),
        ("sharedaccesskey = c2VjcmV0 gone", "sharedaccesskey = *** gone"),
        ("SharedAccessSignature sr=a&sig=c2VjcmV0%3D&se=1", "SharedAccessSignature sr=a&sig=***&se=1"),
        ("SharedAccessSignature=SharedAccessSignature", "SharedAccessSignature=***"),
        ("nothing to hide", "nothing to hide"),
    ],
)
def test_keys_and_signatures_are_not_shown(text: str, shown: str) -> None:
    """Wherever they stand; names of keys are no secret."""
    assert redacted(text) == shown


def test_a_failure_is_one_line_on_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    """And the exit code that goes with it."""
    ended = failed("no: SharedAccessKey=c2VjcmV0", Exit.DENIED)
    assert isinstance(ended, typer.Exit)
    assert ended.exit_code == 7
    assert capsys.readouterr() == ("", "sbrpc: no: SharedAccessKey=***\n")
