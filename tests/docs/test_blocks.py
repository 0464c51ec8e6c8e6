"""Each block of code in the documentation is run; what it shows as a program, as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests import forked

from .pages import BLOCKS, ROOT, Block
from .test_commands import PAGES_OF_COMMANDS
from .test_fragments import SHOWN
from .test_javascript import PAGE as PAGE_OF_JAVASCRIPT
from .test_operate import PAGE

# What is no code, and the files of the example, of which the suite is full.
NOT_RUN = {"mermaid", "py"}


def is_run(block: Block) -> bool:
    """Whether a test of this directory runs it."""
    if block.page == PAGE and block.language in ("sh", "bicep", "dockerfile"):
        return True  # by `test_operate`
    if block.language == "js":
        return block.page == PAGE_OF_JAVASCRIPT
    if block.language == "console":
        return block.page in PAGES_OF_COMMANDS
    return block.is_program or block in SHOWN


def test_every_block_is_run() -> None:
    """Whatever is shown works: as it stands, or with what its page says that is around it."""
    assert [str(block) for block in BLOCKS if block.language not in NOT_RUN and not is_run(block)] == []


def test_no_block_goes_without_a_language() -> None:
    """It would be on a page, and in none of these tests."""
    pages = {ROOT / block.page for block in BLOCKS}
    fences = {
        page: len(re.findall("^ *```", page.read_text(encoding="utf-8"), re.MULTILINE)) for page in pages
    }
    shown = {page: 2 * sum(ROOT / block.page == page for block in BLOCKS) for page in pages}
    assert fences == shown


def test_the_tutorial_shows_the_files_of_the_example() -> None:
    """It includes them, so it cannot fall behind; a mark that is not exactly right would be shown itself."""
    text = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
    included = re.findall(r'^--8<-- "(.+)"$', text, re.MULTILINE)
    files = ["contract.py", "service.py", "events.py", "api.py"]
    assert included == [*(f"examples/movies/{name}" for name in files), "tests/examples/test_tutorial.py"]
    assert all((ROOT / name).is_file() for name in included)
    assert text.count("8<") == len(included)


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.is_program], ids=str)
def test_programs_in_the_documentation_run(block: Block, tmp_path: Path) -> None:
    """As they stand, from their first line to their last."""
    program = tmp_path / "program.py"
    program.write_text(block.code, encoding="utf-8")
    done = forked.run(str(program), cwd=tmp_path)
    assert done.returncode == 0, done.stderr.decode()
