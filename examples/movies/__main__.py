"""The commands: `python -m movies demo | serve | migrate | service | events | api`, run in `examples`."""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
import sys
import tempfile
from importlib import import_module
from pathlib import Path

from sbrpc import SbrpcError
from sbrpc.__main__ import main as sbrpc


def serve(services: int, port: int, data: Path | None) -> None:
    """Run everything, each program in processes of its own, until interrupted."""
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", port)) == 0:
            sys.exit(f"movies: port {port} is taken; choose another one: --port {port + 1}")
    with tempfile.TemporaryDirectory(prefix="movies-") as temporary:
        directory = (data or Path(temporary)).resolve()
        directory.mkdir(parents=True, exist_ok=True)
        for variable, file in ("MOVIES_DATABASE", "movies"), ("MOVIES_READ_MODEL", "movies-read-model"):
            url = f"sqlite+aiosqlite:///{directory / file}.sqlite3"
            os.environ[variable] = url if data else os.environ.get(variable, url)
        print(f"The movies API will be at http://127.0.0.1:{port}, see http://127.0.0.1:{port}/docs")
        bus = os.environ.get("SERVICEBUS_CONNECTION_STRING")
        print(bus or "It starts with a Service Bus emulator, the service and the event handler:", flush=True)
        apps = ["movies.service:app"] * services + ["movies.events:app", "movies.api:app"]
        run("--apart", *([] if bus else ["--emulator"]), *apps)


def run(*arguments: str) -> None:
    """`sbrpc run`, in this process."""
    sys.argv = ["sbrpc", "run", "--log-level=warning", *arguments]
    sbrpc()


async def migrate() -> None:
    """Bring both databases up to date, which the programs do by themselves when they start."""
    from .database import READ_MODEL_URL, SERVICE_URL, opened
    from .events import ReadModel
    from .service import Base

    for url, tables in (SERVICE_URL, Base.metadata), (READ_MODEL_URL, ReadModel.metadata):
        async with opened(url, tables) as engine:
            print(f"{engine.url} is up to date")


def main() -> None:
    if sys.argv[1:2] == ["emulator"]:  # the Service Bus emulator alone; takes what `sbrpc emulator` takes
        return sbrpc()
    programs, port = ("service", "events", "api"), int(os.environ.get("MOVIES_PORT", "8000"))
    parser = argparse.ArgumentParser(prog="python -m movies", description=__doc__)
    parser.add_argument("command", choices=["demo", "serve", "migrate", *programs, "emulator"])
    parser.add_argument("--port", type=int, default=port, help="of the HTTP API (default: %(default)s)")
    parser.add_argument("--data", type=Path, help="serve: directory of the databases, else a temporary one")
    parser.add_argument("--services", type=int, default=1, help="serve: processes of the movies service")
    parser.add_argument("--films", type=int, help="demo: import so many films, at least 300 (default: all)")
    parser.add_argument("--verbose", action="store_true", help="demo: list every row that is rejected")
    options = parser.parse_args()
    if options.films is not None and options.films < 300:
        parser.error(f"--films {options.films}: the demo needs 300 to read, change and delete")
    os.environ["MOVIES_PORT"] = str(options.port)
    try:
        if options.command == "serve":
            serve(options.services, options.port, options.data)
        elif options.command == "migrate":
            asyncio.run(migrate())
        else:
            module = import_module(f"movies.{options.command}")
            if options.command in programs:
                run(f"movies.{options.command}:app")
            asyncio.run(module.demo(options.verbose, options.films))
    except ModuleNotFoundError as error:
        missing = (error.name or str(error)).partition(".")[0]
        sys.exit(f"{missing} is not installed; the example needs: pip install 'sbrpc[examples]'")
    except SbrpcError as error:
        sys.exit(f"movies: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
