"""From what an application declares to the queues and topics it needs.

Pure: contracts, servers, buses and topology in, topology out.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from sbrpc.contract import Contract
from sbrpc.events import EventBus
from sbrpc.server import RpcServer
from sbrpc.topology import Queue, Subscription, Topic

__all__ = ["Entities", "Entity", "entities_of"]

Entity = str | Queue | Topic | type[Contract] | RpcServer | EventBus
"""What says which queue or topic is needed: a queue's name, topology, or who is going to use it."""


@dataclass
class Entities:
    """Queues and topics by their names in lower case, as Service Bus compares them."""

    queues: dict[str, Queue] = field(default_factory=dict)
    topics: dict[str, Topic] = field(default_factory=dict)

    @property
    def all(self) -> list[Queue | Topic]:
        """Everything, queues first."""
        return [*self.queues.values(), *self.topics.values()]


def entities_of(wanted: Iterable[Entity], reply_queue: str | None = None) -> Entities:
    """What has to exist for these, and for callers that listen on the reply queue.

    Topology counts as it stands. What contracts, servers and buses need is added to it.
    """
    entities = Entities()
    users: list[type[Contract] | RpcServer | EventBus] = []
    for item in wanted:
        if isinstance(item, str):
            item = Queue(item)
        if isinstance(item, Queue):
            entities.queues[item.name.lower()] = item
        elif isinstance(item, Topic):
            entities.topics[item.name.lower()] = item
        elif isinstance(item, RpcServer | EventBus) or (
            isinstance(item, type) and issubclass(item, Contract)
        ):
            users.append(item)
        else:
            raise TypeError(
                f"{item!r} says nothing about queues or topics; pass a Queue, a Topic, a queue's name, "
                "a contract, an RpcServer or an EventBus"
            )
    for user in users:
        if isinstance(user, RpcServer):
            queue = Queue(user.queue, requires_session=user.ordered)
            entities.queues.setdefault(queue.name.lower(), queue)
        elif isinstance(user, EventBus):
            topic = user.topology()
            known = entities.topics.get(topic.name.lower(), topic)
            entities.topics[topic.name.lower()] = _together(known, topic)
        else:
            entities.queues.setdefault(user.contract_name.lower(), Queue(user.contract_name))
    if reply_queue is not None:
        entities.queues.setdefault(reply_queue.lower(), Queue(reply_queue, requires_session=True))
    return entities


def _together(topic: Topic, other: Topic) -> Topic:
    """The topic, with what it has not of the other's subscriptions."""
    subscriptions: dict[str, Subscription] = {each.name.lower(): each for each in other.subscriptions}
    subscriptions |= {each.name.lower(): each for each in topic.subscriptions}
    return replace(topic, subscriptions=tuple(subscriptions.values()))
