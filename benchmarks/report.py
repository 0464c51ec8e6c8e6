"""The page about a run: tables, how to read them, and where sbrpc loses.

Owns the words. Every number in them comes from the results; which peers are better at what is found out,
not written down.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmarks.figures import median
from benchmarks.scaling import SERVERS
from benchmarks.targets import TARGETS

__all__ = ["page", "summary", "table"]

Results = Mapping[str, Any]
Peer = Mapping[str, Any]

# Differences below this share are within what two runs differ by.
_NOTABLE = 1.1


def page(results: Results) -> str:
    """All of `docs/benchmarks.md`."""
    parts = [
        _HEAD,
        _about(results),
        "## What was meant to be reached\n",
        _targets(results),
        _duels(results),
        "## Calls per second\n",
        _WIDE.format(name="throughput", text="Calls per second over the number of callers"),
        _throughput(results),
        "## One call after the other\n",
        _WIDE.format(name="latency", text="Latency of sequential calls"),
        _latency(results),
        "## What a call costs\n",
        _WIDE.format(name="cost", text="Processor time per call"),
        _cost(results),
        "## Under load\n",
        _tails(results),
        "## Events\n",
        _events(results),
        "## More servers\n",
        _scaling(results),
        "## Starting\n",
        _startup(results),
        "## The emulator\n",
        _emulator(results),
        "## Where sbrpc loses\n",
        _losses(results),
        _READING,
    ]
    return "\n".join(part.rstrip() + "\n" for part in parts if part)


def summary(results: Results) -> str:
    """What a person at a terminal wants to see at the end."""
    return "\n".join([table(*_throughput_rows(results)), "", _targets(results)])


_HEAD = """\
# Benchmarks

`make bench` runs all of this on your machine, in one run, and writes this page anew. `make bench ROUNDS=1
QUICK=1` takes two minutes and leaves the page alone. The figures below come from the
[raw results](benchmarks/results.json).
"""

_WIDE = "![{text}](benchmarks/{name}.svg)\n"

_READING = """\
## What limits a lone call

A call that has nobody to share with costs two messages each way, and most of that is not ours. Sampled 500
times a second while one caller called (2026-11-26, two cores), the server's processor time went to: waiting
for sockets and being woken 30 %, the SDK's AMQP 23 %, reading and writing sockets 15 %, asyncio 10 %, sbrpc
9 %, the rest of the SDK 7 %. The client's: 33 %, 22 %, 11 %, 11 %, 8 %, 7 %. The loop by hand, sampled the
same way, has the same shares without sbrpc's: it has no deadline to watch, no lock to keep, no second caller
to let through and no reply to remember. It is that twelfth of either process which separates the two.

## What limits many callers

One core of one server process, which is busy nearly all of the time with 256 callers. Sampled as above, it
spends 48 % on serving (the deadline, the reply that is kept for a second delivery, the checks, decoding the
request, validating and encoding the result, the decision how to settle), 11 % on the handler, 18 % on
sending replies, more than half of it in the SDK, and 16 % on receiving and settling, half of it in the SDK;
the rest is the event loop's. No line of it stands out any more. nats-py's handler gets bytes and answers with
bytes, once, and nobody asks what becomes of them. More server processes share the calls, see the figures for
several.

## What limits more servers

The cores of the machine. Where handlers wait, calls end one by one and few of them share a message, so each
costs more processor time than in the tables above, at the client and the broker too. The last row of the
table says how many cores would be busy if calls grew as servers do: where that is more than there are, or
nearly as many, no growth is to be had here. The share of what handlers allow says how busy the handlers were;
a server takes one message ahead, so one process alone keeps them busy nearly all of the time.

## What limits the import

The libraries that sbrpc stands on. `import sbrpc` itself takes nothing; a client and a server take what
pydantic with its first model, anyio and tenacity take, which the table names beside it, and little more.

## How to read this

* **Everything runs on one machine.** Client, server and broker are three processes on the processors named
  above, over loopback. There is no network: on a real one, round trips of a millisecond or more come on top
  for everybody, and what separates peers by tenths of a millisecond here vanishes. What remains is how much
  work a call is (processor time, messages, credits) and how many calls share a round trip.
* **The Service Bus here is the emulator**, which answers faster than Azure does and keeps nothing on disk.
  Azure's own latency is some milliseconds for each send and each settlement, and its Standard tier closes
  at 1,000 credits a second for the whole namespace. Credits per call are therefore the figure that carries
  over to Azure: calls per second on one Standard namespace are at most 1,000 divided by it.
* **The peers do not promise the same.** NATS core, gRPC and HTTP store nothing: when the server dies, the
  call is lost and the caller has to know. RabbitMQ is used as FastStream and aio-pika use it, with replies
  that are not stored. Over Service Bus, requests and replies are stored, locked, confirmed one by one and
  delivered again after a crash.
* **Each peer is used as its documentation shows it**, with the same pydantic models and JSON, and with the
  concurrency its handlers need turned up where its default is one at a time. Where a library offers more
  than one way, the usual one was taken. A specialist could make any of them faster.
* **Every Python process freezes what it has imported** (`gc.collect(); gc.freeze()` once it is ready), the
  peers' as well as ours, and so should yours: the garbage collector otherwise walks through all of it now and
  then, which takes 20 ms and shows in the 99th percentile of everything that is quicker.
* **Every reply is checked** against its request, and every published event is counted in. A run in which
  one is wrong or missing fails.
* **Medians of rounds**, in which the peers take turns, so that a busy minute of the machine does not hit one
  of them alone; behind each the least and the greatest. Where the machine is shared, the rounds are minutes
  apart and a factor of two between them is no rarity: compare within a round, or by the side-by-side figures,
  whose slices follow each other within a second.
* Processor time is what the operating system accounts to the processes, warm-up included. The broker's
  share is the emulator's for Service Bus: on Azure you do not pay it in processor time.
"""


# -- tables -------------------------------------------------------------------------------------------------


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    marks = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, marks, *rows]) + "\n"


def _shown(value: Mapping[str, Any] | None, layout: str = "{:,.0f}", scale: float = 1.0) -> str:
    """A median with its spread; nothing for what was not measured."""
    if not value:
        return "-"
    low, middle, high = (layout.format(value[key] * scale) for key in ("low", "median", "high"))
    return middle if low == high else f"{middle} ({low} to {high})"


def _at(peer: Peer, *path: str) -> Any:
    found: Any = peer
    for step in path:
        found = found.get(step, {}) if isinstance(found, Mapping) else {}
    return found or None


def _callers(results: Results) -> list[str]:
    return sorted({c for peer in results["peers"].values() for c in peer["concurrent"]}, key=int)


def _throughput_rows(results: Results) -> tuple[list[str], list[list[str]]]:
    callers = _callers(results)
    head = ["", *[f"{c} callers" for c in callers]]
    rows = [
        [peer["label"], *[_shown(_at(peer, "concurrent", c, "per_second")) for c in callers]]
        for peer in results["peers"].values()
    ]
    return head, rows


def _throughput(results: Results) -> str:
    return table(*_throughput_rows(results))


def _latency(results: Results) -> str:
    head = ["", "median, ms", "p99, ms", "calls/s"]
    rows = [
        [
            peer["label"],
            _shown(_at(peer, "sequential", "p50_ms"), "{:.2f}"),
            _shown(_at(peer, "sequential", "p99_ms"), "{:.2f}"),
            _shown(_at(peer, "sequential", "per_second")),
        ]
        for peer in results["peers"].values()
    ]
    return table(head, rows)


def _tails(results: Results) -> str:
    head = ["", "64 callers: median, ms", "p99, ms", "256 callers: median, ms", "p99, ms"]
    rows = [
        [
            peer["label"],
            *[
                _shown(_at(peer, "concurrent", callers, quantile), "{:.1f}")
                for callers in ("64", "256")
                for quantile in ("p50_ms", "p99_ms")
            ],
        ]
        for peer in results["peers"].values()
    ]
    return table(head, rows)


def _cost(results: Results) -> str:
    head = ["", "client, µs", "server, µs", "broker, µs", "credits", "client, MB", "server, MB", "broker, MB"]
    rows = []
    for peer in results["peers"].values():
        used = _at(peer, "concurrent", "64") or {}
        rows.append(
            [
                peer["label"],
                *[_shown(_at(used, "cpu_us", part)) for part in ("client", "server")],
                _shown(_at(used, "cpu_us", "broker")) if peer["broker"] else "-",
                _shown(used.get("credits"), "{:.2f}"),
                *[_shown(_at(peer, "resident_mb", part)) for part in ("client", "server")],
                _shown(_at(peer, "resident_mb", "broker")) if peer["broker"] else "-",
            ]
        )
    text = "Per call, at 64 callers; credits as Azure counts them; resident memory at the end of a round.\n\n"
    return text + table(head, rows)


def _events(results: Results) -> str:
    head = ["", "latency of a lone event, ms", "p99, ms", "published/s", "handled/s"]
    rows = [
        [
            peer["label"],
            _shown(_at(peer, "events", "latency_p50_ms"), "{:.2f}"),
            _shown(_at(peer, "events", "latency_p99_ms"), "{:.2f}"),
            _shown(_at(peer, "events", "published_per_second")),
            _shown(_at(peer, "events", "handled_per_second")),
        ]
        for peer in results["peers"].values()
        if peer.get("events")
    ]
    if not rows:
        return ""
    text = (
        "From `publish` to the handler in the other process; with 64 publishers. `published/s` counts what "
        "the publisher was told is done, which over NATS and with RabbitMQ's default means only that it was "
        "written to a socket.\n\n"
    )
    return text + table(head, rows)


def _scaling(results: Results) -> str:
    scaling = results.get("scaling")
    if not scaling:
        return ""
    head = ["", *[f"{servers} processes" if servers > 1 else "1 process" for servers in SERVERS]]
    one = median(scaling, "1", "per_second") or 1.0
    growth = [(median(scaling, str(n), "per_second") or 0.0) / (n * one) for n in SERVERS]
    rows = [
        ["calls/s", *[_shown(_at(scaling, str(servers), "per_second")) for servers in SERVERS]],
        ["share of linear growth", *[f"{share:.2f}" for share in growth]],
        [
            "share of what the handlers allow",
            *[_shown(_at(scaling, str(n), "share"), "{:.2f}") for n in SERVERS],
        ],
        ["cores busy", *[_shown(_at(scaling, str(n), "cores"), "{:.2f}") for n in SERVERS]],
        [
            "cores that linear growth would keep busy",
            *[
                f"{(median(scaling, str(n), 'cores') or 0.0) / share:.2f}" if share else "-"
                for n, share in zip(SERVERS, growth, strict=True)
            ],
        ],
    ]
    text = _WIDE.format(name="scaling", text="Growth over server processes")
    text += (
        "\nHandlers wait 20 ms; each process runs 8 at a time. Client and broker share the cores with the "
        "servers: once all of them are busy, more processes add nothing on this machine.\n\n"
    )
    return text + table(head, rows)


def _startup(results: Results) -> str:
    rows = [[name, _shown(value)] for name, value in results.get("startup", {}).items()]
    ready = _at(results, "emulator", "ready_ms")
    if ready:
        rows.append(
            ["`sbrpc emulator`, from the start of the process to its connection string", _shown(ready)]
        )
    return table(["", "ms"], rows)


def _emulator(results: Results) -> str:
    load = results.get("emulator") or {}
    rows = [
        [name, _shown(value), _shown(_at(load, "microseconds", name))]
        for name, value in load.get("per_second", {}).items()
    ]
    text = (
        "A load generator of raw AMQP frames on one processor, the emulator on another. Messages have 128 "
        "bytes of body and the properties that the Python SDK writes; `one by one` is one transfer and one "
        "disposition per message.\n\n"
    )
    more = [
        ["resident at start, MB", _shown(_at(load, "resident_mb", "idle"))],
        [
            f"resident after {median(load, 'messages_passed') or 0:,.0f} messages, MB",
            _shown(_at(load, "resident_mb", "after")),
        ],
    ]
    idle = load.get("idle")
    if idle:
        count = f"{median(idle, 'connections') or 0:,.0f}"
        more += [
            [f"share of a core with {count} idle connections", _shown(idle.get("core_share"), "{:.3f}")],
            ["connections opened per second", _shown(idle.get("opened_per_second"))],
        ]
    return text + table(["", "messages/s", "µs of processor each"], rows) + "\n" + table(["", ""], more)


def _targets(results: Results) -> str:
    rows = []
    for target in TARGETS:
        value, held = target.value(results), target.held(results)
        bound = ("at least " if target.at_least else "at most ") + target.shown.format(target.bound)
        told = "-" if value is None else target.shown.format(value)
        rows.append(
            [target.text, bound, told, {True: "held", False: "**missed**", None: "not measured"}[held]]
        )
    return table(["", "meant", "measured", ""], rows)


def _duels(results: Results) -> str:
    rows = []
    for name, kinds in results.get("duels", {}).items():
        for kind, found in kinds.items():
            callers = "one after the other" if kind == "sequential" else f"{kind} callers"
            rows.append(
                [
                    f"{results['peers'][name]['label']}, {callers}",
                    *[_shown(found[what], "{:.2f}") for what in ("per_second", "p50", "cost")],
                ]
            )
    if not rows:
        return ""
    text = (
        "## Side by side\n\n"
        "What sbrpc is to another, both up at once: slices of half a second take turns, and each pair of "
        "slices gives a ratio. Each figure is the median of the ratios, with the half of them that is around "
        "it, and what is judged above as sbrpc to another. More is better for calls/s, less for the "
        "rest.\n\n"
    )
    head = ["sbrpc to", "calls/s", "median latency", "processor time of client and server"]
    return text + table(head, rows)


# -- words --------------------------------------------------------------------------------------------------


def _about(results: Results) -> str:
    host = results["machine"]
    rounds = "1 round" if results["rounds"] == 1 else f"{results['rounds']} rounds"
    used = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    lines = [
        f"Measured {results['at'][:10]} on {host['processor']}, {host['cores']} processors, "
        f"{host['memory']}, {host['system']}, {host['python']}; "
        f"{rounds}, {results['minutes']:.0f} minutes. "
        "Each figure is the median of the rounds, with the least and the greatest behind it.",
        f"With {used}.",
    ]
    if results["quick"]:
        lines.insert(0, "**A quick run: the measurements are short and the figures rough.**")
    lines += [f"Left out: {peer} ({reason})." for peer, reason in results["left_out"].items()]
    lines += [f"Failed: {peer}." for peer in results["failed"]]
    return "\n\n".join(lines) + "\n"


def _measures(results: Results) -> list[tuple[str, bool, Callable[[Peer], float | None]]]:
    """What peers are compared by: its name, whether more is better, and where it stands."""

    def at(*path: str) -> Callable[[Peer], float | None]:
        return lambda peer: median(peer, *path)

    def cost(callers: str) -> Callable[[Peer], float | None]:
        def value(peer: Peer) -> float | None:
            parts = [median(peer, "concurrent", callers, "cpu_us", part) for part in ("client", "server")]
            return None if None in parts else sum(part or 0.0 for part in parts)

        return value

    def memory(peer: Peer) -> float | None:
        parts = [median(peer, "resident_mb", part) for part in ("client", "server")]
        return None if None in parts else sum(part or 0.0 for part in parts)

    return [
        ("median of sequential calls", False, at("sequential", "p50_ms")),
        ("p99 of sequential calls", False, at("sequential", "p99_ms")),
        *((f"calls/s at {c} callers", True, at("concurrent", c, "per_second")) for c in _callers(results)),
        ("p99 at 64 callers", False, at("concurrent", "64", "p99_ms")),
        ("processor time of client and server per call at 64 callers", False, cost("64")),
        ("memory of client and server", False, memory),
        ("latency of a lone event", False, at("events", "latency_p50_ms")),
        ("events published per second", True, at("events", "published_per_second")),
        ("events handled per second", True, at("events", "handled_per_second")),
    ]


def _losses(results: Results) -> str:
    peers = results["peers"]
    own = peers.get("sbrpc")
    if own is None:
        return ""
    rows = []
    for name, more_is_better, value in _measures(results):
        mine = value(own)
        if not mine:
            continue
        ahead = []
        for key, peer in peers.items():
            other = None if key.startswith("sbrpc") else value(peer)
            factor = 0.0 if not other else other / mine if more_is_better else mine / other
            if factor >= _NOTABLE:
                ahead.append((factor, peer["label"]))
        if ahead:
            told = ", ".join(f"{label} ({factor:.1f} x)" for factor, label in sorted(ahead, reverse=True))
            rows.append([name, told])
    if not rows:
        return "In this run, in none of the measures above by more than ten percent.\n"
    text = "In these measures the peers named do better than sbrpc, by the factor behind them.\n\n" + table(
        ["measure", "better than sbrpc"], rows
    )
    return text + _WHY


_WHY = """
Why, and when it matters:

* **A lone call is slower than one without a broker, or with one that stores nothing.** A call over Service
  Bus is two messages, each sent, confirmed, delivered, locked and completed. If latency of single calls is
  what counts, and a lost call costs nothing, gRPC or HTTP is the better tool.
* **The SDK sets the floor.** A message through the Python SDK costs a few tenths of a millisecond of
  processor time, whoever uses it, and a call is two messages, each sent, received and completed. What sbrpc
  adds to that is deadlines, the reply channel that is rebuilt, the reply cache and the locks it watches.
* **Memory**: the SDK alone takes some 25 MB in every process.
* **Events** are messages of their own, so that filters, sessions and dead-letter queues work on single
  events. They leave in batches of the SDK, and each is settled once it is handled.
"""
