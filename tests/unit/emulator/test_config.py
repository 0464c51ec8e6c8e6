"""`sbrpc.emulator.config`: the official emulator's Config.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sbrpc.emulator.access import Right
from sbrpc.emulator.config import ConfigError, load, parse, parse_duration
from sbrpc.topology import CorrelationFilter, SqlFilter

# The shape of the file the official emulator ships with, comments and trailing commas included.
SHIPPED = """
{ // the one namespace
  "UserConfig": {
    "Namespaces": [ {
      "Name": "sbemulatorns",
      "Queues": [ { "Name": "queue.1", "Properties": {
        "DeadLetteringOnMessageExpiration": false, "DefaultMessageTimeToLive": "PT1H",
        "DuplicateDetectionHistoryTimeWindow": "PT20S", "ForwardDeadLetteredMessagesTo": "", "ForwardTo": "",
        "LockDuration": "PT1M", "MaxDeliveryCount": 3, "RequiresDuplicateDetection": false,
        "RequiresSession": false, } } ],
      "Topics": [ { "Name": "topic.1",
        "Properties": { "DefaultMessageTimeToLive": "PT1H", "RequiresDuplicateDetection": true },
        "Subscriptions": [
          { "Name": "subscription.1", "Properties": { "LockDuration": "PT1M30S" },
            "Rules": [ { "Name": "json", "Properties": { "FilterType": "Correlation",
              "CorrelationFilter": { "ContentType": "application/json" } } } ] },
          { "Name": "subscription.2", "Rules": [ { "Name": "props", "Properties": {
            "FilterType": "Correlation", "CorrelationFilter": { "Properties": { "prop1": "value1" } } } } ] },
          { "Name": "subscription.3" },
          { "Name": "subscription.4", "Rules": [ { "Name": "sql", "Properties": { "FilterType": "Sql",
            "SqlFilter": { "SqlExpression": "sys.MessageId = '123456' AND userProp1 = 'value1'" },
            "Action": { "SqlExpression": "SET sys.To = 'Entity'" } } } ] }
        ] } ]
    } ],
    "Logging": { "Type": "File" }
  }
}
"""


def config(**namespace: Any) -> str:
    """A configuration with one namespace."""
    return json.dumps({"UserConfig": {"Namespaces": [namespace], "Logging": {"Type": "Console"}}})


def mistakes(**namespace: Any) -> list[str]:
    """The mistakes found in a configuration with one namespace."""
    with pytest.raises(ConfigError) as caught:
        parse(config(**namespace))
    return caught.value.mistakes


def test_the_official_file_is_read_whole() -> None:
    """Entities, properties, rules and actions of the official sample come out as topology values."""
    result = parse(SHIPPED)
    queue = result.queues[0]
    assert (queue.name, queue.max_delivery_count, queue.lock_duration) == ("queue.1", 3, 60.0)
    assert queue.default_message_time_to_live == 3600.0
    assert queue.forward_to is None
    assert queue.duplicate_detection_window is None
    topic = result.topics[0]
    assert topic.duplicate_detection_window == 20.0
    first, second, third, fourth = topic.subscriptions
    assert first.lock_duration == 90.0
    assert first.rules[0].filter == CorrelationFilter(content_type="application/json")
    assert second.rules[0].filter == CorrelationFilter(properties={"prop1": "value1"})
    assert third.rules == ()
    assert fourth.rules[0].filter == SqlFilter("sys.MessageId = '123456' AND userProp1 = 'value1'")
    assert fourth.rules[0].action == "SET sys.To = 'Entity'"
    assert result.warnings == ()


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("PT30S", 30), ("PT1M30S", 90), ("P1D", 86400), ("PT1H", 3600), ("P1DT2H3M4S", 93784), ("PT0.5S", 0.5)],
)
def test_durations_are_iso_8601(text: str, seconds: float) -> None:
    """Durations are seconds of an ISO 8601 text."""
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "P", "PT", "30", "30S", "PT-5S", "P1H", 30, None])
def test_what_is_no_duration_is_refused(text: object) -> None:
    """A malformed duration says what a duration looks like."""
    with pytest.raises(ValueError, match="ISO 8601 duration"):
        parse_duration(text)


def test_every_mistake_is_reported_with_its_path() -> None:
    """Several mistakes in one file come together, each with its path and the value that is wrong."""
    found = mistakes(
        Queues=[
            {"Properties": {"LockDuration": "1 minute"}},
            {"Name": "b", "Properties": {"MaxDeliveryCount": "many"}},
        ],
        Topics=[{"Name": "t", "Subscriptions": [{"Name": "s", "Rules": [{"Name": "r"}]}]}],
    )
    assert len(found) == 4
    text = "\n".join(found)
    assert "UserConfig.Namespaces[0].Queues[0].Name: Field required" in text
    assert "UserConfig.Namespaces[0].Queues[0].Properties.LockDuration: '1 minute' is not an ISO" in text
    assert "UserConfig.Namespaces[0].Queues[1].Properties.MaxDeliveryCount:" in text
    assert "(it is 'many')" in text
    assert "UserConfig.Namespaces[0].Topics[0].Subscriptions[0].Rules[0].Properties: Field required" in text


@pytest.mark.parametrize(
    ("namespace", "path", "says"),
    [
        ({"Queues": [{"Name": "a"}, {"Name": "A"}]}, "Queues[1].Name", "taken by"),
        ({"Queues": [{"Name": "-a-"}]}, "Queues[0]", "not a valid queue name"),
        ({"Queues": [{"Name": "a", "Properties": {"ForwardTo": "bb"}}, {"Name": "b"}]}, "ForwardTo", "'b'"),
        ({"Queues": [{"Name": "a", "Properties": {"LockDuration": "PT10M"}}]}, "Queues[0]", "at most 300"),
        (
            {"Topics": [{"Name": "t", "Subscriptions": [{"Name": "s"}, {"Name": "S"}]}]},
            "Topics[0].Subscriptions[1].Name",
            "twice",
        ),
    ],
)
def test_mistakes_between_entities_are_found(namespace: dict[str, Any], path: str, says: str) -> None:
    """Names that clash, targets that do not exist and values that make no sense are named with their path."""
    (mistake,) = mistakes(**namespace)
    assert path in mistake
    assert says in mistake


@pytest.mark.parametrize(
    ("properties", "says"),
    [
        ({"FilterType": "Sql"}, "there is no SqlFilter"),
        ({"FilterType": "Correlation", "CorrelationFilter": {}}, "names no property"),
        ({"FilterType": "Sql", "SqlFilter": {"SqlExpression": "a = "}}, "SqlExpression"),
        (
            {
                "FilterType": "Sql",
                "SqlFilter": {"SqlExpression": "a = 1"},
                "Action": {"SqlExpression": "SET = 1"},
            },
            "Action",
        ),
    ],
)
def test_rules_that_cannot_work_are_refused(properties: dict[str, Any], says: str) -> None:
    """A filter without its expression, or with one that does not parse, is a mistake of the file."""
    rules = [{"Name": "r", "Properties": properties}]
    found = mistakes(Topics=[{"Name": "t", "Subscriptions": [{"Name": "s", "Rules": rules}]}])
    assert "Rules[0]" in found[0]
    assert says in found[0]


def test_another_encoding_is_named(tmp_path: Path) -> None:
    """PowerShell writes UTF-16 unless told otherwise; what it wrote says which file is to be saved anew."""
    file = tmp_path / "Config.json"
    file.write_text("{}", encoding="utf-16")
    with pytest.raises(ConfigError, match=r"(?s)Config\.json.*not UTF-8"):
        load(file)


def test_windows_line_endings_and_a_mark_are_fine(tmp_path: Path) -> None:
    """What an editor on Windows saves is read like any other file."""
    file = tmp_path / "Config.json"
    text = '{"UserConfig": {\r\n"Namespaces": [{"Name": "n", "Queues": [{"Name": "q"}]}]\r\n}}'
    file.write_bytes(text.encode("utf-8-sig"))
    assert [queue.name for queue in load(file).queues] == ["q"]


def test_what_is_not_json_is_located() -> None:
    """A syntax error names line and column, comments notwithstanding."""
    with pytest.raises(ConfigError, match="line 3, column 3: not JSON"):
        parse('{ // one\n "UserConfig": {},\n  oops }')


def test_a_comment_mark_inside_a_text_is_text() -> None:
    """Comments are recognised outside of texts only."""
    text = config(Queues=[{"Name": "a"}], Name="sb//x, }")
    assert parse(text).namespace == "sb//x, }"


def test_unknown_keys_and_wider_values_are_warnings() -> None:
    """What the official emulator ignores or refuses, but Azure knows, is accepted and said."""
    result = parse(
        config(Queues=[{"Name": "a", "Properties": {"RequireSession": True, "MaxDeliveryCount": 20}}])
    )
    first, second = result.warnings
    assert "RequireSession: nobody knows this key; did you mean 'RequiresSession'?" in first
    assert "MaxDeliveryCount: the official emulator takes 1 to 10 only" in second


def test_authorization_rules_become_access_keys() -> None:
    """Keys may stand on the namespace and on an entity; Manage includes Send and Listen."""
    rule = {"Name": "sender", "Key": "c2VjcmV0", "Rights": ["Send"]}
    root = {"Name": "root", "Key": "cm9vdA==", "Rights": ["Manage"]}
    result = parse(config(AuthorizationRules=[root], Queues=[{"Name": "a", "AuthorizationRules": [rule]}]))
    keys = {key.name: key for key in result.access_keys}
    assert keys["root"].entity is None
    assert keys["root"].rights == {Right.SEND, Right.LISTEN, Right.MANAGE}
    assert keys["sender"].entity == "a"
    assert keys["sender"].rights == {Right.SEND}


def test_exactly_one_namespace_is_needed() -> None:
    """No namespace, or two, is a mistake."""
    with pytest.raises(ConfigError, match="Namespaces"):
        parse('{"UserConfig": {"Namespaces": []}}')
