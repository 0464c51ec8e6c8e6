"""What faults do to a gateway: operations that fail, locks that are lost, links that are detached.

Owns carrying out what `faults` decides about operations, messages and links. Connections and their bytes are
the business of `hindrance`. Knows the gateway's nodes and the broker's calls, and no socket; `now` comes in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from uuid import UUID

from sbrpc.emulator.broker import BrokerError, Complete, Deliver, Outcome, Release
from sbrpc.emulator.faults import (
    Detach,
    Duplicate,
    Fault,
    Faults,
    LoseLock,
    LoseSession,
    Operation,
    TargetedFault,
)
from sbrpc.emulator.gateway import Gateway
from sbrpc.emulator.nodes import BaseNode, Peer, ReceiverNode, SenderNode

__all__ = ["Interference"]

# Messages to be delivered once more that nobody settles are forgotten at last.
_MOST_AGAIN = 10_000


class Interference:
    """Stands beside one gateway while faults are in force; `ended` is called when one ends by itself."""

    def __init__(self, gateway: Gateway, faults: Faults, *, ended: Callable[[], None]) -> None:
        self.gateway = gateway
        self.faults = faults
        self._ended = ended
        self._later: list[tuple[Fault, BaseNode, Deliver | None]] = []
        # Lock tokens of messages that come back once they are completed.
        self._again: set[UUID] = set()
        # What will be delivered a second time, by address and sequence number.
        self._repeated: set[tuple[str, int]] = set()

    # -- what the gateway asks on its way ---------------------------------------------------------------

    def before(self, operation: Operation, address: str, peer: Peer, now: float) -> BrokerError | None:
        """Raise for an operation that fails; the error of one that is carried out first is returned."""
        failure = self.faults.operation(operation, address, peer.container_id, now, self._spent)
        if failure is None:
            return None
        error = BrokerError(failure.condition, failure.description)
        if failure.stored:
            return error
        raise error

    def _spent(self) -> int:
        return sum(account.credits for account in self.gateway.broker.books().values())

    def sent(self, node: SenderNode) -> None:
        """A message has come in over a link."""
        for fault in self.faults.message(node.address, node.peer.container_id, delivery=False, session=None):
            self._later.append((fault, node, None))

    def delivered(self, node: ReceiverNode, effect: Deliver) -> None:
        """A message has gone out over a link."""
        session = effect.consumer.session_id
        struck = self.faults.message(node.address, node.peer.container_id, delivery=True, session=session)
        # A message that has come twice is not a new one, or it would come for ever.
        key = (node.address, effect.message.sequence_number)
        if key in self._repeated:
            self._repeated.discard(key)
            struck = [fault for fault in struck if not isinstance(fault, Duplicate)]
        self._later += [(fault, node, effect) for fault in struck]

    def settling(self, token: UUID, outcome: Outcome) -> Outcome:
        """What becomes of a receiver's decision: completing a message that is to come twice releases it."""
        if token in self._again:
            self._again.discard(token)
            if isinstance(outcome, Complete):
                return Release()
        return outcome

    def catch_up(self, now: float) -> bool:
        """Do what had to wait until all effects were carried out; whether there was anything."""
        later, self._later = self._later, []
        for fault, node, effect in later:
            self._strike(fault, node, effect, now)
        return bool(later)

    # -- time -------------------------------------------------------------------------------------------

    def next_timer(self) -> float | None:
        """When the next fault ends."""
        return self.faults.next_timer()

    def handle_timer(self, now: float) -> None:
        """End what is over."""
        if self.faults.handle_timer(now):
            self._ended()

    # -- doing it ---------------------------------------------------------------------------------------

    def strike(self, fault: TargetedFault, now: float) -> int:
        """Carry out a fault on everything that it concerns now; on how many things."""
        struck = 0
        for node in list(self._nodes(fault)):
            if isinstance(fault, Detach):
                self._detach(fault, node, now)
                struck += 1
            elif isinstance(node, ReceiverNode) and isinstance(fault, LoseLock):
                struck += sum(self._lose_lock(node, token, now) for token in list(node.tokens.values()))
            elif isinstance(node, ReceiverNode) and isinstance(fault, LoseSession):
                struck += self._lose_session(fault, node, now)
        self.gateway.after_broker(now)
        return struck

    def _nodes(self, fault: TargetedFault) -> Iterator[SenderNode | ReceiverNode]:
        for peer in self.gateway.peers:
            for link in peer.amqp.links:
                node = link.user
                if isinstance(node, SenderNode | ReceiverNode) and fault.concerns(
                    node.address, peer.container_id
                ):
                    yield node

    def _strike(self, fault: Fault, node: BaseNode, effect: Deliver | None, now: float) -> None:
        if isinstance(fault, Detach):
            self._detach(fault, node, now)
        elif isinstance(node, ReceiverNode) and effect is not None and effect.lock_token is not None:
            token = effect.lock_token
            if isinstance(fault, LoseLock):
                self._lose_lock(node, token, now)
            elif isinstance(fault, LoseSession):
                self._lose_session(fault, node, now)
            elif isinstance(fault, Duplicate):
                self._repeat(node, effect, token, now)

    def _detach(self, fault: Detach, node: BaseNode, now: float) -> None:
        node.link.detach(fault.condition, fault.description)
        node.link.user = None
        node.detached(now)
        self.gateway.dirty.add(node.peer)

    def _lose_lock(self, node: ReceiverNode, token: UUID, now: float) -> bool:
        try:
            self.gateway.broker.lose_message_lock(node.address, token, now)
        except BrokerError:
            return False  # It has been settled, or its lock is gone already.
        return True

    def _lose_session(self, fault: LoseSession, node: ReceiverNode, now: float) -> bool:
        session = node.consumer.session_id if node.consumer is not None else None
        if session is None or fault.session_id not in (None, session):
            return False
        try:
            self.gateway.broker.lose_session_lock(node.address, session, now)
        except BrokerError:
            return False  # It has just been given back.
        return True

    def _repeat(self, node: ReceiverNode, effect: Deliver, token: UUID, now: float) -> None:
        if len(self._repeated) >= _MOST_AGAIN:
            return
        try:
            repeated = self.gateway.broker.deliver_again(node.address, token, now)
        except BrokerError:
            return  # Its lock is gone already.
        self._repeated.add((node.address, effect.message.sequence_number))
        if not repeated:
            # Nobody has room for a second copy now, so it comes back after the client has completed it.
            self._again.add(token)
