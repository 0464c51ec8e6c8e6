"""Imports go one way, and importing the library loads no more than it needs."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import sbrpc

ROOT = Path(sbrpc.__file__).parent
ENDS = {"client", "server", "events"}

# A module may import from the rows above its own, and from its own.
LAYERS = [
    {"errors", "topology"},
    {"context"},
    {"_codec", "_age", "_pace", "_signals"},
    {"contract", "event"},
    {"middleware", "_wire", "store", "_decide", "_cloudevents", "_subscriptions", "diagnosis"},
    {"_bundles"},
    {"_sdk"},
    {"_streams", "_handlers", "_locks"},
    {"_link", "_receiving", "_receiver"},
    {"_sender", "_sessions", "_competing", "_consumer", "_handling", "_settling"},
    {"_replies", "_calls"},
    {"_job"},
    {"_serving"},
    {"_intake"},
    {"client", "server", "events", "deadletters", "provisioning"},
    {"running", "otel", "web"},
]


def imports_of(path: Path) -> set[str]:
    """The modules of the package that a file imports, `TYPE_CHECKING` or not."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level == 1:
            found |= {node.module.split(".")[0]} if node.module else {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "sbrpc":
            parts = node.module.split(".")
            found |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {a.name.split(".")[1] for a in node.names if a.name.startswith("sbrpc.")}
    return found


def known(name: str) -> bool:
    return any(name in layer for layer in LAYERS)


@pytest.mark.parametrize("name", sorted(set().union(*LAYERS)))
def test_imports_go_one_way(name: str) -> None:
    """A module imports from its own row and those above, so nothing below is ever needed to read it."""
    path = ROOT / f"{name}.py"
    if not path.exists():
        pytest.skip(f"there is no {name}")
    position = next(n for n, layer in enumerate(LAYERS) if name in layer)
    allowed = set().union(*LAYERS[: position + 1]) - {name}
    assert imports_of(path) <= allowed


def test_the_ends_do_not_know_each_other() -> None:
    """Client, server and events can each be understood, and loaded, alone."""
    for name in ENDS:
        path = ROOT / f"{name}.py"
        if path.exists():
            assert not imports_of(path) & (ENDS - {name})


def test_the_library_does_not_know_the_emulator() -> None:
    """It has a connection string and nothing else to go by."""
    for path in ROOT.glob("*.py"):
        if path.stem not in {"testing", "pytest_plugin", "__main__"}:
            assert "emulator" not in imports_of(path), path.name


def test_every_module_stands_in_the_table() -> None:
    """A new module says what it may import."""
    edges = {"__init__", "__main__", "testing", "pytest_plugin"}
    for path in ROOT.glob("*.py"):
        assert known(path.stem) or path.stem in edges, path.name


def loaded_by(statement: str) -> set[str]:
    """The modules that a fresh interpreter has after a statement."""
    code = f"import sys; {statement}; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    return set(done.stdout.split())


def test_importing_the_library_does_not_load_the_emulator() -> None:
    """Production does not pay for it."""
    loaded = loaded_by("from sbrpc import RpcClient, RpcServer, connect")
    assert not {name for name in loaded if name.startswith("sbrpc.emulator")}


def test_importing_the_emulator_does_not_load_the_sdk() -> None:
    """The emulator stands on its own."""
    loaded = loaded_by("import sbrpc.emulator")
    assert not {name for name in loaded if name.startswith("azure.servicebus")}


def test_contracts_load_no_sdk() -> None:
    """A contract can be imported where nothing is called, for instance to print its schema."""
    loaded = loaded_by("from sbrpc import Contract, method")
    assert not {name for name in loaded if name.startswith("azure.servicebus")}


def test_nothing_loads_opentelemetry_unasked() -> None:
    """Who does not trace does not pay for it; who has it installed neither."""
    loaded = loaded_by("from sbrpc import EventBus, RpcClient, RpcServer, connect")
    assert not {name for name in loaded if name.startswith("opentelemetry")}
