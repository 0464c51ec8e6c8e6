"""`sbrpc bench` as a person runs it: on an emulator of its own, and on a queue of a running one."""

from __future__ import annotations

import json
import os
from pathlib import Path

from sbrpc.cli.bench import quantile
from sbrpc.emulator import Emulator
from sbrpc.topology import Queue
from tests import forked

ROOT = Path(__file__).resolve().parents[2]
SHORT = ("--calls", "20", "--callers", "8", "--seconds", "0.5")


async def bench(*arguments: str, status: int = 0, **environment: str) -> tuple[str, str]:
    """Run the command; its output and its errors."""
    where = {"COLUMNS": "200", **environment}
    done = await forked.run_aside("-m", "sbrpc", "bench", *SHORT, *arguments, env=os.environ | where)
    out, err = done.stdout.decode(), done.stderr.decode()
    assert done.returncode == status, out + err
    assert "Traceback" not in err
    return out, err


async def test_without_a_namespace_it_measures_an_emulator_of_its_own() -> None:
    """A table for people."""
    out, _ = await bench()
    assert "one after the other" in out
    assert "8 at once" in out


async def test_a_queue_of_a_namespace_is_measured_and_left_empty() -> None:
    """For programs as JSON; every call was answered, and nothing stays behind."""
    replies = Queue("my.replies", requires_session=True)
    async with Emulator(queues=["mine", replies]) as emulator:
        out, _ = await bench(
            "--json",
            "--queue",
            "mine",
            "--reply-queue",
            "my.replies",
            SERVICEBUS_CONNECTION_STRING=emulator.connection_string,
        )
        figures = json.loads(out)
        assert 0 < figures["sequential"]["calls"] <= 20
        assert figures["sequential"]["p50_ms"] <= figures["sequential"]["p99_ms"]
        assert figures["concurrent"]["calls"] > 0
        assert emulator.books["mine"].sends > 0
        _, err = await bench(
            "--queue", "nowhere", status=6, SERVICEBUS_CONNECTION_STRING=emulator.connection_string
        )
        assert "nowhere" in err


async def test_a_namespace_without_a_queue_is_wrong_usage() -> None:
    """Nothing is sent to a queue that nobody named."""
    _, err = await bench("--namespace", "example.servicebus.windows.net", status=2)
    assert "--queue" in err


def test_quantiles() -> None:
    """Of few values, the greatest stands for the last percent."""
    assert quantile([3.0, 1.0, 2.0], 0.99) == 3.0
    assert quantile([float(n) for n in range(100)], 0.5) == 50.0
