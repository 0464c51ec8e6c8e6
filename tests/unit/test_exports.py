"""What is public is said in one place."""

from __future__ import annotations

import importlib
from pathlib import Path

import sbrpc


def test_the_door_has_few_names_and_all_of_them_exist() -> None:
    """A newcomer sees the product on one screen."""
    assert len(sbrpc.__all__) <= 25
    assert len(set(sbrpc.__all__)) == len(sbrpc.__all__)
    for name in sbrpc.__all__:
        assert getattr(sbrpc, name) is not None
    assert set(sbrpc.__all__) <= set(dir(sbrpc))


def test_every_name_in_an_all_exists() -> None:
    """In every module of the library."""
    for path in Path(sbrpc.__file__).parent.glob("*.py"):
        if path.stem in {"__main__", "pytest_plugin"}:
            continue
        module = importlib.import_module(f"sbrpc.{path.stem}" if path.stem != "__init__" else "sbrpc")
        for name in getattr(module, "__all__", ()):
            assert hasattr(module, name), f"{path.name}: {name}"
