"""Fixtures of the conformance suite: the place it runs at, and a driver's run of what was selected."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack

import pytest

pytest.register_assert_rewrite(f"{__package__}.python")

from .cleaning import clean  # noqa: E402
from .drivers import Driver, Outcomes, Unavailable, driver_named  # noqa: E402
from .namespaces import EmulatorHost, Place, RealNamespace  # noqa: E402
from .scenarios import Scenario, by_name  # noqa: E402

Outcome = Callable[[str, Scenario], "Future[None]"]


@pytest.fixture(scope="session")
def place() -> Iterator[Place]:
    """Emulators in a process of their own, or the namespace of `SBRPC_TEST_CONNECTION_STRING`."""
    real = os.environ.get("SBRPC_TEST_CONNECTION_STRING")
    if real:
        yield RealNamespace(real, os.environ.get("SBRPC_TEST_TIER", "standard"))
    else:
        with EmulatorHost() as host:
            yield host


@pytest.fixture(scope="session")
def driver() -> Callable[[str], Driver]:
    """Drivers by name; skips where one is not to be had on this machine."""
    made: dict[str, Driver | Unavailable] = {}

    def get(name: str) -> Driver:
        if name not in made:
            try:
                made[name] = driver_named(name)
            except Unavailable as exc:
                made[name] = exc
        found = made[name]
        if isinstance(found, Unavailable):
            pytest.skip(str(found))
        return found

    return get


@pytest.fixture(scope="session")
def outcome(
    request: pytest.FixtureRequest, place: Place, driver: Callable[[str], Driver]
) -> Iterator[Outcome]:
    """The outcome of a scenario; asking for a driver's first begins with all of that driver's."""
    runs: dict[str, Outcomes] = {}
    with ExitStack() as stack:

        def get(driver_name: str, scenario: Scenario) -> Future[None]:
            if driver_name not in runs:
                # One driver after another: together they would be late for what the SDKs time.
                stack.close()
                scenarios = [
                    each
                    for each in _selected(request.session, driver_name)
                    if place.refusal(each) is None and driver_name not in each.unsupported
                ]
                try:
                    if isinstance(place, RealNamespace):
                        clean(place.connection_string, scenarios)
                    runs[driver_name] = stack.enter_context(driver(driver_name).run(scenarios, place))
                except Exception as exc:  # each of its tests reports it, and none tries again
                    runs[driver_name] = {each.name: _failed(exc) for each in scenarios}
            return runs[driver_name][scenario.name]

        yield get
    gc.collect()  # while what the SDKs left open may still be said unheard


def _failed(exc: Exception) -> Future[None]:
    outcome: Future[None] = Future()
    outcome.set_exception(exc)
    return outcome


def _selected(session: pytest.Session, driver_name: str) -> list[Scenario]:
    """The scenarios that pytest was asked to run with a driver."""
    selected = []
    for item in session.items:
        callspec = getattr(item, "callspec", None)
        if callspec is not None and callspec.params.get("driver_name") == driver_name:
            scenario = callspec.params.get("scenario")
            if scenario is not None:
                selected.append(by_name[scenario.name])
    return selected
