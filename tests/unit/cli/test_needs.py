"""What programs need of each entity, as the doctor asks about it: roles, users, deadlines and waits."""

# mypy: disable-error-code="empty-body"

from __future__ import annotations

from typing import Any

from sbrpc.cli.loading import NOWHERE
from sbrpc.cli.needs import connections_of, needs_of
from sbrpc.client import RpcClient
from sbrpc.contract import Contract, method
from sbrpc.diagnosis import Role, Wanted
from sbrpc.event import Event
from sbrpc.events import EventBus
from sbrpc.export import System, system_of
from sbrpc.server import RpcServer
from sbrpc.topology import Queue


class Films(Contract, name="films"):
    @method(timeout=5)
    async def get(self, request: int) -> str: ...

    @method(timeout=90, cancellable=True)
    async def render(self, request: int) -> str: ...


class Ratings(Contract, name="ratings"):
    @method
    async def rate(self, request: int) -> float: ...


class Added(Event, type="films.added.v1", key="id"):
    id: int


def server(contract: type[Contract] = Films, **options: Any) -> RpcServer:
    return RpcServer(NOWHERE, contract, **options)


def bus() -> EventBus:
    made = EventBus(NOWHERE, topic="film-events", source="/films")

    @made.on(Added, subscription="views", ordered=True, max_concurrent_sessions=3)
    async def project(event: Added) -> None: ...

    return made


def needs(**processes: tuple[object, ...]) -> dict[str, Wanted]:
    return {each.name: each for each in needs_of(system_of(processes))}


def test_each_entity_has_its_role_and_its_users() -> None:
    """Requests go one way and replies the other; who sends and who listens is named."""
    found = needs(
        service=(server(control_queue="films.control"), bus()),
        api=(RpcClient(NOWHERE, reply_queue="api.replies"), Films),
        others=(Queue("attic"),),
    )
    assert {name: (each.role, each.sends, each.listens) for name, each in found.items()} == {
        "api.replies": (Role.REPLIES, ("api", "service"), ("api",)),
        "attic": (Role.OTHER, (), ()),
        "film-events": (Role.TOPIC, ("service",), ()),
        "film-events/views": (Role.SUBSCRIPTION, (), ("service",)),
        "films": (Role.REQUESTS, ("api",), ("service",)),
        "films.control": (Role.CONTROL, ("api", "service"), ("service",)),
    }
    assert found["films"].requires_session is False
    assert found["film-events/views"].requires_session is True
    assert "films.added.v1" in {rule.name for rule in found["film-events/views"].rules or ()}


def test_case_does_not_matter() -> None:
    """Service Bus knows one queue by any spelling."""
    found = needs(
        service=(server(queue="Films", max_deliveries=7), Queue("Films", lock_duration=20)),
        api=(RpcClient(NOWHERE, reply_queue="api.replies"), Films),
    )
    assert found["Films"].role is Role.REQUESTS
    assert (found["Films"].deliveries, found["Films"].lock_duration) == (8, 20)


def test_the_queues_of_others_are_looked_at_too() -> None:
    """Last, and without a word on sessions, which only they know."""
    found = list(needs(api=(RpcClient(NOWHERE, reply_queue="api.replies"), Ratings)).values())
    assert [each.name for each in found] == ["api.replies", "ratings"]
    assert (found[-1].sends, found[-1].requires_session) == (("api",), None)


def test_the_longest_deadline_counts() -> None:
    """Of all that is called; 30 s where neither contract nor client says."""
    found = needs(service=(server(),), api=(RpcClient(NOWHERE, reply_queue="api.replies"), Films, Ratings))
    assert (found["films"].deadline, found["api.replies"].deadline) == (90.0, 90.0)
    assert needs(service=(server(Ratings),))["ratings"].deadline == 30.0


def test_how_long_prefetched_requests_may_wait() -> None:
    """As long as it takes to have run what is before them, each as long as it may; never with sessions."""
    assert needs(service=(server(concurrency=2, prefetch=5),))["films"].waits == 3 * 90.0
    assert needs(service=(server(prefetch=0),))["films"].waits == 0.0
    assert needs(service=(server(prefetch=5, max_concurrent_sessions=4),))["films"].waits == 0.0
    one, other = server(concurrency=1, prefetch=1), server(concurrency=1, prefetch=4)
    assert needs(one=(one,), other=(other,))["films"].waits == 4 * 90.0


def test_connections_are_counted_per_process() -> None:
    """One for each queue or topic sent to, each client, each receiver, and each session taken at once."""
    system: System = system_of(
        {"service": (server(), bus()), "api": (RpcClient(NOWHERE, reply_queue="api.replies"), Films)}
    )
    counts = {each.name: connections_of(system, each) for each in system.processes}
    # The service sends events and replies, takes requests, and three sessions of events.
    assert counts["service"] == 2 + 1 + 3
    # The API sends requests and tries its reply queue, on which it listens.
    assert counts["api"] == 2 + 1
