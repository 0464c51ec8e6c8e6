"""The page about a run: what became of requests, how long they took, and what the async way costs.

Owns the words. Every number in them comes from the results, and so does who did better.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from benchmarks.movies.scenarios import BOTH, BURST_FACTOR, CAPACITY, SLOW, SLOW_FACTOR, WRITES
from benchmarks.movies.site import VARIANTS
from benchmarks.movies.slow import FILM, OTHER
from benchmarks.report import table

__all__ = ["page", "summary"]

Figures = Mapping[str, Any]


def page(results: Figures) -> str:
    """All of `docs/movies-validation.md`."""
    found, plan = results["scenarios"], results["plan"]
    words = {
        **plan,
        "capacity": CAPACITY,
        "burst_factor": BURST_FACTOR,
        "burst_rate": BURST_FACTOR * CAPACITY,
        "slow_factor": SLOW_FACTOR,
        "writes": WRITES,
        "load": f"{plan['rate'] / CAPACITY * 100:.0f} %",
        "film_ms": FILM * 1000,
        "other_ms": OTHER * 1000,
    }
    parts = [_HEAD, _about(results), "## In short\n", summary(results)]
    for name, write in _SECTIONS.items():
        if found.get(name):
            parts += write(found[name], words)
    if found.get("costs"):
        parts += _costs(found["costs"], found.get("scale"))
    parts.append(_READING.format(**words))
    return "\n".join(part.rstrip() + "\n" for part in parts)


def summary(results: Figures) -> str:
    """Requests without their answer, of all, in each scenario: what a person at a terminal wants to see."""
    rows = [
        [words.format(**results["plan"])]
        + [_without(found[variant]["counts"]) if variant in found else "-" for variant in VARIANTS]
        for name, words in _SHORT.items()
        if (found := results["scenarios"].get(name))
    ]
    short = "Requests that did not get their answer, of all:\n\n" + table(["", *VARIANTS.values()], rows)
    lone, scale = results["scenarios"].get("costs", {}), results["scenarios"].get("scale", {})
    if {*BOTH} <= lone.keys() & scale.keys():
        used = {variant: _used(scale[variant]) for variant in BOTH}
        short += (
            "\nWhat that costs: a lone read takes {:.1f} ms in place of {:.1f} ms and {:.1f} ms of processor "
            "time in place of {:.1f} ms, a write is in the lists after {:.0f} ms in place of {:.0f} ms.\n"
        ).format(
            *(lone[variant]["p50_ms"] for variant in BOTH),
            *(sum(used[variant].get(kind, 0.0) for kind in _KINDS) for variant in BOTH),
            *(lone[variant]["lag_ms"]["p50"] for variant in BOTH),
        )
    return short


_SHORT = {
    "outage": "service killed, for {fault:g} s",
    "reader_outage": "read model killed, for {fault:g} s",
    "slowness": "slow database, for {fault:g} s",
    "burst": "burst of {burst:g} s",
}

_HEAD = """\
# Movies, two ways

The movies example exists twice: as programs that call and notify each other over Service Bus, and the
previous way, as programs that call each other over HTTP and wait (`examples/movies/sync.py`). Both have the
same HTTP API, the same statements and databases. `make movies-validation` runs both through load and
failures on your machine, in turns, and writes this page anew. The figures come from the [raw
results](movies-validation/results.json).
"""

_OUTAGE = """\
## The service is killed

There is one process of the service. It is killed (`kill -9`) under {rate:g} requests a second, which is
{load} of what it can do, right after {writes} writes have come at once, and started again {fault:g} s
later. Every caller waits up to {deadline:g} s. Over HTTP there is nobody to connect to. In the queue,
requests wait; those that the killed process had taken come back when their locks end, after 5 s.
"""

_RETRIES = """\
With retries, the HTTP API tries again, until the deadline, what cannot be done twice by that: reads, and
writes that could not be sent. Writes that were under way when the process died are not among them, since
nobody knows whether they were done. Over Service Bus they are delivered again, and the service knows by the
id of a call whether it has done it.
"""

_BOUNDARY = """\
## Where that ends

A queue helps those who wait. This is the same outage for callers who wait for so long and no longer; what
counts here is the requests that were made while the service was down.
"""

_WAITING = """\
Whoever waits for less than the outage of {fault:g} s, the start of the process, and the requests that are
before in the queue, is told `DEADLINE_EXCEEDED`, either way; without retries, waiting does not help at all.
It does not say whether a change was done. Films that were created although their callers were told an
error: {unknown}.
"""

_READER = """\
## The read model is killed

The same with the process that keeps the read model: the event handler here, the service `views` there. Over
HTTP each write and each list needs it. With retries they wait for it; the service has its transaction open
meanwhile, and with SQLite that is its only connection, so that reads wait as well. Over Service Bus nobody
waits for the event handler: for a while, lists are older.
"""

_SLOW = """\
## The database is slow

Each statement of the service takes {slow_factor} times as long for {fault:g} s. Every caller waits up to
{deadline:g} s. Whether requests wait in a queue or as open connections, in the memory of two processes, is
the same as long as none of these dies.
"""

_BURST = """\
## A burst

{burst_rate:g} requests a second for {burst:g} s, {burst_factor} times what the one process of the service
can do, beside a few steady callers. Every caller waits up to {burst_deadline:g} s.
"""

_SCALE = """\
## Callers and processes

Callers who read one film after the other. A process of the service can do {capacity:g} reads a second;
there are more when more processes are started. Over Service Bus nobody has to be told of them, over HTTP
the API needs their addresses, and takes them in turns.
"""

_LONE = """\
## What the async way costs

A lone caller, one request after the other, without pretended work; and how long after a write a list has
it, in which the time of the list itself is included:
"""

_PRICE = """\
What no table shows:

* **The read model is behind.** A list that is read right after a write may not have it. Who has to see
  their own write reads it from the service.
* **A failure looks like a long wait.** Over HTTP, a caller is told at once that the service is not there.
  Here the caller waits until the deadline, so each has to choose one.
* **What has piled up is done first.** After an outage, callers wait behind the requests that were made in
  it. Without retries, HTTP is quick again so soon because those requests are gone.
* **One more thing to operate:** a namespace with its queues, rights, alerts and dead letters, and a bill.
  While Service Bus itself is away, every call waits and no change is announced; nothing here takes it away.
"""

_READING = """\
## How to read this

* **The work is pretended**, in both applications alike: in a process of the service, a statement about
  films takes {film_ms:g} ms and any other {other_ms:g} ms, one after the other. So a process can do
  {capacity:g} reads a second, whatever the machine, and two cores are enough for all processes together. A
  write is more statements over Service Bus than over HTTP: the note of the call, and the outbox.
* **Callers ask at a steady rate**, whatever becomes of the requests before, and the time of an answer
  counts from when its request was due. Of ten requests, seven read a film, two create one, and one lists
  the read model. "Callers and processes" and the lone caller are the exceptions: there, each caller waits
  and then reads again.
* **Every answer is checked**: the film that was asked for, the title that was sent, the list that is known.
  In the end, both databases are compared with each other and with what the callers were told.
* **Both have the same deadlines**, from the header `Request-Timeout`. Over HTTP, connections stay open;
  there are up to 100, as httpx has it, and a request may wait for one until its deadline. The service shows
  a film to the read model before it commits, so that what cannot be shown is not done.
* **A load balancer** in front of the service would make a refused connection a 502 or 503. With several
  processes behind it, an outage of one would cost less; one process is the plain case of a crash at start,
  or of a machine that is gone.
* **Everything runs on one machine**, over loopback, once. Differences below ten percent mean nothing.
"""


def _about(results: Figures) -> str:
    machine, versions = results["machine"], results["versions"]
    libraries = ", ".join(f"{name} {versions[name]}" for name in _LIBRARIES if name in versions)
    short = "; a short run, which shows that it works and nothing else" if results["quick"] else ""
    return (
        f"Measured {results['at'][:10]} on {machine['cores']} cores of {machine['processor']}, "
        f"{machine['memory']}, {machine['system']}, {machine['python']}; {libraries}. "
        f"Databases: {results['database']}. The run took {results['minutes']:.1f} minutes{short}.\n"
    )


_LIBRARIES = ("sbrpc", "azure-servicebus", "fastapi", "uvicorn", "httpx")


# -- what goes wrong ---------------------------------------------------------------------------------------


def _section(words: str, picture: str, after: str = "") -> Callable[[Figures, Figures], list[str]]:
    def write(variants: Figures, values: Figures) -> list[str]:
        return [words.format(**values), _picture(picture), _happened(variants), *([after] if after else [])]

    return write


def _picture(name: str) -> str:
    return f"![{_ALT.get(name, 'Seconds until the answer, over time')}](movies-validation/{name}.svg)\n"


_ALT = {
    "boundary": "Share of requests without their answer, over the deadline of their callers",
    "scale": "Reads per second and their latency, over the number of callers",
}


def _happened(variants: Figures) -> str:
    """What became of the requests, and of the films that were to be created."""
    head = ["", *(VARIANTS[variant] for variant in variants)]
    return table(head, [[words, *map(cell, variants.values())] for words, cell in _HAPPENED.items()])


_HAPPENED: dict[str, Callable[[Figures], str]] = {
    "requests": lambda each: f"{each['counts']['asked']:,}",
    "without their answer": lambda each: f"{each['counts']['asked'] - each['counts']['right']:,}",
    "refused as the API promises": lambda each: _named(each["counts"]["refused"]),
    "failed otherwise": lambda each: _named(each["counts"]["failed"]),
    "which requests": lambda each: _named(each["counts"]["without_answer"]),
    "an answer took, p50": lambda each: _time(each["p50_ms"]),
    "p99": lambda each: _time(each["p99_ms"]),
    "at most": lambda each: _time(each["most_ms"]),
    f"until all are answered within {SLOW:g} s again": lambda each: _recovery(each["recovered_after"]),
    "films to be created": lambda each: f"{each['books']['asked']:,}",
    "promised and lost": lambda each: str(each["books"]["lost"]),
    "created twice": lambda each: str(each["books"]["doubled"]),
    "created, and the caller was told an error": lambda each: str(each["books"]["done_unacknowledged"]),
    "films in which the databases differ in the end": lambda each: str(each["books"]["apart"]),
}


def _named(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{number:,} {name.lower().replace('_', ' ')}" for name, number in counts.items()) or "0"


def _time(milliseconds: float | None) -> str:
    if milliseconds is None:
        return "-"
    return f"{milliseconds:.0f} ms" if milliseconds < 1000 else f"{milliseconds / 1000:.1f} s"


def _recovery(seconds: float | None) -> str:
    return "not while it was watched" if seconds is None else f"{seconds:.1f} s"


def _without(counts: Figures) -> str:
    without = counts["asked"] - counts["right"]
    return f"{f'{without:,}' if without else '**0**'} of {counts['asked']:,}"


def _boundary(variants: Figures, values: Figures) -> list[str]:
    deadlines = [f"{each:g}" for each in values["deadlines"]]
    rows = [
        [
            VARIANTS[variant],
            *(_without(found["by_deadline"].get(each, {"asked": 0, "right": 0})) for each in deadlines),
        ]
        for variant, found in variants.items()
    ]
    unknown = ", ".join(
        f"{found['books']['done_unacknowledged']} ({VARIANTS[variant]})"
        for variant, found in variants.items()
    )
    return [
        _BOUNDARY.format(**values),
        _picture("boundary"),
        table(["deadline in seconds", *deadlines], rows),
        _WAITING.format(**values, unknown=unknown),
    ]


# -- load and costs ----------------------------------------------------------------------------------------


def _scale(variants: Figures, values: Figures) -> list[str]:
    rows = []
    for services in map(str, values["services"]):
        for variant, found in variants.items():
            cells = (
                f"{each['per_second']:.0f} ({_time(each['p50_ms'])}, {_time(each['p99_ms'])})"
                for each in found.get(services, {}).values()
            )
            rows.append([f"{_processes(services)}, {VARIANTS[variant]}", *cells])
    all_counts = [
        each["counts"]
        for found in variants.values()
        for by_callers in found.values()
        for each in by_callers.values()
    ]
    total = {name: sum(counts[name] for counts in all_counts) for name in ("asked", "right")}
    head = ["reads per second (p50, p99)", *(_callers(callers) for callers in values["callers"])]
    return [
        _SCALE.format(**values),
        _picture("scale"),
        table(head, rows),
        f"Reads that did not get their answer: {_without(total)}.\n",
        *([_worst(variants)] if {*BOTH} <= variants.keys() else []),
    ]


def _worst(variants: Figures) -> str:
    """Where Service Bus compares worst with HTTP."""
    ratios = {
        (services, callers): each["per_second"] / variants["sync"][services][callers]["per_second"]
        for services, by_callers in variants["async"].items()
        for callers, each in by_callers.items()
    }
    (services, callers), ratio = min(ratios.items(), key=lambda item: item[1])
    return (
        f"Service Bus compares worst at {_callers(callers)} and {_processes(services)}: {ratio * 100:.0f} % "
        "of the reads. Requests in turns divide evenly; from a queue, each process takes what it can get.\n"
    )


def _callers(number: int | str) -> str:
    return f"{number} caller{'s' * (str(number) != '1')}"


def _processes(number: str) -> str:
    return f"{number} process{'es' * (number != '1')} of the service"


def _costs(lone: Figures, scale: Figures | None) -> list[str]:
    rows = [
        ["a lone read, p50", *(f"{each['p50_ms']:.1f} ms" for each in lone.values())],
        ["p99", *(f"{each['p99_ms']:.1f} ms" for each in lone.values())],
        ["a write is in a list after, p50", *(f"{each['lag_ms']['p50']:.0f} ms" for each in lone.values())],
        ["at most", *(f"{each['lag_ms']['most']:.0f} ms" for each in lone.values())],
    ]
    parts = [_LONE, table(["", *(VARIANTS[variant] for variant in lone)], rows)]
    if len(lone) > 1:
        parts.append(
            f"Between `api` and `service`, Service Bus makes a lone read {_difference(lone)}. This is an "
            "emulator on the same machine; Azure takes some milliseconds for each message sent and settled.\n"
        )
    if scale:
        parts += _processor(scale)
    return [*parts, _PRICE]


def _difference(lone: Figures) -> str:
    here, there = lone["async"]["p50_ms"], lone["sync"]["p50_ms"]
    return f"{abs(here - there):.1f} ms {'slower' if here > there else 'faster'}"


_KINDS = ("api", "service", "read model")


def _used(by_services: Figures) -> Figures:
    """Milliseconds of processor time for one read, by kind of process, with most processes of the service."""
    return by_services[_most(by_services)][_busy(by_services)]["cpu_ms"]


def _most(by_services: Figures) -> str:
    return list(by_services)[-1]


def _busy(by_services: Figures) -> str:
    """The number of callers who keep the processes busy, and no more: the last but one."""
    return list(by_services[_most(by_services)])[-2:][0]


def _processor(variants: Figures) -> list[str]:
    used = [_used(found) for found in variants.values()]
    one = next(iter(variants.values()))
    rows = [
        *([kind, *(f"{each.get(kind, 0.0):.2f}" for each in used)] for kind in _KINDS),
        ["together", *(f"{sum(each.get(kind, 0.0) for kind in _KINDS):.2f}" for each in used)],
        ["emulator", *(f"{each['emulator']:.2f}" if "emulator" in each else "-" for each in used)],
    ]
    return [
        f"Milliseconds of processor time for one read, {_callers(_busy(one))}, {_processes(_most(one))}:\n",
        table(["", *(VARIANTS[variant] for variant in variants)], rows),
        "The emulator stands for Azure, whose processors you pay by operations or by the unit.\n",
    ]


_SECTIONS: dict[str, Callable[[Figures, Figures], list[str]]] = {
    "outage": _section(_OUTAGE, "outage", _RETRIES),
    "boundary": _boundary,
    "reader_outage": _section(_READER, "reader_outage"),
    "slowness": _section(_SLOW, "slowness"),
    "burst": _section(_BURST, "burst"),
    "scale": _scale,
}
