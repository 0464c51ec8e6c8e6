"""What is public is said in one place."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType, ModuleType
from typing import get_origin

import pytest

import sbrpc


def test_the_door_has_few_names_and_all_of_them_exist() -> None:
    """A newcomer sees the product on one screen."""
    assert len(sbrpc.__all__) <= 25
    assert len(set(sbrpc.__all__)) == len(sbrpc.__all__)
    for name in sbrpc.__all__:
        assert getattr(sbrpc, name) is not None
    assert set(sbrpc.__all__) <= set(dir(sbrpc))


def modules() -> Iterator[ModuleType]:
    """Every module, the command's aside; all extras are installed where tests run."""
    root = Path(sbrpc.__file__).parent
    for path in sorted(root.rglob("*.py")):
        name = ".".join(("sbrpc", *path.relative_to(root).with_suffix("").parts)).removesuffix(".__init__")
        if "cli" not in path.parts and path.stem != "__main__":
            yield importlib.import_module(name)


def public(module: ModuleType) -> bool:
    """Whether users may import from a module: no part of its name begins with an underscore."""
    return not any(part.startswith("_") for part in module.__name__.split("."))


@pytest.mark.parametrize(
    ("module", "absent", "extra"),
    [
        ("emulator", "h11", "emulator"),
        ("testing", "h11", "emulator"),
        ("sql", "sqlalchemy", "sql"),
        ("web", "uvicorn", "web"),
    ],
)
def test_what_needs_an_extra_names_it(module: str, absent: str, extra: str) -> None:
    """Without the package, the import says what to install."""
    code = f"import sys; sys.modules[{absent!r}] = None; import sbrpc.{module}"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    said = f'needs {absent}: pip install "sbrpc[{extra}]"'
    assert said in ended.stderr.splitlines()[-1]


def test_every_name_in_an_all_exists() -> None:
    """In every module of the library."""
    for module in modules():
        for name in getattr(module, "__all__", ()):
            assert hasattr(module, name), f"{module.__name__}: {name}"


def test_every_public_name_says_what_it_is() -> None:
    """Classes, functions, and what can be called on objects; the reference shows nothing else."""
    silent = []
    for module in filter(public, modules()):
        for name in getattr(module, "__all__", ()):
            thing = getattr(module, name)
            if get_origin(thing) or not (inspect.isclass(thing) or inspect.isfunction(thing)):
                continue  # Python 3.10 takes an alias such as `list[int]` for a class
            if not inspect.getdoc(thing):
                silent.append(f"{module.__name__}.{name}")
            if inspect.isclass(thing):
                silent += [
                    f"{module.__name__}.{name}.{member}"
                    for member, value in vars(thing).items()
                    if not member.startswith("_")
                    and isinstance(value, FunctionType | property | classmethod | staticmethod)
                    and not inspect.getdoc(getattr(thing, member))
                ]
    assert silent == []
