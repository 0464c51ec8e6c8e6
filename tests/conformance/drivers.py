"""The drivers: each runs the scenarios it is given, many at a time, and keeps the outcome of each.

Opening and closing links costs the SDKs seconds of sleep and next to no work, so running scenarios one
after the other would take minutes. A driver therefore begins with all of them when the first is asked for.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import shutil
import subprocess
import threading
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

from .namespaces import Namespace, Place
from .python import REGISTRY
from .python.bench import AsyncSdk, Bench, SyncSdk
from .scenarios import JAVASCRIPT, PYTHON_ASYNC, PYTHON_SYNC, Scenario

__all__ = ["Driver", "Outcomes", "Unavailable", "driver_named"]

SCENARIO_SECONDS = 90.0
"""How long any one scenario may take; ten seconds are usual, but machines can be busy with other things."""

Outcomes = Mapping[str, "Future[None]"]
"""By name of scenario: done when it passed, failed with what was wrong."""


class Unavailable(Exception):
    """The driver cannot run on this machine; the message says why."""


class Driver(Protocol):
    """Runs scenarios with one SDK."""

    def implemented(self) -> set[str]:
        """The names of the scenarios it can run."""

    def run(self, scenarios: list[Scenario], place: Place) -> contextlib.AbstractContextManager[Outcomes]:
        """Begin with the scenarios; leaving the context waits for them and cleans up."""


def driver_named(name: str) -> Driver:
    """The driver of that name in the table of scenarios."""
    return {PYTHON_ASYNC: PythonAsync, PYTHON_SYNC: PythonSync, JAVASCRIPT: JavaScript}[name]()


class _Namespaces:
    """One namespace for all scenarios, and one more for each that moves the clock."""

    def __init__(self, place: Place, scenarios: Iterable[Scenario]) -> None:
        self._place = place
        timeless = [scenario for scenario in scenarios if not scenario.clock]
        self._shared = place.start(timeless) if timeless else None
        self._own: dict[str, Namespace] = {}

    def of(self, scenario: Scenario) -> Namespace:
        """Where to run the scenario."""
        if not scenario.clock:
            assert self._shared is not None
            return self._shared
        if scenario.name not in self._own:
            self._own[scenario.name] = self._place.start([scenario])
        return self._own[scenario.name]

    def stop(self) -> None:
        """Stop what was started."""
        for namespace in [self._shared, *self._own.values()]:
            if namespace is not None:
                namespace.stop()


class PythonAsync:
    """The asynchronous Python SDK: one event loop in a thread, scenarios as tasks."""

    AT_ONCE = 12

    def implemented(self) -> set[str]:
        return set(REGISTRY)

    @contextlib.contextmanager
    def run(self, scenarios: list[Scenario], place: Place) -> Iterator[Outcomes]:
        outcomes: dict[str, Future[None]] = {scenario.name: Future() for scenario in scenarios}
        thread = threading.Thread(
            target=lambda: asyncio.run(self._run(scenarios, place, outcomes)), name=PYTHON_ASYNC
        )
        thread.start()
        yield outcomes
        thread.join()

    async def _run(
        self, scenarios: list[Scenario], place: Place, outcomes: Mapping[str, Future[None]]
    ) -> None:
        with _reporting(outcomes):
            namespaces = await asyncio.to_thread(_Namespaces, place, scenarios)
            slots = asyncio.Semaphore(self.AT_ONCE)

            async def one(scenario: Scenario) -> None:
                outcome = outcomes[scenario.name]
                async with slots:
                    namespace = await asyncio.to_thread(namespaces.of, scenario)
                    bench = Bench(AsyncSdk(), scenario, namespace)
                    try:
                        await asyncio.wait_for(REGISTRY[scenario.name](bench), SCENARIO_SECONDS)
                    except BaseException as exc:
                        outcome.set_exception(_plain(exc, scenario))
                    else:
                        outcome.set_result(None)
                await bench.close()

            await asyncio.gather(*(one(scenario) for scenario in scenarios))
            await asyncio.to_thread(namespaces.stop)


class PythonSync:
    """The blocking Python SDK: a pool of threads, a scenario in each."""

    AT_ONCE = 12

    def implemented(self) -> set[str]:
        return set(REGISTRY)

    @contextlib.contextmanager
    def run(self, scenarios: list[Scenario], place: Place) -> Iterator[Outcomes]:
        namespaces = _Namespaces(place, scenarios)
        sdk = SyncSdk()

        def one(scenario: Scenario) -> None:
            bench = Bench(sdk, scenario, namespaces.of(scenario))
            try:
                sdk.complete(REGISTRY[scenario.name](bench))
            finally:
                closing.append(closers.submit(sdk.complete, bench.close()))

        closing: list[Future[Any]] = []
        with ThreadPoolExecutor(self.AT_ONCE) as closers:
            with ThreadPoolExecutor(self.AT_ONCE) as pool:
                yield {scenario.name: pool.submit(one, scenario) for scenario in scenarios}
            for closed in closing:
                closed.result(SCENARIO_SECONDS)
        namespaces.stop()


class JavaScript:
    """The JavaScript SDK: one Node process that runs all scenarios and reports by lines of JSON."""

    AT_ONCE = 16
    HOME = Path(__file__).resolve().parent / "js"
    PACKAGE = "@azure/service-bus"

    def __init__(self) -> None:
        node, npm = shutil.which("node"), shutil.which("npm")
        if node is None or npm is None:
            raise Unavailable("Node is not installed (node and npm must be on the PATH)")
        self.node = node
        version = subprocess.run([node, "--version"], capture_output=True, text=True, timeout=20).stdout
        if int(version.strip().lstrip("v").split(".")[0]) < 18:
            raise Unavailable(f"Node 18 or newer is needed, this is {version.strip()}")
        with self._alone():
            if not (self.HOME / "node_modules" / ".package-lock.json").is_file():  # which npm writes last
                self._install(npm)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """One process at a time: npm spoils what another npm installs at the same place."""
        directory = os.open(self.HOME, os.O_RDONLY)
        try:
            fcntl.flock(directory, fcntl.LOCK_EX)
            yield
        finally:
            os.close(directory)

    def _install(self, npm: str) -> None:
        try:
            done = subprocess.run(
                [npm, "install", "--no-package-lock", "--no-audit", "--no-fund", "--fetch-retries=1"],
                cwd=self.HOME,
                capture_output=True,
                text=True,
                timeout=120,
            )
        except subprocess.TimeoutExpired as exc:
            raise Unavailable(f"npm did not install {self.PACKAGE} within two minutes") from exc
        if done.returncode != 0:
            said = [line for line in done.stderr.splitlines() if "error" in line] or ["it gave no reason"]
            raise Unavailable(f"npm could not install {self.PACKAGE}: {'; '.join(said[:3])}")

    def implemented(self) -> set[str]:
        listed = subprocess.run(
            [self.node, "run.mjs", "--list"],
            cwd=self.HOME,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        return set(json.loads(listed.stdout))

    @contextlib.contextmanager
    def run(self, scenarios: list[Scenario], place: Place) -> Iterator[Outcomes]:
        outcomes: dict[str, Future[None]] = {scenario.name: Future() for scenario in scenarios}
        namespaces = _Namespaces(place, scenarios)
        process = subprocess.Popen(
            [self.node, "run.mjs"],
            cwd=self.HOME,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "NODE_NO_WARNINGS": "1"},
            text=True,
        )
        thread = threading.Thread(
            target=self._serve, args=(process, scenarios, namespaces, outcomes), name=JAVASCRIPT
        )
        thread.start()
        yield outcomes
        thread.join()
        namespaces.stop()

    def _serve(
        self,
        process: subprocess.Popen[str],
        scenarios: list[Scenario],
        namespaces: _Namespaces,
        outcomes: Mapping[str, Future[None]],
    ) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        waves = -(-len(scenarios) // self.AT_ONCE)
        timer = threading.Timer(SCENARIO_SECONDS * waves, process.kill)
        timer.start()

        def tell(**words: Any) -> None:
            assert process.stdin is not None
            process.stdin.write(json.dumps(words) + "\n")
            process.stdin.flush()

        with _reporting(outcomes), process.stdin, process.stdout:
            tell(
                atOnce=self.AT_ONCE,
                seconds=SCENARIO_SECONDS,
                scenarios=[
                    {"name": scenario.name, "connectionString": namespaces.of(scenario).connection_string}
                    for scenario in scenarios
                ],
            )
            of_name = {scenario.name: scenario for scenario in scenarios}
            for line in process.stdout:
                said = json.loads(line)
                if "advance" in said:
                    namespaces.of(of_name[said["scenario"]]).advance(said["advance"])
                    tell(advanced=said["call"])
                elif said["passed"]:
                    outcomes[said["scenario"]].set_result(None)
                else:
                    outcomes[said["scenario"]].set_exception(AssertionError(said["why"]))
        timer.cancel()
        process.wait()


@contextlib.contextmanager
def _reporting(outcomes: Mapping[str, Future[None]]) -> Iterator[None]:
    """See that no outcome stays open: what ends the driver early is what its scenarios failed of."""
    try:
        yield
    except BaseException as exc:
        for outcome in outcomes.values():
            if not outcome.done():
                outcome.set_exception(exc)
    for outcome in outcomes.values():
        if not outcome.done():
            outcome.set_exception(RuntimeError("the driver ended before this scenario did"))


def _plain(exc: BaseException, scenario: Scenario) -> BaseException:
    """An exception that may be raised in another thread and says what happened."""
    if isinstance(exc, asyncio.TimeoutError):
        late = AssertionError(f"{scenario.name} took more than {SCENARIO_SECONDS:g} s")
        late.__cause__ = exc
        return late
    return exc
