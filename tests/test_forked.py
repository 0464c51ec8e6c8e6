"""Programs that are copies behave as those that start from nothing, so tests may run them instead."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from . import forked

WAYS = pytest.mark.parametrize("fresh", [False, True], ids=["copy", "from nothing"])


def run(tmp_path: Path, code: str, *arguments: str, fresh: bool, **options: object) -> forked.Finished:
    """A program with this code; another path makes it start from nothing."""
    program = tmp_path / "program.py"
    program.write_text(code)
    env = {**os.environ, "NAMED": "value"} | ({"PYTHONPATH": str(tmp_path)} if fresh else {})
    return forked.run(str(program), *arguments, env=env, cwd=tmp_path, **options)  # type: ignore[arg-type]


@WAYS
def test_a_program_has_what_it_is_given(tmp_path: Path, fresh: bool) -> None:
    """Arguments, input, environment, directory, and its own name."""
    seen = "__name__, sys.argv[1:], input(), os.environ['NAMED'], os.getcwd(), sys.path[0]"
    code = f"import os, sys; print({seen})"
    done = run(tmp_path, code, "a", "b", fresh=fresh, given=b"line\n")
    said = f"__main__ ['a', 'b'] line value {tmp_path} {tmp_path}\n"
    assert (done.returncode, done.stdout.decode(), done.stderr) == (0, said, b"")


@WAYS
@pytest.mark.parametrize(
    ("ending", "code", "says"),
    [
        ("pass", 0, b"at exit\n"),
        ("sys.exit(6)", 6, b"at exit\n"),
        ("sys.exit('no')", 1, b"no\nat exit\n"),
        ("1 / 0", 1, b"at exit\n"),
        ("os.kill(os.getpid(), 9)", -signal.SIGKILL, b""),
        ("raise KeyboardInterrupt", -signal.SIGINT, b"at exit\n"),
    ],
)
def test_a_program_ends_as_an_interpreter_does(
    tmp_path: Path, ending: str, code: int, says: bytes, fresh: bool
) -> None:
    """With its exit code or signal, a traceback where there is one, and what was registered for the end."""
    program = f"import atexit, os, sys; atexit.register(lambda: print('at exit', file=sys.stderr)); {ending}"
    done = run(tmp_path, program, fresh=fresh)
    assert done.returncode == code
    assert done.stderr.endswith(says)
    assert (b"Traceback" in done.stderr) is (ending in ("1 / 0", "raise KeyboardInterrupt"))


def test_a_program_that_hangs_is_killed(tmp_path: Path) -> None:
    """Nobody waits for it for ever, and it is gone."""
    run(tmp_path, "pass", fresh=False)  # what it is a copy of has begun
    code = "import os, time; open('pid', 'w').write(str(os.getpid())); time.sleep(600)"
    with pytest.raises(subprocess.TimeoutExpired):
        run(tmp_path, code, fresh=False, patience=5)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)
