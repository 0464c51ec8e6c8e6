"""The blocks of code in the documentation: in which language, on which page, and where there.

Knows how pages are written, not what becomes of a block.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["BLOCKS", "PAGES", "ROOT", "Block", "on"]

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCED = re.compile(r"^```(?P<language>\w+)(?P<marks>[^\n]*)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """What stands between two fences."""

    page: str
    """Its path from the root of the repository."""
    line: int
    language: str
    marks: tuple[str, ...]
    code: str

    @property
    def is_program(self) -> bool:
        """Whether it is Python that runs as it stands: all of the README's, and what is marked `run`."""
        return self.language == "python" and ("run" in self.marks or self.page == "README.md")

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def _blocks() -> Iterator[Block]:
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for found in FENCED.finditer(text):
            yield Block(
                page=str(page.relative_to(ROOT)),
                line=text.count("\n", 0, found.start()) + 1,
                language=found["language"],
                marks=tuple(found["marks"].split()),
                code=found["code"],
            )


BLOCKS = tuple(_blocks())


def on(page: str, language: str) -> list[str]:
    """The code of a page's blocks in one language, in order."""
    return [block.code for block in BLOCKS if (block.page, block.language) == (page, language)]
