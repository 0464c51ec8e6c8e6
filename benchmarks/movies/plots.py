"""The figures of the movies' validation as pictures, PNG and SVG."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl

from benchmarks.movies.site import VARIANTS
from benchmarks.plots import save, style

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

__all__ = ["draw"]

Figures = Mapping[str, Any]

_COLOURS = {"async": "#0b6bcb", "sync": "#8a8a8a", "retry": "#d1702a"}
_WRONG = "#c23b3b"
# By scenario; the times are those of the full run.
_FAULTS = {
    "outage": "The service is killed, and started again 5 s later",
    "reader_outage": "The process of the read model is killed, and started again 5 s later",
    "slowness": "Statements take ten times as long for 5 s",
    "burst": "Ten times the capacity for 2 s",
}


def draw(results: Figures, folder: Path) -> None:
    """Draw everything the results have."""
    style()
    scenarios = results["scenarios"]
    for name, title in _FAULTS.items():
        if scenarios.get(name):
            save(_over_time(scenarios[name], title), folder / name)
    if scenarios.get("boundary"):
        save(_boundary(scenarios["boundary"]), folder / "boundary")
    if scenarios.get("scale"):
        save(_scale(scenarios["scale"]), folder / "scale")


def _over_time(variants: Figures, title: str) -> Figure:
    """One panel for each application: how long answers took, and how many requests got none, by second."""
    figure, panels = plt.subplots(
        len(variants), figsize=(9, 2.1 * len(variants) + 0.8), sharex=True, sharey=True, squeeze=False
    )
    most = max(step["without_answer"] for found in variants.values() for step in found["series"])
    for axes, (variant, found) in zip(panels[:, 0], variants.items(), strict=True):
        series = found["series"]
        at = [step["at"] + 0.5 for step in series]
        for percentile, width in (("p50_ms", 2.2), ("p99_ms", 1.0)):
            took = [float("nan") if step[percentile] is None else step[percentile] / 1000 for step in series]
            axes.plot(at, took, color=_COLOURS[variant], linewidth=width, marker=".", label=percentile[:3])
        axes.axvspan(*found["fault"], color="#000", alpha=0.07, linewidth=0)
        axes.set(yscale="log", ylabel="seconds")
        axes.yaxis.set_major_formatter(mpl.ticker.FuncFormatter(lambda value, _: f"{value:g}"))
        counts = found["counts"]
        without = f"{counts['asked'] - counts['right']} of {counts['asked']} without their answer"
        axes.set_title(f"{VARIANTS[variant]}: {without}", loc="left", fontsize=10)
        _wrong(axes, at, [step["without_answer"] for step in series], most)
    panels[0, 0].legend(frameon=False, loc="lower right", bbox_to_anchor=(1, 1), ncols=2)
    panels[-1, 0].set_xlabel("seconds; each request counts where it was made")
    figure.suptitle(title)
    return figure


def _wrong(axes: Axes, at: list[float], without: list[int], most: int) -> None:
    """Requests without their answer, as bars on an axis of their own."""
    if any(without):
        beside = axes.twinx()
        beside.bar(at, without, width=0.8, color=_WRONG, alpha=0.45, linewidth=0)
        beside.set_ylabel("without, each second", color=_WRONG)
        beside.set_ylim(0, 2.5 * most)
        beside.grid(visible=False)


def _boundary(variants: Figures) -> Figure:
    figure, axes = plt.subplots(figsize=(7.5, 4.2))
    for variant, found in variants.items():
        points = [
            (float(deadline), 1 - counts["right"] / counts["asked"])
            for deadline, counts in found["by_deadline"].items()
            if counts["asked"]
        ]
        axes.plot(
            [deadline for deadline, _ in points],
            [share * 100 for _, share in points],
            marker="o",
            color=_COLOURS[variant],
            linewidth=2.5 if variant == "async" else 1.5,
            label=VARIANTS[variant],
        )
    axes.set(
        xscale="log",
        xlabel="deadline of the caller, seconds",
        ylabel="% without their answer",
        ylim=(-3, 103),
    )
    deadlines = sorted({float(each) for found in variants.values() for each in found["by_deadline"]})
    axes.set_xticks(deadlines, [f"{each:g}" for each in deadlines])
    axes.minorticks_off()
    axes.set_title("Requests made while the service was down")
    axes.legend(frameon=False)
    return figure


def _scale(variants: Figures) -> Figure:
    services = list(next(iter(variants.values())))
    figure, panels = plt.subplots(
        2, len(services), figsize=(9, 5.5), sharex=True, sharey="row", squeeze=False
    )
    for column, number in enumerate(services):
        for variant, found in variants.items():
            levels = found.get(number, {})
            callers = [int(each) for each in levels]
            line = {"color": _COLOURS[variant], "marker": "o", "label": VARIANTS[variant]}
            panels[0, column].plot(callers, [each["per_second"] for each in levels.values()], **line)
            panels[1, column].plot(callers, [each["p50_ms"] for each in levels.values()], **line)
            panels[1, column].plot(
                callers, [each["p99_ms"] for each in levels.values()], color=_COLOURS[variant], linestyle=":"
            )
        panels[0, column].set_title(f"{number} service process{'es' if number != '1' else ''}", fontsize=10)
        panels[1, column].set(xscale="log", yscale="log", xlabel="callers at once")
        panels[1, column].set_xticks(callers, [str(each) for each in callers])
        panels[1, column].minorticks_off()
    panels[0, 0].set(ylabel="reads per second", ylim=(0, None))
    panels[1, 0].set(ylabel="ms: p50, and p99 dotted")
    panels[1, 0].yaxis.set_major_formatter(mpl.ticker.FuncFormatter(lambda value, _: f"{value:g}"))
    panels[0, 0].legend(frameon=False)
    return figure
