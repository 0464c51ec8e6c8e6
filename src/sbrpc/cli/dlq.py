"""`sbrpc dlq`: dead letters of a queue, or of a subscription written TOPIC/SUBSCRIPTION.

Owns how dead letters are named, chosen and shown. What is done to them is the business of
`sbrpc.deadletters`.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import anyio
import typer

from sbrpc.cli.options import Connection, Namespace, connecting
from sbrpc.cli.output import AsJson, show_json, show_table

if TYPE_CHECKING:
    from azure.servicebus.aio import ServiceBusClient

    from sbrpc.deadletters import DeadLetter, DeadLetters, Match, Outcome

__all__ = ["app"]

app = typer.Typer(help="List, show, replay and purge dead letters.", no_args_is_help=True)

T = TypeVar("T")

Entity = Annotated[
    str, typer.Argument(metavar="ENTITY", help="A queue, or TOPIC/SUBSCRIPTION, or TOPIC/Subscriptions/NAME.")
]
Reason = Annotated[str | None, typer.Option(help="Only those dead-lettered for this reason.")]
Type = Annotated[str | None, typer.Option(help="Only those of this event type or method.")]
OlderThan = Annotated[str | None, typer.Option(help="Only those enqueued so long ago: 90s, 15m, 12h, 7d.")]
Number = Annotated[list[int] | None, typer.Option("--number", "-n", help="Only this sequence number.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")]

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@app.command("list")
def list_letters(
    entity: Entity,
    reason: Reason = None,
    type: Type = None,
    older_than: OlderThan = None,
    limit: Annotated[int, typer.Option(min=1, help="The most to list.")] = 50,
    as_json: AsJson = False,
    connection_string: Connection = None,
    namespace: Namespace = None,
) -> None:
    """List dead letters, the oldest first. They stay as they are."""
    match = _match(reason, type, older_than, None)
    connection = connecting(connection_string, namespace)
    letters = _run(connection, entity, lambda dead: dead.list(match, limit=limit))
    if as_json:
        show_json([_plain(letter) for letter in letters])
        return
    rows = [
        (
            letter.sequence_number,
            letter.enqueued_at.isoformat(timespec="seconds") if letter.enqueued_at else None,
            letter.type,
            letter.session_id,
            letter.replays,
            letter.reason,
            letter.description,
        )
        for letter in letters
    ]
    columns = ("number", "enqueued", "type", "session", "replays", "reason", "description")
    show_table(columns, rows, "no dead letters")


@app.command()
def show(
    entity: Entity,
    number: Annotated[int, typer.Argument(help="Its sequence number.")],
    as_json: AsJson = False,
    connection_string: Connection = None,
    namespace: Namespace = None,
) -> None:
    """Show one dead letter with its properties and its body."""
    letter = _run(connecting(connection_string, namespace), entity, lambda dead: dead.show(number))
    if as_json:
        show_json(_plain(letter))
        return
    for name in ("sequence_number", "message_id", "type", "session_id", "enqueued_at", "replays", "reason"):
        typer.echo(f"{name}: {getattr(letter, name)}")
    typer.echo(f"description: {letter.description}")
    for key, value in sorted(letter.properties.items()):
        typer.echo(f"  {key}: {value}")
    typer.echo(letter.body.decode(errors="replace"))


@app.command()
def replay(
    entity: Entity,
    reason: Reason = None,
    type: Type = None,
    older_than: OlderThan = None,
    number: Number = None,
    limit: Annotated[int | None, typer.Option(min=1, help="The most to replay.")] = None,
    rate: Annotated[float | None, typer.Option(help="The most per second.")] = None,
    max_replays: Annotated[int, typer.Option(min=1, help="Skip those replayed so often already.")] = 3,
    dry_run: DryRun = False,
    as_json: AsJson = False,
    connection_string: Connection = None,
    namespace: Namespace = None,
) -> None:
    """Send dead letters to where they failed again: to that queue, or to that subscription only."""
    match = _match(reason, type, older_than, number)
    outcome = _run(
        connecting(connection_string, namespace),
        entity,
        lambda dead: dead.replay(match, limit=limit, rate=rate, max_replays=max_replays, dry_run=dry_run),
    )
    _report(outcome, "would be replayed" if dry_run else "replayed", as_json)


@app.command()
def purge(
    entity: Entity,
    reason: Reason = None,
    type: Type = None,
    older_than: OlderThan = None,
    number: Number = None,
    limit: Annotated[int | None, typer.Option(min=1, help="The most to delete.")] = None,
    dry_run: DryRun = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: AsJson = False,
    connection_string: Connection = None,
    namespace: Namespace = None,
) -> None:
    """Delete dead letters for good."""
    match = _match(reason, type, older_than, number)
    connection = connecting(connection_string, namespace)
    if not dry_run and not yes:
        typer.confirm(f"Delete the matching dead letters of {entity} for good?", abort=True)
    outcome = _run(connection, entity, lambda dead: dead.purge(match, limit=limit, dry_run=dry_run))
    _report(outcome, "would be deleted" if dry_run else "deleted", as_json)


def _match(reason: str | None, type: str | None, older_than: str | None, numbers: list[int] | None) -> Match:
    from sbrpc.deadletters import Match

    seconds = None
    if older_than is not None:
        found = re.fullmatch(r"(\d+)([smhd])", older_than)
        if found is None:
            raise typer.BadParameter(f"{older_than!r} is not a time such as 90s, 15m, 12h or 7d")
        seconds = float(found[1]) * _UNITS[found[2]]
    return Match(reason=reason, type=type, older_than=seconds, sequence_numbers=numbers or None)


def _run(connection: ServiceBusClient, entity: str, operation: Callable[[DeadLetters], Awaitable[T]]) -> T:
    from sbrpc.deadletters import DeadLetters

    named = _named(entity)

    async def work() -> T:
        async with connection:
            return await operation(DeadLetters(connection, **named))

    try:
        return anyio.run(work)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def _named(entity: str) -> dict[str, str]:
    """What an entity is called by `DeadLetters`; both spellings of subscriptions are in use."""
    topic, slash, subscription = re.sub("/subscriptions/", "/", entity, flags=re.IGNORECASE).rpartition("/")
    if not slash:
        return {"queue": entity}
    if not topic or not subscription:
        raise typer.BadParameter(f"{entity!r} is neither a queue nor written TOPIC/SUBSCRIPTION")
    return {"topic": topic, "subscription": subscription}


def _plain(letter: DeadLetter) -> dict[str, Any]:
    enqueued = letter.enqueued_at.isoformat() if letter.enqueued_at else None
    body = letter.body.decode(errors="replace")
    rest = {name: getattr(letter, name) for name in ("message_id", "type", "session_id", "replays", "reason")}
    return {
        "sequence_number": letter.sequence_number,
        "enqueued_at": enqueued,
        **rest,
        "description": letter.description,
        "properties": {key: str(value) for key, value in letter.properties.items()},
        "body": body,
    }


def _report(outcome: Outcome, done: str, as_json: bool) -> None:
    if as_json:
        skipped = [{"sequence_number": letter.sequence_number, "why": why} for letter, why in outcome.skipped]
        numbers = [letter.sequence_number for letter in outcome.done]
        show_json({"done": numbers, "skipped": skipped})
        return
    for letter, why in outcome.skipped:
        typer.echo(f"{letter.sequence_number} skipped: {why}")
    typer.echo(f"{len(outcome.done)} {done}, {len(outcome.skipped)} skipped")
