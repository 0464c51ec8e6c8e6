"""What a worker of `sbrpc run` and its supervisor tell each other.

A worker has the supervisor at the other end of its standard input, and says how it is on a pipe whose file
descriptor stands in its environment: one JSON object per line. A supervisor may itself be started by somebody
who is at the other end of its standard input. Knows neither what runs nor who supervises.
"""

from __future__ import annotations

import json
import os
import signal
import threading

__all__ = ["STATUS", "Parent", "end_with_starter", "is_ready"]

STATUS = "SBRPC_WORKER_STATUS"
"""In the environment of a worker: the file descriptor on which it tells its supervisor how it is."""

STARTER = "SBRPC_ENDS_WITH_STDIN"
"""In the environment of a supervisor: whether it stops once its standard input is at its end."""


def end_with_starter() -> None:
    """Stop, as if told to, when whoever started this process is gone, if the environment says so."""
    if os.environ.pop(STARTER, None):
        threading.Thread(target=_stop_at_the_end_of_stdin, name="watch the starter", daemon=True).start()


def _stop_at_the_end_of_stdin() -> None:
    # The other end of standard input closes when the process that has it ends, however it ends.
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def is_ready(line: bytes) -> bool:
    """Whether a worker is ready, as it says in a line."""
    return bool(json.loads(line)["ready"])


class Parent:
    """The supervisor, as its worker sees it. A worker whose supervisor is gone stops as if it were told."""

    def __init__(self) -> None:
        descriptor = os.environ.pop(STATUS, None)
        self._out = os.fdopen(int(descriptor), "w") if descriptor else None
        self._told: bool | None = None
        if self._out is not None:
            threading.Thread(
                target=_stop_at_the_end_of_stdin, name="watch the supervisor", daemon=True
            ).start()

    def tell(self, *, ready: bool) -> None:
        """Say how this worker is, if that is news."""
        if self._out is None or ready is self._told:
            return
        self._told = ready
        try:
            print(json.dumps({"ready": ready}), file=self._out, flush=True)
        except OSError:
            self._out = None  # the supervisor is gone; the thread has noticed too
