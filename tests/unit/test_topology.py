"""Queues, topics and rules as values: what Service Bus would refuse is refused at once, and named."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from sbrpc.topology import CorrelationFilter, Queue, Rule, SqlFilter, Subscription, Topic


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Queue(""), "'' is not a valid queue name"),
        (lambda: Queue("a b"), "'a b' is not a valid queue name"),
        (lambda: Queue("/a"), "is not a valid queue name"),
        (lambda: Queue("q" * 261), "has 261 characters, the limit is 260"),
        (lambda: Topic("t" * 261), "has 261 characters, the limit is 260"),
        (lambda: Subscription("s" * 51), "has 51 characters, the limit is 50"),
        (lambda: Rule("r" * 51), "has 51 characters, the limit is 50"),
        (
            lambda: Queue("q", lock_duration=301),
            "lock_duration of 'q' is 301 s; Service Bus allows at most 300 s",
        ),
        (lambda: Queue("q", lock_duration=0), "lock_duration of 'q' must be at least 0.1"),
        (lambda: Queue("q", max_delivery_count=0), "max_delivery_count of 'q' must be at least 1"),
        (lambda: Topic("t", default_message_time_to_live=0), "default_message_time_to_live of 't'"),
        (
            lambda: Queue("q", requires_session=True, forward_to="p"),
            "'q' forwards to 'p' and so cannot require sessions",
        ),
    ],
)
def test_what_cannot_be_is_refused(make: Callable[[], object], says: str) -> None:
    """The error says which entity and which limit."""
    with pytest.raises(ValueError) as caught:
        make()
    assert says in str(caught.value)


def test_names_may_have_paths() -> None:
    """And whatever else Service Bus lets into them."""
    for name in ("movies", "a/b/c", "a.b-c_d~e", "7", "q" * 260):
        assert Queue(name).name == name
    assert Rule("$Default").name == "$Default"


def test_lists_become_tuples() -> None:
    """So that values are frozen and can be compared, whatever they were given."""
    rules = [Rule("a", SqlFilter("x = 1"))]
    topic = Topic("t", subscriptions=[Subscription("s", rules=rules)])  # type: ignore[arg-type]
    assert topic.subscriptions == (Subscription("s", rules=tuple(rules)),)


def test_a_correlation_filter_names_what_it_asks_for() -> None:
    """What is not given matches everything, and is left out; properties of the application are apart."""
    wanted = CorrelationFilter(subject="created", to="", properties={"region": "eu"})
    assert wanted.fields() == {"subject": "created", "to": ""}
    assert CorrelationFilter().fields() == {}
