"""The one exception of the broker, and the sentences Service Bus says with it.

Owns conditions and descriptions: clients decide by both, so they stand in one place. A condition is an opaque
name here; that it travels as an AMQP symbol is the gateway's business.
"""

from __future__ import annotations

__all__ = [
    "BrokerError",
    "already_exists",
    "argument",
    "entity_disabled",
    "forwards",
    "link_idle",
    "message_lock_lost",
    "message_not_found",
    "message_too_large",
    "not_allowed",
    "not_found",
    "out_of_range",
    "quota_exceeded",
    "session_cannot_be_locked",
    "session_id_missing",
    "session_lock_lost",
    "timed_out",
]


class BrokerError(Exception):
    """An operation was refused: `condition` says it to programs, `description` to people."""

    def __init__(self, condition: str, description: str) -> None:
        super().__init__(condition, description)
        self.condition = condition
        self.description = description

    def __str__(self) -> str:
        return f"{self.condition}: {self.description}"


def not_found(address: str) -> BrokerError:
    """No entity has that name. The JavaScript client recognises the error by this very sentence."""
    return BrokerError("amqp:not-found", f"The messaging entity '{address}' could not be found.")


def already_exists(address: str) -> BrokerError:
    """An entity or rule was to be created under a name that is taken."""
    return BrokerError(
        "com.microsoft:entity-already-exists", f"The messaging entity '{address}' already exists."
    )


def not_allowed(description: str) -> BrokerError:
    """The entity is of a kind that does not do this."""
    return BrokerError("amqp:not-allowed", description)


def argument(description: str) -> BrokerError:
    """A value of the request makes no sense."""
    return BrokerError("com.microsoft:argument-error", description)


def out_of_range(description: str) -> BrokerError:
    """A value of the request is too long, too large or negative."""
    return BrokerError("com.microsoft:argument-out-of-range", description)


def entity_disabled(address: str, status: str) -> BrokerError:
    """The entity's status forbids what was asked."""
    return BrokerError(
        "com.microsoft:entity-disabled",
        f"Messaging entity '{address}' is currently disabled (status {status}).",
    )


def message_lock_lost() -> BrokerError:
    """The lock token is not, or no longer, the key to a message."""
    return BrokerError(
        "com.microsoft:message-lock-lost",
        "The lock supplied is invalid. Either the lock expired, or the message has already been removed "
        "from the queue.",
    )


def message_not_found(numbers: list[int]) -> BrokerError:
    """None of the sequence numbers leads to a message that can be had."""
    return BrokerError(
        "com.microsoft:message-not-found",
        "The operation was unable to be completed because the sequence numbers provided "
        f"({', '.join(map(str, numbers))}) were not found or no longer available.",
    )


def session_lock_lost() -> BrokerError:
    """The session is not, or no longer, locked for the caller."""
    return BrokerError(
        "com.microsoft:session-lock-lost",
        "The session lock has expired on the MessageSession. Accept a new MessageSession.",
    )


def session_cannot_be_locked(session_id: str) -> BrokerError:
    """Somebody else has the session."""
    return BrokerError(
        "com.microsoft:session-cannot-be-locked",
        f"The requested session '{session_id}' cannot be accepted. It may be locked by another receiver.",
    )


def session_id_missing() -> BrokerError:
    """A message for an entity with sessions says no session."""
    return not_allowed(
        "The SessionId was not set on a message, and it cannot be sent to the entity. Entities that have "
        "session support enabled can only receive messages that have the SessionId set to a valid value."
    )


def quota_exceeded(kind: str, name: str) -> BrokerError:
    """The entity is full."""
    return BrokerError(
        "amqp:resource-limit-exceeded",
        f"The maximum entity size has been reached or exceeded for {kind}: '{name}'.",
    )


def message_too_large(what: str, size: int, limit: int) -> BrokerError:
    """A message, its header or a session state has more bytes than the entity takes."""
    return BrokerError(
        "amqp:link:message-size-exceeded",
        f"The received {what} (size:{size} bytes) exceeds the limit ({limit} bytes) currently allowed "
        "on the link.",
    )


def timed_out(seconds: float, what: str) -> BrokerError:
    """Nothing came within the time the client gave."""
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(int(minutes), 60)
    return BrokerError(
        "com.microsoft:timeout",
        f"The operation did not complete within the allocated time {hours:02d}:{minutes:02d}:{rest:06.3f} "
        f"for object {what}.",
    )


def forwards(address: str) -> BrokerError:
    """The entity's messages all go elsewhere."""
    return not_allowed(
        f"Cannot create a message receiver on an entity with auto-forwarding enabled: '{address}'."
    )


def link_idle(seconds: float) -> BrokerError:
    """Nothing moved on a consumer's link for too long."""
    return BrokerError(
        "amqp:link:detach-forced",
        f"The link is force detached because nothing moved on it for {seconds:g} seconds.",
    )
