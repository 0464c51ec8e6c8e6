"""What stands behind each link of a client: one node object per link, made by the gateway.

Owns what arrives on a link and what leaves on it: messages, deliveries and their outcomes, requests to `$cbs`
and `$management` and their answers. Where a link leads and whether it may, the gateway has decided before.
Knows no clock, no loop and no socket.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any, Literal, Protocol
from uuid import UUID

from sbrpc.emulator import content, management
from sbrpc.emulator.amqp import connection as amqp
from sbrpc.emulator.amqp import performatives as p
from sbrpc.emulator.amqp.sections import BATCH_FORMAT
from sbrpc.emulator.amqp.types import Symbol
from sbrpc.emulator.broker import (
    Abandon,
    Broker,
    BrokerError,
    Complete,
    Consumer,
    DeadLetter,
    Defer,
    Deliver,
    Incoming,
    Outcome,
    Release,
)
from sbrpc.emulator.broker.errors import message_lock_lost
from sbrpc.emulator.traffic import Traffic

__all__ = [
    "BaseNode",
    "Host",
    "Meddler",
    "Node",
    "Peer",
    "ReceiverNode",
    "ReplyNode",
    "RequestNode",
    "SenderNode",
]

LOCK_LOST = message_lock_lost()

_BARE: dict[type, p.Outcome] = {kind: kind() for kind in (p.Accepted, p.Rejected, p.Released, p.Modified)}


def rejected(condition: str, description: str) -> p.Rejected:
    """The outcome that carries an error; all three fields are written, clients index them blindly."""
    return p.Rejected(p.Error(Symbol(condition), description, None))


def confirmation(state: p.Outcome | p.Received | None) -> p.Outcome:
    """The answer to a receiver's outcome: the same kind, bare (clients compare the names)."""
    return _BARE.get(type(state), p.RELEASED)


class Peer:
    """One connection and what the gateway knows of who is behind it."""

    __slots__ = ("access", "amqp", "replies")

    def __init__(self, connection: amqp.Connection) -> None:
        self.amqp = connection
        self.access: dict[str, Any] = {}
        # Links on which answers of $cbs and $management leave.
        self.replies: list[ReplyNode] = []

    @property
    def container_id(self) -> str:
        """What the client calls its connection."""
        return self.amqp.container_id

    def entities(self) -> set[str]:
        """Addresses of the entities it has links to."""
        nodes = (link.user for link in self.amqp.links)
        return {node.address for node in nodes if isinstance(node, SenderNode | ReceiverNode)}

    def unfinished(self) -> bytes:
        """The beginning of a frame whose end has not arrived."""
        return self.amqp.unfinished


class Host(Protocol):
    """The gateway, as far as its nodes need it."""

    broker: Broker
    meddler: Meddler | None
    traffic: Traffic | None

    def authenticate(self, peer: Peer, request: management.Request, now: float) -> bytes:
        """Answer a put-token on `$cbs`."""

    def manage(self, peer: Peer, address: str, request: management.Request, now: float) -> bytes:
        """Answer a request to an entity's `$management` node."""

    def after_broker(self, now: float) -> None:
        """Put the broker's effects on the wire of the connections they belong to."""

    def note(self, what: str, address: str, peer: Peer, now: float, detail: str = "") -> None:
        """Tell whoever looks in what has happened."""

    def next_tag(self) -> bytes:
        """A delivery tag for a message that has no lock."""


class Meddler(Protocol):
    """Somebody who makes things go wrong on purpose, asked at the places where they can."""

    def before(
        self, operation: Literal["send", "attach", "management"], address: str, peer: Peer, now: float
    ) -> BrokerError | None:
        """Raise for an operation that fails; the error of one that is carried out first is returned."""

    def sent(self, node: SenderNode) -> None:
        """A message has come in over a link."""

    def delivered(self, node: ReceiverNode, effect: Deliver) -> None:
        """A message has gone out over a link."""

    def settling(self, token: UUID, outcome: Outcome) -> Outcome:
        """What becomes of a receiver's decision."""

    def catch_up(self, now: float) -> bool:
        """Do what had to wait until all effects were carried out; whether there was anything."""

    def next_timer(self) -> float | None:
        """When it wants to be woken."""

    def handle_timer(self, now: float) -> None:
        """Let everything happen that is due."""


class Node(Protocol):
    """What stands behind one link."""

    __slots__ = ()

    def received(self, event: amqp.Received, now: float) -> None:
        """A whole message has come in."""

    def credited(self, event: amqp.Credited, now: float) -> None:
        """The client has said how much more it takes."""

    def settled(self, event: amqp.Settled, now: float) -> None:
        """The client has decided about deliveries."""

    def detached(self, now: float) -> None:
        """The link is gone."""


class BaseNode(Node):
    """A node that ignores whatever its role does not do."""

    __slots__ = ("address", "gateway", "link", "peer")

    def __init__(self, gateway: Host, peer: Peer, link: amqp.Link, address: str) -> None:
        self.gateway = gateway
        self.peer = peer
        self.link = link
        self.address = address

    def received(self, event: amqp.Received, now: float) -> None:
        self.link.outcome(event.delivery_id, p.ACCEPTED)

    def credited(self, event: amqp.Credited, now: float) -> None:
        if event.drain:
            self.link.drained()

    def settled(self, event: amqp.Settled, now: float) -> None:
        return

    def detached(self, now: float) -> None:
        return


class ReplyNode(BaseNode):
    """The link on which `$cbs` or `$management` answers; holds answers until there is credit for them."""

    __slots__ = ("backlog", "reply_to", "sent")

    def __init__(self, gateway: Host, peer: Peer, link: amqp.Link, address: str) -> None:
        super().__init__(gateway, peer, link, address)
        self.reply_to = link.target.address if link.target is not None else None
        self.backlog: list[bytes] = []
        self.sent = 0
        peer.replies.append(self)

    def answer(self, payload: bytes) -> None:
        """Send an answer, as soon as there is credit for it."""
        self.backlog.append(payload)
        self._flush()

    def credited(self, event: amqp.Credited, now: float) -> None:
        self._flush()
        super().credited(event, now)

    def detached(self, now: float) -> None:
        self.peer.replies.remove(self)

    def _flush(self) -> None:
        while self.backlog and self.link.credit > 0:
            self.sent += 1
            self.link.send(self.backlog.pop(0), tag=self.sent.to_bytes(16, "big"), settled=True)


class RequestNode(BaseNode):
    """The link on which requests to `$cbs` or `$management` arrive."""

    __slots__ = ()

    def received(self, event: amqp.Received, now: float) -> None:
        try:
            request = management.parse_request(event.payload)
        except ValueError as error:
            self.link.outcome(event.delivery_id, rejected("amqp:decode-error", str(error)))
            return
        reply = self._reply_node(request.reply_to)
        if self.address == "$cbs":
            payload = self.gateway.authenticate(self.peer, request, now)
        else:
            payload = self.gateway.manage(self.peer, self.address, request, now)
        # The answer goes first: the Python client spends a poll of 50 ms on each frame while it opens.
        if reply is not None:
            reply.answer(payload)
        self.link.outcome(event.delivery_id, p.ACCEPTED)

    def _reply_node(self, reply_to: str | None) -> ReplyNode | None:
        candidates = [node for node in self.peer.replies if node.address == self.address]
        here = [node for node in candidates if node.link.session is self.link.session]
        for nodes in (here, candidates):
            for node in nodes:
                if reply_to is not None and reply_to in (node.reply_to, node.link.name):
                    return node
        # The Python client names the node itself as reply-to: any answering link of it will do.
        return next(reversed(here or candidates), None)


class SenderNode(BaseNode):
    """A client's sender: messages come in and are stored."""

    __slots__ = ()

    def received(self, event: amqp.Received, now: float) -> None:
        gateway, meddler = self.gateway, self.gateway.meddler
        outcome: p.Outcome = p.ACCEPTED
        failure = None
        try:
            if event.message_format == BATCH_FORMAT:
                incoming = content.parse_batch(event.payload)
            else:
                incoming = [content.parse_message(event.payload)]
            if meddler is not None:
                failure = meddler.before("send", self.address, self.peer, now)
            gateway.broker.send(self.address, incoming, now)
            if gateway.traffic is not None:
                self._note(gateway.traffic, incoming, now)
            if meddler is not None:
                meddler.sent(self)
            if failure is not None:
                raise failure
        except BrokerError as error:
            outcome = rejected(error.condition, error.description)
            gateway.note("refused", self.address, self.peer, now, error.description)
        except ValueError as error:
            outcome = rejected("amqp:decode-error", f"The message cannot be decoded: {error}")
        else:
            gateway.after_broker(now)
        if not event.settled:
            self.link.outcome(event.delivery_id, outcome)

    def _note(self, traffic: Traffic, incoming: list[Incoming], now: float) -> None:
        who = self.peer.amqp.container_id
        for message in incoming:
            traffic.note(
                *(now, "sent", self.address, who),
                *(message.message_id, message.session_id, message.content.size),
            )


class ReceiverNode(BaseNode):
    """A client's receiver: the broker's deliveries leave, the client's decisions come back."""

    __slots__ = ("aside", "consumer", "tokens")

    def __init__(self, gateway: Host, peer: Peer, link: amqp.Link, address: str) -> None:
        super().__init__(gateway, peer, link, address)
        self.consumer: Consumer | None = None
        # Nothing is delivered, whatever credit the client has given.
        self.aside = False
        # Lock tokens of what is on its way, by delivery id.
        self.tokens: dict[int, UUID] = {}

    def credited(self, event: amqp.Credited, now: float) -> None:
        consumer = self.consumer
        if consumer is None or consumer.pending or self.aside:
            return
        self.gateway.broker.set_credit(consumer, event.credit, now)
        self.gateway.after_broker(now)
        if event.drain:
            self.link.drained()
            self.gateway.broker.set_credit(consumer, 0, now)

    def set_aside(self, now: float) -> list[UUID]:
        """Deliver nothing more until `take_up`. What the client has not settled goes back, as if never seen;
        the lock tokens that it may still use in vain are returned."""
        self.aside = True
        broker, consumer = self.gateway.broker, self.consumer
        tokens = list(self.tokens.values())
        self.tokens.clear()
        if consumer is None or consumer.pending:
            return tokens
        broker.set_credit(consumer, 0, now)
        for token in tokens:
            with suppress(BrokerError):  # its lock may have ended by itself
                broker.settle(self.address, token, Release(), now, session_consumer=consumer)
        self.gateway.after_broker(now)
        return tokens

    def take_up(self, now: float) -> None:
        """Deliver again, as much as the client has given credit for."""
        self.aside = False
        if self.consumer is not None and not self.consumer.pending:
            self.gateway.broker.set_credit(self.consumer, self.link.credit, now)
            self.gateway.after_broker(now)

    def deliver(self, effect: Deliver, now: float) -> None:
        """Send a message that the broker has handed out."""
        token = effect.lock_token
        gateway = self.gateway
        if gateway.traffic is not None:
            message = effect.message
            gateway.traffic.note(
                *(now, "delivered", self.address, self.peer.amqp.container_id),
                *(message.message_id, message.session_id, message.content.size),
            )
        if gateway.meddler is not None:
            gateway.meddler.delivered(self, effect)
        if token is None:
            payload = content.encode_delivery(effect.message, effect.delivery_count, None, 0.0)
            self.link.send(payload, tag=gateway.next_tag(), settled=True)
            return
        payload = content.encode_delivery(effect.message, effect.delivery_count, token, effect.locked_until)
        self.tokens[self.link.send(payload, tag=token.bytes_le, settled=False)] = token

    def settled(self, event: amqp.Settled, now: float) -> None:
        gateway, tokens, link = self.gateway, self.tokens, self.link
        outcome = broker_outcome(event.state)
        confirmed = confirmation(event.state)
        for delivery_id, tag in event.deliveries:
            token = tokens.pop(delivery_id, None) or UUID(bytes_le=tag)
            wanted = outcome if gateway.meddler is None else gateway.meddler.settling(token, outcome)
            try:
                gateway.broker.settle(self.address, token, wanted, now, session_consumer=self.consumer)
            except BrokerError as error:
                if not event.settled:
                    link.confirm(delivery_id, delivery_id, rejected(error.condition, error.description))
            else:
                if not event.settled:
                    link.confirm(delivery_id, delivery_id, confirmed)
        if event.deliveries:
            count = len(event.deliveries)
            detail = f"{count} messages" if count > 1 else ""
            gateway.note(_DONE[type(outcome)], self.address, self.peer, now, detail)
        if not event.settled:
            for delivery_id in event.unknown:
                link.confirm(delivery_id, delivery_id, rejected(LOCK_LOST.condition, LOCK_LOST.description))
        gateway.after_broker(now)

    def detached(self, now: float) -> None:
        if self.consumer is not None:
            self.gateway.broker.close_consumer(self.consumer, now)
            self.consumer = None
            self.gateway.after_broker(now)


# What has been done to a message, in words.
_DONE = {
    Complete: "completed",
    Abandon: "abandoned",
    Defer: "deferred",
    DeadLetter: "dead-lettered",
    Release: "released",
}


def broker_outcome(state: p.Outcome | p.Received | None) -> Outcome:
    """What a receiver's disposition asks the broker to do (protocol: Service Bus maps AMQP outcomes so)."""
    if isinstance(state, p.Accepted):
        return Complete()
    if isinstance(state, p.Modified):
        changes = content.plain_properties(state.message_annotations)
        # Only undeliverable-here tells defer from abandon; clients differ in delivery-failed.
        return Defer(changes) if state.undeliverable_here else Abandon(changes)
    if isinstance(state, p.Rejected):
        info = content.plain_properties(state.error.info if state.error is not None else None)
        reason = info.pop("DeadLetterReason", None)
        description = info.pop("DeadLetterErrorDescription", None)
        return DeadLetter(reason, description, info)
    return Release()
