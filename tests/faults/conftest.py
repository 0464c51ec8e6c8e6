"""The runs of the fault matrix: made once for all tests that ask, and written down on request.

`SBRPC_TEST_LONG=1` makes them long; `SBRPC_WRITE_GUARANTEES=1` writes their table to docs/guarantees.md.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from .report import write
from .runs import SIZE, Story, run


class Stories(dict[str, Story]):
    """What became of the calls, by fault; the runs begin when the first of their stories is asked for.

    In one process all faults that were selected are tried side by side, as they mostly wait. A worker of
    pytest-xdist tries the one that it is asked about: the other workers have the others.
    """

    def __init__(self, mishaps: list[str], folder: Path, *, together: bool) -> None:
        self.mishaps, self.folder, self.together = mishaps, folder, together

    def __missing__(self, mishap: str) -> Story:
        self.update(run(self.mishaps if self.together else [mishap], SIZE, self.folder))
        gc.collect()  # what the SDK has left open complains now, while nobody listens
        return self[mishap]


@pytest.fixture(scope="session")
def stories(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stories]:
    """What became of the calls, by fault; only faults that were selected are tried."""
    params = [item.callspec.params for item in request.session.items if hasattr(item, "callspec")]
    mishaps = list(dict.fromkeys(each["mishap"] for each in params if "mishap" in each))
    worker = hasattr(request.config, "workerinput")
    found = Stories(mishaps, tmp_path_factory.mktemp("faults"), together=not worker)
    yield found
    if os.environ.get("SBRPC_WRITE_GUARANTEES") and not worker:
        write(found, SIZE)
    gc.collect()
