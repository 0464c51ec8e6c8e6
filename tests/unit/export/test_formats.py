"""What the formats make of names, texts and settings that are not the usual ones."""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import Any

import hcl2
import pycep
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from sbrpc import Contract, Queue, RpcClient, RpcServer, Subscription, Topic, method
from sbrpc.emulator.config import parse
from sbrpc.export import System, az, bicep, emulator_config, keda, system_of, terraform
from sbrpc.export._bicep import _value
from sbrpc.topology import CorrelationFilter, FalseFilter, Rule, SqlFilter, TrueFilter


class Ref(BaseModel):
    id: int


class Orders(Contract, name="orders"):
    @method
    async def get(self, request: Ref) -> Ref: ...


def filtering(filter: Any, **options: Any) -> System:
    """A topic with one subscription, which has one rule."""
    subscription = Subscription("s", rules=(Rule("r", filter, **options),))
    return system_of({"p": [Topic("t", subscriptions=(subscription,))]})


# Printable texts with what each format takes for something else; some escapes the parsers do not know.
TEXTS = st.text(alphabet="abc '\"{}#;&|<>()!*?`~=,äß-_./:@", min_size=1, max_size=12)


@settings(deadline=None, max_examples=25)
@given(TEXTS)
def test_texts_survive_bicep(text: str) -> None:
    """Quotes and what looks like a comment or the end of a block."""
    found = pycep.BicepParser().parse(text=f"param x string = {_value(text)}\n")
    # The parser leaves escapes as they stand.
    assert found["parameters"]["x"]["default"].replace("\\'", "'") == text


@settings(deadline=None, max_examples=25)
@given(TEXTS)
def test_texts_survive_terraform(text: str) -> None:
    """As JSON has them, but for what begins an interpolation or a directive."""
    found = hcl2.loads(terraform(filtering(CorrelationFilter(subject=text))))
    (rule,) = (
        next(iter(next(iter(each.values())).values()))
        for each in found["resource"]
        if next(iter(each)).strip('"') == "azurerm_servicebus_subscription_rule"
    )
    label = rule["correlation_filter"][0]["label"]
    plain = json.loads(label) if label.startswith('"') else label
    assert plain == text


def test_escapes_that_the_parsers_do_not_know() -> None:
    """Backslash and interpolation in Bicep, interpolation and directives in Terraform."""
    system = filtering(CorrelationFilter(subject="a\\b%{c}${d}\n"))
    assert r"label: 'a\\b%{c}\${d}\n'" in bicep(system)
    assert r'label = "a\\b%%{c}$${d}\n"' in terraform(system)


def test_texts_survive_a_shell() -> None:
    """Bash hands every word on as it was."""
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("there is no bash here")
    text = 'it\'s "a" $HOME `date` \\ ; & | <> ! * ? ~ #'
    line = next(
        line
        for line in az(filtering(CorrelationFilter(subject=text))).splitlines()
        if line.startswith("rule --")
    )
    script = f'rule() {{ printf "%s\\n" "$@"; }}\n{line}\n'
    done = subprocess.run([bash, "-c", script], capture_output=True, text=True, timeout=30, check=True)
    assert text in done.stdout.splitlines()


@pytest.mark.parametrize(
    ("filter", "expression"),
    [(SqlFilter("a = 'x'"), "a = 'x'"), (TrueFilter(), "1=1"), (FalseFilter(), "1=0")],
)
def test_other_filters_are_sql(filter: Any, expression: str) -> None:
    """Everywhere, with the action where there is one."""
    system = filtering(filter, action="SET b = 1")
    rule = pycep.BicepParser().parse(text=bicep(system))["resources"]["tTopicSDefault"]["config"][
        "properties"
    ]
    assert rule["filterType"] == "SqlFilter"
    assert rule["action"] == {"sqlExpression": "SET b = 1"}
    assert 'filter_type     = "SqlFilter"' in terraform(system)
    assert "--action-sql-expression 'SET b = 1'" in az(system)
    text, _ = emulator_config(system)
    (read,) = parse(text).topics[0].subscriptions[0].rules
    assert (read.filter, read.action) == (SqlFilter(expression), "SET b = 1")


def test_a_subscription_without_rules_keeps_its_own() -> None:
    """It gets everything, and nothing is said about `$Default`."""
    system = system_of({"p": [Topic("t", subscriptions=(Subscription("s"),))]})
    assert "$Default" not in bicep(system)
    assert "\nwithout_default t" not in az(system)


def test_the_last_rule_is_made_after_all_others() -> None:
    """It takes the place of `$Default`, and no other may remove it."""
    rules = (Rule("c", CorrelationFilter(subject="c")), Rule("a", CorrelationFilter(subject="a")))
    system = system_of({"p": [Topic("t", subscriptions=(Subscription("s", rules=rules),))]})
    last = pycep.BicepParser().parse(text=bicep(system))["resources"]["tTopicSDefault"]["config"]
    assert last["properties"]["correlationFilter"]["label"] == "c"
    assert last["dependsOn"] == ["tTopicSRuleA"]


def test_names_that_are_alike_stay_apart() -> None:
    """However the symbols of a format are spelled."""
    system = system_of({"p": [Queue("a.b"), Queue("a-b"), Queue("a_b"), Queue("1"), Topic("a.c")]})
    found = pycep.BicepParser().parse(text=bicep(system))["resources"]
    queues = {each["config"]["name"] for each in found.values() if each["type"].endswith("/queues")}
    assert queues == {"a.b", "a-b", "a_b", "1"}
    blocks = [next(iter(each.items())) for each in hcl2.loads(terraform(system))["resource"]]
    symbols = [name for kind, block in blocks if kind.strip('"').endswith("_queue") for name in block]
    assert len({*symbols}) == 4


def test_the_emulator_gets_the_nearest_that_it_takes() -> None:
    """And a line says what was asked for."""
    queue = Queue(
        "q",
        lock_duration=1,
        max_delivery_count=50,
        default_message_time_to_live=86400,
        duplicate_detection_window=600,
        auto_delete_on_idle=300,
        status="Disabled",
    )
    topic = Topic("t", subscriptions=(Subscription("s", lock_duration=30),), default_message_time_to_live=1)
    text, warnings = emulator_config(system_of({"p": [queue, topic, Topic("empty")]}))
    config = parse(text)
    assert config.warnings == ()
    (made,) = config.queues
    assert (made.lock_duration, made.max_delivery_count) == (5, 10)
    assert (made.default_message_time_to_live, made.duplicate_detection_window) == (3600, 300)
    assert config.topics[1].subscriptions[0].lock_duration == 60
    assert config.topics[1].default_message_time_to_live == 300
    said = [warning.removeprefix("the official emulator: ") for warning in warnings]
    assert "queue q: a lock of PT1S, and it takes PT5S to PT5M" in said
    assert "queue q: a max delivery count of 50, and it takes 1 to 10" in said
    assert "queue q: it knows no auto delete on idle" in said
    assert "queue q: it knows no status" in said
    assert "topic empty: 0 subscriptions, and it takes 1 to 50" in said


def test_the_emulator_has_room_for_so_many() -> None:
    """Queues and topics together."""
    _, warnings = emulator_config(system_of({"p": [Queue(f"q{number}") for number in range(51)]}))
    assert warnings == ("the official emulator: 51 queues and topics, and it takes 50",)


def test_a_rule_with_parameters_is_more_than_the_emulator_knows() -> None:
    """It is said rather than left out in silence."""
    _, warnings = emulator_config(filtering(SqlFilter("a = @x", {"@x": 1})))
    assert warnings == ("the official emulator: subscription t/s: rule r has parameters, and it knows none",)


def test_scaling_by_sessions_is_by_what_one_instance_takes() -> None:
    """One object for each process that takes messages, none for one that only calls."""
    server = RpcServer("", Orders, max_concurrent_sessions=3)
    text = keda(system_of({"Order.Service": [server], "shop": [RpcClient("", reply_queue="r"), Orders]}))
    _, only = yaml.safe_load_all(text)
    assert only["metadata"]["name"] == "order-service"
    assert only["spec"]["triggers"][0]["metadata"]["messageCount"] == "3"


def test_a_client_needs_what_others_own_to_be_there() -> None:
    """Its service's queue is looked up and not made, in each format that can say so."""
    system = system_of({"shop": [RpcClient("", reply_queue="r"), Orders]})
    assert pycep.BicepParser().parse(text=bicep(system))["resources"]["ordersQueue"]["existing"] is True
    assert 'data "azurerm_servicebus_queue" "orders_queue"' in terraform(system)
    assert "data.azurerm_servicebus_queue.orders_queue.id" in terraform(system)
    assert "queue --name orders" not in az(system)
    assert [queue.name for queue in parse(emulator_config(system)[0]).queues] == ["orders", "r"]
