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
    {"_codec", "_age", "_pace", "_signals", "_signatures"},
    {"contract", "event"},
    {
        "_apps",
        "middleware",
        "_wire",
        "_outgoing",
        "store",
        "_decide",
        "_cloudevents",
        "_subscriptions",
        "diagnosis",
    },
    {"_bundles"},
    {"_sdk"},
    {"_streams", "_handlers", "_locks", "_tasks"},
    {"_link", "_receiving", "_receiver"},
    {"_sender", "_sessions", "_handling", "_settling"},
    {"_replies", "_calls"},
    {"_job"},
    {"_answers"},
    {"_crew", "_competing", "_consumer"},
    {"_serving"},
    {"_intake"},
    {"client", "server", "events", "deadletters", "provisioning"},
    {"export"},
    {"running", "otel", "web"},
]

LIBRARY = set().union(*LAYERS)

# A package may import from itself, and from here.
PACKAGES = {
    "compatibility": LIBRARY,
    "export": LIBRARY,
    "sql": LIBRARY,
    "emulator": {"topology"},
    "testing": LIBRARY | {"emulator"},
    "cli": LIBRARY | {"compatibility", "emulator", "export"},
}

# Parts of the emulator, each of which may import from the parts named beside it, and whether it may know of
# time, loops and sockets.
PARTS = {
    "amqp": (set(), False),
    "broker": (set(), False),
    "content": ({"amqp", "broker"}, False),
    "management": ({"amqp", "broker", "content"}, False),
    "nodes": ({"amqp", "broker", "content", "management", "traffic"}, False),
    "gateway": ({"access", "amqp", "broker", "management", "nodes", "traffic"}, False),
    "traffic": (set(), False),
    "http": (
        {
            "access",
            "amqp",
            "broker",
            "clock",
            "config",
            "content",
            "control",
            "faults",
            "nodes",
            "tcp",
            "traffic",
        },
        True,
    ),
}
OUTSIDE = {"anyio", "asyncio", "selectors", "socket", "threading", "time"}


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
    return name in LIBRARY


def modules_imported_by(path: Path) -> set[str]:
    """Every module that a file imports, by full name, `TYPE_CHECKING` or not."""
    package = ["sbrpc", *path.relative_to(ROOT).parent.parts]
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            found |= {base} | {f"{base}.{alias.name}" for alias in node.names}
    return found


def modules() -> dict[str, Path]:
    """Every module of sbrpc by its full name."""
    found = {}
    for path in ROOT.rglob("*.py"):
        name = ".".join(("sbrpc", *path.relative_to(ROOT).with_suffix("").parts))
        found[name.removesuffix(".__init__")] = path
    return found


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


@pytest.mark.parametrize("package", sorted(PACKAGES))
def test_packages_know_what_they_may(package: str) -> None:
    """The emulator has the library's words for entities and no more; nobody knows the command line."""
    allowed = PACKAGES[package] | {package}
    for path in (ROOT / package).rglob("*.py"):
        known = {name.split(".")[1] for name in modules_imported_by(path) if name.startswith("sbrpc.")}
        assert known <= allowed, path


@pytest.mark.parametrize("part", sorted(PARTS))
def test_the_parts_of_the_emulator_know_what_they_may(part: str) -> None:
    """AMQP knows no Service Bus, the broker knows no AMQP, and neither has a clock, a loop or a socket."""
    others, outside = PARTS[part]
    where = ROOT / "emulator" / part
    for path in where.rglob("*.py") if where.is_dir() else [where.with_suffix(".py")]:
        imported = modules_imported_by(path)
        inside = {name.split(".")[2] for name in imported if name.startswith("sbrpc.emulator.")}
        assert inside <= others | {part}, path
        assert outside or not {name.split(".")[0] for name in imported} & OUTSIDE, path


def test_every_package_stands_in_the_table() -> None:
    """A new one says what it may import."""
    assert {path.parent.name for path in ROOT.glob("*/__init__.py")} == set(PACKAGES)


def test_no_module_needs_one_that_needs_it() -> None:
    """Whatever a module imports, for its functions or its types alone included, can be read before it."""
    known = modules()
    needs = {name: modules_imported_by(path) & known.keys() - {name} for name, path in known.items()}
    for name, needed in needs.items():
        if known[name].name == "__init__.py":
            continue  # the door of a package needs what is inside, which is loaded by way of it
        needed -= {package for package in needed if known[package].name == "__init__.py"}
    while free := {name for name, needed in needs.items() if not needed & needs.keys()}:
        needs = {name: needed for name, needed in needs.items() if name not in free}
    assert not needs, f"these need each other: {sorted(needs)}"


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


def test_the_command_line_loads_what_it_needs_when_it_needs_it() -> None:
    """`sbrpc --help` is quick: no SDK, no pydantic, no tables."""
    loaded = loaded_by("import sbrpc.cli")
    assert not {name for name in loaded if name.split(".")[0] in ("azure", "pydantic", "anyio._backends")}
    assert "rich.table" not in loaded
