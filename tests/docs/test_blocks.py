"""Each block of code in the documentation is run; what it shows as a program, as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests import forked

from . import test_javascript, test_operate
from .pages import BLOCKS, PAGES, ROOT, Block
from .test_commands import CONSOLE
from .test_fragments import SHOWN

# The languages of which another test of this directory runs all that its page has.
WHOLE = {
    (test_javascript.PAGE, "js"),
    *((test_operate.PAGE, language) for language in ("sh", "bicep", "dockerfile")),
}


def is_run(block: Block) -> bool:
    """Whether a test runs it: one of this directory, or of the file that it only includes."""
    if block.language == "py":
        return re.fullmatch(r'--8<-- "\S+"\n', block.code) is not None
    return block.is_program or block in CONSOLE or block in SHOWN or (block.page, block.language) in WHOLE


def test_every_block_is_run() -> None:
    """Whatever is shown works: as it stands, or with what its page says that is around it."""
    code = [block for block in BLOCKS if block.language != "mermaid"]
    assert [str(block) for block in code if not is_run(block)] == []


def test_no_block_goes_without_a_language() -> None:
    """It would be on a page, and in none of these tests."""
    fences = {
        page: len(re.findall("^ *```", page.read_text(encoding="utf-8"), re.MULTILINE)) for page in PAGES
    }
    shown = {page: 2 * sum(ROOT / block.page == page for block in BLOCKS) for page in PAGES}
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
