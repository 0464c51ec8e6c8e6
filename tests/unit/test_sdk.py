"""The door to the SDK: its exceptions become ours, and connecting says what is missing."""

from __future__ import annotations

import asyncio
import ssl
import sys
import time
from typing import Any

import anyio
import pytest
from azure.servicebus import exceptions as sdk
from azure.servicebus.aio import ServiceBusClient

from sbrpc import _sdk
from sbrpc._sdk import _connect, client_for, is_transient, over_websockets, translated, unhurried, without_tls
from sbrpc.errors import AccessDenied, BusError, EntityNotFound

NO_SESSION_ID = (
    "The SessionId was not set on a message, and it cannot be sent to the entity. Entities that have session "
    "support enabled can only receive messages that have the SessionId set to a valid value."
)
SESSION_NEEDED = (
    "It is not possible for an entity that requires sessions to create a non-sessionful message receiver."
)
NO_SESSION = "A sessionful message receiver cannot be created on an entity that does not require sessions."


@pytest.mark.parametrize(
    ("theirs", "ours", "transient"),
    [
        (sdk.MessagingEntityNotFoundError(message="gone"), EntityNotFound, False),
        (sdk.ServiceBusAuthorizationError(message="no"), AccessDenied, False),
        (sdk.ServiceBusAuthenticationError(message="no"), AccessDenied, False),
        (sdk.MessagingEntityDisabledError(message="off"), _sdk.Throttled, True),
        (sdk.ServiceBusServerBusyError(message="50009"), _sdk.Throttled, True),
        (sdk.ServiceBusQuotaExceededError(message="full"), _sdk.Throttled, True),
        (sdk.MessageLockLostError(message="late"), _sdk.LockLost, False),
        (sdk.SessionLockLostError(message="late"), _sdk.LockLost, False),
        (sdk.MessageAlreadySettled(action="complete"), _sdk.LockLost, False),
        (sdk.SessionCannotBeLockedError(message="held"), _sdk.SessionHeld, True),
        (sdk.MessageSizeExceededError(message="big"), _sdk.TooLargeForBus, False),
        (sdk.ServiceBusConnectionError(message="cut"), _sdk.LinkLost, True),
        (sdk.ServiceBusCommunicationError(message="cut"), _sdk.LinkLost, True),
        (sdk.OperationTimeoutError(message="slow"), _sdk.LinkLost, True),
        (sdk.ServiceBusError("odd", condition=b"amqp:internal-error"), _sdk.LinkLost, True),
        (sdk.ServiceBusError("odd", condition=b"amqp:not-implemented"), _sdk.Refused, False),
        (
            sdk.ServiceBusError(SESSION_NEEDED, condition=b"amqp:not-allowed"),
            _sdk.MustNotRequireSessions,
            False,
        ),
        (sdk.ServiceBusError(NO_SESSION, condition=b"amqp:not-allowed"), _sdk.MustRequireSessions, False),
        (ConnectionResetError("reset"), _sdk.LinkLost, True),
        (asyncio.TimeoutError(), _sdk.LinkLost, True),
        (AttributeError("'NoneType' object has no attribute 'client_ready_async'"), _sdk.LinkLost, True),
        (ValueError("The handler has already been shutdown."), _sdk.LinkLost, True),
        (ValueError("Value supplied for unsigned int invalid: -1"), _sdk.Refused, False),
        (ValueError("The queue name provided does not match the EntityPath"), _sdk.Refused, False),
    ],
)
def test_every_exception_of_the_sdk_becomes_one_of_ours(
    theirs: Exception, ours: type[BusError], transient: bool
) -> None:
    """With what was being done in front, the SDK's exception as cause, and whether trying again may help."""
    with pytest.raises(BusError) as caught, translated("sending to 'movies'"):
        raise theirs
    assert type(caught.value) is ours
    assert str(caught.value).startswith("sending to 'movies': ")
    assert caught.value.__cause__ is theirs
    assert is_transient(caught.value) is transient


def test_our_own_errors_and_cancellation_pass() -> None:
    """Only foreign exceptions are translated."""
    ours = EntityNotFound("x")
    with pytest.raises(EntityNotFound) as caught, translated("y"):
        raise ours
    assert caught.value is ours
    with pytest.raises(asyncio.CancelledError), translated("y"):
        raise asyncio.CancelledError


@pytest.mark.parametrize(
    ("environment", "says"),
    [
        ({}, "SERVICEBUS_CONNECTION_STRING"),
        ({"SERVICEBUS_CONNECTION_STRING": ""}, "SERVICEBUS_FULLY_QUALIFIED_NAMESPACE"),
        ({}, "def app(connection)"),
        ({"SERVICEBUS_CONNECTION_STRING": "rubbish"}, "not a Service Bus connection string"),
        ({"SERVICEBUS_CONNECTION_STRING": "Endpoint=sb://x/"}, "SharedAccessKey=<key>"),
    ],
)
def test_connecting_says_what_is_missing(environment: dict[str, str], says: str) -> None:
    """A person reads the error, so it shows what a right value looks like."""
    with pytest.raises(ValueError) as caught:
        _connect(None, None, environment)
    assert says in str(caught.value)


async def test_a_connection_string_makes_a_client() -> None:
    """The argument, or the environment; without the SDK's own retries."""
    text = "Endpoint=sb://x.servicebus.windows.net/;SharedAccessKeyName=n;SharedAccessKey=k"
    async with _connect(None, None, {"SERVICEBUS_CONNECTION_STRING": f" {text} "}) as client:
        assert client.fully_qualified_namespace == "x.servicebus.windows.net"
    async with client_for(text) as client:
        assert isinstance(client, ServiceBusClient)


@pytest.mark.parametrize(
    ("string", "asked"),
    [
        ("Endpoint=sb://x/;TransportType=AmqpWebSockets", True),
        ("transporttype = amqpwebsockets ;Endpoint=sb://x/", True),
        ("Endpoint=sb://x/;TransportType=Amqp", False),
        ("Endpoint=sb://x/;NoTransportType=AmqpWebSockets", False),
        (None, False),
    ],
)
def test_a_connection_string_may_ask_for_websockets(string: str | None, asked: bool) -> None:
    """In the words of the SDKs of other languages."""
    assert over_websockets(string) is asked


@pytest.mark.parametrize(
    ("string", "plain"),
    [
        ("Endpoint=sb://localhost:5672;UseDevelopmentEmulator=true;", True),
        ("usedevelopmentemulator=true;Endpoint=sb://localhost", True),
        ("Endpoint=sb://x.servicebus.windows.net/;SharedAccessKeyName=n;SharedAccessKey=k", False),
        ("Endpoint=sb://localhost:5672;UseDevelopmentEmulator=True", False),
        ("Endpoint=sb://localhost:5672;UseDevelopmentEmulator=true-ish", False),
    ],
)
def test_certificates_are_left_out_only_where_there_is_no_tls(string: str, plain: bool) -> None:
    """As the SDK sees it; the context without them would refuse every server."""
    options = without_tls(string)
    assert bool(options) is plain
    for context in options.values():
        assert context.verify_mode is ssl.CERT_REQUIRED
        assert context.cert_store_stats() == {"x509": 0, "crl": 0, "x509_ca": 0}


def test_websockets_need_aiohttp(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the extra the error says what to install."""
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    text = "Endpoint=sb://x/;SharedAccessKeyName=n;SharedAccessKey=k;TransportType=AmqpWebSockets"
    with pytest.raises(ValueError, match=r"install aiohttp: pip install .sbrpc\[websockets\]"):
        _connect(text, None, {})


async def test_a_client_that_is_handed_in_stays_open() -> None:
    """Whoever made it closes it."""
    text = "Endpoint=sb://x.servicebus.windows.net/;SharedAccessKeyName=n;SharedAccessKey=k"
    async with ServiceBusClient.from_connection_string(text) as mine, client_for(mine) as client:
        assert client is mine


async def test_a_namespace_makes_a_client_that_signs_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the identity that the environment has; without the extra it says what to install."""
    pytest.importorskip("azure.identity")
    environment = {"SERVICEBUS_FULLY_QUALIFIED_NAMESPACE": "ns.servicebus.windows.net"}
    async with _connect(None, None, environment) as client:
        assert client.fully_qualified_namespace == "ns.servicebus.windows.net"
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    with pytest.raises(
        ValueError, match=r"install azure-identity and aiohttp: pip install .sbrpc\[identity\]"
    ):
        _connect(None, None, environment)


async def test_a_client_closes_the_credential_that_was_made_for_it() -> None:
    """Otherwise its HTTP session stays open to the end of the process, which then complains."""

    class Credential:
        closed = 0

        async def close(self) -> None:
            self.closed += 1

    credential = Credential()
    async with _sdk.SignedIn("ns.servicebus.windows.net", credential, retry_total=0):
        assert credential.closed == 0
    assert credential.closed == 1


async def test_nothing_else_is_a_connection() -> None:
    """The error names what was passed."""
    wrong: Any = 7
    with pytest.raises(TypeError, match="not 7"):
        async with client_for(wrong):
            pass


@pytest.mark.parametrize(("theirs", "advice"), [(NO_SESSION, "`requires_session`"), (NO_SESSION_ID, "`key`")])
def test_what_sessions_need_is_said(theirs: str, advice: str) -> None:
    """After Service Bus's own words, in those of this library."""
    with pytest.raises(_sdk.Refused, match=advice), translated("sending to 'movies'"):
        raise sdk.ServiceBusError(theirs, condition=b"amqp:not-allowed")


async def test_what_is_late_because_the_loop_is_busy_has_more_time() -> None:
    """It takes three times as long as it may, but most of that the loop is kept from it."""
    with unhurried(0.2):
        for _ in range(3):
            await asyncio.sleep(0.001)
            time.sleep(0.2)  # noqa: ASYNC251 - so that the loop is kept


async def test_what_nothing_comes_of_ends() -> None:
    """A loop that has nothing else to do waits for no longer than it says."""
    with pytest.raises(TimeoutError), unhurried(0.2):
        await anyio.sleep_forever()
