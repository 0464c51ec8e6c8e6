"""The runs of the fault matrix: made once for all tests that ask, and written down on request.

`SBRPC_TEST_LONG=1` makes them long; `SBRPC_WRITE_GUARANTEES=1` writes their table to docs/guarantees.md.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator

import pytest

from .report import write
from .runs import SIZE, Story, run


@pytest.fixture(scope="session")
def stories(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Story]]:
    """What became of the calls, by fault; only faults that were selected are tried."""
    params = [item.callspec.params for item in request.session.items if hasattr(item, "callspec")]
    mishaps = list(dict.fromkeys(each["mishap"] for each in params if "mishap" in each))
    found = run(mishaps, SIZE, tmp_path_factory.mktemp("faults"))
    if os.environ.get("SBRPC_WRITE_GUARANTEES"):
        write(found, SIZE)
    gc.collect()  # what the SDK has left open complains now, while nobody listens
    yield found
    gc.collect()
