"""`make bench`: everything side by side, in one run, in rounds that take turns.

Owns the order of things and the files that come out. What is measured, and how, is in `trial`, `scaling`,
`startup` and `emulator`.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from types import FrameType
from typing import Any

from benchmarks import duels, emulator, figures, install, machine, plots, report, scaling, startup, trial
from benchmarks.brokers import Broker
from benchmarks.peers import PEERS, Peer
from benchmarks.processes import ROOT, NotReady

# A run that takes longer than this hangs somewhere; it is ended and says so. Seconds.
_LIMIT = {True: 300, False: 1500}
# On a slow machine there are fewer rounds rather than a longer run.
_BUDGET = 18 * 60


def main() -> int:
    """Run; 0 when all went well, 1 when a peer failed."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=None, help="rounds of the comparison (5; quick: 1)")
    parser.add_argument("--quick", action="store_true", help="short measurements, kept out of docs/")
    parser.add_argument("--only", help="names of peers, separated by commas")
    parser.add_argument("--output", type=Path, help="folder of the page and its pictures")
    arguments = parser.parse_args()
    rounds = arguments.rounds or (1 if arguments.quick else 5)
    output = arguments.output or (ROOT / "build" / "benchmarks" if arguments.quick else ROOT / "docs")

    # Both end the run in order; a shell may have told us to ignore the second.
    signal.signal(signal.SIGTERM, _stop)
    signal.signal(signal.SIGINT, _stop)
    signal.signal(signal.SIGALRM, _too_long)
    signal.alarm(_LIMIT[arguments.quick])
    began = time.monotonic()
    left_out = install.ensure()
    for name, reason in left_out.items():
        print(f"left out: {name}: {reason}", flush=True)
    wanted = set(arguments.only.split(",")) if arguments.only else {peer.name for peer in PEERS}
    unknown = wanted - {peer.name for peer in PEERS}
    if unknown:
        parser.error(
            f"no such peer: {', '.join(sorted(unknown))}; there are {', '.join(p.name for p in PEERS)}"
        )
    peers = [peer for peer in PEERS if peer.name in wanted and peer.name not in left_out]

    results = _measure(peers, rounds, quick=arguments.quick)
    results["left_out"] = left_out
    results["minutes"] = (time.monotonic() - began) / 60
    folder = output / "benchmarks"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    plots.draw(results, folder)
    (output / "benchmarks.md").write_text(report.page(results))
    print(report.summary(results))
    print(f"{output / 'benchmarks.md'}, after {results['minutes']:.1f} minutes")
    for name, reason in results["failed"].items():
        print(f"FAILED: {name}: {reason}", file=sys.stderr)
    return 1 if results["failed"] else 0


def _measure(peers: Sequence[Peer], rounds: int, *, quick: bool) -> dict[str, Any]:
    plan = _QUICK if quick else trial.Plan()
    _say("imports")
    starts = startup.measure(2 if quick else 5)
    _say("the emulator under raw AMQP frames")
    load = emulator.measure(messages=5_000 if quick else 10_000, rounds=1 if quick else 5)
    trials: dict[str, list[dict[str, Any]]] = {peer.name: [] for peer in peers}
    failed: dict[str, str] = {}
    growth = []
    began = time.monotonic()
    for number in range(rounds):
        if number and (time.monotonic() - began) * (number + 1) / number > _BUDGET:
            _say(f"{number} rounds have taken {(time.monotonic() - began) / 60:.0f} minutes; that will do")
            rounds = number
            break
        _round(number, rounds, peers, plan, trials, failed)
        if number < 3 and any(peer.name == "sbrpc" for peer in peers):
            _say(f"round {number + 1} of {rounds}: server processes")
            growth.append(scaling.measure(0.8 if quick else 1.5, 0.3 if quick else 0.7))
    fought = _duels(peers, duels.Slices(4, 0.3) if quick else duels.Slices(), failed)
    return {
        "at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "quick": quick,
        "rounds": rounds,
        "machine": machine.describe(),
        "versions": machine.versions(),
        "startup": figures.gather(starts),
        "emulator": load,
        "peers": {
            peer.name: {"label": peer.label, "broker": peer.broker, **figures.gather(trials[peer.name])}
            for peer in peers
            if trials[peer.name]
        },
        "duels": fought,
        "scaling": figures.gather(growth) if growth else {},
        "failed": failed,
    }


_QUICK = trial.Plan(
    sequential=0.5, concurrent=0.5, warm=0.2, callers=(16, 64, 256), publish=0.3, paced_events=20
)


def _round(
    number: int,
    rounds: int,
    peers: Sequence[Peer],
    plan: trial.Plan,
    trials: dict[str, list[dict[str, Any]]],
    failed: dict[str, str],
) -> None:
    """Every peer once. The brokers take turns in going first, and so do the peers of a broker."""
    kinds = list(dict.fromkeys(peer.broker for peer in peers))
    for kind in _turned(kinds, number):
        group = _turned([peer for peer in peers if peer.broker == kind], number)
        # The emulator is fresh for each peer, so that its books and its memory are that peer's; the
        # others, which take longer to start, are shared.
        for together in [[peer] for peer in group] if kind == "emulator" else [group]:
            _say(f"round {number + 1} of {rounds}: {', '.join(peer.label for peer in together)}")
            _try(kind, together, plan, trials, failed)


def _try(
    kind: str,
    peers: Sequence[Peer],
    plan: trial.Plan,
    trials: dict[str, list[dict[str, Any]]],
    failed: dict[str, str],
) -> None:
    """The peers of one broker. One that fails must not cost the figures of the others."""
    try:
        with trial.broker_for(kind) as broker:
            for peer in peers:
                figures_or_reason = _one(peer, broker, plan)
                if isinstance(figures_or_reason, str):
                    failed.setdefault(peer.name, figures_or_reason)
                else:
                    trials[peer.name].append(figures_or_reason)
    except NotReady as error:
        for peer in peers:
            failed.setdefault(peer.name, str(error))


def _one(peer: Peer, broker: Broker, plan: trial.Plan) -> dict[str, Any] | str:
    try:
        return trial.run(peer, broker, plan)
    except (NotReady, trial.Failed, ValueError, OSError) as error:
        _say(f"{peer.label} failed: {error}")
        return str(error)


def _duels(peers: Sequence[Peer], slices: duels.Slices, failed: dict[str, str]) -> dict[str, Any]:
    fought: dict[str, Any] = {}
    able = {peer.name for peer in peers} - failed.keys()
    if "sbrpc" not in able:
        return fought
    for peer in [peer for peer in peers if peer.name in able & duels.AGAINST.keys()]:
        _say(f"sbrpc and {peer.label}, taking turns")
        try:
            fought[peer.name] = duels.measure(peer, slices)
        except (NotReady, trial.Failed, ValueError, OSError) as error:
            _say(f"it failed: {error}")
            failed[peer.name] = str(error)
    return fought


def _turned(items: Sequence[Any], by: int) -> list[Any]:
    shift = by % len(items) if items else 0
    return [*items[shift:], *items[:shift]]


def _say(text: str) -> None:
    print(f"[{time.strftime('%H:%M:%S')}] {text}", flush=True)


def _stop(number: int, frame: FrameType | None) -> None:
    raise SystemExit(f"stopped by signal {number}")


def _too_long(number: int, frame: FrameType | None) -> None:
    raise SystemExit("the benchmark took longer than it ever should; what it had started is stopped")


if __name__ == "__main__":
    sys.exit(main())
