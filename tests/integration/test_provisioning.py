"""From handlers to a namespace: what is missing is planned, said and made."""

from __future__ import annotations

from collections.abc import AsyncIterator

import anyio.to_thread
import pytest
from azure.servicebus.management import ServiceBusAdministrationClient

from sbrpc.emulator import Emulator
from sbrpc.errors import ContractError
from sbrpc.event import Event
from sbrpc.events import EventBus
from sbrpc.provisioning import Found, Step, apply, plan, read
from sbrpc.topology import CorrelationFilter, Queue, Rule, SqlFilter, Subscription, Topic

# The SDK asks XML elements whether they are true, which Python warns of.
pytestmark = pytest.mark.filterwarnings("ignore:.*truth value.*")


class Created(Event, type="movies.created.v1"):
    pass


class Deleted(Event, type="movies.deleted.v1"):
    pass


BUS = EventBus("Endpoint=sb://unused/", topic="events", source="/movies")


@BUS.on(Created, Deleted, subscription="views")
async def handle(event: Created | Deleted) -> None: ...


WANTED: list[Queue | Topic] = [BUS.topology(), Queue("movies"), Queue("replies", requires_session=True)]
PLAN = [
    "create topic events",
    "create subscription views of events with sessions",
    "create rule movies.created.v1 of events/views: subject = 'movies.created.v1'",
    "create rule movies.deleted.v1 of events/views: subject = 'movies.deleted.v1'",
    "create rule sbrpc-replay of events/views: sbrpc-replay-to = 'views'",
    "remove rule $Default of events/views",
    "create queue movies",
    "create queue replies with sessions",
]


@pytest.fixture
async def emulator() -> AsyncIterator[Emulator]:
    async with Emulator(http_port=0) as running:
        yield running


async def test_namespace_is_made_from_handlers(emulator: Emulator) -> None:
    """An empty namespace gets all that is wanted, then there is nothing to do; what drifted is mended."""

    def work() -> None:
        given = {"connection_verify": emulator.certificate_file}
        with ServiceBusAdministrationClient.from_connection_string(
            emulator.admin_connection_string, **given
        ) as admin:
            steps = plan(WANTED, read(admin, WANTED))
            assert [str(step) for step in steps] == PLAN
            apply(admin, steps)
            assert plan(WANTED, read(admin, WANTED)) == []
            admin.delete_rule("events", "views", "movies.deleted.v1")
            admin.create_rule("events", "views", "stray")
            drifted = plan(WANTED, read(admin, WANTED))
            assert [f"{step.action} {step.entity.name}" for step in drifted] == [
                "create movies.deleted.v1",
                "remove stray",
            ]
            apply(admin, drifted)
            assert plan(WANTED, read(admin, WANTED)) == []

    await anyio.to_thread.run_sync(work)
    assert emulator.broker.runtime("replies").active == 0


EVERYTHING: list[Queue | Topic] = [
    Queue(
        "a",
        requires_session=False,
        lock_duration=30,
        max_delivery_count=7,
        default_message_time_to_live=3600,
        dead_lettering_on_message_expiration=True,
        duplicate_detection_window=120,
        forward_to="t",
        forward_dead_lettered_messages_to="z",
        auto_delete_on_idle=600,
        max_size_in_megabytes=2048,
        max_message_size_in_kilobytes=2048,
        status="SendDisabled",
        user_metadata="a note",
    ),
    Topic(
        "t",
        subscriptions=(
            Subscription(
                "s",
                rules=(
                    Rule(
                        "dear",
                        SqlFilter("price > @least", {"@least": 7}),
                        "SET grade = @grade",
                        {"@grade": "A"},
                    ),
                ),
                requires_session=True,
                dead_lettering_on_filter_evaluation_exceptions=False,
                forward_dead_lettered_messages_to="z",
                auto_delete_on_idle=900,
                status="ReceiveDisabled",
                user_metadata="another",
            ),
        ),
        default_message_time_to_live=7200,
        duplicate_detection_window=60,
        auto_delete_on_idle=1200,
        max_size_in_megabytes=3072,
        max_message_size_in_kilobytes=4096,
        status="SendDisabled",
        user_metadata="a third",
    ),
    Queue("z"),
]


async def test_all_that_is_declared_is_made(emulator: Emulator) -> None:
    """Every setting, and nothing before what it forwards to; then there is nothing to do."""

    def work() -> None:
        given = {"connection_verify": emulator.certificate_file}
        with ServiceBusAdministrationClient.from_connection_string(
            emulator.admin_connection_string, **given
        ) as admin:
            apply(admin, plan(EVERYTHING, read(admin, EVERYTHING)))
            assert plan(EVERYTHING, read(admin, EVERYTHING)) == []

    await anyio.to_thread.run_sync(work)
    broker = emulator.broker
    assert [broker.get_queue("a"), broker.get_topic("t"), broker.get_queue("z")] == EVERYTHING


def test_what_is_forwarded_to_comes_first() -> None:
    """However they are declared; in a circle nobody can, and Service Bus says so."""
    chain = [Queue("a", forward_to="B"), Queue("b", forward_to="c"), Queue("c"), Queue("d")]
    assert [step.entity.name for step in plan(chain, Found())] == ["c", "d", "b", "a"]
    circle = [Queue("a", forward_to="b"), Queue("b", forward_to="a")]
    assert [step.entity.name for step in plan(circle, Found())] == ["a", "b"]


def test_changed_rule_is_replaced() -> None:
    """A rule of the same name that filters something else is replaced, whatever the case of its name."""
    rule = Rule("r", SqlFilter("a = 1"))
    wanted = [Topic("t", subscriptions=(Subscription("s", rules=(rule,)),))]
    place = ("t", "s")
    found = Found(
        topics={"t"}, subscriptions={place: False}, rules={place: (Rule("R", CorrelationFilter()),)}
    )
    assert plan(wanted, found) == [Step(rule, "replace", "t", "s")]
    assert str(plan(wanted, found)[0]) == "replace rule r of t/s: a = 1"


@pytest.mark.parametrize("existing", [True, False])
def test_sessions_cannot_be_changed(existing: bool) -> None:
    """What only deleting could change is left to a person."""
    with pytest.raises(ContractError, match="deleted and made anew"):
        plan([Queue("q", requires_session=not existing)], Found(queues={"q": existing}))
    topic = Topic("t", subscriptions=(Subscription("s", requires_session=not existing),))
    with pytest.raises(ContractError, match="subscription 's' of topic 't'"):
        plan([topic], Found(topics={"t"}, subscriptions={("t", "s"): existing}))


def test_a_default_rule_may_stand_for_another() -> None:
    """Where Bicep made `$Default` what another rule is, there is nothing to do; what differs is replaced."""
    rule, other = Rule("r", CorrelationFilter(subject="s")), Rule("o", CorrelationFilter(subject="o"))
    topic = Topic("t", subscriptions=(Subscription("s", rules=(other, rule)),))

    def found(*rules: Rule) -> Found:
        return Found(topics={"t"}, subscriptions={("t", "s"): False}, rules={("t", "s"): rules})

    born = Rule("$Default", CorrelationFilter(subject="s"))
    assert plan([topic], found(other, born)) == []
    steps = plan([topic], found(other, Rule("$Default")))
    assert [f"{step.action} {step.entity.name}" for step in steps] == ["create r", "remove $Default"]
    assert [step.action for step in plan([topic], found(other, rule, born))] == ["remove"]


def test_subscription_without_rules_gets_everything() -> None:
    """No rules are Service Bus' own default rule, so there is nothing to change about it."""
    topic = Topic("t", subscriptions=(Subscription("s"),))
    found = Found(topics={"t"}, subscriptions={("t", "s"): False}, rules={("t", "s"): (Rule("$Default"),)})
    assert plan([topic], found) == []
