"""`sbrpc emulator faults`, `advance` and `books`: what a running emulator's JSON API does, from a shell.

Owns requests to that API and how answers are shown. Knows nothing of the emulator's code; what is wrong with
a request, the emulator says.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Annotated, Any

import typer

from sbrpc.cli.outcome import Exit, failed
from sbrpc.cli.output import AsJson, show_json, show_table

__all__ = ["advance", "books", "faults"]

faults = typer.Typer(help="Let things go wrong on purpose.", no_args_is_help=True)

Url = Annotated[
    str,
    typer.Option("--url", envvar="SBRPC_EMULATOR_URL", help="Where its page is; it says so when it starts."),
]

_HERE = "http://127.0.0.1:5300"
_TIMEOUT = 30.0

# Their values are text however they look; `entity=2024` is a queue of that name.
_TEXTS = frozenset({"entity", "container_id", "session_id", "condition", "description"})


@faults.command("list")
def list_faults(url: Url = _HERE, as_json: AsJson = False) -> None:
    """List the faults in force."""
    _show_faults(_ask(url, "GET", "faults")["faults"], as_json)


@faults.command()
def add(
    kind: Annotated[
        str,
        typer.Argument(
            metavar="KIND",
            help="cut, refuse, black_hole, delay, detach, lose_lock, lose_session, throttle, busy, duplicate "
            "or fail.",
        ),
    ],
    settings: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME=VALUE]...",
            help="Whom and how: entity=movies, container_id='SBReceiver-*', after=3, count=1, seconds=30, "
            "and what the kind has besides, such as outgoing=0.2 or operations=send,attach.",
        ),
    ] = None,
    url: Url = _HERE,
    as_json: AsJson = False,
) -> None:
    """Put a fault in force, until its seconds or its count are over or it is removed; prints its number.

    Exit code 2: the emulator does not understand it, and nothing was done.
    """
    wanted: dict[str, Any] = {"kind": kind}
    for each in settings or ():
        name, equals, value = each.partition("=")
        if not equals or not name:
            raise typer.BadParameter(f"{each!r} is not written NAME=VALUE")
        wanted[name] = _value(name, value)
    added = _ask(url, "POST", "faults", wanted)["fault"]
    typer.echo(json.dumps(added, ensure_ascii=False) if as_json else added["id"])


@faults.command()
def remove(number: Annotated[int, typer.Argument(min=1, help="Its number.")], url: Url = _HERE) -> None:
    """End a fault."""
    _ask(url, "DELETE", f"faults/{number}")


@faults.command()
def clear(url: Url = _HERE) -> None:
    """End all faults."""
    _ask(url, "DELETE", "faults")


def advance(
    seconds: Annotated[float, typer.Argument(metavar="SECONDS", min=0, help="How far.")],
    url: Url = _HERE,
    as_json: AsJson = False,
) -> None:
    """Move the emulator's time ahead: locks and messages expire, what is scheduled comes."""
    clock = _ask(url, "POST", "clock", {"advance": seconds})["clock"]
    typer.echo(json.dumps(clock) if as_json else f"{clock['ahead']:g} s ahead")


def books(
    reset: Annotated[
        bool, typer.Option("--reset", help="Begin all accounts anew, and show nothing.")
    ] = False,
    url: Url = _HERE,
    as_json: AsJson = False,
) -> None:
    """Show operations and credits per queue, topic and subscription, counted as Azure counts them."""
    if reset:
        _ask(url, "DELETE", "books")
        return
    accounts = _ask(url, "GET", "books")["books"]
    if as_json:
        show_json(accounts)
        return
    columns = ("operations", "credits", "sends", "receives", "peeks", "management", "filters")
    rows = [(address, *(account[name] for name in columns)) for address, account in sorted(accounts.items())]
    total = ("total", *(sum(account[name] for account in accounts.values()) for name in columns))
    show_table(("entity", *columns), [*rows, total] if rows else [], "nothing was used yet")


def _value(name: str, value: str) -> Any:
    if name in _TEXTS:
        return value
    if name == "operations" and not value.startswith("["):
        return value.split(",")
    try:
        return json.loads(value)
    except ValueError:
        return value


def _show_faults(found: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        show_json(found)
        return
    own = {"id", "kind", "fired", "until", "active"}
    rows = [
        (
            each["id"],
            each["kind"],
            " ".join(f"{name}={_word(value)}" for name, value in each.items() if name not in own),
            each["fired"],
        )
        for each in found
    ]
    show_table(("number", "kind", "settings", "fired"), rows, "no faults")


def _word(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def _ask(url: str, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
    """What the emulator answers; what it refuses or does not answer ends the command."""
    if not url.startswith(("http://", "https://")):
        raise typer.BadParameter(f"{url!r} is not written http://host:port", param_hint="--url")
    request = urllib.request.Request(
        f"{url.rstrip('/')}/api/{path}",
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={} if body is None else {"Content-Type": "application/json"},
    )
    # An emulator is next door; a proxy, where one is set, would not find it.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=_TIMEOUT) as answer:
            return json.loads(answer.read())
    except urllib.error.HTTPError as error:
        raise _refused(url, error) from None
    except ValueError:
        raise failed(f"what answers at {url} is no emulator of sbrpc") from None
    except OSError as error:
        reason = getattr(error, "reason", None) or error
        raise failed(
            f"no emulator answers at {url}: {reason}; say where it is with --url", Exit.UNREACHABLE
        ) from None


def _refused(url: str, error: urllib.error.HTTPError) -> typer.Exit:
    try:
        told = json.loads(error.read())
        text = str(told["error"])
    except (ValueError, KeyError, TypeError, OSError):
        return failed(f"what answers at {url} is no emulator of sbrpc: HTTP {error.code}")
    problems = "; ".join(f"{each['field']}: {each['problem']}" for each in told.get("details", ()))
    return failed(f"{text} {problems}".strip(), Exit.USAGE if error.code == 400 else Exit.FAILED)
