"""What a subscription does with its events: registrations, routing, settlement and the rules it needs.

Pure: declarations go in, decisions come out. `resolve` says what a message is, `decide` how it is settled,
`rules_for` which filters bring it here. Nothing in this module waits, sends or reads a clock.
"""

from __future__ import annotations

import hashlib
import inspect
import re
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from azure.servicebus import ServiceBusReceivedMessage
from tenacity import (
    AsyncRetrying,
    retry_if_not_exception_type,
    stop_after_attempt,
    wait_exponential,
    wait_random,
)

from ._cloudevents import from_message, trace_of
from ._codec import sendable
from ._signatures import takes_info, takes_other
from .context import fencing_token
from .errors import ContractError, DecodeError
from .event import CloudEvent, Event, EventInfo
from .topology import CorrelationFilter, Rule

__all__ = [
    "REPLAY_TO",
    "Abandon",
    "Complete",
    "DeadLetter",
    "Elsewhere",
    "Failed",
    "Handled",
    "Handler",
    "Interrupted",
    "Job",
    "Keep",
    "Outcome",
    "Settlement",
    "Subscribed",
    "Unhandled",
    "UnknownPolicy",
    "decide",
    "default_retry",
    "groups",
    "resolve",
    "rules_for",
]

UnknownPolicy = Literal["dead_letter", "complete", "abandon"]

REPLAY_TO = "sbrpc-replay-to"
"""Application property that brings a replayed event to the one subscription it names, and to no other."""

# Both end up in the header of the dead letter, which may have 64 KiB in total.
_LONGEST_REASON = 256
_LONGEST_DESCRIPTION = 2048


Around = Callable[[Sequence[Event], Sequence[EventInfo], Callable[[], Awaitable[None]]], Awaitable[None]]
"""Code around a handler: the events, what is known about them, and how to go on."""


# -- registration --------------------------------------------------------------------------------------


def default_retry() -> AsyncRetrying:
    """Five attempts, half a second to half a minute apart; an event that does not decode gets one."""
    return AsyncRetrying(
        stop=stop_after_attempt(5),
        wait=wait_exponential(multiplier=0.5, max=30) + wait_random(0, 0.5),
        retry=retry_if_not_exception_type(DecodeError),
    )


@dataclass(frozen=True, slots=True, eq=False)
class Handler:
    """One function and the events it takes: up to `batch` of them at once, or one by one."""

    function: Callable[..., Any]
    events: tuple[type[Event], ...]
    batch: int | None = None
    retry: AsyncRetrying = field(default_factory=default_retry)
    around: Around | None = None
    """The middleware, once around each attempt."""
    takes_info: bool = field(init=False)
    is_async: bool = field(init=False)

    def __post_init__(self) -> None:
        if not self.events:
            raise ContractError(
                f"{self.name} handles no event; name at least one: @bus.on(MovieCreated, ...)"
            )
        for event in self.events:
            if not (isinstance(event, type) and issubclass(event, Event)):
                raise ContractError(f"{self.name}: {event!r} is not a subclass of Event")
            if event.__event_type__ is None:
                typed = ", ".join(sorted(c.__name__ for c in event.__subclasses__() if c.__event_type__))
                raise ContractError(
                    f"{self.name}: {event.__name__} has no type; "
                    f"name the events themselves{f', such as {typed}' if typed else ''}"
                )
        if self.batch is not None and self.batch < 1:
            raise ContractError(f"{self.name}: batch={self.batch} must be at least 1")
        if inspect.isgeneratorfunction(self.function) or inspect.isasyncgenfunction(self.function):
            raise ContractError(f"{self.name} has a `yield`, so to call it would not run it; handlers return")
        info = takes_info(self.function)
        if info is None:
            raise ContractError(
                f"{self.name}{inspect.signature(self.function)} cannot handle events: "
                "a handler is called with (event) or (event, info)"
            )
        if self.batch is None:
            for event in self.events:
                other = takes_other(self.function, event)
                if other is not None:
                    raise ContractError(
                        f"{self.name} takes {other.__qualname__}, but is registered for {event.__qualname__}"
                    )
        object.__setattr__(self, "takes_info", info)
        object.__setattr__(self, "is_async", _is_async(self.function))

    @property
    def name(self) -> str:
        """The function's name, for errors and logs."""
        return getattr(self.function, "__qualname__", None) or repr(self.function)


def _is_async(function: Callable[..., Any]) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(function, "__call__", None)  # noqa: B004 - the method itself is looked at, not whether there is one
    )


_OPTIONS = ("ordered", "concurrency", "max_concurrent_sessions", "unknown")


@dataclass(slots=True, eq=False)
class Subscribed:
    """A subscription and everything that was registered for it. Options hold for all of its handlers."""

    name: str
    ordered: bool | None = None
    concurrency: int = 16
    max_concurrent_sessions: int = 8
    unknown: UnknownPolicy = "dead_letter"
    handlers: list[Handler] = field(default_factory=list)
    _given: dict[str, Any] = field(default_factory=dict)
    _routes: dict[str, tuple[type[Event], Handler]] = field(default_factory=dict)

    def set_options(self, **options: Any) -> None:
        """Apply the options that one registration gave; `None` is an option not given.

        Raises:
            ContractError: an option is out of range, or another registration said something else.
        """
        for option, value in options.items():
            if option not in _OPTIONS:
                known = ", ".join(_OPTIONS)
                raise ContractError(f"subscription {self.name!r} has no option {option!r}; there are {known}")
            if value is None:
                continue
            if option in ("concurrency", "max_concurrent_sessions") and value < 1:
                raise ContractError(f"subscription {self.name!r}: {option}={value} must be at least 1")
            if option == "unknown" and value not in get_args(UnknownPolicy):
                allowed = ", ".join(get_args(UnknownPolicy))
                raise ContractError(f"subscription {self.name!r}: unknown={value!r} must be one of {allowed}")
            if self._given.setdefault(option, value) != value:
                raise ContractError(
                    f"subscription {self.name!r} has {option}={self._given[option]!r} from one handler "
                    f"and {option}={value!r} from another; options hold for the whole subscription"
                )
            setattr(self, option, value)

    def add(self, handler: Handler) -> None:
        """Register a handler.

        Raises:
            ContractError: another handler of this subscription has one of its events.
        """
        for event in handler.events:
            for other, taken_by in self._routes.values():
                if other.__event_type__ == event.__event_type__:
                    raise ContractError(
                        f"{handler.name}: {event.__event_type__!r} is already handled by {taken_by.name} "
                        f"on subscription {self.name!r}; use another subscription to handle it twice"
                    )
            self._routes[event.__event_type__ or ""] = (event, handler)
        self.handlers.append(handler)

    def routes(self) -> Mapping[str, tuple[type[Event], Handler]]:
        """Type on the wire to event class and handler, old versions included.

        A class for exactly that type goes before one that is upcast from it. Computed when consuming
        starts, as upcasts may be declared after the handler.
        """
        routes = dict(self._routes)
        for event, handler in self._routes.values():
            for name in event.accepted_types():
                routes.setdefault(name, (event, handler))
        return routes

    @property
    def batch(self) -> int:
        """How many messages are worth receiving at once."""
        return max((handler.batch or 1 for handler in self.handlers), default=1)


# -- rules ---------------------------------------------------------------------------------------------


def rules_for(subscription: str, events: Iterable[type[Event]]) -> tuple[Rule, ...]:
    """The rules that bring a subscription these events, their old versions and its replayed dead letters.

    One correlation filter on the subject per type: the cheap kind of filter, and no SQL.
    """
    types = dict.fromkeys(name for event in events for name in event.accepted_types())
    rules = [Rule(_rule_name(name), CorrelationFilter(subject=name)) for name in types]
    replay = Rule("sbrpc-replay", CorrelationFilter(properties={REPLAY_TO: subscription}))
    return (*rules, replay)


def _rule_name(event_type: str) -> str:
    """A legal rule name of at most 50 characters, the type itself where that is one."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", event_type).strip(".-_")
    if plain == event_type and len(plain) <= 50:
        return plain
    digest = hashlib.sha256(event_type.encode()).hexdigest()[:8]
    return f"{plain[:41].rstrip('.-_') or 'type'}-{digest}"


# -- routing -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Job:
    """A decoded event with the handler that takes it."""

    event: Event
    info: EventInfo
    handler: Handler


@dataclass(frozen=True, slots=True)
class Unhandled:
    """An event of a type that no handler of the subscription takes."""

    type: str


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """A dead letter replayed to another subscription; this one has had the event."""


def resolve(
    message: ServiceBusReceivedMessage,
    routes: Mapping[str, tuple[type[Event], Handler]],
    subscription: str = "",
) -> Job | Unhandled | Elsewhere:
    """What a message is to this subscription.

    Raises:
        DecodeError: no CloudEvent, or one whose body does not fit its type.
    """
    replayed_to = (message.application_properties or {}).get(REPLAY_TO.encode())
    if isinstance(replayed_to, bytes) and replayed_to.lower() != subscription.lower().encode():
        return Elsewhere()
    cloud_event = from_message(message)
    route = routes.get(cloud_event.type)
    if route is None:
        return Unhandled(cloud_event.type)
    event_class, handler = route
    if not cloud_event.is_json:
        raise DecodeError(
            f"the body of a {cloud_event.type!r} event is {cloud_event.datacontenttype}, "
            f"{event_class.__qualname__} is made from JSON"
        )
    event = event_class.decode(cloud_event.type, cloud_event.data)
    return Job(event, _info_of(cloud_event, message), handler)


def _info_of(event: CloudEvent, message: ServiceBusReceivedMessage) -> EventInfo:
    sequence_number, enqueued_at = message.sequence_number, message.enqueued_time_utc
    if sequence_number is None or enqueued_at is None:
        raise DecodeError(
            "the message has no sequence number or enqueued time; it did not come from Service Bus"
        )
    delivery_count = message.delivery_count or 0

    def text(name: str) -> str | None:
        value = event.extensions.get(name)
        return value if isinstance(value, str) else None

    trace: Mapping[str, str | None] = (
        {"traceparent": text("traceparent"), "tracestate": text("tracestate")}
        if text("traceparent") is not None
        else trace_of(message)
    )
    return EventInfo(
        id=event.id,
        source=event.source,
        type=event.type,
        time=event.time,
        subject=event.subject,
        key=message.session_id or text("partitionkey"),
        correlation_id=text("correlationid"),
        causation_id=text("causationid"),
        traceparent=trace.get("traceparent"),
        tracestate=trace.get("tracestate"),
        delivery_count=delivery_count,
        attempt=0,
        sequence_number=sequence_number,
        enqueued_at=enqueued_at,
        fencing_token=fencing_token(sequence_number, delivery_count),
        extensions=event.extensions,
    )


def groups(resolved: Sequence[Job | Unhandled | Elsewhere | Failed]) -> Iterator[slice]:
    """Which of these are handled at once: neighbours of one batch handler, as many as it takes.

    Only neighbours, so that the order stays what it is.
    """
    first = 0
    while first < len(resolved):
        head = resolved[first]
        most = (head.handler.batch or 1) if isinstance(head, Job) else 1
        last = first + 1
        while last < len(resolved) and last - first < most and _same_handler(head, resolved[last]):
            last += 1
        yield slice(first, last)
        first = last


def _same_handler(one: object, other: object) -> bool:
    return isinstance(one, Job) and isinstance(other, Job) and one.handler is other.handler


# -- settlement ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Handled:
    """The handler returned."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The event does not decode, or its handler raised and will not be called again."""

    error: Exception
    attempts: int = 0


@dataclass(frozen=True, slots=True)
class Interrupted:
    """The process stops before the event is done."""


Outcome = Handled | Failed | Unhandled | Elsewhere | Interrupted


@dataclass(frozen=True, slots=True)
class Complete:
    """Done; Service Bus deletes the message."""


@dataclass(frozen=True, slots=True)
class Abandon:
    """Given back for delivery to whoever takes it next."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """Moved to the dead letters with a reason that an operator can act on."""

    reason: str
    description: str


@dataclass(frozen=True, slots=True)
class Keep:
    """Not settled: it goes back with its session, in its place and without being counted."""


Settlement = Complete | Abandon | DeadLetter | Keep


def decide(outcome: Outcome, unknown: UnknownPolicy, *, in_session: bool) -> Settlement:
    """How a message is settled after what happened to it."""
    match outcome:
        case Handled() | Elsewhere():
            return Complete()
        case Failed(error, attempts):
            return DeadLetter(_exception_name(error), _description(error, attempts))
        case Unhandled() if unknown == "complete":
            return Complete()
        case Unhandled() if unknown == "abandon":
            return Abandon()
        case Unhandled(type):
            return DeadLetter("UnknownEventType", f"no handler of this subscription takes {type!r} events")
        case Interrupted():
            return Keep() if in_session else Abandon()


def _exception_name(error: Exception) -> str:
    kind = type(error)
    plain = kind.__module__ == "builtins" or kind.__module__.partition(".")[0] == "sbrpc"
    name = kind.__qualname__ if plain else f"{kind.__module__}.{kind.__qualname__}"
    return name[:_LONGEST_REASON]


def _description(error: Exception, attempts: int) -> str:
    text = sendable(str(error)) or "no message"
    after = f" (after {attempts} attempts)" if attempts > 1 else ""
    return text[: _LONGEST_DESCRIPTION - len(after)] + after
