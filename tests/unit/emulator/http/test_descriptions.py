"""Descriptions of entities as clients write them, and what is made of them."""

from __future__ import annotations

import pytest

from sbrpc.emulator.http import descriptions
from sbrpc.topology import CorrelationFilter, FalseFilter, Queue, Rule, SqlFilter, Subscription, TrueFilter

XSI = 'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"'


def entry(kind: str, inside: str) -> bytes:
    """A request body as the Python client writes it."""
    return (
        f'<ns0:entry xmlns:ns0="{descriptions.ATOM}" xmlns="{descriptions.BUS}" {XSI}>'
        f'<ns0:content type="application/xml"><{kind}>{inside}</{kind}></ns0:content></ns0:entry>'
    ).encode()


def parsed(kind: str, inside: str) -> descriptions.Description:
    return descriptions.parse(entry(kind, inside))


def queue(inside: str, before: Queue | None = None) -> Queue:
    return descriptions.queue_from(parsed("QueueDescription", inside).element, "q", before)


def rule(inside: str) -> Rule:
    return descriptions.rule_from(parsed("RuleDescription", inside).element, "r")


def test_a_queue_with_every_setting() -> None:
    """Each element sets the attribute that it stands for."""
    found = queue(
        "<LockDuration>PT30S</LockDuration><MaxSizeInMegabytes>2048</MaxSizeInMegabytes>"
        "<RequiresDuplicateDetection>true</RequiresDuplicateDetection><RequiresSession>true</RequiresSession>"
        "<DefaultMessageTimeToLive>P1D</DefaultMessageTimeToLive>"
        "<DeadLetteringOnMessageExpiration>true</DeadLetteringOnMessageExpiration>"
        "<DuplicateDetectionHistoryTimeWindow>PT20S</DuplicateDetectionHistoryTimeWindow>"
        "<MaxDeliveryCount>5</MaxDeliveryCount><Status>SendDisabled</Status>"
        "<UserMetadata>a &lt; b</UserMetadata>"
        "<AutoDeleteOnIdle>PT5M</AutoDeleteOnIdle>"
        "<ForwardDeadLetteredMessagesTo>sb://h:1/dead</ForwardDeadLetteredMessagesTo>"
        "<MaxMessageSizeInKilobytes>2048</MaxMessageSizeInKilobytes>"
    )
    assert found == Queue(
        "q",
        requires_session=True,
        lock_duration=30,
        max_delivery_count=5,
        default_message_time_to_live=86400,
        dead_lettering_on_message_expiration=True,
        duplicate_detection_window=20,
        forward_dead_lettered_messages_to="dead",
        auto_delete_on_idle=300,
        max_size_in_megabytes=2048,
        max_message_size_in_kilobytes=2048,
        status="SendDisabled",
        user_metadata="a < b",
    )


def test_what_is_left_out_keeps_its_value() -> None:
    """A new queue gets the defaults, a changed one keeps what it had."""
    assert queue("") == Queue("q")
    before = Queue("q", max_delivery_count=3, duplicate_detection_window=30, forward_to="x")
    assert queue("<LockDuration>PT5S</LockDuration>", before) == Queue(
        "q", lock_duration=5, max_delivery_count=3, duplicate_detection_window=30, forward_to="x"
    )


def test_an_empty_target_ends_forwarding() -> None:
    """An empty or nil element takes a forwarding target away, or leaves it alone."""
    before = Queue("q", forward_to="x")
    assert queue("<ForwardTo></ForwardTo>", before).forward_to is None
    assert queue('<ForwardTo xsi:nil="true"/>', before).forward_to == "x"


def test_duplicate_detection_has_a_default_window() -> None:
    """Without a window it is ten minutes; without the flag a window means nothing."""
    assert (
        queue("<RequiresDuplicateDetection>true</RequiresDuplicateDetection>").duplicate_detection_window
        == 600
    )
    window = "<DuplicateDetectionHistoryTimeWindow>PT20S</DuplicateDetectionHistoryTimeWindow>"
    assert queue(window).duplicate_detection_window is None


@pytest.mark.parametrize(
    ("inside", "problem"),
    [
        ("<LockDuration>5</LockDuration>", "LockDuration: '5' is not an ISO 8601 duration"),
        ("<LockDuration>PT6M</LockDuration>", "at most 300 s"),
        ("<MaxDeliveryCount>0</MaxDeliveryCount>", "MaxDeliveryCount: 0 is not between 1 and 2000"),
        ("<RequiresSession>perhaps</RequiresSession>", "RequiresSession: 'perhaps' is neither"),
        ("<AutoDeleteOnIdle>PT4M</AutoDeleteOnIdle>", "AutoDeleteOnIdle: 'PT4M' is too short"),
        ("<Status>Busy</Status>", "Status: 'Busy' is not a status"),
        (f"<UserMetadata>{'x' * 1025}</UserMetadata>", "UserMetadata: it has 1025 characters"),
        (
            "<DuplicateDetectionHistoryTimeWindow>P8D</DuplicateDetectionHistoryTimeWindow>",
            "between PT1S and P7D",
        ),
        ("<RequiresSession>true</RequiresSession><ForwardTo>x</ForwardTo>", "cannot require sessions"),
    ],
)
def test_mistakes_name_their_element(inside: str, problem: str) -> None:
    """A wrong value is refused with the name of what is wrong."""
    with pytest.raises(ValueError, match=problem):
        queue(inside)


def test_a_subscription_with_its_first_rule() -> None:
    """The default rule of a new subscription replaces the one that lets everything through."""
    element = parsed(
        "SubscriptionDescription",
        "<DeadLetteringOnFilterEvaluationExceptions>false</DeadLetteringOnFilterEvaluationExceptions>"
        '<DefaultRuleDescription><Filter xsi:type="FalseFilter"/><Name>none</Name></DefaultRuleDescription>',
    ).element
    found = descriptions.subscription_from(element, "s", None)
    assert found == Subscription(
        "s", rules=(Rule("none", FalseFilter()),), dead_lettering_on_filter_evaluation_exceptions=False
    )
    before = Subscription("s", rules=(Rule("kept"),))
    assert descriptions.subscription_from(element, "s", before).rules == (Rule("kept"),)


def test_rules_of_every_kind() -> None:
    """Filters and actions, with typed values, become their topology values."""
    assert rule('<Filter xsi:type="TrueFilter"><SqlExpression>1=1</SqlExpression></Filter>') == Rule("r")
    assert rule('<Filter xsi:type="FalseFilter"/>') == Rule("r", FalseFilter())
    values = (
        '<{0}><KeyValueOfstringanyType><Key>@n</Key><Value xsi:type="d6p1:int">5</Value>'
        "</KeyValueOfstringanyType></{0}>"
    )
    parameters = values.format("Parameters")
    found = rule(
        f'<Filter xsi:type="SqlFilter"><SqlExpression>n = @n</SqlExpression>{parameters}</Filter>'
        f'<Action xsi:type="SqlRuleAction"><SqlExpression>SET x = @n</SqlExpression>{parameters}</Action>'
    )
    assert found == Rule("r", SqlFilter("n = @n", {"@n": 5}), "SET x = @n", {"@n": 5})
    found = rule(
        f'<Filter xsi:type="CorrelationFilter"><Label>created</Label>{values.format("Properties")}</Filter>'
        '<Action xsi:type="EmptyRuleAction"/>'
    )
    assert found == Rule("r", CorrelationFilter(subject="created", properties={"@n": 5}))
    assert isinstance(rule("").filter, TrueFilter)


@pytest.mark.parametrize(
    ("inside", "problem"),
    [
        ('<Filter xsi:type="CorrelationFilter"/>', "at least one property"),
        ('<Filter xsi:type="MagicFilter"/>', "'MagicFilter' is not a kind of filter"),
        ('<Action xsi:type="MagicAction"/>', "'MagicAction' is not a kind of action"),
        (
            '<Filter xsi:type="CorrelationFilter"><Properties><KeyValueOfstringanyType><Key>a</Key>'
            "</KeyValueOfstringanyType></Properties></Filter>",
            "each entry needs a Key and a Value",
        ),
        (
            '<Filter xsi:type="CorrelationFilter"><Properties><KeyValueOfstringanyType><Key>a</Key>'
            '<Value xsi:type="d6p1:int">x</Value></KeyValueOfstringanyType></Properties></Filter>',
            "Properties: 'a': 'x' is not a whole number",
        ),
    ],
)
def test_mistakes_in_rules(inside: str, problem: str) -> None:
    """A rule that means nothing is refused with what is wrong."""
    with pytest.raises(ValueError, match=problem):
        rule(inside)


def test_flags_and_keys_are_kept_apart() -> None:
    """Settings without a meaning here, and access keys, are read beside the description."""
    found = parsed(
        "QueueDescription",
        "<EnablePartitioning>true</EnablePartitioning><AuthorizationRules><AuthorizationRule>"
        "<Rights><AccessRights>Send</AccessRights></Rights><KeyName>k</KeyName><PrimaryKey>p</PrimaryKey>"
        "</AuthorizationRule></AuthorizationRules>",
    )
    assert found.flags == {"EnablePartitioning": True}
    assert found.authorization_rules == (descriptions.AuthorizationRule("k", ("Send",), "p", "p"),)
    assert parsed("QueueDescription", "").authorization_rules is None
    with pytest.raises(ValueError, match="AuthorizationRules: each needs"):
        parsed("QueueDescription", "<AuthorizationRules><AuthorizationRule/></AuthorizationRules>")


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b"", "not XML"),
        (b"<a>", "not XML"),
        (b"\xff\xfe\x00", "not XML"),
        (b"<a/>", "Atom entry"),
        (f'<entry xmlns="{descriptions.ATOM}"><content/></entry>'.encode(), "Atom entry"),
        (f'<entry xmlns="{descriptions.ATOM}"><content><Q/></content></entry>'.encode(), "namespace"),
        (b'<!DOCTYPE x [<!ENTITY a "aaaa">]><x>&a;</x>', "document type"),
    ],
)
def test_bodies_that_describe_nothing(body: bytes, problem: str) -> None:
    """A body that is no entry with one description is refused, and so are definitions of entities."""
    with pytest.raises(ValueError, match=problem):
        descriptions.parse(body)
