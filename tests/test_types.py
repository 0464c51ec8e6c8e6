"""The public API as pyright sees it; mypy sees the same files in `make check`.

Wrong uses carry comments that have the checkers ignore the error they have to be, and a comment that ignores
nothing is an error: so what must not pass the checker does not.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent / "typing"

# What runs the emulator is typed for mypy, which infers the types of attributes; pyright wants them written.
INFERRED = ("sbrpc.cli", "sbrpc.emulator", "sbrpc.testing")


def pyright(*arguments: str) -> subprocess.CompletedProcess[str]:
    """What pyright says; skips where there is none."""
    if importlib.util.find_spec("pyright") is None:
        pytest.skip("pyright is not installed (pip install pyright)")
    if shutil.which("node") is None:
        pytest.skip("pyright needs Node, which is not installed")
    # It asks the first `python` of the path where packages are.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"}
    command = [sys.executable, "-m", "pyright", *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    except subprocess.TimeoutExpired:
        pytest.skip("pyright could not be fetched, or did not end, within five minutes")
    if done.returncode not in (0, 1) or not done.stdout:
        pytest.skip(f"pyright cannot run here: {(done.stderr or done.stdout).strip()[-300:]}")
    return done


LONG = pytest.mark.skipif(
    not os.environ.get("SBRPC_TEST_LONG"), reason="takes ten seconds; run by `make types`"
)


@LONG
def test_pyright_accepts_the_right_uses_and_no_wrong_one() -> None:
    """In its strict mode; each wrong use is the error that stands beside it."""
    done = pyright("--pythonpath", sys.executable, "-p", str(HERE))
    assert done.returncode == 0, done.stdout


@LONG
def test_everything_public_has_a_known_type() -> None:
    """Whoever uses the library under pyright meets no type that it has to guess."""
    told = json.loads(pyright("--verifytypes", "sbrpc", "--ignoreexternal", "--outputjson").stdout)
    symbols = [each for each in told["typeCompleteness"]["symbols"] if each["isExported"]]
    assert {"sbrpc.RpcClient", "sbrpc.events.EventBus.publish"} <= {each["name"] for each in symbols}
    guessed = [each["name"] for each in symbols if not each["isTypeKnown"]]
    assert [name for name in guessed if not name.startswith(INFERRED)] == []
