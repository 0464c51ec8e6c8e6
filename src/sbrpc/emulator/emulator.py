"""The emulator as one object: broker, gateway and sockets put together.

Owns start and stop, the connection string, and the virtual clock's steps. What a queue does is the broker's,
what a frame means is the gateway's.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Iterable
from types import TracebackType

from sbrpc.emulator.access import Access, AccessKey
from sbrpc.emulator.amqp.connection import Connection, Limits
from sbrpc.emulator.broker import Books, Broker
from sbrpc.emulator.broker import Limits as BrokerLimits
from sbrpc.emulator.clock import VirtualClock
from sbrpc.emulator.control import FaultControl
from sbrpc.emulator.faults import Faults
from sbrpc.emulator.gateway import Gateway
from sbrpc.emulator.http.admin import Admin
from sbrpc.emulator.http.api import Api
from sbrpc.emulator.http.messages import Request, Response
from sbrpc.emulator.http.server import HttpFront
from sbrpc.emulator.http.site import Site
from sbrpc.emulator.http.tls import Certificate
from sbrpc.emulator.interference import Interference
from sbrpc.emulator.tcp import Front
from sbrpc.emulator.traffic import Traffic
from sbrpc.topology import Queue, Topic

__all__ = ["Emulator"]

log = logging.getLogger("sbrpc.emulator")

DEFAULT_KEY_NAME = "RootManageSharedAccessKey"
DEFAULT_KEY = "SAS_KEY_VALUE"
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
# Addresses to listen on that nobody can connect to: a client on this machine uses the other name.
_WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "localhost"}


class Emulator:
    """A Service Bus namespace inside this process.

        async with Emulator(queues=["movies"]) as emulator:
            client = ServiceBusClient.from_connection_string(emulator.connection_string)

    `queues` and `topics` are topology values, or names for entities with Azure's defaults. Port 0 picks a
    free one. With `http_port` it also serves the management API, a page to look into it at `http_url`, and
    all that the page shows and does as JSON; HTTP and TLS share that port. It listens on loopback unless
    `host` says otherwise. `faults` make things go wrong, `books` tell what use would cost, `advance` moves
    the time. All state is in memory and ends with the object; `restart` drops the connections and keeps
    the state. Links on which nothing moves are kept, or detached after `idle_timeout`, as Azure does after
    600. Beyond `max_connections` a connection is refused; one that lets more than `max_backlog` bytes wait is
    dropped. Times are seconds. Not safe to share between loops.
    """

    def __init__(
        self,
        *,
        queues: Iterable[Queue | str] = (),
        topics: Iterable[Topic | str] = (),
        host: str = "127.0.0.1",
        port: int = 0,
        http_port: int | None = None,
        namespace: str = "sbemulatorns",
        access_keys: Iterable[AccessKey] = (),
        max_connections: int = 5000,
        max_backlog: int = 64 * 1024 * 1024,
        limits: Limits | None = None,
        idle_timeout: float | None = None,
    ) -> None:
        self.host = host
        self.port = port
        self.http_port = http_port
        self.namespace = namespace
        self.certificate = Certificate(() if host in _WILDCARDS else (host,))
        self.clock = VirtualClock()
        self.broker = Broker(limits=BrokerLimits(idle_timeout=idle_timeout))
        self.access = Access(access_keys)
        amqp_limits = limits or Limits()
        self.gateway = Gateway(self.broker, self.access, new_peer=lambda: Connection(amqp_limits))
        self.front = Front(self.gateway, self.clock, max_connections=max_connections, max_backlog=max_backlog)
        faults = Faults()
        interference = Interference(self.gateway, faults, ended=lambda: self.faults.changed())
        self.faults = FaultControl(faults, interference, self.front, self.clock)
        self._http = self._build_http() if http_port is not None else None
        self._wanted_port = port
        self._wanted_http_port = http_port
        self._running = False
        if isinstance(queues, str) or isinstance(topics, str):
            raise TypeError("queues and topics are lists, as in queues=['movies']")
        entities: list[Queue | Topic] = [Queue(item) if isinstance(item, str) else item for item in queues]
        entities += [Topic(item) if isinstance(item, str) else item for item in topics]
        self.create(*entities)

    @property
    def connection_string(self) -> str:
        """What an Azure SDK client needs to connect; RuntimeError while the emulator does not run."""
        return self.connection_string_for(*self._first_key())

    def connection_string_for(self, key_name: str, key: str) -> str:
        """The connection string with a given access key in it."""
        return self._connection_string(self.port, key_name, key)

    @property
    def admin_connection_string(self) -> str:
        """What a `ServiceBusAdministrationClient` needs. It insists on TLS, so it is told whom to trust:

            ServiceBusAdministrationClient.from_connection_string(
                emulator.admin_connection_string, connection_verify=emulator.certificate_file
            )

        Known while the emulator runs with an `http_port`; RuntimeError otherwise.
        """
        return self._connection_string(self._known_http_port(), *self._first_key())

    @property
    def http_url(self) -> str:
        """Where the page is, and the JSON API, and the management API; the same with https."""
        return f"http://{self._address(self._known_http_port())}"

    @property
    def certificate_file(self) -> str:
        """A file with the certificate authority that `https` clients of this emulator have to trust, in PEM.

        It is made when it is first asked for and deleted when the emulator stops. Raises
        `TlsUnavailable` when the `cryptography` package is not installed.
        """
        return str(self.certificate.file)

    @property
    def books(self) -> dict[str, Books]:
        """Operations and credits of each entity by address, counted as Azure does."""
        return self.broker.books()

    def create(self, *entities: Queue | Topic) -> None:
        """Create queues and topics, all or none.

        Raises:
            BrokerError: one exists already, or forwards to one that does not.
        """
        self.broker.create(entities, self.clock.now())
        self._changed()

    def wipe(self) -> None:
        """Throw away every message in whatever state, session states and faults, and show real time again.

        That is what a test leaves behind. Entities, connections and links stay, with the locks they hold.
        """
        self.faults.clear()
        self.broker.wipe(self.clock.now())
        self._changed()
        if self.clock.ahead:
            self.clock.rewind()
            self.gateway.time_went_back(self.clock.now())
            self.front.wake()

    def _first_key(self) -> tuple[str, str]:
        key = self.access.keys[0] if self.access.enforced else None
        return (DEFAULT_KEY_NAME, DEFAULT_KEY) if key is None else (key.name, key.key)

    def _connection_string(self, port: int, key_name: str, key: str) -> str:
        if not self._running:
            raise RuntimeError("the emulator is not running; its port is known inside `async with`")
        return (
            f"Endpoint=sb://{self._address(port)};SharedAccessKeyName={key_name};"
            f"SharedAccessKey={key};UseDevelopmentEmulator=true;"
        )

    def _address(self, port: int) -> str:
        host = _WILDCARDS.get(self.host, self.host)
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    def _known_http_port(self) -> int:
        if self.http_port is None or not self._running:
            raise RuntimeError("the emulator does not listen for HTTP; give it `http_port`, 0 for a free one")
        return self.http_port

    def _build_http(self) -> HttpFront:
        """Everything on the HTTP port, put together."""
        traffic = self.gateway.traffic = Traffic()
        admin = Admin(self.broker, self.access, namespace=self.namespace, created_at=self.clock.now())
        api = Api(
            namespace=self.namespace,
            broker=self.broker,
            front=self.front,
            faults=self.faults,
            traffic=traffic,
            clock=self.clock,
            advance=self.advance,
            changed=self._changed,
        )

        async def manage(request: Request) -> Response:
            response = admin.handle(request, self.clock.now())
            self._changed()
            return response

        site = Site(
            manage=manage,
            api=api.handle,
            certificate=self.certificate,
            ready=lambda: self._running,
            local=self.host in _LOOPBACK,
        )
        return HttpFront(site.handle, certificate=self.certificate)

    def _changed(self) -> None:
        """The broker was used from elsewhere than a connection: do what follows for those that have one."""
        self.gateway.after_broker(self.clock.now())
        self.front.transmit()

    async def __aenter__(self) -> Emulator:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Begin to listen. Raises `OSError` when the port is taken."""
        if self._running:
            raise RuntimeError("the emulator runs already")
        if self.host not in _LOOPBACK:
            log.warning("listening on %s: whoever reaches this address can use the emulator", self.host)
        _, self.port = await self.front.listen(self.host, self._wanted_port)
        if self._http is not None and self._wanted_http_port is not None:
            try:
                self.http_port = await self._http.listen(self.host, self._wanted_http_port)
            except OSError:
                await self.front.close()
                raise
        self._running = True

    async def stop(self) -> None:
        """Drop all connections and stop listening; safe to call twice."""
        self._running = False
        if self._http is not None:
            await self._http.close()
        await self.front.close()
        self.certificate.remove()

    async def drain(self, timeout: float = 5.0) -> int:
        """Send every client away in order, as Service Bus does before maintenance, and let no new one in.

        Connections are closed with `amqp:connection:forced` and have `timeout` seconds to end; the number of
        those that had to be dropped is returned. Messages, sessions and the time stay: `restart` lets clients
        in again, on the same port.
        """
        return await self.front.drain(timeout)

    async def restart(self) -> None:
        """Drop all connections and listen again on the same port, with the same state."""
        self._wanted_port, self._wanted_http_port = self.port, self.http_port
        self._running = False
        await self.front.close()
        if self._http is not None:
            await self._http.close()
        await self.start()

    async def advance(self, seconds: float) -> None:
        """Move the broker's time ahead; what falls due on the way happens in its order, at its time.

        Raises:
            ValueError: time does not go back.
        """
        if not 0 <= seconds < math.inf:
            raise ValueError(f"time can only be moved ahead, by a number of seconds, not by {seconds!r}")
        target = self.clock.now() + seconds
        while (due := self.gateway.next_timer()) is not None and due <= target:
            self.clock.advance(max(0.0, due - self.clock.now()))
            self.gateway.handle_timer(max(due, self.clock.now()))
            self.front.transmit()
            await asyncio.sleep(0)
        self.clock.advance(max(0.0, target - self.clock.now()))
        self.front.wake()
        await asyncio.sleep(0)
