"""The commands: `python -m movies demo | serve | service | events | api | emulator`, run in `examples`."""

from __future__ import annotations

import argparse
import asyncio
import importlib
import runpy
import socket
import sys
from pathlib import Path


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m movies", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    demo = commands.add_parser("demo", help="start everything, import the catalogue, use it, say how it went")
    demo.add_argument("--verbose", action="store_true", help="list every row that the import rejects")
    serve = commands.add_parser("serve", help="start everything and keep it running until interrupted")
    serve.add_argument("--data", type=Path, help="directory of the databases (default: a temporary one)")
    commands.add_parser("service", help="the movies service alone")
    commands.add_parser("events", help="the event handler alone")
    api = commands.add_parser("api", help="the HTTP API alone")
    for command in (serve, api):
        command.add_argument("--port", type=int, default=8000, help="of the HTTP API (default: %(default)s)")
    commands.add_parser("emulator", help="the Service Bus emulator alone; takes what `sbrpc emulator` takes")
    return parser.parse_args()


def main() -> None:
    try:
        from . import processes

        processes.watch_parent()
        if sys.argv[1:2] == ["emulator"]:
            sys.argv[0] = "sbrpc"
            runpy.run_module("sbrpc", run_name="__main__", alter_sys=True)
            return
        options = vars(arguments())
        command = options.pop("command")
        if port := options.get("port"):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    sys.exit(f"movies: port {port} is taken; choose another one: --port {port + 1}")
        if command == "serve":
            asyncio.run(processes.until_interrupted(processes.serve(**options)))
            return
        module = importlib.import_module(f".{command}", __package__)  # each process imports what it needs
        if command != "demo":
            asyncio.run(module.serve(**options))
        elif asyncio.run(processes.until_interrupted(module.demo(**options))):
            sys.exit(130)
    except ModuleNotFoundError as error:
        missing = (error.name or str(error)).partition(".")[0]
        sys.exit(f"{missing} is not installed; the example needs: pip install 'sbrpc[examples]'")
    except Exception as error:
        reason: BaseException = error
        while inner := getattr(
            reason, "exceptions", None
        ):  # what went wrong is inside the task groups' groups
            reason = inner[0]
        if isinstance(reason, (OSError, RuntimeError, ValueError)):
            sys.exit(f"movies: {reason}")
        raise reason from None


if __name__ == "__main__":
    main()
