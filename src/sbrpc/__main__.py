"""`python -m sbrpc`, and what the `sbrpc` command calls. Says what to install where something is missing."""

from __future__ import annotations

import importlib.util
import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line; exit code 2 for wrong usage, 1 for a failure, 0 otherwise."""
    missing = [name for name in ("typer", "rich", "h11") if importlib.util.find_spec(name) is None]
    if missing:
        print(
            f"sbrpc: the command line needs {' and '.join(missing)}, which are not installed here.\n"
            'Install the extra:  pip install "sbrpc[cli]"',
            file=sys.stderr,
        )
        raise SystemExit(2)
    from sbrpc.cli import app

    app(prog_name="sbrpc")


if __name__ == "__main__":
    main()
