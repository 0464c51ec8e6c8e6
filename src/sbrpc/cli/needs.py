"""What programs need of each entity of a namespace, as `sbrpc doctor` asks the diagnosis about it.

Between `sbrpc.export`, which knows what is registered, and `sbrpc.diagnosis`, which knows what is a mistake.
Pure: nothing here connects, and nothing is judged.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import ceil

from sbrpc.contract import Contract
from sbrpc.diagnosis import Role, Wanted
from sbrpc.export import Process, Right, System
from sbrpc.server import RpcServer
from sbrpc.topology import Queue, Topic

__all__ = ["connections_of", "needs_of"]

_DEFAULT_DEADLINE = 30.0  # of a client that says nothing


def needs_of(system: System) -> list[Wanted]:
    """What is needed of each queue, topic and subscription, those of others last."""
    queues = _Queues(system)
    found: list[Wanted] = []
    for entity in system.entities():
        if isinstance(entity, Queue):
            found.append(queues.wanted(entity.name, entity.requires_session))
        else:
            found += _of_topic(system, entity)
    return found + [queues.wanted(name, None) for name in system.foreign()]


def connections_of(system: System, process: Process) -> int:
    """About how many connections one instance of a process opens: one for each sender and receiver."""
    sends = sum(each.process == process.name and each.right is Right.SEND for each in system.grants())
    work = (each for each in system.workloads() if each.process == process.name)
    return sends + len(process.clients) + sum(each.at_once if each.sessions else 1 for each in work)


class _Queues:
    """What queues are for. Service Bus does not mind case, so neither do these tables."""

    def __init__(self, system: System) -> None:
        processes = system.processes
        self._system = system
        self._servers: dict[str, list[RpcServer]] = {}
        for process in processes:
            for server in process.servers:
                self._servers.setdefault(server.queue.lower(), []).append(server)
        self._controls = {
            server.control_queue.lower()
            for process in processes
            for server in process.servers
            if server.control_queue is not None
        }
        self._replies = {client.reply_queue.lower() for process in processes for client in process.clients}
        self._replies |= {each.entity.lower() for each in system.grants() if each.reason == "replies"}
        self._declared = {
            entity.name.lower(): entity.lock_duration
            for process in processes
            for entity in process.entities
            if isinstance(entity, Queue)
        }
        self._longest = _longest(contract for process in processes for contract in process.contracts())

    def wanted(self, name: str, sessions: bool | None) -> Wanted:
        """What is needed of one of them; `sessions` where its users say whether it has to require them."""
        key = name.lower()
        role = self._role(key)
        servers = self._servers.get(key, ())
        return Wanted(
            name,
            role,
            sends=_users(self._system, name, None, Right.SEND),
            listens=_users(self._system, name, None, Right.LISTEN),
            requires_session=True if role in (Role.REPLIES, Role.CONTROL) else sessions,
            # One more than the server waits for, so that it gets to answer.
            deliveries=max((server.max_deliveries + 1 for server in servers), default=None),
            deadline=self._longest if role in (Role.REQUESTS, Role.REPLIES) else None,
            lock_duration=self._declared.get(key),
            waits=max((_longest_wait(server) for server in servers), default=None),
        )

    def _role(self, key: str) -> Role:
        if key in self._servers:
            return Role.REQUESTS
        if key in self._controls:
            return Role.CONTROL
        return Role.REPLIES if key in self._replies else Role.OTHER


def _of_topic(system: System, topic: Topic) -> list[Wanted]:
    subscriptions = [
        Wanted(
            topic.name,
            Role.SUBSCRIPTION,
            each.name,
            listens=_users(system, topic.name, each.name, Right.LISTEN),
            requires_session=each.requires_session,
            rules=each.rules or None,
        )
        for each in topic.subscriptions
    ]
    sends = _users(system, topic.name, None, Right.SEND)
    return [Wanted(topic.name, Role.TOPIC, sends=sends), *subscriptions]


def _users(system: System, entity: str, subscription: str | None, right: Right) -> tuple[str, ...]:
    place = (entity.lower(), subscription)
    return tuple(
        grant.process
        for grant in system.grants()
        if (grant.entity.lower(), grant.subscription) == place and grant.right is right
    )


def _longest_wait(server: RpcServer) -> float:
    """How long a prefetched request waits while every handler takes as long as it may."""
    return ceil(server.prefetch / server.concurrency) * _longest(server.contracts)


def _longest(contracts: Iterable[type[Contract]]) -> float:
    specs = [spec for contract in contracts for spec in contract.contract_methods.values()]
    return max((spec.timeout or _DEFAULT_DEADLINE for spec in specs), default=_DEFAULT_DEADLINE)
