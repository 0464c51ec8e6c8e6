"""Topics: which copies subscriptions get."""

from __future__ import annotations

import pytest

from sbrpc.emulator.broker import Limits, MessageState
from sbrpc.topology import (
    CorrelationFilter,
    FalseFilter,
    Queue,
    Rule,
    SqlFilter,
    Subscription,
    Topic,
    TrueFilter,
)

from .bench import Bench, message, refused

S = "t/Subscriptions/s"


def topic(*rules: Rule, limits: Limits | None = None, **settings: object) -> Bench:
    """A topic with one subscription that has these rules."""
    return Bench(Topic("t", subscriptions=(Subscription("s", rules=rules, **settings),)), limits=limits)  # type: ignore[arg-type]


# -- fan-out ----------------------------------------------------------------------------------------------


def test_every_subscription_gets_its_own_copy() -> None:
    """With a number of its own and the topic's number beside it; settling one leaves the other."""
    bench = Bench(
        Topic("t", subscriptions=(Subscription("a"), Subscription("b", rules=(Rule("no", FalseFilter()),))))
    )
    bench.send("t")
    bench.broker.create_subscription("t", Subscription("c"), bench.now)
    bench.send("t")
    copies = {name: bench.peek(f"t/Subscriptions/{name}") for name in "abc"}
    assert {
        name: [(m.sequence_number, m.enqueued_sequence_number) for m in found]
        for name, found in copies.items()
    } == {"a": [(1, 1), (2, 2)], "b": [], "c": [(1, 2)]}


def test_a_message_nobody_wants_is_accepted_and_lost() -> None:
    """A topic without subscriptions takes everything."""
    bench = Bench(Topic("t"))
    bench.send("t")
    assert bench.broker.runtime("t").size == 0


def test_a_subscription_without_rules_gets_everything() -> None:
    """By the rule that the service adds; without it nothing comes."""
    bench = topic()
    assert bench.broker.rules("t", "s") == [Rule("$Default", TrueFilter())]
    bench.send("t")
    bench.broker.remove_rule("t", "s", "$default", bench.now)
    bench.send("t")
    assert len(bench.peek(S)) == 1


def test_rules_without_action_make_one_copy_together() -> None:
    """However many of them match."""
    bench = topic(
        Rule("one", SqlFilter("n > 1")), Rule("two", SqlFilter("n > 2")), Rule("three", SqlFilter("n > 99"))
    )
    bench.send("t", message({"n": 5}), message({"n": 2}), message({"n": 0}))
    assert [m.content.user() for m in bench.peek(S)] == [{"n": 5}, {"n": 2}]


def test_each_rule_with_an_action_makes_a_copy_of_its_own() -> None:
    """Changed by the action and marked with the rule's name, beside the one plain copy."""
    bench = topic(
        Rule("plain"),
        Rule("a", SqlFilter("n = 1"), "SET n = n + 10"),
        Rule("b", TrueFilter(), "SET sys.Label = 'seen'; REMOVE n"),
        Rule("c", FalseFilter(), "SET n = 0"),
    )
    bench.send("t", message({"n": 1}, subject="new"))
    found = sorted(
        (str(m.content.user().get("RuleName", "")), m.content.user().get("n"), m.content.system("subject"))
        for m in bench.peek(S)
    )
    assert found == [("", 1, "new"), ("a", 11, "new"), ("b", None, "seen")]


def test_an_action_can_change_what_the_broker_goes_by() -> None:
    """Session, id and time to live of the copy are those that the action set."""
    bench = topic(
        Rule("r", TrueFilter(), "SET sys.SessionId = 'b'; SET sys.MessageId = 'new'"), requires_session=True
    )
    bench.send("t", message(session_id="a", message_id="old"))
    [copy] = bench.peek(S)
    assert (copy.session_id, copy.message_id) == ("b", "new")
    assert bench.open(S, "b", credit=1).session_id == "b"
    assert bench.numbers() == [1]


def test_filters_see_standard_and_broker_properties() -> None:
    """What the sender set and what the broker knows at that moment."""
    bench = topic(
        Rule("number", SqlFilter("sys.SequenceNumber = 2")),
        Rule("subject", CorrelationFilter(subject="a")),
        Rule("ttl", SqlFilter("sys.TimeToLive IS NOT NULL AND sys.ExpiresAtUtc IS NOT NULL")),
        Rule("count", SqlFilter("sys.DeliveryCount > 0 OR sys.EnqueuedTimeUtc IS NULL OR sys.Size < 100")),
        Rule("scheduled", SqlFilter("sys.ScheduledEnqueueTimeUtc IS NOT NULL")),
    )
    bench.send("t", message(), message(), message(subject="a"), message(time_to_live=60.0), message())
    assert [m.enqueued_sequence_number for m in bench.peek(S)] == [2, 3, 4]
    bench.schedule("t", 5.0)
    bench.advance(5.0)
    assert len(bench.peek(S)) == 4


def test_a_filter_that_cannot_be_evaluated_puts_a_copy_into_the_dead_letters() -> None:
    """Once per message, naming the rule; what other rules let through arrives all the same."""
    bench = topic(Rule("bad", SqlFilter("1 / n = 1")), Rule("worse", SqlFilter("2 / n = 1")), Rule("good"))
    bench.send("t", message({"n": 0}))
    assert len(bench.peek(S)) == 1
    [letter] = bench.dead(S)
    assert letter.content.user()["DeadLetterReason"] == "FilterEvaluationException"
    assert "'bad'" in str(letter.content.user()["DeadLetterErrorDescription"])


def test_an_action_that_fails_is_like_a_filter_that_fails() -> None:
    """The copy it was to make becomes a dead letter as it was."""
    bench = topic(Rule("r", TrueFilter(), "SET x = 1 / n"))
    bench.send("t", message({"n": 0}))
    assert bench.peek(S) == []
    assert bench.reasons(S) == ["FilterEvaluationException"]


def test_failing_filters_can_be_told_to_drop() -> None:
    """If the subscription does not want such dead letters."""
    bench = topic(Rule("bad", SqlFilter("1 / n = 1")), dead_lettering_on_filter_evaluation_exceptions=False)
    bench.send("t", message({"n": 0}))
    assert bench.peek(S) == bench.dead(S) == []


def test_a_message_without_session_is_a_dead_letter_of_a_subscription_with_sessions() -> None:
    """The topic takes it, since other subscriptions may not need one."""
    bench = topic(requires_session=True)
    bench.send("t")
    assert bench.reasons(S) == ["Session id is null."]


def test_a_header_that_an_action_makes_too_large_is_a_dead_letter() -> None:
    """With the service's reason."""
    bench = topic(Rule("r", TrueFilter(), "SET x = 'xxxxxxxxxx'"), limits=Limits(header_size=100))
    bench.send("t", message(header_size=90))
    assert bench.peek(S) == []
    assert bench.reasons(S) == ["HeaderSizeExceeded"]


def test_topic_and_subscription_cap_the_time_to_live() -> None:
    """The shortest holds."""
    bench = Bench(
        Topic(
            "t",
            default_message_time_to_live=60.0,
            subscriptions=(Subscription("s", default_message_time_to_live=30.0), Subscription("long")),
        )
    )
    bench.send("t", message(), message(time_to_live=10.0))
    assert [m.expires_at for m in bench.peek(S)] == [30.0, 10.0]
    assert [m.expires_at for m in bench.peek("t/Subscriptions/long")] == [60.0, 10.0]


# -- schedules --------------------------------------------------------------------------------------------


def test_a_scheduled_message_waits_in_the_topic() -> None:
    """Subscriptions and rules of the moment of its appearance get it."""
    bench = topic(Rule("r", SqlFilter("n = 1")))
    bench.schedule("t", 10.0)
    assert bench.broker.runtime("t").scheduled == 1
    assert bench.broker.runtime("t").size == 100
    bench.broker.add_rule("t", "s", Rule("all"), bench.now)
    bench.advance(10.0)
    [copy] = bench.peek(S)
    assert (copy.state, copy.enqueued_at, copy.enqueued_sequence_number) == (MessageState.ACTIVE, 10.0, 2)
    assert bench.broker.runtime("t").scheduled == 0


def test_a_scheduled_message_of_a_topic_can_be_cancelled() -> None:
    """All numbers, or none."""
    bench = topic()
    number = bench.schedule("t", 10.0)
    with refused("com.microsoft:message-not-found"):
        bench.broker.cancel_scheduled("t", [number, 9], bench.now)
    bench.broker.cancel_scheduled("t", [number, number], bench.now)
    bench.advance(10.0)
    assert bench.peek(S) == []
    assert bench.broker.runtime("t").size == 0


# -- rules ------------------------------------------------------------------------------------------------


def test_rules_can_be_added_changed_and_removed() -> None:
    """By name, whatever the case; names are unique."""
    bench = topic(Rule("r", FalseFilter()))
    bench.send("t")
    with refused("com.microsoft:entity-already-exists"):
        bench.broker.add_rule("t", "s", Rule("R"), bench.now)
    bench.now = 5.0
    bench.broker.update_rule("t", "s", Rule("r", TrueFilter()), bench.now)
    bench.send("t")
    assert len(bench.peek(S)) == 1
    assert bench.broker.get_rule("T", "S", "R") == Rule("r", TrueFilter())
    assert bench.broker.rule_created_at("t", "s", "r") == 0.0
    bench.broker.remove_rule("t", "s", "R", bench.now)
    assert bench.broker.get_subscription("t", "s").rules == ()
    for operation in (
        lambda: bench.broker.remove_rule("t", "s", "r", bench.now),
        lambda: bench.broker.get_rule("t", "s", "r"),
        lambda: bench.broker.update_rule("t", "s", Rule("r"), bench.now),
    ):
        with refused("amqp:not-found"):
            operation()


def test_a_rule_that_cannot_be_understood_is_refused() -> None:
    """With its name and the place of the mistake, and nothing changes."""
    bench = topic()
    with refused("com.microsoft:argument-error", "Rule 'r': .*column 5"):
        bench.broker.add_rule("t", "s", Rule("r", SqlFilter("a = ")), bench.now)
    with refused("com.microsoft:argument-error"):
        bench.broker.create_subscription(
            "t", Subscription("x", rules=(Rule("r", TrueFilter(), "SET"),)), bench.now
        )
    with refused("com.microsoft:argument-error"):
        bench.broker.create_topic(
            Topic("u", subscriptions=(Subscription("x", rules=(Rule("r", SqlFilter("")),)),)), bench.now
        )
    assert [s.name for s in bench.broker.subscriptions("t")] == ["s"]
    assert [t.name for t in bench.broker.topics()] == ["t"]


# -- the rest ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["Disabled", "ReceiveDisabled"])
def test_a_disabled_subscription_still_stores(status: str) -> None:
    """But nobody can receive from it."""
    bench = topic(status=status)
    bench.send("t")
    assert bench.broker.runtime(S).active == 1
    with refused("com.microsoft:entity-disabled"):
        bench.open(S)


def test_filters_are_on_the_topic_s_account() -> None:
    """One message through three filters into one subscription costs one and three and one."""
    bench = topic(Rule("a"), Rule("b"), Rule("c", FalseFilter()))
    bench.send("t")
    bench.take(S)
    books = bench.broker.books()
    assert (books["t"].sends, books["t"].filters, books["t"].credits) == (1, 3, 4)
    assert books[S].credits == 1


def test_subscriptions_share_the_topic_s_quota() -> None:
    """What they hold counts as the topic's size."""
    bench = Bench(
        Topic("t", max_size_in_megabytes=1, subscriptions=(Subscription("a"), Subscription("b"))),
        Queue("q"),
    )
    for _ in range(5):
        bench.send("t", size=100_000)
    assert bench.broker.runtime("t").size == 1_000_000
    with refused("amqp:resource-limit-exceeded", "Topic: 't'"):
        bench.send("t", size=100_000)


def test_a_deleted_topic_takes_everything_with_it() -> None:
    """Subscriptions, consumers, schedules and timers."""
    bench = topic()
    bench.schedule("t", 10.0)
    consumer = bench.open(S)
    bench.broker.delete_topic("T", bench.now)
    assert bench.told() == [(consumer, "amqp:not-found")]
    assert bench.broker.next_timer() is None
    with refused("amqp:not-found"):
        bench.peek(S)


def test_a_deleted_subscription_gets_no_more() -> None:
    """The others do, and its name is free again."""
    bench = topic()
    bench.broker.delete_subscription("t", "S", bench.now)
    bench.send("t")
    bench.broker.create_subscription("t", Subscription("s"), bench.now)
    assert bench.peek(S) == []
    bench.send("t")
    assert len(bench.peek(S)) == 1
