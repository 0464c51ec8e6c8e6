"""The `sbrpc` command: one Typer application, one module per group of commands.

Commands import what they need when they run, so that `sbrpc --help` is quick.
"""

from sbrpc.cli.app import app

__all__ = ["app"]
