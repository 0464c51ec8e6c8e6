"""`python -m movies demo` and `serve`, run in `examples`; `sbrpc run` runs the programs in any other way."""

import os
import sys
import tempfile

import anyio
import typer

from sbrpc.__main__ import main as sbrpc

commands = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@commands.command()
def serve(port: int = 8000) -> None:
    """All programs until interrupted: on an emulator unless the environment names a namespace, and with
    databases that are gone afterwards unless it names others."""
    with tempfile.TemporaryDirectory(prefix="movies-") as folder:
        os.environ.setdefault("MOVIES_DATABASE", f"sqlite+aiosqlite:///{folder}/movies.sqlite3")
        os.environ.setdefault("MOVIES_READ_MODEL", f"sqlite+aiosqlite:///{folder}/movies-read-model.sqlite3")
        os.environ["MOVIES_PORT"] = str(port)
        print(f"The movies will be at http://127.0.0.1:{port}, and their API at /docs", flush=True)
        if bus := os.environ.get("SERVICEBUS_CONNECTION_STRING"):
            print(bus, flush=True)
        sys.argv = ["sbrpc", "run", "--log-level=warning", "--apart", *([] if bus else ["--emulator"])]
        sys.argv += ["movies.service:app", "movies.events:app", "movies.api:app"]
        sbrpc()


@commands.command()
def demo(films: int | None = None) -> None:
    """Everything once: an import, killed services, queries, changes, errors. With fewer films than all, if
    you like, but 150 at least."""
    from .demo import tell

    anyio.run(tell, films)


if __name__ == "__main__":
    try:
        commands(prog_name="python -m movies")
    except ModuleNotFoundError as error:
        missing = (error.name or str(error)).partition(".")[0]
        sys.exit(f"{missing} is not installed; the example needs: pip install 'sbrpc[examples]'")
