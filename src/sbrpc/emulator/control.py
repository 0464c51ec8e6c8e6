"""Faults as users of an emulator put them in force: `emulator.faults`.

Owns the names and arguments of that door. What a fault decides is in `faults`; carrying it out is up to
`interference` (operations, links, messages) and `hindrance` (connections). Everything is synchronous: what
strikes at once has struck when the call returns.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType

from sbrpc.emulator.clock import VirtualClock
from sbrpc.emulator.faults import (
    ActiveFault,
    BlackHole,
    Busy,
    Cut,
    Delay,
    Detach,
    Duplicate,
    Fail,
    Fault,
    Faults,
    LoseLock,
    LoseSession,
    Operation,
    Refuse,
    Throttle,
)
from sbrpc.emulator.interference import Interference
from sbrpc.emulator.tcp import Front

__all__ = ["FaultControl", "FaultHandle"]


class FaultHandle:
    """A fault that was put in force. As a context manager it ends the fault on leaving."""

    def __init__(self, control: FaultControl, entry: ActiveFault) -> None:
        self._control = control
        self._entry = entry

    def __repr__(self) -> str:
        return f"<FaultHandle {self.id} {self.fault!r} fired={self.fired} active={self.active}>"

    @property
    def id(self) -> int:
        """The number by which it can be ended over HTTP."""
        return self._entry.id

    @property
    def fault(self) -> Fault:
        """What was asked for."""
        return self._entry.fault

    @property
    def fired(self) -> int:
        """How often it has struck."""
        return self._entry.fired

    @property
    def active(self) -> bool:
        """Whether it is still in force."""
        return self._control.is_active(self.id)

    @property
    def until(self) -> float | None:
        """When it ends by itself, in seconds since 1970."""
        return self._entry.until

    def remove(self) -> None:
        """End it; does nothing when it is over."""
        self._control.remove(self.id)

    def __enter__(self) -> FaultHandle:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()


class FaultControl:
    """Everything that can be made to go wrong.

        with emulator.faults.refuse():            # until the block is left
            ...
        emulator.faults.fail_sends(count=2)       # the next two, then no more
        emulator.faults.cut(entity="movies")      # now

    `entity` and `container_id` limit a fault to what they match: patterns with `*` and `?`, in any case. An
    entity includes what is below it: its subscriptions and sub-queues. `count` is how often a fault strikes,
    `after` how many occasions it lets pass first, `seconds` how long it stays, in the emulator's time. For a
    value that makes no sense there is a `ValueError`, and nothing is put in force.
    """

    def __init__(self, faults: Faults, interference: Interference, front: Front, clock: VirtualClock) -> None:
        self._faults = faults
        self._interference = interference
        self._front = front
        self._clock = clock

    # -- the list ---------------------------------------------------------------------------------------

    def add(self, fault: Fault) -> FaultHandle:
        """Put a fault in force."""
        entry = self._faults.add(fault, self._clock.now())
        if entry.id in self._faults.active:
            self.changed()
        else:
            entry.fired = self._strike(fault)
        return FaultHandle(self, entry)

    def list(self) -> list[FaultHandle]:
        """The faults in force, the oldest first."""
        return [FaultHandle(self, entry) for entry in self._faults.active.values()]

    def is_active(self, id: int) -> bool:
        """Whether a fault is in force."""
        return id in self._faults.active

    def remove(self, id: int) -> bool:
        """End a fault; false when there is none with that number."""
        found = self._faults.remove(id)
        self.changed()
        return found

    def clear(self) -> None:
        """End all faults."""
        self._faults.clear()
        self.changed()

    def changed(self) -> None:
        """Let sockets and gateway ask while there is anything to ask, and end what only faults kept alive."""
        some = bool(self._faults.active)
        self._front.faults = self._faults if some else None
        self._front.gateway.meddler = self._interference if some else None
        self._front.review()
        self._front.transmit()

    def _strike(self, fault: Fault) -> int:
        if isinstance(fault, Cut):
            doomed = [each for each in self._front.connections if fault.meets(each.peer)]
            for connection in doomed:
                connection.abort()
            return len(doomed)
        assert isinstance(fault, Detach | LoseLock | LoseSession)
        struck = self._interference.strike(fault, self._clock.now())
        self._front.transmit()
        return struck

    # -- connections ------------------------------------------------------------------------------------

    def cut(
        self,
        *,
        entity: str | None = None,
        container_id: str | None = None,
        after: int | None = None,
        count: int | None = None,
    ) -> FaultHandle:
        """Cut connections without a word: now, or each once it has sent `after` more frames."""
        return self.add(Cut(entity=entity, container_id=container_id, after=after, count=count))

    def refuse(
        self, *, count: int | None = None, after: int | None = None, seconds: float | None = None
    ) -> FaultHandle:
        """Refuse new connections."""
        return self.add(Refuse(count=count, after=after, seconds=seconds))

    def black_hole(
        self,
        *,
        entity: str | None = None,
        container_id: str | None = None,
        seconds: float | None = None,
    ) -> FaultHandle:
        """Take in silence whatever connections send, old and new. When it ends, they are cut."""
        return self.add(BlackHole(entity=entity, container_id=container_id, seconds=seconds))

    def delay(
        self,
        *,
        incoming: float = 0.0,
        outgoing: float = 0.0,
        entity: str | None = None,
        container_id: str | None = None,
        seconds: float | None = None,
    ) -> FaultHandle:
        """Hold back what clients send (`incoming`) and what they are sent, in seconds of real time."""
        return self.add(
            Delay(
                incoming=incoming,
                outgoing=outgoing,
                entity=entity,
                container_id=container_id,
                seconds=seconds,
            )
        )

    # -- links and locks --------------------------------------------------------------------------------

    def detach(
        self,
        condition: str = "amqp:link:detach-forced",
        description: str = "The link is detached by a fault.",
        *,
        entity: str | None = None,
        container_id: str | None = None,
        after: int | None = None,
        count: int | None = None,
    ) -> FaultHandle:
        """Detach links with an error: now, or when a message has passed over one."""
        return self.add(
            Detach(
                condition=condition,
                description=description,
                entity=entity,
                container_id=container_id,
                after=after,
                count=count,
            )
        )

    def lose_locks(
        self,
        *,
        entity: str | None = None,
        container_id: str | None = None,
        after: int | None = None,
        count: int | None = None,
    ) -> FaultHandle:
        """Let message locks expire: those that receivers hold now, or of messages as they are delivered."""
        return self.add(LoseLock(entity=entity, container_id=container_id, after=after, count=count))

    def lose_sessions(
        self,
        session_id: str | None = None,
        *,
        entity: str | None = None,
        container_id: str | None = None,
        after: int | None = None,
        count: int | None = None,
    ) -> FaultHandle:
        """Let session locks expire: those held now, or as soon as a message of the session is delivered."""
        return self.add(
            LoseSession(
                session_id=session_id, entity=entity, container_id=container_id, after=after, count=count
            )
        )

    # -- operations -------------------------------------------------------------------------------------

    def throttle(
        self, rate: int = 1000, *, entity: str | None = None, seconds: float | None = None
    ) -> FaultHandle:
        """Answer `ServerBusy` for the rest of a second in which the namespace has spent `rate` credits."""
        return self.add(Throttle(rate=rate, entity=entity, seconds=seconds))

    def busy(
        self,
        *,
        count: int | None = None,
        after: int | None = None,
        entity: str | None = None,
        container_id: str | None = None,
        operations: Sequence[Operation] = ("send", "management"),
        seconds: float | None = None,
    ) -> FaultHandle:
        """Answer operations with `ServerBusy`."""
        return self.add(
            Busy(
                count=count,
                after=after,
                entity=entity,
                container_id=container_id,
                operations=tuple(operations),
                seconds=seconds,
            )
        )

    def fail_sends(
        self,
        condition: str = "amqp:internal-error",
        description: str = "The operation failed by a fault.",
        *,
        count: int | None = None,
        after: int | None = None,
        entity: str | None = None,
        container_id: str | None = None,
        stored: bool = False,
        seconds: float | None = None,
    ) -> FaultHandle:
        """Answer sends with an error; with `stored` the messages are kept, which the sender cannot know."""
        return self.add(
            Fail(
                condition=condition,
                description=description,
                count=count,
                after=after,
                entity=entity,
                container_id=container_id,
                stored=stored,
                seconds=seconds,
            )
        )

    def duplicate(
        self,
        *,
        count: int | None = None,
        after: int | None = None,
        entity: str | None = None,
        container_id: str | None = None,
        seconds: float | None = None,
    ) -> FaultHandle:
        """Deliver messages twice."""
        return self.add(
            Duplicate(count=count, after=after, entity=entity, container_id=container_id, seconds=seconds)
        )
