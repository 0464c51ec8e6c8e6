"""What the documentation shows as Python is Python, and what it shows as a program runs.

Every block that begins with ```python parses. The README's, and those marked ```python run, are run as they
stand, in an interpreter of their own.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import forked

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```python(?P<marks>[^\n]*)\n(?P<code>.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(*, run: bool) -> Iterator[object]:
    """The blocks of all pages, with where they are; only those that are run, or all."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for found in BLOCK.finditer(text):
            runs = "run" in found["marks"].split() or page.name == "README.md"
            if runs or not run:
                line = text.count("\n", 0, found.start()) + 1
                yield pytest.param(found["code"], id=f"{page.relative_to(ROOT)}:{line}")


def test_the_tutorial_shows_the_files_of_the_example() -> None:
    """It includes them, so it cannot fall behind; a mark that is not exactly right would be shown itself."""
    text = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
    included = re.findall(r'^--8<-- "(.+)"$', text, re.MULTILINE)
    names = [Path(name).name for name in included]
    assert names[:4] == ["contract.py", "service.py", "events.py", "api.py"]
    assert all((ROOT / name).is_file() for name in included)
    assert text.count("8<") == len(included)


@pytest.mark.parametrize("code", [*blocks(run=False)])
def test_python_in_the_documentation_parses(code: str) -> None:
    """Whatever is shown can be typed."""
    compile(code, "documentation", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)


@pytest.mark.parametrize("code", [*blocks(run=True)])
def test_programs_in_the_documentation_run(code: str, tmp_path: Path) -> None:
    """As they stand, from their first line to their last."""
    program = tmp_path / "program.py"
    program.write_text(code, encoding="utf-8")
    done = forked.run(str(program), cwd=tmp_path)
    assert done.returncode == 0, done.stderr.decode()
