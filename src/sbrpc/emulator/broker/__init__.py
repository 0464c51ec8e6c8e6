"""Service Bus without a wire: entities, messages, locks and sessions, with time as data.

This is the door; it owns no code. Nothing behind it knows AMQP, a clock, an event loop or a socket.
"""

from sbrpc.emulator.broker.books import Books
from sbrpc.emulator.broker.broker import Broker
from sbrpc.emulator.broker.consumers import NEXT_AVAILABLE, Consumer, SessionChoice
from sbrpc.emulator.broker.effects import (
    ConsumerClosed,
    ConsumerRefused,
    Deliver,
    Effect,
    SessionAccepted,
)
from sbrpc.emulator.broker.errors import BrokerError
from sbrpc.emulator.broker.exchange import Limits
from sbrpc.emulator.broker.messages import (
    NEVER,
    Abandon,
    Complete,
    Content,
    DeadLetter,
    Defer,
    Incoming,
    Message,
    MessageState,
    Mode,
    Outcome,
    Release,
)
from sbrpc.emulator.broker.runtime import Runtime, SessionInfo

__all__ = [
    "Broker",
    "BrokerError",
    "Limits",
    # messages
    "NEVER",
    "Content",
    "Incoming",
    "Message",
    "MessageState",
    # consumers and what they decide
    "NEXT_AVAILABLE",
    "Abandon",
    "Complete",
    "Consumer",
    "DeadLetter",
    "Defer",
    "Mode",
    "Outcome",
    "Release",
    "SessionChoice",
    # effects
    "ConsumerClosed",
    "ConsumerRefused",
    "Deliver",
    "Effect",
    "SessionAccepted",
    # from outside
    "Books",
    "Runtime",
    "SessionInfo",
]
