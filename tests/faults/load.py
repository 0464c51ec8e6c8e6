"""Calls and what becomes of them: made, answered right, answered with the promised error, lost, crossed.

Each call carries a value that no other has. Lost is whatever is neither right nor promised: no answer at all,
or another error. Knows calls, and neither faults nor where they strike.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable
from dataclasses import dataclass, field
from secrets import token_hex
from time import monotonic
from typing import Any

from sbrpc import RpcClient
from sbrpc.errors import (
    DeadlineExceeded,
    FailedPrecondition,
    Internal,
    MessageTooLarge,
    ResourceExhausted,
    Unavailable,
    Unimplemented,
)

from .service import SECRET, Ask, Conflict, Drifted, Number, Swell, Work

__all__ = ["Load", "Tally"]

PATIENT = 40.0
"""Seconds that calls may take which are to be answered whatever happens."""

# A call that has not ended so long after its deadline hangs.
_HANGS = 10.0

# What a fault may turn a call into that has little time.
_OUT_OF_TIME = (DeadlineExceeded, Unavailable)


@dataclass
class Tally:
    """What became of the calls made for one promise."""

    made: int = 0
    right: int = 0
    promised: int = 0
    lost: Counter[str] = field(default_factory=Counter)
    crossed: Counter[str] = field(default_factory=Counter)

    @property
    def answered(self) -> bool:
        """Whether every call has come to an end that was promised."""
        return self.made == self.right + self.promised and not self.lost and not self.crossed


class Load:
    """Makes calls of every kind through one client."""

    def __init__(self, client: RpcClient) -> None:
        self.tallies: dict[str, Tally] = {}
        self.accepted: list[str] = []
        """Values of one-way calls that Service Bus took."""
        self._work = client.of(Work)
        self._drifted = client.of(Drifted)
        self._calls: list[asyncio.Task[None]] = []

    # -- making calls ------------------------------------------------------------------------------------

    def plain(
        self, promise: str, count: int, work: float = 0.0, spread: float = 0.0, *, gated: bool = False
    ) -> None:
        """Calls that must be answered, whose handlers take `work` to `work + spread` seconds."""
        for number in range(count):
            ask = Ask(value=token_hex(8), work=work + spread * number / count, gated=gated)
            self._begin(promise, ask.value, self._work.echo(ask, timeout=PATIENT))

    def mixed(self, count: int, work: float) -> None:
        """So many calls for each promise about a kind of call."""
        for _ in range(count):
            quick, long, guarded, refused = _ask(0.1), _ask(60), _ask(work), _ask()
            self._begin("G4", quick.value, self._work.echo(quick, timeout=1.0), _OUT_OF_TIME)
            self._begin("G5", long.value, self._work.guarded(long, timeout=3.0), _OUT_OF_TIME)
            self._begin("G6", guarded.value, self._work.guarded(guarded, timeout=PATIENT))
            self._begin("G7", (note := _ask()).value, self._note(note))
            failed = _ask()
            self._begin("G8", failed.value, self._work.fail(failed, timeout=PATIENT), (Internal,))
            self._begin("G8", refused.value, self._work.refuse(refused, timeout=PATIENT), (Conflict,))
            number = self._drifted.echo(Number(number=7), timeout=PATIENT)
            self._begin("G9", token_hex(8), number, (FailedPrecondition,))
            vanished = self._drifted.vanished(_ask(), timeout=PATIENT)
            self._begin("G9", token_hex(8), vanished, (Unimplemented,))
            large = self._work.swell(Swell(value=token_hex(8), size=300_000), timeout=PATIENT)
            self._begin("G11", token_hex(8), large, (ResourceExhausted,))
            huge = self._work.echo(Ask(value="x" * 300_000), timeout=PATIENT)
            self._begin("G11", token_hex(8), huge, (MessageTooLarge,))

    async def ended(self) -> None:
        """Wait until every call has come to its end."""
        while self._calls:
            calls, self._calls = self._calls, []
            await asyncio.gather(*calls)

    async def first_answer(self) -> float:
        """Make new calls until one is answered; seconds until then."""
        begun = monotonic()
        probes: set[asyncio.Task[None]] = set()
        right = self._tally("G3").right

        async def probe(ask: Ask) -> None:
            await self._judge("G3", ask.value, self._work.echo(ask, timeout=PATIENT), ())
            if self._tally("G3").crossed:
                raise AssertionError("crossed")

        first: float | None = None
        while first is None and monotonic() - begun < PATIENT:
            probes.add(asyncio.ensure_future(probe(_ask())))
            done, _ = await asyncio.wait(probes, timeout=0.05, return_when=asyncio.FIRST_COMPLETED)
            if done and self._tally("G3").right > right:
                first = monotonic() - begun
            probes -= done
        await asyncio.gather(*probes)
        return PATIENT if first is None else first

    def count(self, promise: str, *, made: int, promised: int) -> None:
        """Add what was counted elsewhere: messages of strangers, which get no answer here."""
        tally = self._tally(promise)
        tally.made += made
        tally.promised += promised
        if promised < made:
            tally.lost["not dead-lettered"] += made - promised

    def missing(self, promise: str, values: int) -> None:
        """So many one-way calls were taken by Service Bus and never carried out."""
        if values:
            self._tally(promise).lost["taken and never carried out"] += values

    # -- judging -----------------------------------------------------------------------------------------

    def _tally(self, promise: str) -> Tally:
        return self.tallies.setdefault(promise, Tally())

    def _begin(
        self, promise: str, value: str, call: Awaitable[Any], promised: tuple[type[Exception], ...] = ()
    ) -> None:
        self._calls.append(asyncio.ensure_future(self._judge(promise, value, call, promised)))

    async def _judge(
        self, promise: str, value: str, call: Awaitable[Any], promised: tuple[type[Exception], ...]
    ) -> None:
        tally = self._tally(promise)
        tally.made += 1
        try:
            answer = await asyncio.wait_for(call, PATIENT + _HANGS)
        except promised as error:
            if SECRET in str(error):
                tally.crossed[f"the server's secret: {error}"] += 1
            elif isinstance(error, Conflict) and error.data.value != value:
                tally.crossed[f"{value} got the error of {error.data.value}"] += 1
            else:
                tally.promised += 1
        except Exception as error:  # whatever it is, it was not promised
            tally.lost[f"{type(error).__name__}: {error}"[:200]] += 1
        else:
            if answer.value == value:
                tally.right += 1
            else:
                tally.crossed[f"{value} got {answer.value}"] += 1

    async def _note(self, ask: Ask) -> Ask:
        await self._work.note(ask, timeout=PATIENT)
        self.accepted.append(ask.value)
        return ask


def _ask(work: float = 0.0) -> Ask:
    return Ask(value=token_hex(8), work=work)
