"""The reply channel: where the answers to this client's calls arrive.

One session on a shared reply queue, `<instance>.<epoch>`. The SDK's session receiver is of no use after any
error, and the lock of its session may stay with the dead connection for minutes. So a channel does not mend a
session, it moves on: at once to the next epoch for new calls, while the calls that wait on the old one go on
waiting and the old session is taken again, as soon as Service Bus lets go of it, for as long as the last of
their deadlines. `reply_to_session_id` is part of each request, so servers need not know.

    epoch      opened      failed       held         lost        drained     closed
    OPENING    LIVE        OPENING      DRAINING *   DRAINING *  -           ENDED
    LIVE       -           -            -            DRAINING *  -           ENDED
    DRAINING   DRAINING    DRAINING     DRAINING     DRAINING    ENDED       ENDED
    ENDED      -           -            -            -           -           -

    * the next epoch begins in the same step

Replies are matched by call id and session, once. What matches no call is counted and dropped.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timezone
from enum import Enum
from secrets import token_hex
from time import monotonic, time
from typing import Protocol

import anyio
import anyio.abc
from azure.servicebus import ServiceBusReceivedMessage
from azure.servicebus.aio import ServiceBusReceiver
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type

from . import _sdk
from ._bundles import is_bundle, read_replies
from ._link import Link
from ._locks import Lease, holding, lock_duration
from ._outgoing import Messages
from ._receiver import Receiver
from ._sender import Sender
from ._wire import PING, Address, Reply, ping_message, read_reply, size_of
from .context import Deadline, log_fields
from .errors import BusError, DecodeError, SbrpcError

__all__ = ["Epoch", "Event", "Expected", "Pending", "ReplyChannel", "State", "next_state"]

_log = logging.getLogger("sbrpc.replies")

# A pong that is not back after this long after the ping was accepted: nobody reads our session.
_PONG_TIMEOUT = 3.0

# While calls wait and nothing at all arrives, the path is tried this often.
_SUSPICION = 3.0

# How often waiting calls are looked through for deadlines that come near. Most are answered long before: a
# timer for each would be a good part of what a call costs.
_LOOK_AT_DEADLINES = 0.25
_NEAR = 2 * _LOOK_AT_DEADLINES

# How long the loop may take between a deadline and giving up on the session of its epoch.
_DRAIN_GRACE = 0.5


class State(Enum):
    """Where an epoch stands."""

    OPENING = "opening"
    LIVE = "live"
    DRAINING = "draining"
    ENDED = "ended"


class Event(Enum):
    """What happens to an epoch."""

    OPENED = "opened"
    FAILED = "failed"
    HELD = "held"
    LOST = "lost"
    DRAINED = "drained"
    CLOSED = "closed"


_TRANSITIONS: dict[tuple[State, Event], tuple[State, bool]] = {
    (State.OPENING, Event.OPENED): (State.LIVE, False),
    (State.OPENING, Event.FAILED): (State.OPENING, False),
    (State.OPENING, Event.HELD): (State.DRAINING, True),
    (State.OPENING, Event.LOST): (State.DRAINING, True),
    (State.OPENING, Event.CLOSED): (State.ENDED, False),
    (State.LIVE, Event.LOST): (State.DRAINING, True),
    (State.LIVE, Event.CLOSED): (State.ENDED, False),
    (State.DRAINING, Event.OPENED): (State.DRAINING, False),
    (State.DRAINING, Event.FAILED): (State.DRAINING, False),
    (State.DRAINING, Event.HELD): (State.DRAINING, False),
    (State.DRAINING, Event.LOST): (State.DRAINING, False),
    (State.DRAINING, Event.DRAINED): (State.ENDED, False),
    (State.DRAINING, Event.CLOSED): (State.ENDED, False),
}


def next_state(state: State, event: Event) -> tuple[State, bool]:
    """The state after an event, and whether the next epoch begins with it."""
    try:
        return _TRANSITIONS[state, event]
    except KeyError:
        raise RuntimeError(f"an epoch that is {state.value} cannot be {event.value}") from None


@dataclass(eq=False)
class Epoch:
    """One session in the life of the channel."""

    number: int
    session_id: str
    queue: str
    state: State = State.OPENING
    calls: int = 0
    """Calls that wait on this session."""
    emptied: asyncio.Event = field(default_factory=asyncio.Event, repr=False)
    address: Address = field(init=False)
    """Where its replies are to be sent."""

    def __post_init__(self) -> None:
        self.address = Address(self.queue, self.session_id)


class Pending(Protocol):
    """A call that waits for its reply."""

    epoch: Epoch
    timer: asyncio.TimerHandle | None

    @property
    def call_id(self) -> str: ...

    @property
    def deadline(self) -> Deadline: ...

    def on_reply(self, reply: Reply, /) -> bool:
        """Take what has arrived; says whether that was all of it."""
        ...

    def fail(self, error: SbrpcError, /) -> None:
        """There will be no reply."""
        ...

    def late(self) -> None:
        """The deadline has passed while the call was still expected."""
        ...


@dataclass(eq=False, slots=True)
class Expected:
    """A call whose parts go to functions of somebody else's."""

    call_id: str
    deadline: Deadline
    epoch: Epoch
    on_reply: Callable[[Reply], bool]
    fail: Callable[[SbrpcError], None] = lambda error: None
    late: Callable[[], None] = lambda: None
    timer: asyncio.TimerHandle | None = None


class ReplyChannel:
    """Owns the sessions of one client. `run()` is the owner task."""

    def __init__(
        self,
        create: Callable[[str], ServiceBusReceiver],
        queue: str,
        instance: str,
        sender: Sender,
        *,
        heartbeat: float = 60.0,
        on_orphan: Callable[[Reply], None] = lambda reply: None,
        on_lost: Callable[[], None] = lambda: None,
    ) -> None:
        self.queue = queue
        self.instance = instance
        self._create = create
        self._sender = sender
        self._heartbeat = heartbeat
        self._on_orphan = on_orphan
        self._on_lost = on_lost
        self._pending: dict[str, Pending] = {}
        self._epoch = self._new_epoch(1)
        self._draining: set[Epoch] = set()
        self._live_scope: anyio.CancelScope | None = None
        self._link_open = asyncio.Event()
        self._proven = asyncio.Event()
        self._failure: BusError | None = None
        self._closing = False
        self._closed = asyncio.Event()
        self._receiver: Receiver | None = None
        self._heard = monotonic()
        self._ping: _Ping | None = None
        self.round_trip: float | None = None
        """Seconds that the last heartbeat took, from sending to receiving."""
        self.clock_skew: float | None = None
        """Seconds by which Service Bus' clock is ahead of this machine's, as of the last heartbeat."""
        self.late: int = 0
        """Replies that came when nobody waited for them any more."""
        self.foreign: int = 0
        """Messages on our session that answer none of its calls: another session's, or no reply at all."""

    # -- calls -------------------------------------------------------------------------------------------

    @property
    def epoch(self) -> Epoch:
        """The session that new calls use."""
        return self._epoch

    @property
    def pending(self) -> int:
        """How many calls wait."""
        return len(self._pending)

    @property
    def failure(self) -> BusError | None:
        """Why the channel is not open, if an attempt failed."""
        return None if self._link_open.is_set() else self._failure

    @property
    def ready(self) -> bool:
        """Whether replies are being received, as proven by a message that came back."""
        return self._proven.is_set()

    def current(self) -> Epoch:
        """The session for a new call, to be registered at once.

        It need not be open yet: Service Bus keeps what arrives for it. Should it turn out that it cannot be
        opened, the queue being missing or not to be read, calls that wait are told so at once.

        Raises:
            BusError: that is known already.
        """
        failure = self.failure
        if failure is not None and not _sdk.is_transient(failure):
            raise failure
        return self._epoch

    def register(self, pending: Pending) -> None:
        """Expect a reply. Every call that registers must `forget`."""
        pending.epoch.calls += 1
        self._pending[pending.call_id] = pending
        self._look(pending, monotonic())

    def forget(self, call_id: str) -> None:
        """Expect nothing more for this call; forgetting twice does nothing."""
        pending = self._pending.pop(call_id, None)
        if pending is not None:
            if pending.timer is not None:
                pending.timer.cancel()
            pending.epoch.calls -= 1
            if not pending.epoch.calls:
                pending.epoch.emptied.set()

    def _look(self, pending: Pending, now: float) -> None:
        """Set the timer of a deadline that is near."""
        if pending.deadline.at - now < _NEAR and pending.timer is None:
            wait = max(0.0, pending.deadline.remaining())
            pending.timer = asyncio.get_running_loop().call_later(wait, pending.late)

    async def _keep_deadlines(self) -> None:
        while True:
            await anyio.sleep(_LOOK_AT_DEADLINES)
            now = monotonic()
            for pending in self._pending.values():
                self._look(pending, now)

    def fail_calls(self, error: SbrpcError) -> None:
        """Fail every call that waits; the channel goes on."""
        for pending in list(self._pending.values()):
            pending.fail(error)

    def _fail_calls_of(self, epoch: Epoch, error: SbrpcError) -> None:
        for pending in list(self._pending.values()):
            if pending.epoch is epoch:
                pending.fail(error)

    def close(self, error: SbrpcError) -> None:
        """Fail every call that waits, and let `run()` end once what was received is settled."""
        self._closing = True
        self.fail_calls(error)
        if self._receiver is not None:
            self._receiver.stop()

    async def wait_closed(self) -> None:
        """Wait until `run()` has ended."""
        await self._closed.wait()

    async def wait_ready(self) -> None:
        """Wait until the path of replies is proven to work.

        Raises:
            BusError: the reply queue is missing, has no sessions, or may not be read.
        """
        while not self._proven.is_set():
            failure = self.failure
            if failure is not None and not _sdk.is_transient(failure):
                raise failure
            with anyio.move_on_after(0.05):
                await self._proven.wait()

    # -- the owner task ----------------------------------------------------------------------------------

    async def run(self) -> None:
        """Keep a session open until `close()`."""
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._beat, name=f"heartbeat of {self.instance}")
                tasks.start_soon(self._keep_deadlines, name=f"deadlines of {self.instance}")
                while not self._closing:
                    await self._live(self._epoch, tasks)
                tasks.cancel_scope.cancel()
        finally:
            self._closed.set()
            self._link_open.clear()
            self._proven.clear()
            for epoch in {self._epoch, *self._draining}:
                epoch.state, _ = next_state(epoch.state, Event.CLOSED)

    async def _live(self, epoch: Epoch, tasks: anyio.abc.TaskGroup) -> None:
        """One epoch from opening to its end; on return the next one has begun."""
        try:
            link = await self._open(
                epoch, tasks, give_up=lambda: self._closing or epoch.state is not State.OPENING
            )
        except BusError:
            return
        self._happens(epoch, Event.OPENED, tasks)
        try:
            with anyio.CancelScope() as scope:
                self._live_scope = scope
                await self._receive(epoch, link)
        except BusError as error:
            if not self._closing:
                _log.warning("lost the reply session %s: %s", epoch.session_id, error)
            if isinstance(error, _sdk.LinkLost):
                self._on_lost()
        finally:
            self._live_scope = None
            self._link_open.clear()
            self._proven.clear()
            link.release()
            if self._ping is not None:
                self._ping.moot = True
                self._ping.returned.set()
        if not self._closing:
            self._happens(epoch, Event.LOST, tasks)

    async def _open(
        self, epoch: Epoch, tasks: anyio.abc.TaskGroup, give_up: Callable[[], bool]
    ) -> Link[ServiceBusReceiver]:
        def stop(state: RetryCallState) -> bool:
            return give_up()

        attempts = AsyncRetrying(
            wait=_sdk.reconnecting,
            retry=retry_if_exception_type(BusError),
            stop=stop,
            sleep=anyio.sleep,
            reraise=True,
        )
        return await attempts(self._open_once, epoch, tasks)

    async def _open_once(self, epoch: Epoch, tasks: anyio.abc.TaskGroup) -> Link[ServiceBusReceiver]:
        link = Link(
            self._create(epoch.session_id), f"the reply session {epoch.session_id!r} on {self.queue!r}"
        )
        try:
            await link.open(tasks)
        except BusError as error:
            current = epoch is self._epoch
            if current:
                if type(self._failure) is not type(error):
                    _log.warning("cannot open %s, trying again: %s", link.what, error)
                self._failure = _sdk.remembered(error)
                if not _sdk.is_transient(error):
                    # As `register` refuses new calls: no reply can come before a person mends the queue.
                    self._fail_calls_of(epoch, self._failure)
            self._happens(epoch, Event.HELD if isinstance(error, _sdk.SessionHeld) else Event.FAILED, tasks)
            raise
        return link

    def _happens(self, epoch: Epoch, event: Event, tasks: anyio.abc.TaskGroup) -> None:
        """The one place where an epoch changes its state."""
        epoch.state, moves_on = next_state(epoch.state, event)
        if epoch.state is State.LIVE:
            self._failure = None
            self._heard = monotonic()
            self._link_open.set()
        if moves_on:
            self._epoch = self._new_epoch(epoch.number + 1)
            if epoch.calls:
                self._draining.add(epoch)
                tasks.start_soon(self._drain, epoch, tasks, name=f"drain {epoch.session_id}")
            else:
                epoch.state, _ = next_state(epoch.state, Event.DRAINED)
        if epoch.state is State.ENDED:
            self._draining.discard(epoch)

    def _new_epoch(self, number: int) -> Epoch:
        return Epoch(number, f"{self.instance}.{number}", self.queue)

    async def _receive(self, epoch: Epoch, link: Link[ServiceBusReceiver]) -> None:
        session = link.handler.session
        now = datetime.now(timezone.utc)
        lease = Lease(lock_duration(session.locked_until_utc or now, now), monotonic())
        receiver = Receiver(
            link.handler,
            link.what,
            on_message=lambda message: self._arrived(epoch, receiver, message),
        )
        if epoch is self._epoch:
            self._receiver = receiver
        if self._closing:
            receiver.stop()
        await holding(lease, receiver.renew_session, receiver.run, link.what)

    def _arrived(self, epoch: Epoch, receiver: Receiver, message: ServiceBusReceivedMessage) -> None:
        receiver.completing(message, _settled)
        self._heard = monotonic()
        if not is_bundle(message):
            self._take(epoch, read_reply(message))
            return
        try:
            replies = read_replies(message)
        except DecodeError as error:
            self.foreign += 1
            _log.warning("dropped a bundle on the session %s: %s", epoch.session_id, error)
            return
        for reply in replies:
            self._take(epoch, reply)

    def _take(self, epoch: Epoch, reply: Reply) -> None:
        if reply.subject == PING:
            self._pong(reply)
            return
        pending = self._pending.get(reply.call_id)
        if pending is None:
            self.late += 1
            self._on_orphan(reply)
        elif pending.epoch is not epoch or reply.session_id != epoch.session_id:
            self.foreign += 1
            _log.warning(
                "dropped a reply for call %s on a session that is not its own",
                reply.call_id,
                extra=log_fields(reply.call_id),
            )
        elif pending.on_reply(reply):
            self.forget(reply.call_id)

    async def _drain(self, epoch: Epoch, tasks: anyio.abc.TaskGroup) -> None:
        """Take an old session again and receive until none of its calls waits any more."""
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as watching:
                watching.start_soon(self._drain_sessions, epoch, tasks)
                await self._emptied(epoch)
                scope.cancel()
        self._happens(epoch, Event.DRAINED, tasks)

    async def _emptied(self, epoch: Epoch) -> None:
        while epoch.calls:
            epoch.emptied.clear()
            # A call forgets itself when its deadline passes; the grace is for calls whose task is slow.
            last = max((p.deadline for p in self._pending.values() if p.epoch is epoch), default=None)
            wait = None if last is None or last.is_never else max(0.0, last.remaining()) + _DRAIN_GRACE
            with anyio.move_on_after(wait):
                await epoch.emptied.wait()

    async def _drain_sessions(self, epoch: Epoch, tasks: anyio.abc.TaskGroup) -> None:
        while True:
            link = await self._open(epoch, tasks, give_up=lambda: False)
            _log.info("draining the reply session %s for %d calls", epoch.session_id, epoch.calls)
            self._happens(epoch, Event.OPENED, tasks)
            try:
                await self._receive(epoch, link)
            except BusError as error:
                _log.info("lost the reply session %s again: %s", epoch.session_id, error)
                self._happens(epoch, Event.LOST, tasks)
            finally:
                link.release()

    # -- heartbeat ---------------------------------------------------------------------------------------

    async def _beat(self) -> None:
        """Prove the path once the link is open, when it was idle, and when calls wait in silence."""
        while True:
            await self._link_open.wait()
            epoch = self._epoch
            if self._proven.is_set():
                quiet = monotonic() - self._heard
                patience = _SUSPICION if self._pending else self._heartbeat
                if quiet < patience:
                    await anyio.sleep(min(patience - quiet, _SUSPICION))
                    continue
            if epoch.state is not State.LIVE:
                await anyio.sleep(0.05)
                continue
            await self._prove(epoch)

    async def _prove(self, epoch: Epoch) -> None:
        ping = self._ping = _Ping(f"ping-{token_hex(8)}")
        message = ping_message(ping.id, epoch.session_id)

        def accepted(error: SbrpcError | None) -> None:
            if not ping.accepted.done():  # the client may have been closed meanwhile, which cancels it
                ping.accepted.set_result(error)

        item = Messages((message,), size_of(message), Deadline.after(30), accepted, group=epoch.session_id)
        try:
            self._sender.post(item)
            with anyio.move_on_after(30):
                error = await ping.accepted
                if error is None:
                    with anyio.move_on_after(_PONG_TIMEOUT) as patience:
                        await ping.returned.wait()
                    self._judge(epoch, ping, lost=patience.cancelled_caught)
                    return
                raise error
        except SbrpcError as error:
            if not _sdk.is_transient(error) and isinstance(error, BusError):
                # Without the right to send to the reply queue there is no heartbeat: trust the open link.
                _log.warning("no heartbeat on %r: %s", self.queue, error)
                self._proven.set()
                self._heard = monotonic()
                await anyio.sleep(self._heartbeat)
        finally:
            item.abandoned = True
            self._ping = None
        await anyio.sleep(0.1)

    def _judge(self, epoch: Epoch, ping: _Ping, *, lost: bool) -> None:
        if ping.moot:
            return
        if not lost:
            self._proven.set()
        elif epoch is self._epoch and self._live_scope is not None:
            _log.warning("the reply session %s is silent; moving on", epoch.session_id)
            self._live_scope.cancel()

    def _pong(self, reply: Reply) -> None:
        ping = self._ping
        if ping is None or reply.call_id != ping.id:
            return
        self.round_trip = monotonic() - ping.started
        if reply.enqueued_at is not None:
            # The broker took it between sending and now; the middle of the two is the best guess.
            self.clock_skew = reply.enqueued_at.timestamp() - (ping.started_wall + time()) / 2
        ping.returned.set()


def _settled(error: BusError | None) -> None:
    """A reply that comes again finds that nobody waits for it."""


class _Ping:
    def __init__(self, ping_id: str) -> None:
        self.id = ping_id
        self.started = monotonic()
        self.started_wall = time()
        self.moot = False
        """The link ended while the ping was on its way, so it says nothing."""
        self.accepted: asyncio.Future[SbrpcError | None] = asyncio.get_running_loop().create_future()
        self.returned = asyncio.Event()
