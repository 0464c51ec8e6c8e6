"""`sbrpc doctor` as a person runs it: against namespaces that are wrong, and one that is right."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from sbrpc.cli.loading import nowhere
from sbrpc.emulator import AccessKey, Emulator, Right
from sbrpc.export import system_of
from sbrpc.topology import Queue, Rule, SqlFilter, Subscription, Topic
from tests import forked

ROOT = Path(__file__).resolve().parents[2]
PROCESSES = ("tests.exported:service", "tests.exported:api", "tests.exported:events")

with nowhere():
    from tests import exported

RIGHT = system_of(
    {
        "service": exported.service,
        "api": exported.api,
        "events": [exported.events("Endpoint=sb://nowhere/")],
    }
).entities()
WRONG: list[Queue | Topic] = [
    Queue("movies", requires_session=True, max_delivery_count=2, lock_duration=30),
    Queue("gateway.replies", requires_session=True, duplicate_detection_window=60, lock_duration=1),
    Queue("round", forward_to="about"),
    Queue("about", forward_to="round"),
    Topic(
        "movie-events",
        default_message_time_to_live=600,
        subscriptions=(
            Subscription("views", requires_session=True, rules=(Rule("old", SqlFilter("x = 1")),)),
        ),
    ),
]


def split(entities: Any) -> dict[str, Any]:
    """Queues and topics as an emulator takes them."""
    return {
        "queues": [each for each in entities if isinstance(each, Queue)],
        "topics": [each for each in entities if isinstance(each, Topic)],
    }


async def doctor(
    connection: str, *arguments: str, status: int, environment: dict[str, str] | None = None
) -> tuple[str, str]:
    """Run the command; its output and its errors."""
    where = {"SERVICEBUS_CONNECTION_STRING": connection, "COLUMNS": "200", **(environment or {})}
    done = await forked.run_aside("-m", "sbrpc", "doctor", *arguments, env=os.environ | where)
    out, err = done.stdout.decode(), done.stderr.decode()
    assert done.returncode == status, out + err
    assert "Traceback" not in err
    return out, err


def managed(emulator: Emulator) -> dict[str, str]:
    """What lets the command read settings."""
    return {
        "SERVICEBUS_ADMIN_CONNECTION_STRING": emulator.admin_connection_string,
        "REQUESTS_CA_BUNDLE": emulator.certificate_file,
    }


def found(output: str) -> set[tuple[str, str]]:
    """Rule and entity of each finding."""
    return {(each["rule"], each["entity"]) for each in json.loads(output)["findings"]}


async def test_what_is_right_passes_and_nothing_is_touched() -> None:
    """No finding, exit code 0, every setting read, and what waits still waits, never delivered."""
    async with Emulator(**split([*RIGHT, Queue("ratings")]), http_port=0) as emulator:
        out, err = await doctor(
            emulator.connection_string, *PROCESSES, status=0, environment=managed(emulator)
        )
        assert "nothing found; looked at gateway.replies, movies, movie-events" in out
        assert err == ""
        assert emulator.broker.runtime("movies").active == 0


async def test_what_opening_tells() -> None:
    """Without Manage: what is missing, sessions and short locks; and a word on what could not be read."""
    async with Emulator(**split(WRONG)) as emulator:
        out, err = await doctor(emulator.connection_string, *PROCESSES, "--json", status=1)
        assert found(out) == {
            ("missing", "ratings"),
            ("sessions", "movies"),
            ("short-lock", "gateway.replies"),
        }
        assert json.loads(out)["settings_read"] is False
        assert "settings such as lock duration" in err


async def test_what_settings_tell() -> None:
    """With Manage, all that is wrong is found, and said to people in a table."""
    wrong = [each for each in WRONG if each.name != "movies"]
    wrong.append(Queue("movies", forward_to="round", dead_lettering_on_message_expiration=True))
    async with Emulator(**split(wrong), http_port=0) as emulator:
        given = managed(emulator)
        out, _ = await doctor(emulator.connection_string, *PROCESSES, "--json", status=1, environment=given)
        assert found(out) == {
            ("missing", "ratings"),
            ("forward-loop", "movies"),
            ("forwarded-away", "movies"),
            ("declared-lock", "movies"),
            ("expired-calls", "movies"),
            ("short-lock", "gateway.replies"),
            ("duplicate-detection", "gateway.replies"),
            ("rules-missing", "movie-events/views"),
            ("rules-unhandled", "movie-events/views"),
            ("expired-events", "movie-events/views"),
        }
        shown, _ = await doctor(emulator.connection_string, *PROCESSES, status=1, environment=given)
        assert "movies -> round -> about -> round" in shown
        assert "remove `forward_to`" in shown


async def test_requests_that_wait_longer_than_their_locks() -> None:
    """A server that prefetches more than it works on at once, behind handlers that may take their time."""
    known = [Queue("patient", lock_duration=30)]
    async with Emulator(queues=known, http_port=0) as emulator:
        out, _ = await doctor(
            emulator.connection_string,
            "tests.patient:server",
            "--json",
            status=1,
            environment=managed(emulator),
        )
        (finding,) = json.loads(out)["findings"]
        assert (finding["rule"], finding["entity"]) == ("prefetch", "patient")
        assert "wait for 120 s, and locks last 30 s" in finding["problem"]


@pytest.mark.parametrize("how", ["--websockets", "TransportType=AmqpWebSockets"])
async def test_an_aiohttp_that_breaks_websockets(tmp_path: Path, how: str) -> None:
    """It is told of where programs go over WebSockets, and not where they do not."""
    installed = tmp_path / "aiohttp-3.13.5.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: aiohttp\nVersion: 3.13.5\n")
    environment = {"PYTHONPATH": str(tmp_path)}
    nowhere = "Endpoint=sb://sbrpc.invalid/;SharedAccessKeyName=a;SharedAccessKey=Yg=="
    # A queue that nobody opens: nothing has to be reached.
    thing = "tests.patient:declared"
    if how.startswith("--"):
        out, _ = await doctor(nowhere, thing, "--json", how, status=1, environment=environment)
    else:
        out, _ = await doctor(f"{nowhere};{how}", thing, "--json", status=1, environment=environment)
    assert found(out) == {("websockets", "aiohttp")}
    out, _ = await doctor(nowhere, thing, "--json", status=0, environment=environment)
    assert found(out) == set()


async def test_rights_that_are_missing() -> None:
    """A key that may only send says so of everything that is to be received from."""
    sender = AccessKey("sender", "c2VuZA==", frozenset({Right.SEND}))
    async with Emulator(**split([*RIGHT, Queue("ratings")]), access_keys=[sender]) as emulator:
        out, _ = await doctor(
            emulator.connection_string_for(sender.name, sender.key), *PROCESSES, "--json", status=1
        )
        listens = {"movies", "gateway.replies", "movie-events/views"}
        assert found(out) == {("right-to-listen", name) for name in listens}
        assert sender.key not in out


@pytest.mark.parametrize(("arguments", "status"), [((), 2), (("tests.nowhere:app",), 2)])
async def test_wrong_arguments(arguments: tuple[str, ...], status: int) -> None:
    """Nothing is attempted."""
    await doctor(
        "Endpoint=sb://127.0.0.1/;SharedAccessKeyName=a;SharedAccessKey=Yg==", *arguments, status=status
    )


async def test_nobody_answers() -> None:
    """An address at which there is nothing ends in bounded time with the code for it."""
    async with Emulator() as emulator:
        connection = emulator.connection_string
    _, err = await doctor(connection, "tests.exported:events", "--timeout", "20", status=5)
    assert "receiving from movie-events/views" in err
