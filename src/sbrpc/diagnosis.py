"""Diagnosis: what is wrong with a namespace for the programs that use it, as rules over facts.

    findings = diagnose([(Wanted("movies", Role.REQUESTS, ...), Facts(exists=True, lock_duration=5))])

`Wanted` is what programs need of one entity, `Facts` what somebody has found out about it; what nobody knows
is None, and no rule says anything about it. Pure: how facts are found is the matter of `sbrpc doctor`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum

from .topology import Filter, Rule, TrueFilter

__all__ = ["RULES", "Facts", "Finding", "Role", "Severity", "Wanted", "budget", "diagnose", "transport"]

NEVER = float("inf")

# Below, one pause of the process or of the network loses a lock; above, what a dead process held waits long.
SHORTEST_LOCK = 5.0
LONGEST_LOCK = 120.0

# Deadlines travel as times of day, so that clocks that differ shorten or lengthen each call by as much.
MOST_SKEW = 5.0

# Fewer deliveries than these, and two restarts in a row dead-letter what is fine.
FEWEST_DELIVERIES = 3

# A namespace takes 5,000 connections (azure-docs, Service Bus quotas), and the SDK opens one for each sender
# and each receiver.
CONNECTIONS = 5000
FEWEST_INSTANCES = 10

# Before, aiohttp takes its own WebSocket ping for unanswered while nothing is read, and cuts the connection
# (Azure/azure-sdk-for-python#44028, mended by aio-libs/aiohttp#12030).
AIOHTTP = (3, 14)


class Severity(str, Enum):
    """How bad it is."""

    ERROR = "error"
    """It does not work."""
    WARNING = "warning"
    """It works until something else happens."""


class Role(str, Enum):
    """What an entity is for."""

    REQUESTS = "request queue"
    REPLIES = "reply queue"
    CONTROL = "control queue"
    TOPIC = "topic"
    SUBSCRIPTION = "subscription"
    OTHER = "queue"


@dataclass(frozen=True)
class Wanted:
    """What programs need of one queue, topic or subscription."""

    entity: str
    role: Role
    subscription: str | None = None
    sends: tuple[str, ...] = ()
    """The programs that send to it."""
    listens: tuple[str, ...] = ()
    requires_session: bool | None = None
    deliveries: int | None = None
    """How many deliveries those who take from it count on."""
    deadline: float | None = None
    """Seconds that a message may have to stay."""
    lock_duration: float | None = None
    """Seconds, where somebody has declared it."""
    waits: float | None = None
    """Seconds that a message may wait in a buffer of a program, where nobody renews its lock."""
    rules: tuple[Rule, ...] | None = None

    @property
    def name(self) -> str:
        """As people write it."""
        return self.entity if self.subscription is None else f"{self.entity}/{self.subscription}"


@dataclass(frozen=True)
class Facts:
    """What is known of one entity; None is not known. Durations are seconds, `inf` where there is no end."""

    exists: bool | None = None
    may_send: bool | None = None
    may_listen: bool | None = None
    trouble: str | None = None
    """Why it could not be looked at."""
    requires_session: bool | None = None
    status: str | None = None
    lock_duration: float | None = None
    lock_left: float | None = None
    """How long a lock that was taken just now has to go, by the clock here."""
    max_delivery_count: int | None = None
    time_to_live: float | None = None
    duplicate_detection: bool | None = None
    dead_letters_expired: bool | None = None
    auto_delete_on_idle: float | None = None
    forwards: tuple[str, ...] | None = None
    """Where its messages are forwarded to, and from there, until the end or a place seen before."""
    rules: tuple[Rule, ...] | None = None


@dataclass(frozen=True)
class Finding:
    """One mistake: where, what is wrong, what that means and how to mend it."""

    severity: Severity
    rule: str
    entity: str
    problem: str
    meaning: str
    mend: str


Says = tuple[Severity, str, str, str]
"""How bad, what is wrong, what it means, what to do."""


def diagnose(observed: Iterable[tuple[Wanted, Facts]]) -> list[Finding]:
    """Everything that the rules find, errors first."""
    found: list[Finding] = []
    for wanted, facts in observed:
        for name, rule in RULES.items():
            said = rule(facts, wanted)
            if said is not None:
                severity, problem, meaning, mend = said
                found.append(Finding(severity, name, wanted.name, problem, meaning, mend))
    return sorted(found, key=lambda each: each.severity is not Severity.ERROR)


def budget(process: str, connections: int) -> Finding | None:
    """What is to be said of a program that opens so many connections."""
    if connections * FEWEST_INSTANCES <= CONNECTIONS:
        return None
    return Finding(
        Severity.WARNING,
        "connections",
        process,
        f"each instance opens about {connections:,} connections",
        f"{CONNECTIONS // connections + 1} instances are more than the {CONNECTIONS:,} of a namespace",
        "lower `max_concurrent_sessions`, each of which needs one",
    )


def transport(aiohttp: str) -> Finding | None:
    """What is to be said of programs that go over WebSockets with this version of aiohttp."""
    if tuple(map(int, re.findall(r"\d+", aiohttp)[:2])) >= AIOHTTP:
        return None
    return Finding(
        Severity.ERROR,
        "websockets",
        "aiohttp",
        f"aiohttp {aiohttp} is installed, and the connection goes over WebSockets",
        "links are cut in the middle of each handler that takes 15 s and more, and locks are lost with them",
        'install aiohttp 3.14 or newer: pip install "sbrpc[websockets]"',
    )


# -- what does not work --------------------------------------------------------------------------------


def _missing(facts: Facts, wanted: Wanted) -> Says | None:
    if facts.exists is not False:
        return None
    who = ", ".join(sorted({*wanted.sends, *wanted.listens})) or "who uses it"
    return (
        Severity.ERROR,
        f"the {wanted.role.value} does not exist",
        f"{who} cannot work: what is opened on it fails",
        "create it: `sbrpc export bicep` (or terraform, az) writes how; or correct the name",
    )


_IF_ALL = "`sbrpc export roles` lists all; where each right is missing, look at the key or the identity"


def _may_not_send(facts: Facts, wanted: Wanted) -> Says | None:
    if facts.may_send is not False:
        return None
    return (
        Severity.ERROR,
        "the right Send is missing",
        f"{', '.join(wanted.sends)} cannot send to it",
        f"assign Azure Service Bus Data Sender on it; {_IF_ALL}",
    )


def _may_not_listen(facts: Facts, wanted: Wanted) -> Says | None:
    if facts.may_listen is not False:
        return None
    return (
        Severity.ERROR,
        "the right Listen is missing",
        f"{', '.join(wanted.listens)} cannot receive from it",
        f"assign Azure Service Bus Data Receiver on it; {_IF_ALL}",
    )


def _trouble(facts: Facts, wanted: Wanted) -> Says | None:
    if facts.trouble is None or facts.exists is False or facts.forwards:
        return None
    return (
        Severity.ERROR,
        f"it could not be looked at: {facts.trouble}",
        "nothing is known about it, and programs will likely meet the same",
        "try again; if it stays, look at the status of the entity and of the namespace",
    )


def _disabled(facts: Facts, wanted: Wanted) -> Says | None:
    if facts.status is None or facts.status.lower() == "active":
        return None
    return (
        Severity.ERROR,
        f"its status is {facts.status}",
        "calls and events wait for it until their deadline",
        "set the status to Active when the reason is gone",
    )


def _sessions(facts: Facts, wanted: Wanted) -> Says | None:
    if None in (facts.requires_session, wanted.requires_session):
        return None
    if facts.requires_session == wanted.requires_session:
        return None
    why = {
        Role.REPLIES: "each client receives its replies in a session of its own, so no call gets its reply",
        Role.CONTROL: "each server is told of cancels in a session of its own, and hears of none",
        Role.SUBSCRIPTION: "its handlers cannot start; without sessions there is no order per key",
    }.get(wanted.role, "who takes from it cannot start")
    if wanted.requires_session:
        return (
            Severity.ERROR,
            "it does not require sessions, and has to",
            why,
            "delete it and create it anew with sessions, which are fixed for its life",
        )
    other = (
        "`ordered=True` for its handlers"
        if wanted.subscription
        else "`max_concurrent_sessions` for its server"
    )
    return (
        Severity.ERROR,
        "it requires sessions, and must not",
        "who takes from it cannot start, and what is sent without a key is refused",
        f"delete it and create it anew without sessions, or set {other}",
    )


def _forward_loop(facts: Facts, wanted: Wanted) -> Says | None:
    if not facts.forwards or facts.forwards[-1].lower() not in {
        wanted.entity.lower(),
        *(each.lower() for each in facts.forwards[:-1]),
    }:
        return None
    return (
        Severity.ERROR,
        f"messages are forwarded in a circle: {' -> '.join((wanted.name, *facts.forwards))}",
        "after four hops Service Bus dead-letters them; nobody gets them",
        "remove `forward_to` from one of them",
    )


def _forwarded_away(facts: Facts, wanted: Wanted) -> Says | None:
    if not facts.forwards or not wanted.listens:
        return None
    return (
        Severity.ERROR,
        f"its messages are forwarded to {facts.forwards[0]}",
        f"{', '.join(wanted.listens)} cannot receive from it",
        "remove `forward_to`, or listen where the messages go",
    )


def _duplicates(facts: Facts, wanted: Wanted) -> Says | None:
    if wanted.role not in (Role.REPLIES, Role.CONTROL) or not facts.duplicate_detection:
        return None
    return (
        Severity.ERROR,
        "it detects duplicates",
        "a reply that is sent again for a redelivered call may be dropped, silently; its caller times out",
        "delete it and create it anew without duplicate detection, which is fixed for its life",
    )


def _rules_missing(facts: Facts, wanted: Wanted) -> Says | None:
    if facts.rules is None or wanted.rules is None:
        return None
    have = _filters(facts.rules)
    if any(isinstance(each, TrueFilter) for each in have):
        return None
    missing = [rule.name for rule in wanted.rules if rule.filter not in have]
    if not missing:
        return None
    return (
        Severity.ERROR,
        f"nothing lets through what these rules would: {', '.join(missing)}",
        "events of these types do not reach their handlers, and nobody is told",
        "create the rules: `sbrpc.provisioning` and `sbrpc export` know them",
    )


def _clock(facts: Facts, wanted: Wanted) -> Says | None:
    if facts.lock_left is None:
        return None
    if facts.lock_duration is not None:
        skew = facts.lock_left - facts.lock_duration
        if abs(skew) <= MOST_SKEW:
            return None
        off = f"about {abs(skew):.0f} s {'behind' if skew > 0 else 'ahead of'} that of Service Bus"
    elif facts.lock_left > 300 + MOST_SKEW:  # no lock of Service Bus is longer than 300 s
        off = f"at least {facts.lock_left - 300:.0f} s behind that of Service Bus"
    elif facts.lock_left <= 0:
        off = f"at least {-facts.lock_left:.0f} s ahead of that of Service Bus"
    else:
        return None
    return (
        Severity.ERROR,
        f"the clock of this machine is {off}",
        "deadlines travel as times of day: calls end too early, or are still worked on when nobody waits",
        "let the machine set its clock by NTP or chrony",
    )


# -- what works until something happens ----------------------------------------------------------------


def _short_lock(facts: Facts, wanted: Wanted) -> Says | None:
    lock = _lock(facts)
    if not wanted.listens or lock is None:
        return None
    least = min(SHORTEST_LOCK, wanted.lock_duration or SHORTEST_LOCK)
    if lock >= least - 0.5:
        return None
    return (
        Severity.WARNING,
        f"its locks last {lock:.3g} s",
        "a pause of process or network loses the lock: work is cancelled, and done again elsewhere",
        f"set the lock duration to {max(least, SHORTEST_LOCK):g} s or more; 30 s to 60 s suit most",
    )


def _long_lock(facts: Facts, wanted: Wanted) -> Says | None:
    lock = _lock(facts)
    if not wanted.listens or lock is None:
        return None
    if lock <= max(LONGEST_LOCK, wanted.lock_duration or 0) + 0.5:
        return None
    return (
        Severity.WARNING,
        f"its locks last {lock:.4g} s",
        "what a process held that died waits so long before another gets it",
        "set the lock duration to 60 s or less; locks are renewed while work goes on, however long",
    )


def _lock(facts: Facts) -> float | None:
    if facts.lock_duration is not None:
        return facts.lock_duration
    # Seen by a clock that is off, it means nothing.
    return facts.lock_left if facts.lock_left is not None and 0 < facts.lock_left <= 305 else None


def _declared_lock(facts: Facts, wanted: Wanted) -> Says | None:
    if None in (facts.lock_duration, wanted.lock_duration) or facts.lock_duration == wanted.lock_duration:
        return None
    return (
        Severity.WARNING,
        f"its locks last {facts.lock_duration:g} s, and {wanted.lock_duration:g} s are declared",
        "it takes another time than expected until the work of a dead process is done elsewhere",
        "deploy what `sbrpc export` writes, or change the declaration",
    )


def _prefetch(facts: Facts, wanted: Wanted) -> Says | None:
    lock = _lock(facts)
    if lock is None or wanted.waits is None or lock >= wanted.waits:
        return None
    return (
        Severity.WARNING,
        f"prefetched requests may wait for {wanted.waits:g} s, and locks last {lock:.4g} s",
        "behind slow handlers they lose their locks before they are begun, and each time that counts as a "
        "delivery, until they are given up",
        f"set the lock duration to {wanted.waits:g} s or more (Service Bus takes at most 300), "
        "or `prefetch=0` for the server",
    )


def _deliveries(facts: Facts, wanted: Wanted) -> Says | None:
    if facts.max_delivery_count is None or not wanted.listens:
        return None
    least = wanted.deliveries or FEWEST_DELIVERIES
    if facts.max_delivery_count >= least:
        return None
    meaning = (
        "requests are dead-lettered before the server gives up on them with an answer; callers time out"
        if wanted.role is Role.REQUESTS
        else "a few restarts or lost locks in a row dead-letter what is fine"
    )
    return (
        Severity.WARNING,
        f"its max delivery count is {facts.max_delivery_count}",
        meaning,
        f"set it to {least} or more; 10 is Azure's default",
    )


def _time_to_live(facts: Facts, wanted: Wanted) -> Says | None:
    life, deadline = facts.time_to_live, wanted.deadline
    if life is None or deadline is None or life >= deadline:
        return None
    return (
        Severity.WARNING,
        f"messages live for {life:g} s, and calls may take {deadline:g} s",
        "each message is cut to that, silently: calls that had time left get no answer",
        f"set the default time to live to {deadline:g} s or more",
    )


def _expired_events(facts: Facts, wanted: Wanted) -> Says | None:
    if wanted.role is not Role.SUBSCRIPTION or facts.dead_letters_expired is not False:
        return None
    if facts.time_to_live in (None, NEVER):
        return None
    return (
        Severity.WARNING,
        f"events live for {facts.time_to_live:g} s, and expired ones are not dead-lettered",
        "events that nobody handled in time are gone without a trace",
        "switch on dead-lettering on message expiration, or lengthen the time to live",
    )


def _expired_calls(facts: Facts, wanted: Wanted) -> Says | None:
    if wanted.role not in (Role.REQUESTS, Role.REPLIES, Role.CONTROL) or not facts.dead_letters_expired:
        return None
    return (
        Severity.WARNING,
        "expired messages are dead-lettered",
        "each call that nobody waits for any more stays as a dead letter, until the queue is full",
        "switch off dead-lettering on message expiration",
    )


def _auto_delete(facts: Facts, wanted: Wanted) -> Says | None:
    if facts.auto_delete_on_idle in (None, NEVER):
        return None
    return (
        Severity.WARNING,
        f"it is deleted when nobody uses it for {facts.auto_delete_on_idle:g} s",
        "after a quiet night or a longer outage it is gone, with what waited in it",
        "remove `auto_delete_on_idle`",
    )


def _rules_unhandled(facts: Facts, wanted: Wanted) -> Says | None:
    if facts.rules is None or not wanted.rules:
        return None
    expected = _filters(wanted.rules)
    extra = [rule.name for rule in facts.rules if rule.filter not in expected]
    if not extra:
        return None
    return (
        Severity.WARNING,
        f"rules let through what no handler takes: {', '.join(extra)}",
        "such events are received, paid for, and by default dead-lettered as unknown",
        "remove the rules, or register handlers for what they let through",
    )


def _no_rules(facts: Facts, wanted: Wanted) -> Says | None:
    if facts.rules is None or facts.rules or wanted.rules:
        return None
    return (
        Severity.ERROR,
        "it has no rule",
        "no event ever reaches it",
        "create a rule; one with a true filter lets everything through",
    )


def _filters(rules: Iterable[Rule]) -> list[Filter]:
    return [rule.filter for rule in rules]


RULES: dict[str, Callable[[Facts, Wanted], Says | None]] = {
    "missing": _missing,
    "right-to-send": _may_not_send,
    "right-to-listen": _may_not_listen,
    "unknown": _trouble,
    "disabled": _disabled,
    "sessions": _sessions,
    "forward-loop": _forward_loop,
    "forwarded-away": _forwarded_away,
    "duplicate-detection": _duplicates,
    "rules-missing": _rules_missing,
    "no-rules": _no_rules,
    "clock": _clock,
    "short-lock": _short_lock,
    "long-lock": _long_lock,
    "declared-lock": _declared_lock,
    "prefetch": _prefetch,
    "deliveries": _deliveries,
    "time-to-live": _time_to_live,
    "expired-events": _expired_events,
    "expired-calls": _expired_calls,
    "auto-delete": _auto_delete,
    "rules-unhandled": _rules_unhandled,
}
"""Each rule by name: facts and what is wanted, to what it says, or None."""
