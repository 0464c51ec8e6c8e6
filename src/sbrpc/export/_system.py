"""What is registered, as an operator sees it: processes, the entities they need, and their rights.

A `System` is made from what programs construct anyway: servers, clients, event buses. It knows what each
needs of a namespace, and nothing of the formats in which that is written down. Pure: nothing here connects.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from fnmatch import fnmatchcase
from typing import TypeVar

from sbrpc.client import RpcClient
from sbrpc.contract import Contract, MethodKind, MethodSpec
from sbrpc.errors import ContractError
from sbrpc.event import Event
from sbrpc.events import EventBus
from sbrpc.server import RpcServer
from sbrpc.topology import Queue, Subscription, Topic

__all__ = ["PARTS", "Grant", "Process", "Right", "System", "Workload", "system_of"]

PARTS = (RpcServer, RpcClient, EventBus, Queue, Topic)

E = TypeVar("E", Queue, Topic)


class Right(str, Enum):
    """What a process may do to an entity. There is no Manage: nothing in sbrpc needs it at run time."""

    SEND = "Send"
    LISTEN = "Listen"


@dataclass(frozen=True, order=True)
class Grant:
    """One right of one process on one queue, topic or subscription, and what it is for."""

    process: str
    entity: str
    subscription: str | None
    right: Right
    topic: bool = field(compare=False)
    reason: str = field(compare=False)

    @property
    def path(self) -> str:
        """The entity's path as Service Bus spells it."""
        below = "" if self.subscription is None else f"/Subscriptions/{self.subscription}"
        return self.entity + below


@dataclass(frozen=True)
class Workload:
    """A queue or subscription that a process takes messages from: what it is scaled by."""

    process: str
    entity: str
    subscription: str | None
    at_once: int
    """How many messages one instance works on at once, or how many sessions."""
    sessions: bool


@dataclass(frozen=True)
class Process:
    """One program: what it runs, what it calls and what it publishes."""

    name: str
    servers: tuple[RpcServer, ...] = ()
    clients: tuple[RpcClient, ...] = ()
    buses: tuple[EventBus, ...] = ()
    calls: tuple[type[Contract], ...] = ()
    publishes: tuple[type[Event], ...] = ()
    entities: tuple[Queue | Topic, ...] = ()

    def contracts(self) -> Iterator[type[Contract]]:
        """What it calls, and what it serves."""
        yield from self.calls
        for server in self.servers:
            yield from server.contracts

    def publishers(self) -> Iterator[EventBus]:
        """The buses that publish."""
        return (bus for bus in self.buses if bus.source is not None)


def system_of(processes: Mapping[str, Iterable[object]]) -> System:
    """The system of some processes, each by name with its servers, clients and event buses.

    A contract beside a client is one that the client calls; without a client it stands for a server of it. An
    event is one that the process publishes. A `Queue` or `Topic` says more about an entity than can be
    derived, for instance its lock duration.

    Raises:
        ContractError: a part is nothing that a namespace could have to do with, or contradicts another.
    """
    system = System(tuple(_process(name, tuple(parts)) for name, parts in sorted(processes.items())))
    system.entities()  # finds contradictions
    return system


def _process(name: str, parts: tuple[object, ...]) -> Process:
    contracts: list[type[Contract]] = []
    events: list[type[Event]] = []
    for part in parts:
        if isinstance(part, type) and issubclass(part, Contract) and part is not Contract:
            contracts.append(part)
        elif isinstance(part, type) and issubclass(part, Event) and part.__event_type__ is not None:
            events.append(part)
        elif not isinstance(part, PARTS):
            raise ContractError(
                f"{name}: {part!r} is no server, client, event bus, contract, event, queue or topic"
            )
    called = any(isinstance(part, RpcClient) for part in parts)
    process = Process(
        name,
        servers=(
            *(part for part in parts if isinstance(part, RpcServer)),
            *(RpcServer("", contract) for contract in contracts if not called),
        ),
        clients=tuple(part for part in parts if isinstance(part, RpcClient)),
        buses=tuple(part for part in parts if isinstance(part, EventBus)),
        calls=tuple(contracts) if called else (),
        publishes=tuple(events),
        entities=tuple(part for part in parts if isinstance(part, Queue | Topic)),
    )
    if events and not any(process.publishers()):
        raise ContractError(
            f"{name} publishes {events[0].__name__}, but has no EventBus with a `source` to publish it on"
        )
    return process


@dataclass(frozen=True)
class System:
    """Processes that share a namespace."""

    processes: tuple[Process, ...]

    def entities(self) -> tuple[Queue | Topic, ...]:
        """The queues and topics that these processes own, queues first, each by name."""
        queues: dict[str, Queue] = {}
        topics: dict[str, Topic] = {}
        for process in self.processes:
            for server in process.servers:
                _add(queues, Queue(server.queue, requires_session=server.ordered), _same_queue)
                if server.control_queue is not None:
                    _add(queues, Queue(server.control_queue, requires_session=True), _same_queue)
            for client in process.clients:
                _add(queues, Queue(client.reply_queue, requires_session=True), _same_queue)
            for bus in process.buses:
                _add(topics, bus.topology(), _joined)
        for process in self.processes:
            for entity in process.entities:
                if isinstance(entity, Queue):
                    _add(queues, entity, _settled)
                else:
                    _add(topics, entity, _settled_topic)
        return (
            *(queues[name] for name in sorted(queues)),
            *(
                replace(topic, subscriptions=tuple(sorted(topic.subscriptions, key=lambda each: each.name)))
                for _, topic in sorted(topics.items())
            ),
        )

    def foreign(self) -> tuple[str, ...]:
        """The queues that these processes send to and others own."""
        own = {entity.name.lower() for entity in self.entities()}
        return tuple(sorted({each.entity for each in self.grants() if each.entity.lower() not in own}))

    def grants(self) -> tuple[Grant, ...]:
        """Every right that every process needs, and no other, in order."""
        found: dict[Grant, Grant] = {}
        for process in self.processes:
            for grant in (*self._of_servers(process), *self._of_clients(process), *_of_buses(process)):
                found.setdefault(grant, grant)
        return tuple(sorted(found, key=lambda g: (g.process, g.entity, g.subscription or "", g.right.value)))

    def workloads(self) -> tuple[Workload, ...]:
        """What each process takes messages from, in order."""
        found: list[Workload] = []
        for process in self.processes:
            found += [
                Workload(process.name, server.queue, None, server.concurrency, server.ordered)
                for server in process.servers
            ]
            for bus in process.buses:
                for name, subscribed in bus.subscriptions.items():
                    sessions = subscribed.ordered is not False
                    at_once = subscribed.max_concurrent_sessions if sessions else subscribed.concurrency
                    found.append(Workload(process.name, bus.topic, name, at_once, sessions))
        return tuple(sorted(found, key=lambda each: (each.process, each.entity, each.subscription or "")))

    def warnings(self) -> tuple[str, ...]:
        """What is not said and cannot be derived, one line each."""
        found: list[str] = []
        for process in self.processes:
            for server in process.servers:
                specs = (spec for contract in server.contracts for spec in _specs(contract))
                answers = any(spec.kind is not MethodKind.ONE_WAY for spec in specs)
                if answers and not self._reply_queues_of(server):
                    patterns = ", ".join(server.reply_queues)
                    found.append(
                        f"{process.name}: no reply queue here is named like {patterns}, so it may answer "
                        "nobody; name the processes that call it too, or the queue: "
                        'Queue("...", requires_session=True)'
                    )
            if process.clients and not process.calls:
                found.append(
                    f"{process.name}: nothing says what its client calls, so it may call nobody; "
                    "put the contracts beside the client"
                )
        return tuple(found)

    # -- rights ------------------------------------------------------------------------------------------

    def _of_servers(self, process: Process) -> Iterator[Grant]:
        for server in process.servers:
            yield _grant(process, server.queue, Right.LISTEN, "takes requests")
            controlled = any(spec.cancellable for c in server.contracts for spec in _specs(c))
            for queue in self._reply_queues_of(server):
                yield _grant(process, queue, Right.SEND, "replies")
                if controlled and server.control_queue is None:
                    yield _grant(process, queue, Right.LISTEN, "hears when a stream may go on, and cancels")
            if controlled and server.control_queue is not None:
                yield _grant(
                    process, server.control_queue, Right.LISTEN, "hears when a stream may go on, and cancels"
                )
                yield _grant(process, server.control_queue, Right.SEND, "tries the path of control messages")

    def _of_clients(self, process: Process) -> Iterator[Grant]:
        for client in process.clients:
            yield _grant(process, client.reply_queue, Right.LISTEN, "receives replies")
            yield _grant(process, client.reply_queue, Right.SEND, "tries the path of replies")
        for contract in process.calls:
            for queue in self.request_queues_of(contract):
                yield _grant(process, queue, Right.SEND, f"calls {contract.__name__}")
            for server in self._servers_of(contract):
                if server.control_queue is not None and any(spec.cancellable for spec in _specs(contract)):
                    yield _grant(process, server.control_queue, Right.SEND, f"controls {contract.__name__}")

    def _servers_of(self, contract: type[Contract]) -> Iterator[RpcServer]:
        return (s for process in self.processes for s in process.servers if contract in s.contracts)

    def request_queues_of(self, contract: type[Contract]) -> list[str]:
        """Where calls of a contract go: to who serves it here, or else to the queue of its name."""
        return sorted({server.queue for server in self._servers_of(contract)}) or [contract.contract_name]

    def _reply_queues_of(self, server: RpcServer) -> list[str]:
        """The queues a server replies to: those it names, and those known here that its patterns allow."""
        named = {pattern for pattern in server.reply_queues if not set(pattern) & set("*?[")}
        known = {client.reply_queue for process in self.processes for client in process.clients}
        for process in self.processes:
            known |= {entity.name for entity in process.entities if isinstance(entity, Queue)}
        known -= {each.queue for process in self.processes for each in process.servers}
        return sorted(
            named
            | {q for q in known if any(fnmatchcase(q.lower(), pattern) for pattern in server.reply_queues)}
        )


def _of_buses(process: Process) -> Iterator[Grant]:
    for bus in process.buses:
        if bus.source is not None:
            yield Grant(process.name, bus.topic, None, Right.SEND, True, "publishes events")
        for name in bus.subscriptions:
            yield Grant(process.name, bus.topic, name, Right.LISTEN, True, "handles events")


def _grant(process: Process, queue: str, right: Right, reason: str) -> Grant:
    return Grant(process.name, queue, None, right, False, reason)


def _specs(contract: type[Contract]) -> Iterator[MethodSpec]:
    return iter(contract.contract_methods.values())


# -- entities ------------------------------------------------------------------------------------------


def _add(known: dict[str, E], entity: E, join: Callable[[E, E], E]) -> None:
    # Service Bus does not mind case.
    other = known.get(entity.name.lower())
    known[entity.name.lower()] = entity if other is None else join(other, entity)


def _same_queue(one: Queue, other: Queue) -> Queue:
    if one.requires_session != other.requires_session:
        raise ContractError(
            f"queue {one.name!r} would have to require sessions and not to: it is used as a request queue "
            "without max_concurrent_sessions, and as a reply or control queue"
        )
    return one


def _settled(derived: Queue, given: Queue) -> Queue:
    if derived.requires_session != given.requires_session:
        raise ContractError(
            f"queue {given.name!r} is declared with requires_session={given.requires_session}, "
            f"but what uses it needs {derived.requires_session}"
        )
    return given


def _joined(one: Topic, other: Topic) -> Topic:
    """Two buses of one topic, in one process or in two."""
    subscriptions = {each.name.lower(): each for each in one.subscriptions}
    for each in other.subscriptions:
        same = subscriptions.setdefault(each.name.lower(), each)
        if same.requires_session != each.requires_session:
            raise ContractError(
                f"subscription {each.name!r} of topic {one.name!r} is used both in order and in no order"
            )
        rules = {rule.name: rule for rule in (*same.rules, *each.rules)}
        subscriptions[each.name.lower()] = replace(same, rules=tuple(rules.values()))
    return replace(one, subscriptions=tuple(subscriptions.values()))


def _settled_topic(derived: Topic, given: Topic) -> Topic:
    subscriptions = {each.name.lower(): each for each in derived.subscriptions}
    for each in given.subscriptions:
        known = subscriptions.get(each.name.lower())
        if known is not None and known.requires_session != each.requires_session:
            raise ContractError(
                f"subscription {each.name!r} of topic {given.name!r} is declared with "
                f"requires_session={each.requires_session}, but its handlers need {known.requires_session}"
            )
        subscriptions[each.name.lower()] = _with_rules(each, known)
    return replace(given, subscriptions=tuple(subscriptions.values()))


def _with_rules(given: Subscription, derived: Subscription | None) -> Subscription:
    return given if given.rules or derived is None else replace(given, rules=derived.rules)
