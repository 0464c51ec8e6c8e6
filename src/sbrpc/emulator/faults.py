"""What can go wrong on purpose: faults as values, and the decisions they lead to.

Owns the kinds of fault, whom each concerns, how often and how long it strikes. Every question of the sockets
and of the gateway is answered here from counters and `now`; nothing is done here, and no clock, socket or
broker is known. An `entity` is a pattern over addresses with `*` and `?`, and names everything below it as
well: `movie-events` includes `movie-events/Subscriptions/all`. A `container_id` is such a pattern over what a
client calls its connection, such as `SBReceiver-*`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cache
from itertools import count
from typing import Annotated, Any, Literal, NamedTuple, Protocol

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, model_validator

__all__ = [
    "ActiveFault",
    "AnyFault",
    "BlackHole",
    "Busy",
    "Cut",
    "Delay",
    "Detach",
    "Duplicate",
    "Fail",
    "Failure",
    "Fault",
    "Faults",
    "FrameCounter",
    "LoseLock",
    "LoseSession",
    "Operation",
    "Passage",
    "Refuse",
    "Subject",
    "TargetedFault",
    "Throttle",
    "parse_fault",
]

Operation = Literal["send", "attach", "management"]

SERVER_BUSY = "com.microsoft:server-busy"
SERVER_BUSY_TEXT = (
    "The request was terminated because the namespace is being throttled. Error code : 50009. "
    "Please wait 10 seconds and try again."
)


class Fault(BaseModel):
    """A fault of whatever kind. It stays for `seconds`, in the emulator's time, or until it is removed."""

    # Built when the first fault is: an emulator without faults starts sooner.
    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    kind: str
    seconds: float | None = Field(default=None, gt=0)


class TargetedFault(Fault):
    """A fault that can be limited to an entity, to connections, or both."""

    entity: str | None = Field(default=None, min_length=1)
    container_id: str | None = Field(default=None, min_length=1)

    def concerns(self, address: str, container_id: str) -> bool:
        """Whether an operation on an entity, by a connection, is meant."""
        return _like(self.container_id, container_id) and _within(self.entity, address)

    def meets(self, subject: Subject) -> bool:
        """Whether a connection as a whole is meant."""
        if not _like(self.container_id, subject.container_id):
            return False
        return self.entity is None or any(_within(self.entity, each) for each in subject.entities())


class _Counted(Fault):
    after: int | None = Field(default=None, ge=0)
    """How many occasions pass unharmed first."""
    count: int | None = Field(default=None, ge=1)
    """On how many occasions it strikes; on each one if not given."""


class _Instant(TargetedFault, _Counted):
    """Strikes at once whatever it concerns, and is over; with `after` or `count` it waits for occasions."""

    @property
    def instant(self) -> bool:
        """Whether it strikes now, or waits for occasions."""
        return self.after is None and self.count is None


class Cut(_Instant):
    """Cut connections: at once, or each once it has sent `after` more frames."""

    kind: Literal["cut"] = "cut"


class Refuse(_Counted):
    """Refuse new connections."""

    kind: Literal["refuse"] = "refuse"


class BlackHole(TargetedFault):
    """Take whatever a connection sends and say nothing. When this ends, what is left of it is cut."""

    kind: Literal["black_hole"] = "black_hole"


class Delay(TargetedFault):
    """Let everything take longer: so many seconds of real time in each direction."""

    kind: Literal["delay"] = "delay"
    incoming: float = Field(default=0.0, ge=0, le=600)
    outgoing: float = Field(default=0.0, ge=0, le=600)

    @model_validator(mode="after")
    def _delays(self) -> Delay:
        if not self.incoming and not self.outgoing:
            raise ValueError("say how long: incoming, outgoing or both, in seconds")
        return self


class Detach(_Instant):
    """Detach links with an error: at once, or on an occasion, which is a message either way."""

    kind: Literal["detach"] = "detach"
    condition: str = "amqp:link:detach-forced"
    description: str = "The link is detached by a fault."


class LoseLock(_Instant):
    """Let locks on messages expire: those held now, or as soon as a message is delivered."""

    kind: Literal["lose_lock"] = "lose_lock"


class LoseSession(_Instant):
    """Let locks on sessions expire: those held now, or as soon as a message of one is delivered."""

    kind: Literal["lose_session"] = "lose_session"
    session_id: str | None = None


class Throttle(TargetedFault):
    """Refuse operations for the rest of a second in which `rate` credits are spent, as the Standard tier."""

    kind: Literal["throttle"] = "throttle"
    rate: int = Field(default=1000, ge=1)


class Busy(TargetedFault, _Counted):
    """Answer operations with `ServerBusy`."""

    kind: Literal["busy"] = "busy"
    operations: tuple[Operation, ...] = ("send", "management")


class Duplicate(TargetedFault, _Counted):
    """Deliver a message twice, as a broker does that forgot it had. Not where messages are deleted unseen."""

    kind: Literal["duplicate"] = "duplicate"


class Fail(TargetedFault, _Counted):
    """Answer operations with an error; with `stored` what was sent is kept all the same."""

    kind: Literal["fail"] = "fail"
    condition: str = "amqp:internal-error"
    description: str = "The operation failed by a fault."
    operations: tuple[Operation, ...] = ("send",)
    stored: bool = False


AnyFault = Annotated[
    Cut | Refuse | BlackHole | Delay | Detach | LoseLock | LoseSession | Throttle | Busy | Duplicate | Fail,
    Field(discriminator="kind"),
]


@cache
def _any_fault() -> TypeAdapter[Any]:
    return TypeAdapter(AnyFault)


def parse_fault(value: object) -> Fault:
    """A fault from JSON values; raises `pydantic.ValidationError`, which names every mistake."""
    fault: Fault = _any_fault().validate_python(value)
    return fault


def _like(pattern: str | None, text: str) -> bool:
    return pattern is None or fnmatchcase(text.lower(), pattern.lower())


def _within(pattern: str | None, address: str) -> bool:
    return pattern is None or _like(pattern, address) or _like(f"{pattern}/*", address)


class Subject(Protocol):
    """A connection, as faults see it."""

    @property
    def container_id(self) -> str:
        """What the client calls it."""

    def entities(self) -> Collection[str]:
        """Addresses it has links to."""

    def unfinished(self) -> bytes:
        """The beginning of a frame whose end has not arrived."""


class FrameCounter:
    """Counts the frames in a stream of bytes, wherever it is cut into pieces."""

    __slots__ = ("_head", "_rest", "left")

    def __init__(self, left: int, unfinished: bytes = b"") -> None:
        self.left = left
        # Bytes of a header that is not whole yet, and how much of the current frame is still to come.
        self._head = b""
        self._rest = 0
        self._walk(unfinished, counting=False)

    def take(self, data: bytes) -> int:
        """How many of these bytes belong to the frames still allowed; `left` is 0 once they are used up."""
        return self._walk(data, counting=True)

    def _walk(self, data: bytes, *, counting: bool) -> int:
        position, end = 0, len(data)
        while position < end and (self.left > 0 or not counting):
            if self._rest:
                step = min(self._rest, end - position)
                position += step
                self._rest -= step
                if not self._rest:
                    self.left -= 1
                continue
            step = min(8 - len(self._head), end - position)
            self._head += data[position : position + step]
            position += step
            if len(self._head) == 8:
                # A protocol header is eight bytes and counts as a frame.
                header = self._head[:4] == b"AMQP"
                size = 8 if header else int.from_bytes(self._head[:4], "big")
                self._head = b""
                self._rest = max(size - 8, 0)
                if not self._rest:
                    self.left -= 1
        return position


class Passage(NamedTuple):
    """What becomes of bytes that a connection has sent."""

    data: bytes
    delay: float = 0.0
    cut: bool = False


class Failure(NamedTuple):
    """An operation is to fail; with `stored` only after it was carried out."""

    condition: str
    description: str
    stored: bool = False


@dataclass(eq=False)
class ActiveFault:
    """A fault that is in force, or was."""

    id: int
    fault: Fault
    until: float | None = None
    """When it ends by itself, in seconds since 1970."""
    seen: int = 0
    """Occasions so far."""
    fired: int = 0
    """How often it struck."""
    window: tuple[int, int] = field(default=(-1, 0))
    """Of a throttle: the current second, and the credits that had been spent at its beginning."""


class Faults:
    """All faults in force, and the answers they give. State changes with each occasion."""

    def __init__(self) -> None:
        self.active: dict[int, ActiveFault] = {}
        self._ids = count(1)
        self._counters: dict[Subject, dict[int, FrameCounter]] = {}

    # -- the list ---------------------------------------------------------------------------------------

    def add(self, fault: Fault, now: float) -> ActiveFault:
        """Put a fault in force; one that strikes at once is only given its number."""
        until = None if fault.seconds is None else now + fault.seconds
        entry = ActiveFault(next(self._ids), fault, until)
        if not (isinstance(fault, _Instant) and fault.instant):
            self.active[entry.id] = entry
        return entry

    def remove(self, id: int) -> bool:
        """End a fault; false when it is not in force."""
        for counters in self._counters.values():
            counters.pop(id, None)
        return self.active.pop(id, None) is not None

    def clear(self) -> None:
        """End all faults."""
        self.active.clear()
        self._counters.clear()

    def next_timer(self) -> float | None:
        """When the next fault ends by itself."""
        return min((entry.until for entry in self.active.values() if entry.until is not None), default=None)

    def handle_timer(self, now: float) -> bool:
        """End what is over; true if anything was."""
        over = [e.id for e in self.active.values() if e.until is not None and e.until <= now]
        for id in over:
            self.remove(id)
        return bool(over)

    def forget(self, subject: Subject) -> None:
        """A connection is gone."""
        self._counters.pop(subject, None)

    # -- occasions --------------------------------------------------------------------------------------

    def _of(self, kind: type[Any]) -> Iterator[tuple[ActiveFault, Any]]:
        for entry in list(self.active.values()):
            if isinstance(entry.fault, kind):
                yield entry, entry.fault

    def _strikes(self, entry: ActiveFault) -> bool:
        """There is an occasion: whether the fault strikes."""
        entry.seen += 1
        if entry.seen <= (getattr(entry.fault, "after", None) or 0):
            return False
        self._struck(entry)
        return True

    def _struck(self, entry: ActiveFault) -> None:
        entry.fired += 1
        most = getattr(entry.fault, "count", None)
        if most is not None and entry.fired >= most:
            self.remove(entry.id)

    # -- what sockets ask -------------------------------------------------------------------------------

    def accepts(self) -> bool:
        """Whether a new connection is let in."""
        return not any(self._strikes(entry) for entry, _ in self._of(Refuse))

    def silent(self, subject: Subject) -> bool:
        """Whether nothing must be heard from the other side of this connection any more."""
        return any(fault.meets(subject) for _, fault in self._of(BlackHole))

    def incoming(self, subject: Subject, data: bytes) -> Passage:
        """What becomes of bytes that arrive; frames behind the last one allowed are dropped with the rest."""
        cut = False
        for entry, fault in self._of(Cut):
            counters = self._counters.setdefault(subject, {})
            counter = counters.get(entry.id)
            if counter is None:
                if not fault.meets(subject):
                    continue
                counter = counters[entry.id] = FrameCounter(fault.after or 0, subject.unfinished())
            data = data[: counter.take(data)]
            if counter.left <= 0:
                cut = True
                self._struck(entry)
        return Passage(data, self._delay(subject, "incoming"), cut)

    def outgoing_delay(self, subject: Subject) -> float:
        """Seconds that bytes for this connection wait."""
        return self._delay(subject, "outgoing")

    def _delay(self, subject: Subject, direction: str) -> float:
        delays = (getattr(fault, direction) for _, fault in self._of(Delay) if fault.meets(subject))
        return float(sum(delays))

    # -- what the gateway asks --------------------------------------------------------------------------

    def operation(
        self, kind: Operation, address: str, container_id: str, now: float, spent: Callable[[], int]
    ) -> Failure | None:
        """Whether an operation fails. `spent` tells the credits used so far, by all."""
        for entry, fault in self._of(Fault):
            if isinstance(fault, Throttle):
                if fault.concerns(address, container_id) and self._exhausted(entry, fault, now, spent()):
                    return Failure(SERVER_BUSY, SERVER_BUSY_TEXT)
            elif isinstance(fault, Busy | Fail) and kind in fault.operations:
                if not fault.concerns(address, container_id) or not self._strikes(entry):
                    continue
                if isinstance(fault, Busy):
                    return Failure(SERVER_BUSY, SERVER_BUSY_TEXT)
                return Failure(fault.condition, fault.description, fault.stored)
        return None

    def _exhausted(self, entry: ActiveFault, fault: Throttle, now: float, spent: int) -> bool:
        second, before = entry.window
        # A lower sum than before: the books were begun anew.
        if int(now) != second or spent < before:
            entry.window = (int(now), spent)
            return False
        return spent - before >= fault.rate and self._strikes(entry)

    def message(self, address: str, container_id: str, *, delivery: bool, session: str | None) -> list[Fault]:
        """What happens to a message, or to its link, when it has gone through. Sends only lose their link."""
        struck: list[Fault] = []
        for entry, fault in self._of(TargetedFault):
            if not isinstance(fault, Detach | Duplicate | LoseLock | LoseSession):
                continue
            if not delivery and not isinstance(fault, Detach):
                continue
            if isinstance(fault, LoseSession) and (
                session is None or fault.session_id not in (None, session)
            ):
                continue
            if fault.concerns(address, container_id) and self._strikes(entry):
                struck.append(fault)
        return struck
