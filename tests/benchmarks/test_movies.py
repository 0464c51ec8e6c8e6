"""The movies' validation: what counts as a right answer, and a short run of all of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
from benchmarks.movies.__main__ import _wanted
from benchmarks.movies.load import Asked, _outcome, count
from benchmarks.movies.scenarios import ALL, QUICK

from tests.examples.movies_site import MARK, family

ROOT = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, "-m", "benchmarks.movies"]


@pytest.mark.parametrize(
    ("status", "body", "outcome"),
    [
        (200, b'{"id": 1}', "right"),
        (200, b'{"id": 2}', "wrong answer"),
        (200, b"[]", "wrong answer"),
        (200, b"", "wrong answer"),
        (504, b'{"code": "DEADLINE_EXCEEDED"}', "DEADLINE_EXCEEDED"),
        (504, b"Gateway Timeout", "status 504"),
        (500, b'{"code": "INTERNAL"}', "status 500"),
        (404, b'{"code": "NOT_FOUND"}', "status 404"),
    ],
)
def test_an_answer_is_right_or_promised_or_a_failure(status: int, body: bytes, outcome: str) -> None:
    """Only what was asked for is right; only the API's own words for being unable are promised."""
    assert _outcome(status, body, lambda status, film: film["id"] == 1) == outcome


def test_every_request_is_counted_once() -> None:
    """Right, refused and failed ones add up, and those without their answer are told apart."""

    def asked(what: str, outcome: str) -> Asked:
        return Asked(what, 0.0, 1.0, 10.0, outcome, "")

    assert count(
        [
            asked("read", "right"),
            asked("read", "UNAVAILABLE"),
            asked("create", "UNAVAILABLE"),
            asked("list", "wrong answer"),
        ]
    ) == {
        "asked": 4,
        "right": 1,
        "refused": {"UNAVAILABLE": 2},
        "failed": {"wrong answer": 1},
        "without_answer": {"create": 1, "list": 1, "read": 1},
    }


@pytest.mark.applications
def test_a_short_run_keeps_every_promise_over_service_bus(tmp_path: Path) -> None:
    """Killing the service costs no request over Service Bus, and loses or doubles no film; over HTTP requests
    fail with the service. All of it is written down. `SBRPC_TEST_LONG=1` takes the rest along, bursts too."""
    long = bool(os.environ.get("SBRPC_TEST_LONG"))
    part = [] if long else ["--only", "outage:async+sync"]
    subprocess.run([*COMMAND, "--quick", *part, "--output", tmp_path], cwd=ROOT, check=True, timeout=240)
    results = json.loads((tmp_path / "movies-validation" / "results.json").read_text(encoding="utf-8"))
    scenarios = results["scenarios"]
    for scenario in ("outage", "burst") if long else ("outage",):
        found = scenarios[scenario]["async"]
        assert found["counts"]["right"] == found["counts"]["asked"] > 0, found["counts"]
        assert found["books"]["acknowledged"] == found["books"]["asked"] > 0
        assert [found["books"][name] for name in ("lost", "doubled", "apart")] == [0, 0, 0]
    over_http = scenarios["outage"]["sync"]["counts"]
    assert over_http["refused"]["UNAVAILABLE"] > 0
    assert over_http["right"] > 0
    for found in scenarios["outage"].values():
        counts = found["counts"]
        assert counts["asked"] == sum(
            [counts["right"], *counts["refused"].values(), *counts["failed"].values()]
        )
    page = (tmp_path / "movies-validation.md").read_text(encoding="utf-8")
    assert page.count("| service killed, for 0.5 s | **0** of ") == 1


@pytest.mark.parametrize(
    ("only", "unknown"),
    [
        ("outage,burst:async", set()),
        ("outrage,burst", {"outrage"}),
        ("burst:retry", {"burst:retry"}),
        ("outage:async+synch", {"outage:synch"}),
    ],
)
def test_what_is_unknown_is_named(only: str, unknown: set[str]) -> None:
    """A scenario, or an application that does not go through it; both can be chosen."""
    wanted, found = _wanted(QUICK, only)
    assert found == unknown
    assert unknown or wanted == {"outage": ALL, "burst": ["async"]}


@pytest.mark.applications
def test_an_interrupted_run_leaves_nothing_behind(tmp_path: Path) -> None:
    """Ctrl-C ends what was started, and nothing is written."""
    mark = uuid.uuid4().hex
    command = [*COMMAND, "--quick", "--only", "outage", "--output", str(tmp_path / "out")]
    with subprocess.Popen(
        command, cwd=ROOT, env=os.environ | {MARK: mark}, stdout=subprocess.PIPE, text=True
    ) as run:
        assert run.stdout is not None
        run.stdout.readline()  # the first scenario begins
        run.send_signal(signal.SIGINT)
        assert run.wait(60) == 130
    assert family(mark) == {}
    assert not (tmp_path / "out").exists()
