"""The example is a package in `examples`, run from there and imported from there."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.databases import database, postgres_url

__all__ = ["database", "postgres_url"]

EXAMPLES = Path(__file__).parents[2] / "examples"
sys.path.insert(0, str(EXAMPLES))
