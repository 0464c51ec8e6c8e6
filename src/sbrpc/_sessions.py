"""The session pump: many ordering keys handled side by side, each of them strictly in order.

Owns a number of slots. A slot takes the next session that has messages, handles them one after the other
under the session's lock, and gives the session back when others want its place. Knows nothing of events or
calls; what a message means is the handler's business.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime, timezone
from functools import partial
from time import monotonic

import anyio
import anyio.abc
from azure.servicebus.aio import ServiceBusReceiver
from tenacity import AsyncRetrying, retry_if_exception

from ._locks import Lease, holding, lock_duration
from ._receiving import Appetite, Delivery, Direct, Handle, Stopping
from ._sdk import LockLost, close, is_transient, open_handler, reconnecting, translated
from .errors import BusError

__all__ = ["ACCEPT_WAIT", "Demand", "SessionPump", "gives_way"]

_log = logging.getLogger("sbrpc.sessions")

ACCEPT_WAIT = 60.0
"""Seconds that Service Bus is asked to wait for a session with messages; receivers are made with it as
`max_wait_time`. It answers at once when there is one, so a long wait costs nothing but the connection."""

# Opening a link and being refused takes half a second next door, and less than this far away.
_REFUSED_BY = 2.0

# A waiting slot costs a connection, and one is enough to learn that a session wants handling. The others
# give up after this and rest until it gets one.
_PATIENCE = 2.0

# Besides half as much again as the quickest one, this much more is still taken for an answer without waiting.
_PROMPT = 0.3

# What opening a link takes at most, besides waiting for a session.
_OPENING = 5.0

# Sessions without messages are kept while nobody wants their place, as taking one again costs a new
# connection; but not for good.
_IDLE_AT_MOST = 30.0

# A session whose place is wanted is given back after this long without a message, or after this long at all:
# others may be starving behind those that never run dry.
_IDLE = 0.2
_TURN = 30.0

# How long the first attempt after a failed one waits; what further ones wait grows.
_PAUSE = 0.1

# How long a session is asked for its next message before its slot looks up again.
_LOOK_UP = 1.0

# More than this is not taken ahead from one session: it bounds what one crash makes be delivered again.
_AHEAD = 16


def gives_way(*, wanted: bool, idle: float, turn: float) -> bool:
    """Whether a session is given back, `idle` seconds after its last message, `turn` after it was taken."""
    return idle >= _IDLE_AT_MOST or (wanted and (idle >= _IDLE or turn >= _TURN))


class Demand:
    """How many slots should be looking for sessions at a time.

    One, while sessions come one by one. When sessions come as quickly as a connection can be opened, more of
    them are waiting, and twice as many slots should look.
    """

    __slots__ = ("_most", "_quickest", "looking")

    def __init__(self, most: int) -> None:
        self.looking = 1
        self._most = most
        self._quickest = 60.0

    def took(self, seconds: float) -> None:
        """A session was had after so long."""
        self._quickest = min(self._quickest, seconds)
        prompt = seconds <= 1.5 * self._quickest + _PROMPT
        self.looking = min(self._most, self.looking * 2) if prompt else 1

    def nothing(self) -> None:
        """There was no session to be had."""
        self.looking = 1


class SessionPump:
    """Takes sessions with messages as they come, at most `sessions` at a time.

    `connect` makes a receiver for the next available session, with `ACCEPT_WAIT`. `handle` gets messages of
    one session, at most `size` of them where given; it is cancelled when the session's lock is lost, and what
    it has not settled goes back to the session. `stop()` takes nothing more and lets `run()` return once what
    is being handled is done; `give_up()` gives that back too. `on_done` is called at that point; closing the
    links takes `run()` a second more.
    """

    def __init__(
        self,
        connect: Callable[[], ServiceBusReceiver],
        handle: Handle,
        *,
        what: str,
        sessions: int,
        size: int | None = None,
        on_done: Callable[[], None] = lambda: None,
    ) -> None:
        self._connect = connect
        self._handle = handle
        self._what = what
        self._sessions = sessions
        self._size = size
        self._on_done = on_done
        self._stopping = Stopping()
        self._waiting = 0
        self._resting: list[anyio.Event] = []
        self._demand = Demand(sessions)
        self._attached = False
        self._trouble: type[BusError] | None = None
        self._mending = anyio.Lock()
        self._asked: float | None = None
        self._closing: anyio.abc.TaskGroup | None = None
        self._scope = anyio.CancelScope()
        self.active = 0
        """Sessions held now."""

    @property
    def listening(self) -> bool:
        """Whether we may listen, as far as anybody knows.

        Service Bus has given us a session, or keeps us waiting for one; a refusal would have come at once.
        """
        return self._attached or (self._asked is not None and monotonic() - self._asked > _REFUSED_BY)

    def stop(self) -> None:
        """Take no more sessions and no more messages."""
        self._stopping.set()
        self._wake(len(self._resting))

    def give_up(self) -> None:
        """Cancel what is being handled; all sessions go back with what is left in them."""
        self.stop()
        self._scope.cancel()

    async def run(self) -> None:
        """Pump until `stop()`.

        Raises:
            BusError: Service Bus refuses for good, found out on the first attempt. Later refusals are logged
                and tried again, as whoever changed the entity may change it back.
        """
        failures: list[BusError] = []

        async def slot() -> None:
            try:
                await self._slot()
            except BusError as error:
                failures.append(error)
                self._scope.cancel()

        async with anyio.create_task_group() as closing:
            self._closing = closing
            with self._scope:
                async with anyio.create_task_group() as slots:
                    for number in range(self._sessions):
                        slots.start_soon(slot, name=f"session {number + 1} of {self._what}")
            if not failures:
                self._on_done()
        if failures:
            raise failures[0]

    # -- slots -----------------------------------------------------------------------------------------

    async def _slot(self) -> None:
        while not self._stopping.is_set:
            try:
                receiver = await self._accept()
            except BusError as error:
                if not self._is_worth_retrying(error):
                    raise
                receiver = await self._accept_again()
            if receiver is not None:
                self._wake(self._demand.looking - self._waiting)
                await self._serve(receiver)
            elif self._waiting and not self._stopping.is_set:
                awake = anyio.Event()
                self._resting.append(awake)
                await awake.wait()

    def _wake(self, slots: int) -> None:
        slots = max(0, slots)
        for awake in self._resting[:slots]:
            awake.set()
        del self._resting[:slots]

    def _is_worth_retrying(self, error: BaseException) -> bool:
        if not isinstance(error, BusError) or not (self._attached or is_transient(error)):
            return False
        if type(error) is not self._trouble:  # once, not for each slot and each attempt
            self._trouble = type(error)
            _log.warning("taking a session of %s failed, trying again: %s", self._what, error)
        return True

    async def _accept_again(self) -> ServiceBusReceiver | None:
        """After a failure one slot tries until it succeeds, and the others wait for that."""
        accepting = AsyncRetrying(
            retry=retry_if_exception(self._is_worth_retrying),
            wait=reconnecting,
            sleep=self._stopping.sleep,
            reraise=True,
        )
        async with self._mending:
            if self._trouble is None or self._stopping.is_set:
                return None
            await self._stopping.sleep(_PAUSE)
            receiver: ServiceBusReceiver | None = await accepting(self._accept)
            return receiver

    async def _accept(self) -> ServiceBusReceiver | None:
        """A receiver that holds a session, or `None` when none had messages for a while."""
        if self._stopping.is_set:
            return None
        receiver = self._connect()
        accepted = False
        started = monotonic()
        patience = _OPENING + (_PATIENCE if self._waiting else ACCEPT_WAIT)
        self._waiting += 1
        self._asked = started
        try:
            with self._stopping.interrupts(), anyio.move_on_after(patience), translated(self._what):
                await open_handler(receiver)
                accepted = self._attached = True
                self._trouble = None
                self._demand.took(monotonic() - started)
        except BusError as error:
            # An answer that took as long as the wait means that there is no session. One that came sooner
            # is trouble, and asking again at once would be a busy loop.
            if not is_transient(error) or monotonic() - started < ACCEPT_WAIT - 1:
                raise
            self._attached = True
            self._trouble = None
        finally:
            self._waiting -= 1
            self._asked = None
            if not accepted:
                self._demand.nothing()
                self._release(receiver)
        return receiver if accepted else None

    def _release(self, receiver: ServiceBusReceiver) -> None:
        # The session is free as soon as the broker reads the detach, which the SDK sends first. Then it waits
        # about a second for a task of its own, which is no reason to keep the slot.
        assert self._closing is not None
        self._closing.start_soon(close, receiver, self._what, name=f"close a session of {self._what}")

    # -- one session -----------------------------------------------------------------------------------

    async def _serve(self, receiver: ServiceBusReceiver) -> None:
        self.active += 1
        what = f"session {receiver.session.session_id!r} of {self._what}"
        try:
            await self._serve_until_released(receiver, what)
        except LockLost as error:
            _log.warning("%s", error)
        except BusError as error:
            _log.info("%s ended: %s", what, error)
        except Exception:  # the handler's own failure; the messages come back, and the log has the reason
            _log.exception("handling %s failed", what)
            await self._stopping.sleep(1)
        finally:
            self.active -= 1
            self._release(receiver)

    async def _serve_until_released(self, receiver: ServiceBusReceiver, what: str) -> None:
        session = receiver.session
        began = last = monotonic()
        lease = Lease(_duration(session.locked_until_utc), began)
        most = self._size or _AHEAD
        appetite = Appetite(most)
        settler = Direct(receiver, what)
        first = True

        async def renew() -> None:
            with translated(what):
                await session.renew_lock()

        while not self._stopping.is_set:
            now = monotonic()
            wanted = not self._resting and self._waiting < self._demand.looking
            if gives_way(wanted=wanted, idle=now - last, turn=now - began):
                return  # nothing is awaited until this slot looks for another, so `_waiting` is right again
            if now >= lease.renew_at:
                await renew()
                lease.renewed(now)
            wait = max(0.05, min(_IDLE if wanted else _LOOK_UP, lease.renew_at - now))
            count = appetite.ask(most)
            deliveries: list[Delivery] = []
            with self._stopping.interrupts():
                with translated(what):
                    messages = await receiver.receive_messages(max_message_count=count, max_wait_time=wait)
                deliveries = [Delivery(message, settler) for message in messages]
            redelivered = any(delivery.message.delivery_count for delivery in deliveries)
            appetite.got(len(deliveries), monotonic() - now, redelivered=redelivered)
            if not deliveries:
                continue
            if first:
                first = False
                newest = deliveries[-1].message.enqueued_time_utc
                lease.at_most(_duration(session.locked_until_utc, newest))
            await holding(lease, renew, partial(self._handle, deliveries, self._stopping.pause), what)
            last = monotonic()


def _duration(locked_until: datetime | None, enqueued_at: datetime | None = None) -> float:
    now = datetime.now(timezone.utc)
    return lock_duration(locked_until or now, now, enqueued_at)
