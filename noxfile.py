"""The checks and the tests in environments of their own, on every Python that this machine has.

`nox` runs all of it and skips the Pythons that are not there, aloud; `nox -s tests-3.13 -- tests/unit` one of
them, with what pytest is to be told. `make` does the same for the Python that one works with.
"""

from __future__ import annotations

import os

import nox

PYTHONS = ["3.10", "3.11", "3.12", "3.13"]
INSTALL = ["--group", "dev", "--editable", ".[cli,emulator-tls,examples]"]

# The pure tests, and calls and events through the real SDK: what a Python, or its asyncio, can break.
QUICK = [
    "tests/unit",
    "tests/contract/test_raw_python.py",
    "tests/integration/test_bundles.py",
    "tests/integration/rpc",
    "tests/integration/testing",
]

nox.options.sessions = ["lint", "typing", "tests", "docs"]


def install(session: nox.Session) -> None:
    """What the tests need, with bytecode that the workers share."""
    session.install("pip>=25.1")
    session.install(*INSTALL)
    session.env["PYTHONDONTWRITEBYTECODE"] = ""


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """Everything."""
    install(session)
    workers = os.environ.get("WORKERS", "10")
    session.run("pytest", "-n", workers, "--no-loadscope-reorder", *session.posargs)


@nox.session(python=PYTHONS)
def quick(session: nox.Session) -> None:
    """The tests that tell in a minute whether a Python will do."""
    install(session)
    session.run("pytest", "-q", "-n", "4", "--no-loadscope-reorder", *(session.posargs or QUICK))


@nox.session
def lint(session: nox.Session) -> None:
    """What `make check` does."""
    install(session)
    session.run("ruff", "format", "--check", ".")
    session.run("ruff", "check", ".")
    session.run("mypy")


@nox.session
def typing(session: nox.Session) -> None:
    """The public API under mypy and pyright: right uses, wrong uses, whether all types are known."""
    install(session)
    session.run("mypy", "tests/typing")
    session.run("pytest", "-q", "tests/test_types.py", env={"SBRPC_TEST_LONG": "1"})


@nox.session
def coverage(session: nox.Session) -> None:
    """What of each module the tests run, child processes included."""
    install(session)
    session.run("python", ".ci/coverage.py", *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """The documentation as a site, in site/."""
    session.install("pip>=25.1")
    session.install("--group", "docs", "--editable", ".")
    session.run("mkdocs", "build", "--strict", "--quiet", env={"NO_MKDOCS_2_WARNING": "1"})
