"""The page about a run."""

from __future__ import annotations

import re
from typing import Any

import pytest
from benchmarks.figures import spread

from benchmarks import duels, report, targets


def _calls(per_second: float, p50: float) -> dict[str, Any]:
    return {
        "per_second": spread([per_second]),
        "p50_ms": spread([p50]),
        "p99_ms": spread([p50 * 1.5]),
        "cpu_us": {part: spread([100.0]) for part in ("client", "server", "broker")},
        "credits": spread([0.2]),
    }


def _raw(per_second: float) -> dict[str, Any]:
    return {
        "per_second": per_second,
        "p50_ms": 1000 / per_second,
        "cpu_us": {"client": 100_000 / per_second, "server": 100_000 / per_second, "broker": 5.0},
    }


def _peer(label: str, per_second: float, p50: float) -> dict[str, Any]:
    return {
        "label": label,
        "broker": "emulator",
        "sequential": _calls(1000 / p50, p50),
        "concurrent": {callers: _calls(per_second, p50) for callers in ("16", "64", "256")},
        "resident_mb": {part: spread([50.0]) for part in ("client", "server", "broker")},
    }


@pytest.fixture
def results() -> dict[str, Any]:
    """A run in which sbrpc is ten times the batched loop and half of NATS."""
    return {
        "at": "2026-01-02T03:04:05+00:00",
        "quick": False,
        "rounds": 1,
        "minutes": 1.0,
        "machine": {"processor": "P", "cores": "2", "memory": "4 GB", "system": "S", "python": "CPython 3"},
        "versions": {"sbrpc": "1"},
        "startup": {"client and server of sbrpc, after the SDK": spread([40.0, 50.0, 60.0])},
        "emulator": {},
        "peers": {
            "sbrpc": _peer("sbrpc", 10_000.0, 2.0),
            "sdk": _peer("SDK by hand", 500.0, 2.0),
            "sdk_batched": _peer("SDK by hand, batched", 1000.0, 3.0),
            "nats": _peer("nats-py", 20_000.0, 0.5),
        },
        "duels": {
            "sdk_batched": {
                "256": duels.ratios([(_raw(10_000.0), _raw(1000.0)), (_raw(9000.0), _raw(750.0))])
            },
            "nats": {"256": duels.ratios([(_raw(10_000.0), _raw(20_000.0))])},
        },
        "scaling": {
            str(n): {"per_second": spread([390.0 * n]), "share": spread([0.97])} for n in (1, 2, 4, 8)
        },
        "left_out": {"js": "Node.js is not installed"},
        "failed": {},
    }


def test_targets_are_judged_by_the_medians(results: dict[str, Any]) -> None:
    """A target is held, missed, or not measured; nothing is guessed."""
    judged = {target.text: target.held(results) for target in targets.TARGETS}

    assert judged["calls/s at 256 callers, sbrpc to the batched loop by hand"] is True
    assert judged["calls/s at 256 callers, sbrpc to nats-py"] is False
    assert judged["calls/s at 256 callers, sbrpc to grpc.aio"] is None
    assert judged["least share of linear growth over 2, 4 and 8 servers"] is True
    assert judged["emulator: messages/s accepted"] is None


def test_the_page_names_who_is_better_at_what(results: dict[str, Any]) -> None:
    """Where sbrpc loses is read off the figures, with the factor."""
    page = report.page(results)
    losses = page[page.index("## Where sbrpc loses") :]

    assert "| median of sequential calls | nats-py (4.0 x) |" in losses
    assert "| calls/s at 256 callers | nats-py (2.0 x) |" in losses
    assert "SDK by hand (" not in losses


def test_the_page_says_what_is_missing(results: dict[str, Any]) -> None:
    """A peer that was left out is named with its reason, and a quick run says that it is one."""
    assert "Left out: js (Node.js is not installed)." in report.page(results)
    assert "quick run" not in report.page(results)[:1500].replace("QUICK", "")
    assert "**A quick run" in report.page({**results, "quick": True})


def test_tables_are_whole(results: dict[str, Any]) -> None:
    """Every row of every table has as many cells as its head."""
    for table in re.findall(r"(?:^\|.*\n)+", report.page(results), flags=re.MULTILINE):
        assert len({row.count("|") for row in table.splitlines()}) == 1, table


def test_medians_are_shown_with_their_spread(results: dict[str, Any]) -> None:
    """One round shows a number, several show the least and the greatest behind it."""
    assert "| client and server of sbrpc, after the SDK | 50 (40 to 60) |" in report.page(results)
    assert "| nats-py | 20,000 | 20,000 | 20,000 |" in report.summary(results)


def test_what_takes_turns_is_compared_pair_by_pair(results: dict[str, Any]) -> None:
    """The ratio of each pair counts, whatever the machine did between the pairs; one target is one median."""
    page = report.page(results)

    assert "| SDK by hand, batched, 256 callers | 11.00 (10.50 to 11.50) |" in page
    assert "| nats-py, 256 callers | 0.50 | 2.00 | 2.00 |" in page
    assert (
        "| calls/s at 256 callers, sbrpc to the batched loop by hand | at least 10.0 x | 11.0 x | held |"
        in page
    )
