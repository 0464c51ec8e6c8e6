"""The example is there to be read and copied."""

from __future__ import annotations

from .movies_site import EXAMPLES


def test_the_whole_example_is_short() -> None:
    """Less than 900 lines of Python; and the four files that tell how it works have less than 400 of them."""
    sizes = {path.name: len(path.read_text().splitlines()) for path in EXAMPLES.rglob("*.py")}
    assert len(sizes) == sum(1 for _ in EXAMPLES.rglob("*.py"))
    assert sum(sizes.values()) < 900, sizes
    assert sum(sizes[name] for name in ("contract.py", "service.py", "events.py", "api.py")) < 400, sizes
