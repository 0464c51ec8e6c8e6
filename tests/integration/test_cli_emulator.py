"""`sbrpc emulator` as a person or a script starts it: in a process of its own."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from azure.servicebus import ServiceBusClient, ServiceBusMessage

from sbrpc.testing import free_port

CONFIG = """{ // a queue
  "UserConfig": { "Namespaces": [ { "Name": "sbemulatorns", "Queues": [ { "Name": "orders" } ] } ],
  "Logging": { "Type": "Console" }, } }"""


@contextmanager
def running(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """The command in a process, ended whatever happens."""
    process = subprocess.Popen(
        [sys.executable, "-m", "sbrpc", "emulator", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=20)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_it_says_when_it_is_ready_and_ends_when_told(tmp_path: Path, how: signal.Signals) -> None:
    """The one line on stdout is a connection string that works; a signal ends it with exit code 0."""
    config = tmp_path / "Config.json"
    config.write_text(CONFIG)
    with running("--port", "0", "--http-port", "0", "--config", str(config)) as process:
        assert process.stdout is not None
        line = process.stdout.readline().strip()
        assert line.startswith("Endpoint=sb://127.0.0.1:")
        with (
            ServiceBusClient.from_connection_string(line) as client,
            client.get_queue_sender("orders") as sender,
        ):
            sender.send_messages(ServiceBusMessage("hello"))
        process.send_signal(how)
        out, err = process.communicate(timeout=20)
        assert process.returncode == 0, err
        assert out == ""
        assert "look into it at http://127.0.0.1:" in err


def test_health_is_on_the_port_that_was_asked_for() -> None:
    """`--http-port` is where the official emulator's health check answers."""
    port = free_port()
    with running("--port", "0", "--http-port", str(port)) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=10) as answer:
            assert answer.status == 200
            assert b'"healthy"' in answer.read()


def test_a_taken_port_is_said() -> None:
    """The message names the port and the remedy, and there is no traceback."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        with running("--port", str(port), "--http-port", "0") as process:
            out, err = process.communicate(timeout=20)
    assert process.returncode == 1
    assert out == ""
    assert f"cannot listen on 127.0.0.1, port {port}" in err
    assert "--port" in err
    assert "Traceback" not in err


def test_mistakes_of_a_configuration_are_listed(tmp_path: Path) -> None:
    """Every mistake has its path; the exit code is 1 and nothing was started."""
    config = tmp_path / "Config.json"
    config.write_text('{"UserConfig": {"Namespaces": [{"Queues": [{}, {"Name": "a b"}]}]}}')
    with running("--port", "0", "--http-port", "0", "--config", str(config)) as process:
        out, err = process.communicate(timeout=20)
    assert process.returncode == 1
    assert out == ""
    assert "Queues[0].Name: Field required" in err
    assert "Traceback" not in err


def test_another_address_than_loopback_is_warned_about() -> None:
    """Listening for everybody is possible and says so."""
    with running("--host", "0.0.0.0", "--port", "0", "--http-port", "0") as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("Endpoint=sb://127.0.0.1:")
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=20)
    assert process.returncode == 0
    assert "whoever reaches this address can use the emulator" in err
