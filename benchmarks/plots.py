"""The figures as pictures, PNG and SVG."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl

from benchmarks.figures import median
from benchmarks.scaling import DELAY, SERVERS

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

__all__ = ["draw", "save", "style"]

Results = Mapping[str, Any]

_OWN = "#0b6bcb"
_COLOURS = {
    "sbrpc": _OWN,
    "sbrpc_uvloop": "#5aa9f0",
    "sdk": "#7a4fb5",
    "sdk_batched": "#b08ddb",
    "js": "#caa300",
    "faststream_nats": "#1f8a5b",
    "faststream_rabbit": "#7cc6a0",
    "nats": "#30b6c0",
    "aio_pika": "#d1702a",
    "grpc": "#c23b3b",
    "http": "#8a8a8a",
}


def draw(results: Results, folder: Path) -> None:
    """Draw everything the results have."""
    style()
    save(_throughput(results), folder / "throughput")
    save(_latency(results), folder / "latency")
    save(_cost(results), folder / "cost")
    if results.get("scaling"):
        save(_scaling(results), folder / "scaling")


def style() -> None:
    """Set what all pictures share. The same figures give the same files."""
    plt.rcParams.update(
        {
            "svg.hashsalt": "sbrpc",
            "svg.fonttype": "none",
            "font.size": 10,
            "axes.grid": True,
            "grid.alpha": 0.3,
        }
    )


def save(figure: Figure, path: Path) -> None:
    """Write a figure as SVG and as PNG, and forget it."""
    figure.tight_layout()
    figure.savefig(path.with_suffix(".svg"), metadata={"Date": None})
    figure.savefig(path.with_suffix(".png"), dpi=130, metadata={"Software": None})
    plt.close(figure)


def _throughput(results: Results) -> Figure:
    figure, axes = plt.subplots(figsize=(9, 5.5))
    for name, peer in results["peers"].items():
        points = [
            (int(callers), calls["per_second"])
            for callers, calls in sorted(peer["concurrent"].items(), key=lambda item: int(item[0]))
        ]
        x = [callers for callers, _ in points]
        own = name.startswith("sbrpc")
        colour = _COLOURS.get(name)
        axes.plot(
            x,
            [value["median"] for _, value in points],
            marker="o",
            linewidth=2.5 if own else 1.3,
            color=colour,
            label=peer["label"],
            zorder=3 if own else 2,
        )
        axes.fill_between(
            x, [v["low"] for _, v in points], [v["high"] for _, v in points], color=colour, alpha=0.12
        )
    axes.set(xscale="log", yscale="log", xlabel="callers at once", ylabel="calls per second")
    callers = sorted({int(c) for peer in results["peers"].values() for c in peer["concurrent"]})
    axes.set_xticks(callers, [str(c) for c in callers])
    axes.minorticks_off()
    axes.yaxis.set_major_formatter(mpl.ticker.FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.set_title("Calls per second (median of rounds, band: least to greatest)")
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    return figure


def _bars(results: Results, title: str) -> tuple[Figure, Axes, list[str]]:
    names = list(results["peers"])
    figure, axes = plt.subplots(figsize=(9, 0.45 * len(names) + 1.6))
    axes.set_yticks(range(len(names)), [results["peers"][name]["label"] for name in names])
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.set_title(title)
    return figure, axes, names


def _latency(results: Results) -> Figure:
    figure, axes, names = _bars(results, "One call after the other: median, and the line to p99")
    for row, name in enumerate(names):
        calls = results["peers"][name]["sequential"]
        p50, p99 = calls["p50_ms"]["median"], calls["p99_ms"]["median"]
        axes.barh(row, p50, color=_COLOURS.get(name), height=0.6)
        axes.plot([p50, p99], [row, row], color="#444", linewidth=1.2, marker="|")
        axes.annotate(f"{p50:.2f}", (p99, row), xytext=(6, 0), textcoords="offset points", va="center")
    axes.set_xlabel("milliseconds")
    axes.margins(x=0.12)
    return figure


def _cost(results: Results) -> Figure:
    figure, axes, names = _bars(results, "Processor time per call at 64 callers")
    parts = {"client": "#4c78a8", "server": "#9ecae9", "broker": "#c9c9c9"}
    for row, name in enumerate(names):
        used = results["peers"][name]["concurrent"].get("64", {}).get("cpu_us")
        start = 0.0
        for part, colour in parts.items():
            value = median(used, part) or 0.0
            axes.barh(row, value, left=start, color=colour, height=0.6, label=part if row == 0 else None)
            start += value
        axes.annotate(f"{start:,.0f}", (start, row), xytext=(5, 0), textcoords="offset points", va="center")
    axes.set_xlabel("microseconds, all processes together")
    axes.margins(x=0.1)
    axes.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.09), ncols=3)
    return figure


def _scaling(results: Results) -> Figure:
    figure, axes = plt.subplots(figsize=(6.5, 4.2))
    scaling = results["scaling"]
    one = median(scaling, "1", "per_second") or 0.0
    values = [median(scaling, str(servers), "per_second") or 0.0 for servers in SERVERS]
    axes.plot(SERVERS, [one * servers for servers in SERVERS], "--", color="#999", label="linear")
    axes.plot(SERVERS, values, marker="o", color=_OWN, linewidth=2.5, label="sbrpc")
    axes.set_xticks(SERVERS)
    axes.set(xlabel="server processes", ylabel="calls per second", ylim=(0, None))
    axes.set_title(f"Handlers that wait {DELAY * 1000:.0f} ms, 8 at a time in each process")
    axes.legend(frameon=False)
    return figure
