"""Documents as the service writes them: element order, escaping, links."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from sbrpc.emulator.http import atom, descriptions
from sbrpc.emulator.http.descriptions import ATOM, BUS
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

FACTS = atom.Facts(1.0, 2.0, 3.0, 10, atom.Counts(1, 2, 3, 4, 5), 2)
# The order of the elements as the service writes them.
QUEUE = """
LockDuration MaxSizeInMegabytes RequiresDuplicateDetection RequiresSession DefaultMessageTimeToLive
DeadLetteringOnMessageExpiration DuplicateDetectionHistoryTimeWindow MaxDeliveryCount
EnableBatchedOperations SizeInBytes MessageCount IsAnonymousAccessible AuthorizationRules Status
ForwardTo UserMetadata CreatedAt UpdatedAt AccessedAt SupportOrdering CountDetails AutoDeleteOnIdle
EnablePartitioning EntityAvailabilityStatus ForwardDeadLetteredMessagesTo EnableExpress
MaxMessageSizeInKilobytes
"""
TOPIC = """
DefaultMessageTimeToLive MaxSizeInMegabytes RequiresDuplicateDetection
DuplicateDetectionHistoryTimeWindow EnableBatchedOperations SizeInBytes
FilteringMessagesBeforePublishing IsAnonymousAccessible AuthorizationRules Status CreatedAt
UpdatedAt AccessedAt SupportOrdering CountDetails SubscriptionCount AutoDeleteOnIdle
EnablePartitioning EntityAvailabilityStatus EnableSubscriptionPartitioning EnableExpress
UserMetadata MaxMessageSizeInKilobytes
"""
SUBSCRIPTION = """
LockDuration RequiresSession DefaultMessageTimeToLive DeadLetteringOnMessageExpiration
DeadLetteringOnFilterEvaluationExceptions MessageCount MaxDeliveryCount EnableBatchedOperations
Status ForwardTo CreatedAt UpdatedAt AccessedAt CountDetails UserMetadata
ForwardDeadLetteredMessagesTo AutoDeleteOnIdle EntityAvailabilityStatus
"""


def names(document: str) -> list[str]:
    return [child.tag.rpartition("}")[2] for child in ElementTree.fromstring(document)]


def test_a_queue_is_described_in_the_order_of_the_service() -> None:
    """Data contracts on the other side expect this very order."""
    queue = Queue("q", forward_to="a", forward_dead_lettered_messages_to="b", user_metadata="m")
    assert names(atom.queue_description(queue, FACTS, {}, ())) == QUEUE.split()


def test_a_topic_is_described_in_the_order_of_the_service() -> None:
    """Data contracts on the other side expect this very order."""
    assert names(atom.topic_description(Topic("t", user_metadata="m"), FACTS, {}, ())) == TOPIC.split()


def test_a_subscription_is_described_in_the_order_of_the_service() -> None:
    """Data contracts on the other side expect this very order."""
    subscription = Subscription("s", forward_to="a", forward_dead_lettered_messages_to="b", user_metadata="m")
    assert names(atom.subscription_description(subscription, FACTS, {})) == SUBSCRIPTION.split()


@pytest.mark.parametrize(
    "rule",
    [
        Rule("r", TrueFilter()),
        Rule("r", FalseFilter()),
        Rule("r", SqlFilter("a < @b", {"@b": 1}), "SET x = @c; REMOVE y", {"@c": "&"}),
        Rule("r", CorrelationFilter(subject="<s>", to="t", properties={"a": True, "b": 1.5, "c": 2**40})),
    ],
    ids=["true", "false", "sql", "correlation"],
)
def test_rules_can_be_read_again(rule: Rule) -> None:
    """What is written for a rule is understood as the same rule."""
    document = f'<entry xmlns="{ATOM}"><content>{atom.rule_description(rule, 1.0)}</content></entry>'
    assert descriptions.rule_from(descriptions.parse(document.encode()).element, "r") == rule


def test_queues_can_be_read_again() -> None:
    """What is written for a queue is understood as the same queue."""
    queue = Queue("q", requires_session=True, duplicate_detection_window=30, default_message_time_to_live=1.5)
    text = atom.queue_description(queue, FACTS, {}, ())
    document = f'<entry xmlns="{ATOM}"><content>{text}</content></entry>'
    assert descriptions.queue_from(descriptions.parse(document.encode()).element, "q", None) == queue


def test_entries_and_feeds_escape_names_and_links() -> None:
    """Whatever a name contains, the document stays well-formed and says it."""
    item = atom.Entry("a<&>b", 'http://h/a?x="1"&y=2', 1.0, 2.0, atom.namespace_description("n", 1.0))
    root = ElementTree.fromstring(atom.entry(item, "ns"))
    assert root.findtext(f"{{{ATOM}}}title") == "a<&>b"
    assert root.findtext(f"{{{ATOM}}}author/{{{ATOM}}}name") == "ns"
    feed = ElementTree.fromstring(
        atom.feed("Queues", "http://h/?a=1", 1.0, [item, item], "http://h/?b=2&c", "ns")
    )
    links = [link.get("href") for link in feed.findall(f"{{{ATOM}}}link")]
    assert links == ["http://h/?a=1", "http://h/?b=2&c"]
    assert len(feed.findall(f"{{{ATOM}}}entry/{{{ATOM}}}content/{{{BUS}}}NamespaceInfo")) == 2


def test_errors_have_code_and_detail() -> None:
    """The body of an error is what clients show."""
    root = ElementTree.fromstring(atom.error_body(404, "no <q>"))
    assert (root.tag, root.findtext("Code"), root.findtext("Detail")) == ("Error", "404", "no <q>")
