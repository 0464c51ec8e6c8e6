"""The one door to the Azure SDK: how a client is made, and how the SDK's exceptions become ours.

Nothing else in sbrpc imports the SDK's exceptions. What leaves this door is `BusError` or a subclass, always
with the SDK's exception as its cause. The private subclasses say what to do about it.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import re
import ssl
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from functools import cache
from importlib import import_module
from time import monotonic
from types import TracebackType
from typing import Any, Protocol, TypeVar

import anyio
from azure.core.exceptions import AzureError
from azure.servicebus import TransportType
from azure.servicebus import exceptions as sdk
from azure.servicebus.aio import ServiceBusClient
from tenacity import RetryCallState, wait_exponential, wait_random

from .errors import AccessDenied, BusError, EntityNotFound

__all__ = [
    "LinkLost",
    "LockLost",
    "MustNotRequireSessions",
    "MustRequireSessions",
    "Refused",
    "SessionHeld",
    "Throttled",
    "TooLargeForBus",
    "bounded",
    "client_for",
    "connect",
    "is_transient",
    "open_handler",
    "opening",
    "over_websockets",
    "reconnecting",
    "remembered",
    "translate",
    "translated",
    "without_tls",
]

B = TypeVar("B", bound=BusError)

_log = logging.getLogger("sbrpc")

CONNECTION_STRING = "SERVICEBUS_CONNECTION_STRING"
NAMESPACE = "SERVICEBUS_FULLY_QUALIFIED_NAMESPACE"

# Opening a link takes 0.5 s against a broker next door and 1 to 2 s against Azure on a bad day. What takes
# longer is a connection nobody answers; a fresh attempt finds out sooner than waiting does. But a process
# that gets little of a processor needs more time, and would begin afresh for ever: so these are seconds of an
# event loop that looks at this interval, which is as often as the SDK does.
OPEN_TIMEOUT = 5.0
_LOOK = 0.05

# By then a connection stands, or nobody answers.
_CONNECTED_AFTER = 1.0

# Closing tells the broker and then waits for the SDK's own background task. Nobody has to wait for that.
CLOSE_TIMEOUT = 5.0


class LinkLost(BusError):
    """The connection or the link is gone, or nobody answers; open afresh and try again."""


class Throttled(BusError):
    """Service Bus asks to slow down, or the entity is full or disabled for now."""


class Refused(BusError):
    """Service Bus will not do this, however often it is asked."""


class MustRequireSessions(Refused):
    """A session was asked for on an entity that has none."""


class MustNotRequireSessions(Refused):
    """The entity requires sessions, and none was named."""


class TooLargeForBus(Refused):
    """Service Bus finds the message too large."""


class LockLost(BusError):
    """The lock on a message or a session is gone; somebody else may have it."""


class SessionHeld(BusError):
    """The session is locked by another receiver, perhaps by a connection that died a moment ago."""


_KINDS: tuple[tuple[type[Exception], type[BusError]], ...] = (
    (sdk.MessagingEntityNotFoundError, EntityNotFound),
    (sdk.ServiceBusAuthorizationError, AccessDenied),
    (sdk.ServiceBusAuthenticationError, AccessDenied),
    (sdk.MessagingEntityDisabledError, Throttled),
    (sdk.ServiceBusServerBusyError, Throttled),
    (sdk.ServiceBusQuotaExceededError, Throttled),
    (sdk.MessageLockLostError, LockLost),
    (sdk.SessionLockLostError, LockLost),
    (sdk.MessageAlreadySettled, LockLost),
    (sdk.MessageNotFoundError, Refused),
    (sdk.SessionCannotBeLockedError, SessionHeld),
    (sdk.MessageSizeExceededError, TooLargeForBus),
)

# The SDK has no class for these; the condition stands at the end of its message.
_REFUSALS = frozenset(
    {
        "amqp:not-allowed",
        "amqp:not-implemented",
        "amqp:invalid-field",
        "amqp:decode-error",
        "com.microsoft:argument-error",
        "com.microsoft:argument-out-of-range",
    }
)
# What the SDK says of values that it cannot encode, and of a client that is for another entity. To try again
# helps nobody, and costs the link.
_HOPELESS = re.compile(
    r"Value supplied for [\w ]+ invalid|surrogates not allowed|does not match the EntityPath"
)
# The entity that a key is for. Which ones are needed each end knows itself, and the key decides about them.
_ENTITY_PATH = re.compile(r";\s*EntityPath\s*=[^;]*", re.IGNORECASE)
_WEBSOCKETS = re.compile(r"(?:^|;)\s*TransportType\s*=\s*AmqpWebSockets\s*(?:;|$)", re.IGNORECASE)
# As the SDK reads it: the name in any case, the value in this one.
_PLAIN = re.compile(r"(?:^|;)(?i:UseDevelopmentEmulator)=true(?:;|$)")
_CONDITION = re.compile(r"Error condition: ([\w:.\-]+?)\.?(?:\s|$)")


def bus_error(error: Exception, what: str) -> BusError:
    """Our error for one of the SDK's. Whatever the SDK raises unexpectedly counts as a lost link."""
    for theirs, ours in _KINDS:
        if isinstance(error, theirs):
            return ours(f"{what}: {_prose(error)}")
    found = _CONDITION.search(str(error))
    condition = found.group(1) if found else None
    if condition in _REFUSALS:
        text = _prose(error)
        if "does not require session" in text:
            return MustRequireSessions(f"{what}: {text} Make it one with sessions: `requires_session`.")
        if "session support enabled" in text:
            return MustNotRequireSessions(f"{what}: {text} Give an ordering key: `key`.")
        if "requires session" in text:
            return MustNotRequireSessions(f"{what}: {text}")
        return Refused(f"{what}: {text}")
    if _HOPELESS.search(str(error)):
        return Refused(f"{what}: {_prose(error)}")
    return LinkLost(f"{what}: {_prose(error) or type(error).__name__}")


def _prose(error: Exception) -> str:
    """The SDK's message in one line and without its own name for the condition."""
    return " ".join(_CONDITION.sub("", str(error)).split())[:500]


def translate(error: Exception, what: str) -> BusError:
    """What the SDK has raised as a `BusError`, which begins with `what` and has it as its cause."""
    if isinstance(error, BusError):
        return error
    if not isinstance(error, AzureError | OSError | asyncio.TimeoutError):
        # The SDK lets an AttributeError, a KeyError or a ValueError escape where a link ended under it.
        _log.debug("the SDK raised %r in %s", error, what, exc_info=error)
    ours = bus_error(error, what)
    ours.__cause__ = error
    return ours


class translated:
    """Whatever the SDK raises inside the block leaves it as a `BusError` that begins with `what`."""

    __slots__ = ("_what",)

    def __init__(self, what: str) -> None:
        self._what = what

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, Exception) and not isinstance(error, BusError):
            raise translate(error, self._what) from error


@cache
def _scope_class() -> type[anyio.CancelScope]:
    # Asking anyio for a scope looks for the kind of event loop in use each time. The SDK knows but one.
    return type(anyio.CancelScope())


def bounded(seconds: float) -> anyio.CancelScope:
    """A scope that is cancelled after so many seconds; `inf` for one that is only cancelled by hand."""
    if seconds == math.inf:
        return _scope_class()()
    return _scope_class()(deadline=asyncio.get_running_loop().time() + seconds)


def remembered(error: B) -> B:
    """The error as it can be kept: with its cause, without the frames that hold on to dead connections."""
    kept = type(error)(*error.args)
    cause = error.__cause__
    kept.__cause__ = cause
    seen: set[int] = set()
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        cause.__traceback__ = None
        if isinstance(cause, AzureError):
            cause.exc_traceback = cause.exc_value = None
        cause = cause.__cause__ or cause.__context__
    return kept


def is_transient(error: BaseException) -> bool:
    """Whether the same operation may succeed later without anybody changing anything."""
    return isinstance(error, LinkLost | Throttled | SessionHeld)


_SOON = wait_exponential(multiplier=0.05, max=0.3) + wait_random(0, 0.1)
_LATER = wait_exponential(multiplier=1, max=5) + wait_random(0, 1)


def reconnecting(state: RetryCallState) -> float:
    """Seconds to wait between attempts to open a link: few, so that a call soon finds the way again.

    An unreachable broker is asked about three times a second, what only a person can mend rarely.
    """
    error = state.outcome.exception() if state.outcome is not None else None
    return (_SOON if isinstance(error, LinkLost | SessionHeld) else _LATER)(state)


class Handler(Protocol):
    """What the SDK's senders and receivers have in common."""

    async def __aenter__(self) -> Any: ...

    async def close(self) -> None: ...


@asynccontextmanager
async def opening(handler: Handler, what: str, timeout: float = OPEN_TIMEOUT) -> AsyncIterator[None]:
    """The SDK object is open inside the block and closed after it; both are bounded in time.

    Closing happens even if the surrounding task is being cancelled: otherwise the lock on a session stays
    with a receiver that nobody reads any more.
    """
    try:
        with translated(what), unhurried(timeout):
            await open_handler(handler)
        yield
    finally:
        await close(handler, what)


@contextmanager
def unhurried(timeout: float) -> Iterator[None]:
    """As `anyio.fail_after`, but time in which the event loop was too busy to look is not counted.

    Raises:
        TimeoutError: the loop has looked as often as it does in `timeout` seconds.
    """
    loop = asyncio.get_running_loop()
    scope = anyio.CancelScope()
    looks = max(1, math.ceil(timeout / _LOOK))
    timer: asyncio.TimerHandle

    def look() -> None:
        nonlocal looks, timer
        looks -= 1
        if looks:
            timer = loop.call_later(_LOOK, look)
        else:
            scope.cancel()

    timer = loop.call_later(_LOOK, look)
    try:
        with scope:
            yield
    finally:
        timer.cancel()
    if scope.cancelled_caught:
        raise TimeoutError


async def open_handler(handler: Handler) -> None:
    """Open an SDK object; raises what the SDK raises.

    The SDK does not take cancellation well: early on it forgets its socket, and later it cleans up, but only
    if it is let, while a scope of anyio would cancel the cleaning too. So opening is a task of its own, which
    is given a second to get over the first part, and is then cancelled until it hears it: `asyncio.wait_for`,
    of which the SDK makes much use, lost some cancellations before Python 3.12.
    """
    started = monotonic()
    task = asyncio.ensure_future(handler.__aenter__())
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        with anyio.move_on_after(CLOSE_TIMEOUT, shield=True):
            await asyncio.wait([task], timeout=max(0.0, started + _CONNECTED_AFTER - monotonic()))
            while not task.done():
                task.cancel()
                await asyncio.wait([task], timeout=0.5)
        if task.done() and not task.cancelled():
            task.exception()  # nobody else asks for it
        raise


async def close(handler: Handler, what: str) -> None:
    """Close an SDK object whatever state it is in; never raises and takes a bounded time."""
    with anyio.move_on_after(CLOSE_TIMEOUT, shield=True):
        try:
            await handler.close()
        except Exception as error:  # it is gone either way; the broker finds out by itself
            _log.debug("closing %s: %r", what, error)


class Closes(Protocol):
    """A credential, as far as it matters when it is no longer needed."""

    async def close(self) -> None: ...


class SignedIn(ServiceBusClient):
    """A client that closes its credential; the SDK's own leaves it, and its HTTP session, open."""

    def __init__(self, namespace: str, credential: Any, **options: Any) -> None:
        super().__init__(namespace, credential, **options)
        self._signed_in_with: Closes = credential

    async def close(self) -> None:
        """Close every link, then what asks for their tokens."""
        await super().close()
        await self._signed_in_with.close()


def connect(
    connection_string: str | None = None, *, namespace: str | None = None, websockets: bool = False
) -> ServiceBusClient:
    """A `ServiceBusClient` set up for sbrpc; use it as `async with connect() as connection`.

    Without arguments it reads `SERVICEBUS_CONNECTION_STRING`, or `SERVICEBUS_FULLY_QUALIFIED_NAMESPACE` and
    authenticates with `DefaultAzureCredential` (needs `pip install "sbrpc[identity]"`). The SDK's own retries
    are off: sbrpc retries by itself, sooner and within the caller's deadline.

    Args:
        connection_string: where Service Bus is, and a key.
        namespace: where it is, as `<namespace>.servicebus.windows.net`, to sign in with an Azure identity.
        websockets: go over port 443, where a firewall closes 5671 (needs `pip install "sbrpc[websockets]"`);
            `TransportType=AmqpWebSockets` in the connection string does the same.

    Raises:
        ValueError: there is no connection string and no namespace, or the string is malformed, or what is
            asked for is not installed.
    """
    return _connect(connection_string, namespace, os.environ, websockets=websockets)


def over_websockets(connection_string: str | None) -> bool:
    """Whether a connection string asks for WebSockets, as those of other SDKs do; Azure's ignores it."""
    return connection_string is not None and _WEBSOCKETS.search(connection_string) is not None


@cache
def _trusting_nobody() -> ssl.SSLContext:
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def without_tls(connection_string: str) -> dict[str, Any]:
    """Options of a client that spare it a TLS context, where the connection string says that there is no TLS.

    The SDK makes one for each connection all the same, and reads all root certificates for it: 30 ms in which
    nothing else runs. The context given instead would accept no certificate, should it ever be used.
    """
    return {"ssl_context": _trusting_nobody()} if _PLAIN.search(connection_string) else {}


def _connect(
    connection_string: str | None,
    namespace: str | None,
    environment: Mapping[str, str],
    *,
    websockets: bool = False,
) -> ServiceBusClient:
    connection_string = connection_string or environment.get(CONNECTION_STRING)
    namespace = namespace or environment.get(NAMESPACE)
    options: dict[str, Any] = {"retry_total": 0}
    if websockets or over_websockets(connection_string):
        _need("aiohttp", "to go over WebSockets, install aiohttp", "websockets")
        options["transport_type"] = TransportType.AmqpOverWebsocket
    if connection_string:
        connection_string = _ENTITY_PATH.sub("", connection_string.strip())
        options |= without_tls(connection_string)
        try:
            return ServiceBusClient.from_connection_string(connection_string, **options)
        except (ValueError, UnboundLocalError) as error:
            # UnboundLocalError is how the SDK says that neither a key nor a token is in the string.
            raise ValueError(
                "this is not a Service Bus connection string: expected "
                '"Endpoint=sb://<namespace>/;SharedAccessKeyName=<name>;SharedAccessKey=<key>" '
                f"({type(error).__name__}: {error})"
            ) from error
    if namespace:
        why = (
            f"to authenticate at {namespace} without a connection string, install azure-identity and aiohttp"
        )
        _need("aiohttp", why, "identity")  # which the credential needs for its first token, and not before
        identity = _need("azure.identity.aio", why, "identity")
        return SignedIn(namespace.strip(), identity.DefaultAzureCredential(), **options)
    raise ValueError(
        f"where is Service Bus? Set {CONNECTION_STRING} to a connection string, or {NAMESPACE} to "
        '"<namespace>.servicebus.windows.net" to sign in with your Azure identity. '
        "What is imported without either, as by tests, makes its servers and buses in a function, "
        "def app(connection): ..., for `sbrpc run` and sbrpc.testing to call"
    )


def _need(module: str, why: str, extra: str) -> Any:
    try:
        return import_module(module)
    except ImportError as error:
        raise ValueError(f'{why}: pip install "sbrpc[{extra}]"') from error


@asynccontextmanager
async def client_for(connection: str | ServiceBusClient) -> AsyncIterator[ServiceBusClient]:
    """The client of a connection: one that is handed in stays open, one made from a string is closed."""
    if isinstance(connection, str):
        async with connect(connection) as owned:
            yield owned
    elif isinstance(connection, ServiceBusClient):
        yield connection
    else:
        raise TypeError(
            "a connection is a connection string or an azure.servicebus.aio.ServiceBusClient, "
            f"not {connection!r}"
        )
