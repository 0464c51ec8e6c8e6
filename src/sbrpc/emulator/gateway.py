"""Where AMQP and Service Bus meet: a peer's frames become broker calls, broker effects become frames.

Owns the meaning of addresses (`$cbs`, `<entity>/$management`, entities) and decides what stands behind a
link; the node objects are in `nodes`. With `nodes`, `management` and `content` it is the only place that
speaks both languages. It has no clock, no loop and no socket: `now` comes in, and the connections that
have something to send are collected in `dirty` for whoever owns the sockets.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from sbrpc.emulator import management
from sbrpc.emulator.access import Access, Right
from sbrpc.emulator.amqp import connection as amqp
from sbrpc.emulator.amqp import performatives as p
from sbrpc.emulator.amqp.types import Long, Symbol
from sbrpc.emulator.broker import (
    NEXT_AVAILABLE,
    Broker,
    BrokerError,
    ConsumerClosed,
    ConsumerRefused,
    Deliver,
    Mode,
    SessionAccepted,
)
from sbrpc.emulator.nodes import Meddler, Peer, ReceiverNode, ReplyNode, RequestNode, SenderNode
from sbrpc.emulator.traffic import Traffic

__all__ = ["Gateway", "normalise"]

log = logging.getLogger("sbrpc.emulator")

SESSION_FILTER = Symbol("com.microsoft:session-filter")
# The same filter by its numeric descriptor, as the .NET and Java clients may send it.
SESSION_FILTER_CODE = 0x137000000C
LOCKED_UNTIL = Symbol("com.microsoft:locked-until-utc")
SERVER_TIMEOUT = "com.microsoft:timeout"
# .NET ticks (100 ns) between the year 1 and 1970.
TICKS_TO_1970 = 621_355_968_000_000_000
SENDER_CREDIT = 1000


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
        # When the first heartbeat is due that some client waits for.
        self._heartbeat_at: float | None = None

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
                if peer.amqp.next_timer() is not None:
                    self._heartbeat_at = now
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

    def links_of(self, container_id: str) -> list[SenderNode | ReceiverNode]:
        """What stands behind the open links of connections with this name, as far as messages pass there."""
        nodes = (
            link.user for peer in self.peers if peer.container_id == container_id for link in peer.amqp.links
        )
        return [node for node in nodes if isinstance(node, SenderNode | ReceiverNode)]

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
        """When the broker, a client that waits for heartbeats, or who meddles wants to be woken."""
        times = (
            self.broker.next_timer(),
            self._heartbeat_at,
            self.meddler.next_timer() if self.meddler is not None else None,
        )
        return min((due for due in times if due is not None), default=None)

    def handle_timer(self, now: float) -> None:
        """Let everything happen that is due."""
        self.broker.handle_timer(now)
        if self._heartbeat_at is not None and self._heartbeat_at <= now:
            self._beat(now)
        if self.meddler is not None:
            self.meddler.handle_timer(now)
        self.after_broker(now)

    def time_went_back(self, now: float) -> None:
        """Begin anew with what is due when."""
        for peer in self.peers:
            peer.amqp.time_went_back()
        self._heartbeat_at = now

    def _beat(self, now: float) -> None:
        """Send the heartbeats that are due, and find out when the next one is."""
        self._heartbeat_at = None
        for peer in self.peers:
            due = peer.amqp.next_timer()
            if due is not None and due <= now:
                peer.amqp.handle_timer(now)
                self.dirty.add(peer)
                due = peer.amqp.next_timer()
            if due is not None and (self._heartbeat_at is None or due < self._heartbeat_at):
                self._heartbeat_at = due


def session_wanted(source: p.Source | None) -> Any:
    """The session a receiver asks for: an id, the next available one, or `None` for no session at all."""
    filters = source.filter if source is not None else None
    for key, value in (filters or {}).items():
        if str(key) != SESSION_FILTER and getattr(value, "descriptor", None) != SESSION_FILTER_CODE:
            continue
        inner = getattr(value, "value", value)
        return NEXT_AVAILABLE if inner is None else str(inner)
    return None
