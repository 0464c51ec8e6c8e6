"""The public API as pyright sees it; mypy sees the same file in `make check`.

Wrong uses in it carry a comment that has the checker ignore them, and a comment that ignores nothing is an
error: so what must not pass the checker does not.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent / "typing"


def test_pyright_accepts_the_right_uses_and_no_wrong_one() -> None:
    """In its strict mode."""
    if importlib.util.find_spec("pyright") is None:
        pytest.skip("pyright is not installed (pip install pyright; it needs Node, or fetches it)")
    command = [sys.executable, "-m", "pyright", "--pythonpath", sys.executable, "-p", str(HERE)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    if done.returncode not in (0, 1):
        pytest.skip(f"pyright cannot run here: {(done.stderr or done.stdout).strip()[-300:]}")
    assert done.returncode == 0, done.stdout
