"""Registrations, routing, settlement and rules of event subscriptions."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from datetime import datetime, timezone
from functools import partial
from typing import Any

import pytest
from azure.servicebus import ServiceBusMessage, ServiceBusReceivedMessage
from azure.servicebus._pyamqp._encode import encode_payload
from azure.servicebus._pyamqp.message import Header, Message, Properties
from hypothesis import given
from hypothesis import strategies as st

from sbrpc import _subscriptions as subs
from sbrpc._cloudevents import body_of, to_message
from sbrpc._subscriptions import Handler, Job, Subscribed, Unhandled, decide, resolve, rules_for
from sbrpc.context import fencing_token
from sbrpc.errors import ContractError, DecodeError, NotFound
from sbrpc.event import CloudEvent, Event
from sbrpc.topology import CorrelationFilter, Rule

NOW = datetime(2026, 3, 1, tzinfo=timezone.utc)


class Base(Event):
    pass


class Created(Base, type="movies.created.v2"):
    title: str


class Deleted(Base, type="movies.deleted.v1"):
    pass


class OldCreated(Base, type="movies.created.v1"):
    name: str


@Created.upcast_from("movies.created.v1")
def _from_v1(old: dict[str, Any]) -> dict[str, Any]:
    return {"title": old["name"]}


async def handle(event: Any) -> None: ...


async def handle_with_info(event: Any, info: Any) -> None: ...


class Projection:
    async def __call__(self, event: Any) -> None: ...

    def sync(self, event: Any, info: Any) -> None: ...


def received(event: CloudEvent | ServiceBusMessage, **annotations: Any) -> ServiceBusReceivedMessage:
    """The message as a receiver hands it out, through its bytes."""
    message = event if isinstance(event, ServiceBusMessage) else to_message(event, session_id="7")
    stamped = {
        b"x-opt-sequence-number": 42,
        b"x-opt-enqueued-time": NOW,
        **{key.encode(): value for key, value in annotations.items()},
    }
    wire = Message(
        header=Header(delivery_count=2),
        message_annotations={key: value for key, value in stamped.items() if value is not None},
        properties=Properties(
            message_id=message.message_id, group_id=message.session_id, content_type=message.content_type
        ),
        application_properties=message.application_properties,
        data=[body_of(message)],
    )
    output = bytearray()
    encode_payload(output, wire)
    return ServiceBusReceivedMessage.from_bytes(bytes(output))


def created(
    body: bytes = b'{"title":"Alien"}', kind: str = "movies.created.v2", **changes: Any
) -> CloudEvent:
    return CloudEvent("e-1", "/movies", kind, body, time=NOW, **changes)


def subscribed(*handlers: Handler) -> Subscribed:
    subscription = Subscribed("s")
    for handler in handlers:
        subscription.add(handler)
    return subscription


# -- registration --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("function", "takes_info", "is_async"),
    [
        (handle, False, True),
        (handle_with_info, True, True),
        (Projection(), False, True),
        (Projection().sync, True, False),
        (lambda event: None, False, False),
        (lambda event, retries=3: None, False, False),
        (lambda event, info=None: None, True, False),
        (partial(handle_with_info, info=None), False, True),
    ],
)
def test_handler_shape_is_read_from_its_signature(function: Any, takes_info: bool, is_async: bool) -> None:
    """Functions, methods, objects and partials are taken as they are."""
    handler = Handler(function, (Created,))
    assert (handler.takes_info, handler.is_async) == (takes_info, is_async)


@pytest.mark.parametrize(
    "function", [lambda: None, lambda a, b, c: None, lambda event, *, must: None, lambda *, event: None]
)
def test_function_that_cannot_handle_is_refused(function: Any) -> None:
    """A signature that does not fit is an error at definition."""
    with pytest.raises(ContractError, match="is called with"):
        Handler(function, (Created,))


def test_function_with_a_yield_is_refused() -> None:
    """Called, it would give a generator that nobody runs, and its events would count as handled."""

    async def handle(event: Event) -> AsyncIterator[int]:
        yield 1

    def plain(event: Event) -> Iterator[int]:
        yield 1

    for function in (handle, plain):
        with pytest.raises(ContractError, match="has a `yield`"):
            Handler(function, (Created,))


@pytest.mark.parametrize(
    ("events", "match"),
    [
        ((), "handles no event"),
        (("movies.created",), "not a subclass of Event"),
        ((dict,), "not a subclass of Event"),
        ((Base,), "such as Created, Deleted, OldCreated"),
    ],
)
def test_what_is_no_event_is_refused(events: Any, match: str) -> None:
    """Handlers name event classes with a type; the error says which there are."""
    with pytest.raises(ContractError, match=match):
        Handler(handle, events)


def test_a_handler_of_another_event_is_refused() -> None:
    """Its parameter says which it takes; the class that all of them derive from will do."""

    def deleted(event: Deleted) -> None: ...

    def any_of_them(event: Base) -> None: ...

    with pytest.raises(ContractError, match=r"deleted takes Deleted, but is registered for Created"):
        Handler(deleted, (Deleted, Created))
    Handler(any_of_them, (Deleted, Created))


def test_batch_must_be_positive() -> None:
    """A batch holds at least one event."""
    with pytest.raises(ContractError, match="at least 1"):
        Handler(handle, (Created,), batch=0)


def test_event_has_one_handler_per_subscription() -> None:
    """A second handler of the same event on one subscription is refused."""
    subscription = subscribed(Handler(handle, (Created, Deleted)))
    with pytest.raises(ContractError, match="already handled by handle "):
        subscription.add(Handler(handle_with_info, (Deleted,)))


def test_options_of_one_subscription_agree() -> None:
    """Options may be given once or equally; contradictions name both values."""
    subscription = Subscribed("s")
    subscription.set_options(ordered=True, concurrency=None, max_concurrent_sessions=4, unknown=None)
    subscription.set_options(ordered=None, max_concurrent_sessions=4, unknown="complete")
    assert (subscription.ordered, subscription.concurrency) == (True, 16)
    assert (subscription.max_concurrent_sessions, subscription.unknown) == (4, "complete")
    with pytest.raises(ContractError, match="unknown='complete' from one handler"):
        subscription.set_options(unknown="dead_letter")


@pytest.mark.parametrize("option", ["concurrency", "max_concurrent_sessions"])
def test_limits_must_be_positive(option: str) -> None:
    """A limit of nothing is refused."""
    with pytest.raises(ContractError, match="must be at least 1"):
        Subscribed("s").set_options(**{option: 0})


def test_unknown_policy_is_one_of_three() -> None:
    """A policy that does not exist is refused with those that do."""
    with pytest.raises(ContractError, match="dead_letter, complete, abandon"):
        Subscribed("s").set_options(unknown="ignore")
    with pytest.raises(ContractError, match="no option 'order'; there are ordered, "):
        Subscribed("s").set_options(order=True)


# -- rules ---------------------------------------------------------------------------------------------


def test_rules_follow_handlers() -> None:
    """One correlation filter per type and old type, plus the one for replays to this subscription."""
    assert rules_for("s", [Created, Deleted]) == (
        Rule("movies.created.v2", CorrelationFilter(subject="movies.created.v2")),
        Rule("movies.created.v1", CorrelationFilter(subject="movies.created.v1")),
        Rule("movies.deleted.v1", CorrelationFilter(subject="movies.deleted.v1")),
        Rule("sbrpc-replay", CorrelationFilter(properties={"sbrpc-replay-to": "s"})),
    )


@given(
    st.sets(
        st.text(min_size=1, max_size=80).filter(lambda name: name == name.strip()), min_size=2, max_size=5
    )
)
def test_rule_names_are_legal_and_distinct(types: set[str]) -> None:
    """Whatever a type is called, its rule has a valid name and no other type's."""
    names = [subs._rule_name(name) for name in types]
    assert len(set(names)) == len(types)
    for name in names:
        Rule(name)


# -- routing -------------------------------------------------------------------------------------------


def test_message_becomes_a_job() -> None:
    """A known event arrives decoded, with its handler and the facts of its delivery."""
    handler = Handler(handle, (Created,))
    job = resolve(received(created(extensions={"correlationid": "c", "x": 1})), subscribed(handler).routes())
    assert isinstance(job, Job)
    assert job.event == Created(title="Alien")
    assert job.handler is handler
    info = job.info
    assert (info.id, info.source, info.type, info.time, info.key) == (
        "e-1",
        "/movies",
        "movies.created.v2",
        NOW,
        "7",
    )
    assert (info.delivery_count, info.attempt, info.sequence_number, info.enqueued_at) == (2, 0, 42, NOW)
    assert (info.correlation_id, info.causation_id, info.extensions["x"]) == ("c", None, 1)
    assert info.fencing_token == fencing_token(42, 2)


def test_old_version_goes_to_the_new_handler() -> None:
    """A handler of the new version gets the old one upcast, and can see what it was."""
    job = resolve(
        received(created(b'{"name":"Alien"}', "movies.created.v1")),
        subscribed(Handler(handle, (Created,))).routes(),
    )
    assert isinstance(job, Job)
    assert (job.event, job.info.type) == (Created(title="Alien"), "movies.created.v1")


@pytest.mark.parametrize("old_first", [True, False])
def test_exact_class_goes_before_upcast(old_first: bool) -> None:
    """Where both versions have handlers, each gets its own."""
    handlers = [Handler(handle, (OldCreated,)), Handler(handle_with_info, (Created,))]
    routes = subscribed(*(handlers if old_first else reversed(handlers))).routes()
    assert routes["movies.created.v1"] == (OldCreated, handlers[0])
    assert routes["movies.created.v2"] == (Created, handlers[1])


def test_unknown_type_is_named() -> None:
    """An event nobody takes is no error, but an outcome of its own."""
    assert resolve(
        received(created(kind="x.y")), subscribed(Handler(handle, (Created,))).routes()
    ) == Unhandled("x.y")


@pytest.mark.parametrize(
    ("message", "match"),
    [
        (received(ServiceBusMessage(b"hello")), "not a CloudEvent"),
        (received(created(b'{"title":1}')), "title"),
        (received(created(datacontenttype="text/xml")), "is text/xml"),
        (received(created(), **{"x-opt-sequence-number": None}), "no sequence number"),
    ],
)
def test_message_that_is_no_event_is_a_decode_error(message: ServiceBusReceivedMessage, match: str) -> None:
    """What cannot be decoded says why."""
    with pytest.raises(DecodeError, match=match):
        resolve(message, subscribed(Handler(handle, (Created,))).routes())


def test_batches_are_neighbours_of_one_handler() -> None:
    """A batch ends where another handler or a bad message comes, and where it is full."""
    one, many = Handler(handle, (Created,)), Handler(handle, (Deleted,), batch=2)
    info = resolve(received(created()), subscribed(one).routes())
    assert isinstance(info, Job)
    single, part = Job(Deleted(), info.info, one), Job(Deleted(), info.info, many)
    resolved = [part, part, part, single, single, part, Unhandled("x"), part, part, subs.Failed(ValueError())]
    assert [(g.start, g.stop) for g in subs.groups(resolved)] == [
        (0, 2),
        (2, 3),
        (3, 4),
        (4, 5),
        (5, 6),
        (6, 7),
        (7, 9),
        (9, 10),
    ]


# -- settlement ----------------------------------------------------------------------------------------


class Stale(Exception):
    pass


@pytest.mark.parametrize(
    ("outcome", "unknown", "expected"),
    [
        (subs.Handled(), "dead_letter", subs.Complete()),
        (subs.Unhandled("x"), "complete", subs.Complete()),
        (subs.Unhandled("x"), "abandon", subs.Abandon()),
        (
            subs.Unhandled("x"),
            "dead_letter",
            subs.DeadLetter("UnknownEventType", "no handler of this subscription takes 'x' events"),
        ),
        (subs.Interrupted(), "complete", subs.Abandon()),
        (
            subs.Failed(ValueError("bad year"), 5),
            "complete",
            subs.DeadLetter("ValueError", "bad year (after 5 attempts)"),
        ),
        (subs.Failed(KeyError(), 1), "complete", subs.DeadLetter("KeyError", "no message")),
        (
            subs.Failed(DecodeError("title: missing")),
            "abandon",
            subs.DeadLetter("DecodeError", "title: missing"),
        ),
        (subs.Failed(NotFound("gone"), 1), "complete", subs.DeadLetter("NotFound", "NOT_FOUND: gone")),
        (subs.Failed(Stale("v1"), 1), "complete", subs.DeadLetter(f"{__name__}.Stale", "v1")),
    ],
)
def test_decision_table(outcome: subs.Outcome, unknown: Any, expected: subs.Settlement) -> None:
    """Each outcome is settled in exactly one way."""
    assert decide(outcome, unknown, in_session=False) == expected
    if not isinstance(outcome, subs.Interrupted):
        assert decide(outcome, unknown, in_session=True) == expected


def test_interrupted_event_stays_in_its_session() -> None:
    """In a session nothing is given back one by one: the whole session is, in order and uncounted."""
    assert decide(subs.Interrupted(), "complete", in_session=True) == subs.Keep()


def test_dead_letter_texts_are_bounded() -> None:
    """A huge exception text does not make a header that Service Bus refuses."""
    settlement = decide(subs.Failed(ValueError("x" * 100_000), 12), "complete", in_session=False)
    assert isinstance(settlement, subs.DeadLetter)
    assert len(settlement.description) == 2048
    assert settlement.description.endswith("(after 12 attempts)")


def test_dead_letter_texts_can_be_sent() -> None:
    """Half a character in the text of an exception must not keep its event from being dead-lettered."""
    settlement = decide(subs.Failed(ValueError("h\ud800lf"), 1), "complete", in_session=False)
    assert settlement == subs.DeadLetter("ValueError", "h?lf")
