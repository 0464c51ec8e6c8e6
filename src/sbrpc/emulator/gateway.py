"""Where AMQP and Service Bus meet: a peer's frames become broker calls, broker effects become frames.

Owns the meaning of addresses (`$cbs`, `<entity>/$management`, entities) and one node object per link.
Together with `management` and `content` it is the only place that speaks both languages. It has no clock,
no loop and no socket: `now` comes in, and the connections that have something to send are collected in
`dirty` for whoever owns the sockets.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal, Protocol
from uuid import UUID

from sbrpc.emulator import content, management
from sbrpc.emulator.access import Access, Right
from sbrpc.emulator.amqp import connection as amqp
from sbrpc.emulator.amqp import performatives as p
from sbrpc.emulator.amqp.types import Long, Symbol
from sbrpc.emulator.broker import (
    NEXT_AVAILABLE,
    Abandon,
    Broker,
    BrokerError,
    Complete,
    Consumer,
    ConsumerClosed,
    ConsumerRefused,
    DeadLetter,
    Defer,
    Deliver,
    Incoming,
    Mode,
    Outcome,
    Release,
    SessionAccepted,
)
from sbrpc.emulator.traffic import Traffic

__all__ = ["Gateway", "Peer", "normalise"]

log = logging.getLogger("sbrpc.emulator")

SESSION_FILTER = Symbol("com.microsoft:session-filter")
# The same filter by its numeric descriptor, as the .NET and Java clients may send it.
SESSION_FILTER_CODE = 0x137000000C
LOCKED_UNTIL = Symbol("com.microsoft:locked-until-utc")
SERVER_TIMEOUT = "com.microsoft:timeout"
BATCH_FORMAT = 0x80013700
# .NET ticks (100 ns) between the year 1 and 1970.
TICKS_TO_1970 = 621_355_968_000_000_000
SENDER_CREDIT = 1000
LOCK_LOST = "com.microsoft:message-lock-lost"
LOCK_LOST_TEXT = (
    "The lock supplied is invalid. Either the lock expired, or the message has already been removed "
    "from the queue."
)


_BARE: dict[type, p.Outcome] = {kind: kind() for kind in (p.Accepted, p.Rejected, p.Released, p.Modified)}


def rejected(condition: str, description: str) -> p.Rejected:
    """The outcome that carries an error; all three fields are written, clients index them blindly."""
    return p.Rejected(p.Error(Symbol(condition), description, None))


def confirmation(state: p.Outcome | p.Received | None) -> p.Outcome:
    """The answer to a receiver's outcome: the same kind, bare (clients compare the names)."""
    return _BARE.get(type(state), p.RELEASED)


def ticks(seconds: float) -> Long:
    """A point in time as .NET ticks."""
    return Long(round(seconds * 10_000_000) + TICKS_TO_1970)


def normalise(address: str | None) -> str:
    """An address without scheme, authority and leading slash, as the broker knows it."""
    if not address:
        return ""
    if "://" in address:
        _, _, rest = address.partition("://")
        _, _, address = rest.partition("/")
    return address.strip("/")


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


class Node(Protocol):
    """What stands behind one link."""

    def received(self, event: amqp.Received, now: float) -> None: ...
    def credited(self, event: amqp.Credited, now: float) -> None: ...
    def settled(self, event: amqp.Settled, now: float) -> None: ...
    def detached(self, now: float) -> None: ...


class BaseNode:
    """A node that ignores whatever its role does not do."""

    __slots__ = ("gateway", "link", "peer")

    def __init__(self, gateway: Gateway, peer: Peer, link: amqp.Link) -> None:
        self.gateway = gateway
        self.peer = peer
        self.link = link

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

    __slots__ = ("address", "backlog", "reply_to", "sent")

    def __init__(self, gateway: Gateway, peer: Peer, link: amqp.Link, address: str) -> None:
        super().__init__(gateway, peer, link)
        self.address = address
        self.reply_to = link.target.address if link.target is not None else None
        self.backlog: list[bytes] = []
        self.sent = 0
        peer.replies.append(self)

    def answer(self, payload: bytes) -> None:
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

    __slots__ = ("address",)

    def __init__(self, gateway: Gateway, peer: Peer, link: amqp.Link, address: str) -> None:
        super().__init__(gateway, peer, link)
        self.address = address

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

    __slots__ = ("address",)

    def __init__(self, gateway: Gateway, peer: Peer, link: amqp.Link, address: str) -> None:
        super().__init__(gateway, peer, link)
        self.address = address

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

    __slots__ = ("address", "consumer", "tokens")

    def __init__(self, gateway: Gateway, peer: Peer, link: amqp.Link, address: str) -> None:
        super().__init__(gateway, peer, link)
        self.address = address
        self.consumer: Consumer | None = None
        # Lock tokens of what is on its way, by delivery id.
        self.tokens: dict[int, UUID] = {}

    def credited(self, event: amqp.Credited, now: float) -> None:
        consumer = self.consumer
        if consumer is None or consumer.pending:
            return
        self.gateway.broker.set_credit(consumer, event.credit, now)
        self.gateway.after_broker(now)
        if event.drain:
            self.link.drained()
            self.gateway.broker.set_credit(consumer, 0, now)

    def deliver(self, effect: Deliver, now: float) -> None:
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
            payload = content.encode_delivery(effect.message, effect.delivery_count, None)
            self.link.send(payload, tag=gateway.next_tag(), settled=True)
            return
        payload = content.encode_delivery(effect.message, effect.delivery_count, effect.locked_until)
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
                link.confirm(delivery_id, delivery_id, rejected(LOCK_LOST, LOCK_LOST_TEXT))
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


class Gateway:
    """All connections of one emulator, and the broker behind them."""

    def __init__(self, broker: Broker, access: Access, *, new_peer: Callable[[], amqp.Connection]) -> None:
        self.broker = broker
        self.access = access
        self.peers: set[Peer] = set()
        self.dirty: set[Peer] = set()
        # Set while there are faults in force.
        self.meddler: Meddler | None = None
        # Set where somebody may look in.
        self.traffic: Traffic | None = None
        self._new_peer = new_peer
        self._tags = 0

    # -- connections ------------------------------------------------------------------------------------

    def connect(self) -> Peer:
        """A peer for a fresh connection."""
        peer = Peer(self._new_peer())
        self.peers.add(peer)
        return peer

    def feed(self, peer: Peer, data: bytes, now: float) -> None:
        """Take what a peer sent, do what it asks, and leave the answers in the connections marked dirty."""
        self.process(peer, peer.amqp.feed(data), now)

    def disconnect(self, peer: Peer, now: float) -> None:
        """The peer's socket is gone: everything behind its links ends."""
        self.process(peer, peer.amqp.connection_lost(), now)
        self.note("disconnected", "", peer, now)
        self.peers.discard(peer)
        self.dirty.discard(peer)

    def process(self, peer: Peer, events: list[amqp.Event], now: float) -> None:
        """Handle one connection's events in order."""
        self.dirty.add(peer)
        for event in events:
            if isinstance(event, amqp.Opened):
                self.note("connected", "", peer, now)
                continue
            if isinstance(event, amqp.Closed):
                if event.error is not None:
                    who = peer.amqp.container_id or "(unopened)"
                    reason = (event.error.condition, event.error.description)
                    log.info("connection %s ended: %s %s", who, *reason)
            elif isinstance(event, amqp.Attached):
                self._attach(peer, event.link, now)
            elif (node := event.link.user) is None:
                # A link that was refused: what the client sent on it before it knew is void.
                continue
            elif isinstance(event, amqp.Received):
                node.received(event, now)
            elif isinstance(event, amqp.Settled):
                node.settled(event, now)
            elif isinstance(event, amqp.Credited):
                node.credited(event, now)
            else:
                event.link.user = None
                node.detached(now)
        self.after_broker(now)

    # -- links ------------------------------------------------------------------------------------------

    def _attach(self, peer: Peer, link: amqp.Link, now: float) -> None:
        terminus = link.source if link.role_is_sender else link.target
        address = normalise(getattr(terminus, "address", None))
        lowered = address.lower()
        try:
            if self.meddler is not None and lowered != "$cbs":
                self.meddler.before("attach", address, peer, now)
            if lowered == "$cbs":
                self._attach_service(peer, link, "$cbs")
            elif lowered.endswith("/$management"):
                entity = address[: -len("/$management")]
                self.broker.check_exists(entity)
                self._attach_service(peer, link, entity)
            elif link.role_is_sender:
                self._attach_receiver(peer, link, address, now)
            else:
                self._attach_sender(peer, link, address, now)
        except BrokerError as error:
            if link.user is not None:
                link.user = None
            link.refuse(error.condition, error.description)
            self.note("refused", address, peer, now, error.description)

    def _attach_service(self, peer: Peer, link: amqp.Link, address: str) -> None:
        if link.role_is_sender:
            link.user = ReplyNode(self, peer, link, address)
            link.accept()
        else:
            link.user = RequestNode(self, peer, link, address)
            link.accept(initial_credit=SENDER_CREDIT)

    def _attach_sender(self, peer: Peer, link: amqp.Link, address: str, now: float) -> None:
        self.access.check(peer.access, address, Right.SEND, now)
        limit = self.broker.check_send(address)
        link.user = SenderNode(self, peer, link, address)
        link.accept(max_message_size=limit, initial_credit=SENDER_CREDIT)

    def _attach_receiver(self, peer: Peer, link: amqp.Link, address: str, now: float) -> None:
        self.access.check(peer.access, address, Right.LISTEN, now)
        self.broker.check_receive(address)
        node = ReceiverNode(self, peer, link, address)
        settled_at_once = link.snd_settle_mode == 1
        timeout = link.properties.get(SERVER_TIMEOUT)
        consumer = self.broker.open_consumer(
            address,
            mode=Mode.RECEIVE_AND_DELETE if settled_at_once else Mode.PEEK_LOCK,
            session=session_wanted(link.source),
            timeout=timeout / 1000 if isinstance(timeout, int) else None,
            now=now,
        )
        consumer.key = node
        node.consumer = consumer
        link.user = node
        if not consumer.pending:
            self._accept_receiver(node)

    def _accept_receiver(self, node: ReceiverNode) -> None:
        consumer, link = node.consumer, node.link
        assert consumer is not None
        if consumer.session_id is None:
            link.accept()
            return
        source = link.source
        assert source is not None
        link.accept(
            source=replace(source, filter={SESSION_FILTER: consumer.session_id}),
            properties={LOCKED_UNTIL: ticks(consumer.locked_until)},
        )

    # -- services ---------------------------------------------------------------------------------------

    def authenticate(self, peer: Peer, request: management.Request, now: float) -> bytes:
        """Answer a put-token on `$cbs`."""
        operation = request.properties.get("operation")
        if operation != "put-token":
            return management.cbs_response(request, 400, f"$cbs knows put-token, not {operation!r}")
        name = request.properties.get("name")
        token = request.body
        try:
            self.access.authenticate(
                peer.access, str(name or ""), token if isinstance(token, str) else "", now
            )
        except BrokerError as error:
            return management.cbs_response(request, 401, error.description)
        return management.cbs_response(request, 202, "Accepted")

    def manage(self, peer: Peer, address: str, request: management.Request, now: float) -> bytes:
        """Answer a request to an entity's `$management` node."""
        try:
            operation = request.properties.get("operation")
            right = Right.SEND if operation in management.SENDERS_MAY else Right.LISTEN
            self.access.check(peer.access, address, right, now)
            failure = None
            if self.meddler is not None:
                failure = self.meddler.before("management", address, peer, now)
            payload = management.handle(self.broker, address, request, now)
            self.note("managed", address, peer, now, str(operation))
            if failure is not None:
                raise failure
        except BrokerError as error:
            payload = management.error_response(request, error)
            self.note("refused", address, peer, now, f"{operation}: {error.description}")
        self.after_broker(now)
        return payload

    # -- effects ----------------------------------------------------------------------------------------

    def after_broker(self, now: float) -> None:
        """Put the broker's effects on the wire of the connections they belong to."""
        self._carry_out(now)
        # Not in between: effects carry live messages, which another call to the broker may change.
        while self.meddler is not None and self.meddler.catch_up(now):
            self._carry_out(now)

    def _carry_out(self, now: float) -> None:
        effects = self.broker.take_effects()
        while effects:
            for effect in effects:
                node: ReceiverNode = effect.consumer.key
                if type(effect) is Deliver:
                    node.deliver(effect, now)
                elif isinstance(effect, SessionAccepted):
                    self._accept_receiver(node)
                elif isinstance(effect, ConsumerRefused):
                    node.consumer = None
                    node.link.refuse(effect.error.condition, effect.error.description)
                elif isinstance(effect, ConsumerClosed):
                    node.consumer = None
                    node.link.detach(effect.error.condition, effect.error.description)
                self.dirty.add(node.peer)
            effects = self.broker.take_effects()

    def note(self, what: str, address: str, peer: Peer, now: float, detail: str = "") -> None:
        """Tell whoever looks in what has happened."""
        if self.traffic is not None:
            self.traffic.note(now, what, address, peer.container_id, detail=detail)

    def next_tag(self) -> bytes:
        """A delivery tag for a message that has no lock."""
        self._tags += 1
        return self._tags.to_bytes(16, "little")

    # -- time -------------------------------------------------------------------------------------------

    def next_timer(self) -> float | None:
        """When the broker, or who meddles with it, wants to be woken."""
        due = self.broker.next_timer()
        other = self.meddler.next_timer() if self.meddler is not None else None
        if due is None or other is None:
            return other if due is None else due
        return min(due, other)

    def handle_timer(self, now: float) -> None:
        """Let everything happen that is due."""
        self.broker.handle_timer(now)
        if self.meddler is not None:
            self.meddler.handle_timer(now)
        self.after_broker(now)


def session_wanted(source: p.Source | None) -> Any:
    """The session a receiver asks for: an id, the next available one, or `None` for no session at all."""
    filters = source.filter if source is not None else None
    for key, value in (filters or {}).items():
        if str(key) != SESSION_FILTER and getattr(value, "descriptor", None) != SESSION_FILTER_CODE:
            continue
        inner = getattr(value, "value", value)
        return NEXT_AVAILABLE if inner is None else str(inner)
    return None
