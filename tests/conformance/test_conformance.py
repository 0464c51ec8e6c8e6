"""Every scenario with every SDK: what applications rely on holds, whichever of them is used.

The scenarios are described in `scenarios.py`. They are run against the emulator, or against the namespace
that `SBRPC_TEST_CONNECTION_STRING` names; README.md in this directory says what has to exist there.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from .conftest import Outcome
from .drivers import SCENARIO_SECONDS, Driver
from .namespaces import EmulatorHost, Place
from .scenarios import DRIVERS, SCENARIOS, Scenario

# What the SDKs leave open when a namespace misbehaves is theirs, and would be reported of other tests.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


@pytest.mark.parametrize("driver_name", DRIVERS)
def test_driver_has_every_scenario(driver_name: str, driver: Callable[[str], Driver]) -> None:
    """A driver implements every scenario, save those it is said not to be able to."""
    implemented = driver(driver_name).implemented()
    assert implemented == {each.name for each in SCENARIOS if driver_name not in each.unsupported}


# Grouped by driver, so that one driver is done before the next begins.
@pytest.mark.parametrize(
    ("driver_name", "scenario"),
    [
        pytest.param(driver_name, scenario, id=f"{driver_name}:{scenario.name}")
        for driver_name in DRIVERS
        for scenario in SCENARIOS
    ],
)
def test_scenario(
    driver_name: str, scenario: Scenario, place: Place, outcome: Outcome, request: pytest.FixtureRequest
) -> None:
    """What the scenario says holds with this driver."""
    if driver_name in scenario.unsupported:
        pytest.skip(scenario.unsupported[driver_name])
    refusal = place.refusal(scenario)
    if refusal is not None:
        pytest.skip(refusal)
    if scenario.differs is not None and isinstance(place, EmulatorHost):
        request.applymarker(pytest.mark.xfail(reason=scenario.differs))
    # The last of a driver's scenarios may have waited for most of the others.
    outcome(driver_name, scenario).result(timeout=SCENARIO_SECONDS * 3)
