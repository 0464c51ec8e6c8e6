"""The scenarios, one table for every driver: a name, what holds, and the entities it happens on.

A driver is an SDK: each implements the scenarios by name, or is named in `unsupported` with the reason
why it cannot. This module knows the words for entities and nothing of any SDK, emulator or wire. Every
scenario has entities of its own, so that all of them can run at the same time against one namespace.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from sbrpc.topology import (
    CorrelationFilter,
    FalseFilter,
    Queue,
    Rule,
    SqlFilter,
    Subscription,
    Topic,
)

__all__ = ["DRIVERS", "PREFIX", "SCENARIOS", "Scenario", "by_name"]

PREFIX = "conformance."
"""What the name of every entity of the suite begins with."""

PYTHON_ASYNC, PYTHON_SYNC, JAVASCRIPT = DRIVERS = ("python-async", "python-sync", "javascript")


@dataclass(frozen=True)
class Scenario:
    """One promise of the service and the entities it is checked on."""

    name: str
    says: str
    """What holds, in one sentence."""
    queues: tuple[Queue, ...] = ()
    topics: tuple[Topic, ...] = ()
    clock: bool = False
    """Time has to pass that nobody wants to wait for, so only a namespace with a virtual clock will do."""
    emulator_only: str | None = None
    """Why a real namespace cannot show it."""
    differs: str | None = None
    """What the emulator is known to do otherwise; the scenario is expected to fail there, and only there."""
    premium: bool = False
    """A real namespace needs the Premium tier for it."""
    unsupported: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """Driver name to the reason why that SDK cannot express the scenario."""


def _queue(name: str, **options: Any) -> Queue:
    return Queue(PREFIX + name, **options)


def _topic(name: str, *subscriptions: Subscription, **options: Any) -> Topic:
    return Topic(PREFIX + name, subscriptions, **options)


_KINDS = ("clock", "differs", "emulator_only", "premium", "unsupported")


def _on_queue(name: str, says: str, **options: Any) -> Scenario:
    """A scenario on one queue of the same name."""
    kinds = {key: options.pop(key) for key in _KINDS if key in options}
    return Scenario(name, says, queues=(_queue(name, **options),), **kinds)


def _on_sessions(name: str, says: str, **options: Any) -> Scenario:
    """A scenario on one queue of the same name that requires sessions."""
    return _on_queue(name, says, requires_session=True, **options)


def _on_topic(name: str, says: str, *subscriptions: Subscription, **options: Any) -> Scenario:
    """A scenario on one topic of the same name."""
    kinds = {key: options.pop(key) for key in _KINDS if key in options}
    return Scenario(name, says, topics=(_topic(name, *subscriptions, **options),), **kinds)


def _sql(name: str, expression: str) -> Subscription:
    return Subscription(name, rules=(Rule("only", SqlFilter(expression)),))


_NO_PREFETCH = {JAVASCRIPT: "the JavaScript SDK has no prefetch"}
_RULES_IN_JS = dict.fromkeys((PYTHON_ASYNC, PYTHON_SYNC), "the Python SDK manages rules over HTTP only")

_SENDING = (
    _on_queue(
        "send-and-complete",
        "A message is received once with its broker properties and is gone when completed.",
    ),
    _on_queue("send-list", "A list sent in one call arrives whole and in order, numbered upwards."),
    _on_queue("send-batch", "A batch refuses what would not fit, and what it took arrives."),
    _on_queue("send-large-batch", "A batch that spans many frames arrives whole and in order."),
    _on_queue("send-large-message", "A message of 900 kB arrives byte for byte.", premium=True),
    _on_queue(
        "send-oversize",
        "A message above the entity's limit is refused by name of the cause, and the sender goes on.",
    ),
    _on_queue(
        "send-singly", "One sender gets more messages across, one by one, than one grant of credit holds."
    ),
    _on_queue("two-thousand", "Two thousand messages arrive each way, none missing, none twice, in order."),
    _on_queue("concurrent-senders", "Messages of several senders all arrive, each sender's in its order."),
    Scenario(
        "unknown-entity", "Sending to or receiving from what does not exist says that it was not found."
    ),
    _on_queue("name-ignores-case", "An entity is the same under any capitalisation of its name."),
    _on_topic("send-to-subscription", "A subscription cannot be sent to.", Subscription("all")),
    _on_queue(
        "any-credentials",
        "A namespace for development takes any key.",
        emulator_only="the real service checks keys",
    ),
    Scenario(
        "disabled",
        "An entity that is disabled refuses what it is disabled for, by name of the cause.",
        queues=(
            _queue("disabled.sending", status="SendDisabled"),
            _queue("disabled.receiving", status="ReceiveDisabled"),
            _queue("disabled.both", status="Disabled"),
        ),
    ),
    _on_queue(
        "queue-full",
        "A queue that is full refuses messages until there is room again.",
        max_size_in_megabytes=1,
        emulator_only="a real queue holds at least a gigabyte",
    ),
    _on_queue(
        "auto-delete",
        "A queue that deletes itself when idle stays while it is used and is gone after.",
        auto_delete_on_idle=300.0,
        clock=True,
    ),
    _on_queue("idle-sender", "A sender that was idle for twelve minutes still sends.", clock=True),
    _on_queue("idle-receiver", "A receiver that was idle for twelve minutes still receives.", clock=True),
)

_MESSAGES = (
    _on_queue("message-properties", "Every property of a message arrives as it was sent."),
    _on_queue("application-properties", "Application properties keep their values and types."),
    _on_queue("body-data", "A binary body arrives byte for byte, empty and with every byte value too."),
    _on_queue(
        "body-sections",
        "A body of several data sections keeps them apart.",
        unsupported={JAVASCRIPT: "the JavaScript SDK writes one data section"},
    ),
    _on_queue("body-value", "A value body arrives as the value it was."),
    _on_queue("body-sequence", "A sequence body arrives as the sequence it was."),
    _on_queue("time-to-live-shown", "A message shows its time to live and when it expires."),
)

_RECEIVING = (
    _on_queue("receive-and-delete", "In receive-and-delete mode a message is gone once delivered."),
    _on_queue("receive-nothing", "Receiving from an empty queue ends after the wait with nothing."),
    _on_queue("receive-waits", "A receive that began before the message was sent gets it."),
    _on_queue("receive-fewer", "Asking for more than there is yields what there is."),
    _on_queue("receive-stream", "A streaming receiver gets every message in order."),
    _on_queue(
        "prefetch", "A prefetching receiver gets every message once and in order.", unsupported=_NO_PREFETCH
    ),
    _on_queue("competing-receivers", "Two receivers share a queue: each message goes to one of them."),
    _on_queue(
        "close-returns-prefetched",
        "Messages prefetched but not received come back at once and uncounted when the receiver closes.",
        unsupported=_NO_PREFETCH,
    ),
    _on_queue("close-returns-credit", "A receiver that waited in vain and closed takes no message with it."),
)

_SETTLING = (
    _on_queue("abandon", "An abandoned message comes again at once, first in line, its delivery counted."),
    _on_queue(
        "max-delivery-count",
        "After its last allowed delivery a message is dead-lettered with the reason.",
        max_delivery_count=3,
    ),
    _on_queue("dead-letter", "A dead-lettered message is in the sub-queue with its reason and description."),
    _on_queue("dead-letter-plain", "A message can be dead-lettered without a reason."),
    _on_queue(
        "dead-letter-keeps",
        "The dead-letter queue keeps what is abandoned there, however often.",
        max_delivery_count=2,
    ),
    _on_queue("complete-in-any-order", "Messages can be completed in any order."),
    _on_queue("settle-mixed", "Outcomes of messages received together do not touch each other."),
    _on_queue(
        "many-locked",
        "Fifteen hundred messages can be locked at a time and settled in any order.",
        lock_duration=300.0,  # a busy machine may need more than a minute for all of them
    ),
    _on_queue("auto-renewal", "The SDK's own renewal keeps a message locked.", lock_duration=5.0),
    _on_queue("lock-expiry-soon", "A lock of five seconds expires after five seconds.", lock_duration=5.0),
    _on_queue("transfer-dead-letters", "The queue for what could not be forwarded can be looked into."),
    _on_queue("renew-lock", "Renewing a message's lock moves its end."),
    _on_queue("renew-keeps-lock", "A message whose lock is renewed in time stays locked.", clock=True),
    _on_queue("lock-expiry", "A message whose lock expired comes again, its delivery counted.", clock=True),
    _on_queue(
        "lock-lost", "Every settlement after the lock expired says that the lock was lost.", clock=True
    ),
    _on_queue(
        "lock-expiry-dead-letters",
        "Expired locks count towards the last allowed delivery.",
        max_delivery_count=2,
        clock=True,
    ),
    _on_queue(
        "lock-outlives-receiver",
        "A message locked by a receiver that closed stays locked until the lock expires.",
        clock=True,
    ),
    _on_queue(
        "settle-after-close",
        "A message can be settled after the link it came on was closed.",
        unsupported=dict.fromkeys(
            (PYTHON_ASYNC, PYTHON_SYNC), "the Python SDK does not settle with a closed receiver"
        ),
    ),
    _on_queue(
        "settle-with-properties",
        "Properties given with abandon, defer and dead-letter change the message.",
        unsupported=dict.fromkeys((PYTHON_ASYNC, PYTHON_SYNC), "the Python SDK settles without properties"),
    ),
)

_DEFERRING = (
    _on_queue("defer", "A deferred message comes only when asked for by number, and is gone when completed."),
    _on_queue("defer-several", "Several deferred messages are received in one call."),
    _on_queue(
        "deferred-abandoned", "A deferred message that is abandoned stays deferred, the delivery counted."
    ),
    _on_queue("deferred-again", "A deferred message can be deferred again."),
    _on_queue("deferred-dead-lettered", "A deferred message can be dead-lettered with a reason."),
    _on_queue("deferred-deleted", "A deferred message received in receive-and-delete mode is gone."),
    _on_queue("deferred-renewed", "The lock of a deferred message that was received can be renewed."),
    _on_queue("deferred-lock-expiry", "A deferred message whose lock expired is deferred still.", clock=True),
    _on_queue("lock-token-in-message", "A locked message says what its lock token is."),
    _on_queue("deferred-unknown", "Asking for a number that is not deferred says that no message was found."),
)

_BROWSING = (
    _on_queue("peek", "Peeking shows messages in order without locking or counting."),
    _on_queue(
        "peek-states", "Peeking shows active, locked, deferred and scheduled messages, each with its state."
    ),
    _on_queue("peek-pages", "Peeking goes on where it ended, and from any number."),
    _on_queue("peek-nothing", "Peeking at an empty queue shows nothing."),
    _on_queue("large-when-managed", "Large messages are scheduled, peeked and received by number as well."),
    _on_queue("peek-dead-letters", "Dead letters are peeked in their sub-queue and not in the queue."),
)

_TIMES = (
    _on_queue(
        "schedule-and-cancel", "A scheduled message is not delivered early, and not at all when cancelled."
    ),
    _on_queue("schedule-list", "A list of messages is scheduled in one call, each with its own number."),
    _on_queue("schedule-soon", "A message scheduled for the next second arrives then."),
    _on_queue("schedule-past", "A message scheduled for the past arrives at once."),
    _on_queue(
        "schedule-due", "A scheduled message is enqueued when it is due, with the next number.", clock=True
    ),
    _on_queue(
        "schedule-by-property", "A message sent with its due time as a property waits for it.", clock=True
    ),
    _on_queue("cancel-unknown", "Cancelling a number that is not scheduled says that no message was found."),
    _on_queue("expiry-drops", "A message past its time to live is gone.", clock=True),
    _on_queue(
        "expiry-dead-letters",
        "An expired message is dead-lettered where the queue says so.",
        dead_lettering_on_message_expiration=True,
        clock=True,
    ),
    _on_queue(
        "expiry-default",
        "The queue's time to live caps the message's.",
        default_message_time_to_live=20.0,
        clock=True,
    ),
    _on_queue("expiry-spares-locked", "A locked message can be completed past its time to live.", clock=True),
    _on_queue("expiry-soon", "A message that lives a second is gone after two."),
    _on_topic(
        "expiry-on-topic",
        "The topic's time to live caps the message's, and each subscription decides about dead letters.",
        Subscription("keeps", dead_lettering_on_message_expiration=True),
        Subscription("drops"),
        default_message_time_to_live=30.0,
        clock=True,
    ),
    _on_queue(
        "expiry-of-deferred",
        "A deferred message past its time to live is dead-lettered when asked for, and not before.",
        dead_lettering_on_message_expiration=True,
        clock=True,
    ),
    _on_queue(
        "expiry-of-scheduled", "The time to live of a scheduled message begins when it is due.", clock=True
    ),
    _on_queue(
        "duplicates",
        "A message with an id seen before is accepted and dropped.",
        duplicate_detection_window=60.0,
    ),
    _on_queue(
        "duplicates-later", "Past the window an id is new again.", duplicate_detection_window=60.0, clock=True
    ),
    _on_topic(
        "duplicates-on-topic",
        "A topic drops duplicates before its subscriptions see them.",
        Subscription("all"),
        duplicate_detection_window=60.0,
    ),
)

_SESSIONS = (
    _on_sessions("session-by-id", "A session receiver gets the messages of its session and no others."),
    _on_sessions("session-next", "The next available session is one with messages."),
    _on_sessions("session-next-waits", "Waiting for the next session ends when a message of one arrives."),
    _on_sessions("session-next-times-out", "Waiting for the next session in vain ends in a timeout."),
    _on_sessions("session-next-skips-locked", "The next available session is never one that is locked."),
    _on_sessions(
        "session-locked-elsewhere",
        "A session that another receiver holds cannot be locked, and can be when released.",
    ),
    _on_sessions(
        "session-order", "Messages of a session come in the order they were sent, others between them or not."
    ),
    _on_sessions("session-empty", "A session can be accepted before its first message, which then arrives."),
    _on_sessions("session-several", "Several receivers take one session each."),
    _on_sessions("session-state", "Session state is set, read, replaced and cleared."),
    _on_sessions("session-state-stays", "Session state outlives the receiver and the messages."),
    _on_sessions("session-renew", "Renewing a session's lock moves its end."),
    _on_sessions("session-renew-keeps", "A session whose lock is renewed in time stays locked.", clock=True),
    _on_sessions(
        "session-lock-lost",
        "When a session's lock expires its holder is told, and its messages come again, counted.",
        clock=True,
    ),
    _on_sessions(
        "session-close-releases", "Closing a session gives its messages back at once and uncounted."
    ),
    _on_sessions("session-abandon", "An abandoned message of a session comes again before its successors."),
    _on_sessions("session-dead-letter", "Dead letters of sessions are read without a session."),
    _on_sessions("session-defer", "A deferred message is received by number within its session."),
    _on_sessions("session-receive-and-delete", "Receive-and-delete works within a session."),
    _on_sessions("session-stream", "A streaming receiver gets every message of its session in order."),
    _on_sessions("session-peek", "A session receiver peeks at its session only."),
    _on_sessions("session-schedule", "A message can be scheduled for a session."),
    _on_sessions(
        "session-list",
        "Sessions with messages or state are listed, and those whose state changed since a time.",
        unsupported={JAVASCRIPT: "the JavaScript SDK cannot list sessions"},
    ),
    _on_sessions(
        "session-id-required", "A message without a session id is refused where sessions are required."
    ),
    _on_sessions("session-receiver-required", "A plain receiver is refused where sessions are required."),
    _on_topic(
        "session-id-missing",
        "Where a subscription requires sessions, a message without one is a dead letter of it.",
        Subscription("plain"),
        Subscription("ordered", requires_session=True),
    ),
    _on_queue("session-not-supported", "A session receiver is refused where there are no sessions."),
    _on_topic(
        "session-subscription",
        "A subscription can require sessions.",
        Subscription("ordered", requires_session=True),
    ),
)

_TOPICS = (
    _on_topic("fan-out", "Every subscription gets its own copy.", Subscription("one"), Subscription("two")),
    _on_topic(
        "no-match",
        "A message that no rule matches reaches no subscription.",
        Subscription("none", rules=(Rule("never", FalseFilter()),)),
    ),
    _on_topic("no-subscription", "A topic without subscriptions takes messages and forgets them."),
    _on_topic(
        "correlation",
        "A correlation filter matches when every one of its properties is equal.",
        Subscription("subject", rules=(Rule("only", CorrelationFilter(subject="red")),)),
        Subscription("both", rules=(Rule("only", CorrelationFilter(correlation_id="c1", subject="red")),)),
        Subscription("text", rules=(Rule("only", CorrelationFilter(properties={"colour": "red"})),)),
        Subscription("number", rules=(Rule("only", CorrelationFilter(properties={"size": 3})),)),
        Subscription(
            "system",
            rules=(Rule("only", CorrelationFilter(message_id="m1", to="t", reply_to="r", content_type="c")),),
        ),
    ),
    _on_topic(
        "sql",
        "SQL filters compare, combine and calculate.",
        _sql("equal", "colour = 'red'"),
        _sql("greater", "size > 3"),
        _sql("combined", "colour = 'red' AND (size >= 3 OR NOT size < 2)"),
        _sql("sum", "size + 1 = 4 AND size * 2 < 7"),
        _sql("in", "colour IN ('green', 'blue')"),
        _sql("like", "colour LIKE 'r_d%'"),
        _sql("flag", "flag = TRUE"),
        _sql("quoted", "[colour] = 'red' AND note = 'it''s'"),
    ),
    _on_topic(
        "sql-absent",
        "A missing property is unknown, and unknown matches nothing.",
        _sql("different", "colour <> 'red'"),
        _sql("negated", "NOT (colour = 'red')"),
        _sql("null", "colour IS NULL"),
        _sql("not-null", "colour IS NOT NULL"),
        _sql("exists", "EXISTS(colour)"),
        _sql("either", "colour = 'red' OR size = 1"),
    ),
    _on_topic(
        "sql-system",
        "SQL filters see the properties of the message itself.",
        _sql("label", "sys.Label = 'urgent'"),
        _sql("id", "sys.MessageId LIKE 'order-%'"),
        _sql("correlation", "sys.CorrelationId = 'c1' AND sys.ReplyTo IS NULL"),
        _sql("content", "sys.ContentType = 'application/json' AND sys.To = 'here'"),
    ),
    _on_topic(
        "action",
        "An action changes the copy of its subscription and no other.",
        Subscription("plain"),
        Subscription(
            "changed",
            rules=(
                Rule(
                    "change",
                    SqlFilter("size > 1"),
                    action="SET size = size + 10; SET colour = 'blue'; REMOVE note; SET sys.Label = 'new'",
                ),
            ),
        ),
    ),
    _on_topic(
        "several-actions",
        "Each matching rule with an action makes a copy of its own; those without make one together.",
        Subscription(
            "copies",
            rules=(
                Rule("first", SqlFilter("size > 1"), action="SET by = 'first'"),
                Rule("second", SqlFilter("size > 2"), action="SET by = 'second'"),
                Rule("third", SqlFilter("size > 1")),
                Rule("fourth", SqlFilter("size > 2")),
            ),
        ),
    ),
    _on_topic(
        "topic-batch",
        "A batch is filtered message by message.",
        _sql("even", "n % 2 = 0"),
        Subscription("all"),
    ),
    _on_topic(
        "topic-dead-letter",
        "A subscription has a dead-letter queue of its own.",
        Subscription("one"),
        Subscription("two"),
    ),
    _on_topic(
        "topic-schedule",
        "A message scheduled on a topic reaches its subscriptions when it is due.",
        Subscription("all"),
        clock=True,
    ),
    _on_topic(
        "rules",
        "Rules are added, listed with what they say, and removed.",
        Subscription("managed"),
        unsupported=_RULES_IN_JS,
    ),
    _on_topic(
        "rules-take-effect",
        "A rule decides about messages from when it is added to when it is removed.",
        Subscription("managed"),
        unsupported=_RULES_IN_JS,
    ),
    _on_topic(
        "rules-are-unique",
        "A rule cannot be added twice, and one that is not there cannot be removed.",
        Subscription("managed"),
        unsupported=_RULES_IN_JS,
    ),
)

_FORWARDING = (
    Scenario(
        "forward",
        "A queue that forwards hands its messages on.",
        queues=(_queue("forward.to"), _queue("forward", forward_to=PREFIX + "forward.to")),
    ),
    Scenario(
        "forward-chain",
        "A subscription forwards to a queue that forwards on.",
        queues=(
            _queue("forward-chain.last"),
            _queue("forward-chain.middle", forward_to=PREFIX + "forward-chain.last"),
        ),
        topics=(_topic("forward-chain", Subscription("all", forward_to=PREFIX + "forward-chain.middle")),),
    ),
    Scenario(
        "forward-dead-letters",
        "Dead letters are forwarded where the queue says so, with their reason and where they came from.",
        queues=(
            _queue("forward-dead-letters.to"),
            _queue(
                "forward-dead-letters",
                forward_dead_lettered_messages_to=PREFIX + "forward-dead-letters.to",
            ),
        ),
    ),
    Scenario(
        "forward-too-far",
        "A message that was forwarded four times is not forwarded again but dead-lettered.",
        queues=(
            _queue("forward-too-far.7"),
            *(
                _queue(f"forward-too-far.{hop}", forward_to=f"{PREFIX}forward-too-far.{hop + 1}")
                for hop in range(6, 0, -1)
            ),
        ),
    ),
    Scenario(
        "forward-not-received",
        "A queue that forwards cannot be received from.",
        queues=(
            _queue("forward-not-received.to"),
            _queue("forward-not-received", forward_to=PREFIX + "forward-not-received.to"),
        ),
    ),
)

SCENARIOS: tuple[Scenario, ...] = (
    *_SENDING,
    *_MESSAGES,
    *_RECEIVING,
    *_SETTLING,
    *_DEFERRING,
    *_BROWSING,
    *_TIMES,
    *_SESSIONS,
    *_TOPICS,
    *_FORWARDING,
)

by_name: Mapping[str, Scenario] = MappingProxyType({scenario.name: scenario for scenario in SCENARIOS})
