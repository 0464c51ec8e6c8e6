"""Where the programs are that pages speak of: the example, and those that are only named."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1] / "examples"))


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A directory with the programs that the pages name, to work in."""
    return shutil.copytree(HERE / "programs", tmp_path / "programs")
