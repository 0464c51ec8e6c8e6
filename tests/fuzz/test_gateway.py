"""The coverage-guided fuzzer finds nothing in a short run; `SBRPC_FUZZ_SECONDS` makes it a long one."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

SECONDS = int(os.environ.get("SBRPC_FUZZ_SECONDS", "4"))


@pytest.mark.skipif(
    importlib.util.find_spec("atheris") is None, reason="atheris is not installed (it has no wheel here)"
)
def test_no_input_ends_anything_but_its_own_connection(tmp_path: Path) -> None:
    """Damaged conversations, whole and byte by byte, end at most the connection they came on."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "tests.fuzz.gateway", str(tmp_path / "corpus")),
            *(f"-max_total_time={SECONDS}", "-max_len=1200", "-timeout=20", "-rss_limit_mb=1024", "-seed=1"),
            f"-artifact_prefix={tmp_path}/",
        ],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=SECONDS + 90,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert "Done" in done.stderr, done.stderr[-2000:]
