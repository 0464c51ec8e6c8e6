"""The table of guarantees, written into docs/guarantees.md between two markers."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from pathlib import Path

from .runs import PROMISES, Size, Story

__all__ = ["table", "write"]

PAGE = Path(__file__).resolve().parents[2] / "docs" / "guarantees.md"
BEGIN, END = "<!-- begin: written by `make guarantees` -->", "<!-- end -->"


def table(stories: Mapping[str, Story], size: Size) -> str:
    """The stories as Markdown."""
    total = [sum(values) for values in zip(*(_sums(story) for story in stories.values()), strict=True)]
    fewest = min(story.in_flight for story in stories.values())
    lines = [
        f"{total[0]:,} calls were made, at least {fewest} in flight whenever a fault struck: {total[1]:,} "
        f"were answered right, {total[2]:,} with the promised error, "
        f"**{total[3]} lost, {total[4]} crossed**. Where the broker was out of reach, it was so for "
        f"{size.outage:g} seconds. Python "
        f"{platform.python_version()}, the broker and most of the services in one process.",
        "",
        "| fault | in flight | made | right | promised error | lost | crossed | new calls succeed after |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for fault, story in stories.items():
        made, right, promised, lost, crossed = _sums(story)
        lines.append(
            f"| {fault} | {story.in_flight} | {made} | {right} | {promised} | {lost} | {crossed} "
            f"| {story.recovery:.2f} s |"
        )
    lines += [
        "",
        "Each cell: calls answered right + calls answered with the promised error / calls made.",
        "",
    ]
    lines.append("| | " + " | ".join(PROMISES) + " |")
    lines.append("|---" * (len(PROMISES) + 1) + "|")
    for fault, story in stories.items():
        lines.append(f"| {fault} | " + " | ".join(_cell(story, promise) for promise in PROMISES) + " |")
    return "\n".join(lines)


def write(stories: Mapping[str, Story], size: Size) -> None:
    """Replace what stands between the markers."""
    page = PAGE.read_text()
    before, rest = page.split(BEGIN)
    _, after = rest.split(END)
    PAGE.write_text(f"{before}{BEGIN}\n\n{table(stories, size)}\n\n{END}{after}")


def _cell(story: Story, promise: str) -> str:
    tally = story.tallies.get(promise)
    return "" if tally is None else f"{tally.right}+{tally.promised}/{tally.made}"


def _sums(story: Story) -> tuple[int, int, int, int, int]:
    tallies = story.tallies.values()
    return (
        sum(tally.made for tally in tallies),
        sum(tally.right for tally in tallies),
        sum(tally.promised for tally in tallies),
        sum(tally.lost.total() for tally in tallies),
        sum(tally.crossed.total() for tally in tallies),
    )
