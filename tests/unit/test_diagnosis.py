"""Each rule of the diagnosis finds its mistake, and nothing where there is none."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sbrpc.diagnosis import RULES, Facts, Role, Severity, Wanted, budget, diagnose, transport
from sbrpc.topology import CorrelationFilter, Rule, SqlFilter

FOREVER = float("inf")
CREATED = Rule("created", CorrelationFilter(subject="created"))
DELETED = Rule("deleted", CorrelationFilter(subject="deleted"))

REQUESTS = Wanted(
    "movies",
    Role.REQUESTS,
    sends=("api",),
    listens=("service",),
    requires_session=False,
    deliveries=6,
    deadline=30.0,
    lock_duration=30.0,
    waits=30.0,
)
REPLIES = Wanted(
    "api.replies",
    Role.REPLIES,
    sends=("service",),
    listens=("api",),
    requires_session=True,
    deadline=30.0,
)
CONTROL = replace(REPLIES, entity="movies.control", role=Role.CONTROL)
VIEWS = Wanted(
    "events",
    Role.SUBSCRIPTION,
    "views",
    listens=("events",),
    requires_session=True,
    rules=(CREATED, DELETED),
)
TOPIC = Wanted("events", Role.TOPIC, sends=("service",))

GOOD = Facts(
    exists=True,
    may_send=True,
    may_listen=True,
    requires_session=False,
    status="Active",
    lock_duration=30.0,
    max_delivery_count=10,
    time_to_live=FOREVER,
    duplicate_detection=False,
    dead_letters_expired=False,
    auto_delete_on_idle=FOREVER,
    forwards=(),
)
SESSIONS = replace(GOOD, requires_session=True, lock_left=30.2)
SUBSCRIBED = replace(SESSIONS, rules=(DELETED, replace(CREATED, name="$Default")))


@pytest.mark.parametrize(
    ("wanted", "facts"),
    [(REQUESTS, GOOD), (REPLIES, SESSIONS), (CONTROL, SESSIONS), (VIEWS, SUBSCRIBED), (TOPIC, GOOD)],
)
def test_nothing_is_found_where_nothing_is_wrong(wanted: Wanted, facts: Facts) -> None:
    """Neither where all is known nor where nothing is."""
    assert diagnose([(wanted, facts), (wanted, Facts())]) == []


MISTAKES = [
    ("missing", REQUESTS, replace(GOOD, exists=False), "does not exist"),
    ("right-to-send", REQUESTS, replace(GOOD, may_send=False), "Send"),
    ("right-to-listen", VIEWS, replace(SUBSCRIBED, may_listen=False), "Listen"),
    ("unknown", REQUESTS, replace(GOOD, trouble="no answer"), "no answer"),
    ("disabled", TOPIC, replace(GOOD, status="Disabled"), "Disabled"),
    ("sessions", REPLIES, replace(SESSIONS, requires_session=False), "does not require"),
    ("sessions", REQUESTS, replace(GOOD, requires_session=True), "must not"),
    ("sessions", VIEWS, replace(SUBSCRIBED, requires_session=False), "does not require"),
    ("forward-loop", TOPIC, replace(GOOD, forwards=("a", "b", "A")), "events -> a -> b -> A"),
    ("forward-loop", TOPIC, replace(GOOD, forwards=("a", "Events")), "circle"),
    ("forwarded-away", REQUESTS, replace(GOOD, forwards=("elsewhere",)), "elsewhere"),
    ("duplicate-detection", REPLIES, replace(SESSIONS, duplicate_detection=True), "duplicates"),
    ("rules-missing", VIEWS, replace(SUBSCRIBED, rules=(CREATED,)), "deleted"),
    ("no-rules", replace(VIEWS, rules=None), replace(SUBSCRIBED, rules=()), "no rule"),
    ("rules-unhandled", VIEWS, replace(SUBSCRIBED, rules=(CREATED, DELETED, Rule("$Default"))), "$Default"),
    (
        "rules-unhandled",
        VIEWS,
        replace(SUBSCRIBED, rules=(CREATED, DELETED, Rule("old", SqlFilter("x = 1")))),
        "old",
    ),
    ("clock", REPLIES, replace(SESSIONS, lock_left=90.0), "60 s behind"),
    ("clock", REPLIES, replace(SESSIONS, lock_left=-30.0), "60 s ahead"),
    ("clock", REPLIES, replace(SESSIONS, lock_left=400.0, lock_duration=None), "100 s behind"),
    ("clock", REPLIES, replace(SESSIONS, lock_left=-8.0, lock_duration=None), "8 s ahead"),
    ("short-lock", REPLIES, replace(SESSIONS, lock_duration=2.0, lock_left=2.0), "2 s"),
    ("short-lock", REPLIES, replace(SESSIONS, lock_duration=None, lock_left=1.0), "1 s"),
    ("long-lock", VIEWS, replace(SUBSCRIBED, lock_duration=300.0, lock_left=300.0), "300 s"),
    ("declared-lock", REQUESTS, replace(GOOD, lock_duration=60.0), "30 s are declared"),
    ("prefetch", replace(REQUESTS, waits=120.0), GOOD, "120 s, and locks last 30 s"),
    ("deliveries", REQUESTS, replace(GOOD, max_delivery_count=5), "5"),
    ("deliveries", VIEWS, replace(SUBSCRIBED, max_delivery_count=1), "1"),
    ("time-to-live", REPLIES, replace(SESSIONS, time_to_live=10.0), "10 s"),
    ("expired-events", VIEWS, replace(SUBSCRIBED, time_to_live=3600.0), "3600 s"),
    ("expired-calls", REQUESTS, replace(GOOD, dead_letters_expired=True), "dead-lettered"),
    ("auto-delete", REPLIES, replace(SESSIONS, auto_delete_on_idle=300.0), "300 s"),
]


@pytest.mark.parametrize(("rule", "wanted", "facts", "words"), MISTAKES)
def test_each_mistake_is_found(rule: str, wanted: Wanted, facts: Facts, words: str) -> None:
    """One mistake, one finding, which says what is wrong, what it means and what to do."""
    (finding,) = diagnose([(wanted, facts)])
    assert finding.rule == rule
    assert finding.entity == wanted.name
    assert words in finding.problem
    assert finding.meaning
    assert finding.mend


def test_each_rule_is_tried() -> None:
    """A new rule has an example above."""
    assert {rule for rule, *_ in MISTAKES} == set(RULES)


def test_a_short_lock_that_is_declared_is_meant() -> None:
    """Who says so knows."""
    wanted = replace(REQUESTS, lock_duration=2.0, waits=0.0)
    assert diagnose([(wanted, replace(GOOD, lock_duration=2.0))]) == []


def test_a_rule_that_lets_everything_through_misses_nothing() -> None:
    """It is one too many, and that is all."""
    found = diagnose([(VIEWS, replace(SUBSCRIBED, rules=(Rule("$Default"),)))])
    assert [each.rule for each in found] == ["rules-unhandled"]


def test_errors_come_first() -> None:
    """What does not work stands above what may fail one day."""
    late = replace(GOOD, auto_delete_on_idle=300.0)
    found = diagnose([(TOPIC, late), (REQUESTS, replace(GOOD, exists=False))])
    assert [each.severity for each in found] == [Severity.ERROR, Severity.WARNING]


def test_connections_have_a_budget() -> None:
    """A program of which ten instances do not fit into a namespace is told of."""
    assert budget("events", 500) is None
    finding = budget("events", 1000)
    assert finding is not None
    assert "6 instances" in finding.meaning


@pytest.mark.parametrize(
    ("version", "found"),
    [("3.9.0", True), ("3.13.5", True), ("3.14.0", False), ("3.14rc1", False), ("4.0", False)],
)
def test_websockets_need_a_newer_aiohttp(version: str, found: bool) -> None:
    """Those before 3.14 cut connections on which nothing is read for a while."""
    finding = transport(version)
    assert (finding is not None) is found
    assert finding is None or version in finding.problem
