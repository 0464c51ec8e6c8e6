"""Entities, rights and workloads, from what is registered."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from pydantic import BaseModel

from sbrpc import Contract, Event, EventBus, Queue, RpcClient, RpcServer, Subscription, Topic, method
from sbrpc.errors import ContractError
from sbrpc.export import System, system_of
from sbrpc.topology import CorrelationFilter, Rule


class Ref(BaseModel):
    id: int


class Plain(Contract, name="plain"):
    @method
    async def get(self, request: Ref) -> Ref: ...


class Streams(Contract, name="streams"):
    @method
    def all(self, request: Ref) -> AsyncIterator[Ref]: ...


class Commands(Contract, name="commands"):
    @method(one_way=True)
    async def do(self, request: Ref) -> None: ...


class Happened(Event, type="happened.v1"):
    pass


class Ended(Event, type="ended.v1"):
    pass


CLIENT = RpcClient("", reply_queue="gateway.replies")


def rights(system: System) -> list[str]:
    """The grants in one line each."""
    return [f"{grant.process}: {grant.right.value} {grant.path}" for grant in system.grants()]


def listening(*events: type[Event], subscription: str = "views", **options: bool) -> EventBus:
    """A bus that handles events."""
    bus = EventBus("", topic="events")

    @bus.on(*events, subscription=subscription, **options)
    async def handle(event: Event) -> None: ...

    return bus


def test_a_call_needs_four_rights() -> None:
    """The server listens and replies; the client sends, listens, and sends to itself to try the path."""
    system = system_of({"server": [RpcServer("", Plain)], "client": [CLIENT, Plain]})
    assert rights(system) == [
        "client: Listen gateway.replies",
        "client: Send gateway.replies",
        "client: Send plain",
        "server: Send gateway.replies",
        "server: Listen plain",
    ]
    assert system.entities() == (Queue("gateway.replies", requires_session=True), Queue("plain"))
    assert (system.foreign(), system.warnings()) == ((), ())


def test_a_stream_is_controlled_over_the_reply_queue() -> None:
    """The server of a stream hears there when it may go on, and needs one right more for it."""
    system = system_of({"server": [RpcServer("", Streams)], "client": [CLIENT, Streams]})
    assert "server: Listen gateway.replies" in rights(system)


def test_a_control_queue_keeps_the_server_from_listening_to_replies() -> None:
    """With a queue of its own for control messages, the reply queue is the clients' alone."""
    server = RpcServer("", Streams, control_queue="streams.control")
    system = system_of({"server": [server], "client": [CLIENT, Streams]})
    assert "server: Listen gateway.replies" not in rights(system)
    assert {
        "server: Listen streams.control",
        "server: Send streams.control",
        "client: Send streams.control",
    } <= {*rights(system)}
    assert Queue("streams.control", requires_session=True) in system.entities()


def test_events_need_one_right_on_each_side() -> None:
    """Publishing is Send on the topic, handling is Listen on the subscription and nothing else."""
    source = EventBus("", topic="events", source="/s")
    system = system_of({"publisher": [source, Happened], "views": [listening(Happened)]})
    assert rights(system) == ["publisher: Send events", "views: Listen events/Subscriptions/views"]


def test_a_queue_that_others_own_is_not_made() -> None:
    """A client alone does not say what its service's queue is like."""
    system = system_of({"client": [CLIENT, Plain]})
    assert system.foreign() == ("plain",)
    assert [entity.name for entity in system.entities()] == ["gateway.replies"]


def test_a_contract_alone_stands_for_its_server() -> None:
    """Who has only the contract at hand gets what its service needs."""
    system = system_of({"movies": [Plain]})
    assert rights(system) == ["movies: Listen plain"]


def test_a_client_sends_where_the_contract_is_served() -> None:
    """Also if that is not the contract's own name."""
    system = system_of({"server": [RpcServer("", Plain, queue="other")], "client": [CLIENT, Plain]})
    assert "client: Send other" in rights(system)
    assert "client: Send plain" not in rights(system)


@pytest.mark.parametrize(
    ("parts", "queues"),
    [
        ({"server": [RpcServer("", Plain, reply_queues=["a", "b"])]}, ["a", "b"]),
        ({"server": [RpcServer("", Plain)], "client": [CLIENT]}, ["gateway.replies"]),
        ({"server": [RpcServer("", Plain), Queue("A.Replies", requires_session=True)]}, ["A.Replies"]),
        ({"server": [RpcServer("", Plain), Queue("other")]}, []),
    ],
)  # fmt: skip
def test_a_server_replies_where_it_may(parts: dict[str, list[object]], queues: list[str]) -> None:
    """To the queues that it names, and to those that are known and match a pattern, in any case."""
    sends = [line for line in rights(system_of(parts)) if line.startswith("server: Send")]
    assert sends == [f"server: Send {queue}" for queue in queues]


def test_what_cannot_be_known_is_said() -> None:
    """A server without callers, and a client that calls nobody knows what."""
    system = system_of({"server": [RpcServer("", Plain)], "client": [RpcClient("", reply_queue="r")]})
    server, client = sorted(system.warnings(), reverse=True)
    assert "server: no reply queue here is named like *.replies" in server
    assert "client: nothing says what its client calls" in client
    assert system_of({"server": [Commands]}).warnings() == ()


def test_settings_of_an_entity_can_be_given() -> None:
    """A queue or topic beside the programs says more about it; the rules still come from the handlers."""
    settings = Topic(
        "events", subscriptions=(Subscription("views", requires_session=True, lock_duration=90),)
    )
    bus = listening(Happened)
    system = system_of({"p": [bus, Plain, Queue("plain", lock_duration=30), settings]})
    queue, topic = system.entities()
    assert queue == Queue("plain", lock_duration=30)
    assert isinstance(topic, Topic)
    (subscription,) = topic.subscriptions
    assert subscription.lock_duration == 90
    assert subscription.rules == bus.rules("views")


def test_buses_of_one_topic_are_joined() -> None:
    """Their subscriptions stand side by side, and handlers of one subscription bring their rules together."""
    system = system_of(
        {"a": [listening(Happened)], "b": [listening(Ended)], "c": [listening(Ended, subscription="x")]}
    )
    (topic,) = system.entities()
    assert isinstance(topic, Topic)
    assert [each.name for each in topic.subscriptions] == ["views", "x"]
    assert Rule("happened.v1", CorrelationFilter(subject="happened.v1")) in topic.subscriptions[0].rules
    assert Rule("ended.v1", CorrelationFilter(subject="ended.v1")) in topic.subscriptions[0].rules


def test_order_of_arguments_does_not_matter() -> None:
    """The same programs give the same system."""
    one = system_of({"b": [CLIENT, Plain], "a": [RpcServer("", Plain)]})
    other = system_of({"a": [RpcServer("", Plain)], "b": [Plain, CLIENT]})
    assert (one.grants(), one.entities()) == (other.grants(), other.entities())


@pytest.mark.parametrize(
    ("parts", "problem"),
    [
        ([Ref], "is no server, client"),
        ([Happened], "no EventBus with a `source`"),
        ([RpcServer("", Plain, queue="gateway.replies"), CLIENT], "have to require sessions and not to"),
        ([RpcServer("", Plain), Queue("plain", requires_session=True)], "requires_session=True"),
        ([listening(Happened), listening(Ended, ordered=False)], "in order and in no order"),
        ([listening(Happened), Topic("events", (Subscription("views"),))], "its handlers need True"),
    ],
)  # fmt: skip
def test_contradictions_are_found(parts: list[object], problem: str) -> None:
    """Two uses of one entity that exclude each other, and what is no part of a system."""
    with pytest.raises(ContractError, match=problem):
        system_of({"p": parts})


def test_workloads_say_what_one_instance_takes_at_once() -> None:
    """Requests, or sessions where there are some."""
    servers = [RpcServer("", Plain, concurrency=5), RpcServer("", Streams, max_concurrent_sessions=3)]
    loads = system_of({"p": [*servers, listening(Happened, ordered=False)]}).workloads()
    assert [(each.entity, each.subscription, each.at_once, each.sessions) for each in loads] == [
        ("events", "views", 16, False),
        ("plain", None, 5, False),
        ("streams", None, 3, True),
    ]
