"""Where scenarios run: emulators in a process of their own, or a real namespace.

Everything here is called from threads, and knows neither SDKs nor what a scenario does.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from .scenarios import Scenario

__all__ = ["EmulatorHost", "Namespace", "Place", "RealNamespace"]

_ROOT = Path(__file__).resolve().parents[2]
_PATIENCE = 20.0
"""Seconds any request to the host may take."""


class Namespace(Protocol):
    """Something to connect to."""

    connection_string: str

    def advance(self, seconds: float) -> None:
        """Let the namespace's clock run ahead."""

    def stop(self) -> None:
        """End it, if it was started for the scenarios."""


class Place(Protocol):
    """A supplier of namespaces."""

    def refusal(self, scenario: Scenario) -> str | None:
        """Why a scenario cannot run here, or `None` when it can."""

    def start(self, scenarios: Iterable[Scenario]) -> Namespace:
        """A namespace with the entities of these scenarios."""


@dataclass
class _Emulated:
    connection_string: str
    _host: EmulatorHost
    _number: int

    def advance(self, seconds: float) -> None:
        self._host.ask({"do": "advance", "emulator": self._number, "seconds": seconds})

    def stop(self) -> None:
        self._host.ask({"do": "stop", "emulator": self._number})


class EmulatorHost:
    """The host process, asked from any thread; a context manager that ends it."""

    def __init__(self) -> None:
        path = os.pathsep.join([str(_ROOT), *filter(None, sys.path)])
        self._process = subprocess.Popen(
            [sys.executable, "-m", f"{__package__}.host"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": path},
            text=True,
        )
        self._ids = itertools.count(1)
        self._lock = threading.Lock()
        self._answers: dict[int, Future[Mapping[str, Any]]] = {}
        self._reader = threading.Thread(target=self._read, name="emulator-host", daemon=True)
        self._reader.start()

    def __enter__(self) -> EmulatorHost:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(timeout=_PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join()
        self._process.stdout.close()

    def refusal(self, scenario: Scenario) -> str | None:
        """An emulator can do everything."""
        return None

    def start(self, scenarios: Iterable[Scenario]) -> Namespace:
        """A fresh emulator with the entities of these scenarios."""
        answer = self.ask({"do": "start", "scenarios": [scenario.name for scenario in scenarios]})
        return _Emulated(answer["connection_string"], self, answer["emulator"])

    def ask(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Put a request to the host and return its answer."""
        assert self._process.stdin is not None
        answer: Future[Mapping[str, Any]] = Future()
        with self._lock:
            number = next(self._ids)
            self._answers[number] = answer
            self._process.stdin.write(json.dumps({"id": number, **request}) + "\n")
            self._process.stdin.flush()
        found = answer.result(timeout=_PATIENCE)
        if "error" in found:
            raise RuntimeError(f"the emulator host answered {request!r} with {found['error']}")
        return found

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            answer = json.loads(line)
            self._answers.pop(answer["id"]).set_result(answer)
        for waiting in self._answers.values():
            waiting.set_exception(RuntimeError("the emulator host ended; what it printed says why"))


class RealNamespace:
    """A namespace of Azure, or an emulator run by somebody else, whose entities exist already."""

    def __init__(self, connection_string: str, tier: str) -> None:
        self.connection_string = connection_string
        self._premium = tier.casefold() == "premium"

    def refusal(self, scenario: Scenario) -> str | None:
        """What needs a virtual clock, an emulator or another tier cannot run here."""
        if scenario.clock:
            return "needs a virtual clock, which a real namespace does not have"
        if scenario.emulator_only is not None:
            return scenario.emulator_only
        if scenario.premium and not self._premium:
            return "needs the Premium tier (say SBRPC_TEST_TIER=premium if the namespace has it)"
        return None

    def start(self, scenarios: Iterable[Scenario]) -> Namespace:
        """The namespace itself, for every scenario."""
        return self

    def advance(self, seconds: float) -> None:
        """Unreachable: scenarios that need the clock are refused."""
        raise NotImplementedError("a real namespace has no virtual clock")

    def stop(self) -> None:
        """Nothing: it was not started here."""
