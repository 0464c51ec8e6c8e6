"""`sbrpc doctor`: what is wrong with a namespace for the programs that are to use it.

Owns how facts are found: by opening what the programs open, which needs no right but theirs, and, where the
connection may manage, by reading settings. What facts mean is the matter of `sbrpc.diagnosis`.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterable
from dataclasses import asdict, replace
from datetime import datetime, timedelta, timezone
from importlib.metadata import version
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import anyio
import anyio.to_thread
import typer

from sbrpc.cli.export import Processes, system_named
from sbrpc.cli.options import Connection, Namespace, Timeout, administering, connecting
from sbrpc.cli.outcome import Exit, redacted
from sbrpc.cli.output import AsJson

if TYPE_CHECKING:
    from azure.servicebus.aio import ServiceBusClient

    from sbrpc.diagnosis import Facts, Finding, Wanted
    from sbrpc.errors import BusError
    from sbrpc.export import System

__all__ = ["doctor"]

# Opening costs a connection each; an emulator of Microsoft's takes ten.
_AT_ONCE = 6
_HTTP_TIMEOUT = 5.0
_FOREVER = timedelta(days=365 * 100)


def doctor(
    processes: Processes,
    connection_string: Connection = None,
    namespace: Namespace = None,
    admin: Annotated[
        str | None,
        typer.Option(
            "--admin-connection-string",
            envvar="SERVICEBUS_ADMIN_CONNECTION_STRING",
            metavar="STRING",
            show_default=False,
            help="Reads settings, for which Manage is needed; the connection itself is tried unless given.",
        ),
    ] = None,
    websockets: Annotated[
        bool,
        typer.Option(
            "--websockets",
            help="The programs go over WebSockets, and so does this; implied by a connection string with "
            "TransportType=AmqpWebSockets.",
        ),
    ] = False,
    timeout: Timeout = 60.0,
    as_json: AsJson = False,
) -> None:
    """Find what is wrong with a namespace for these processes, what it means, and how to mend it.

    Opens what they open and closes it at once; no message is sent or taken. With the rights of one process,
    name that one. Exit code 0: nothing found. 1: there are findings.
    """
    from sbrpc._sdk import CONNECTION_STRING, over_websockets
    from sbrpc.cli.needs import connections_of, needs_of
    from sbrpc.diagnosis import budget, diagnose, transport

    system = system_named(processes)
    wanted = needs_of(system)
    client = connecting(connection_string, namespace, websockets=websockets)
    facts, unread = anyio.run(_examine, client, system, wanted, admin, timeout)
    findings = diagnose((each, facts[each.name]) for each in wanted)
    more = [budget(process.name, connections_of(system, process)) for process in system.processes]
    if websockets or over_websockets(os.environ.get(CONNECTION_STRING)):
        more.append(transport(version("aiohttp")))
    findings += [each for each in more if each is not None]
    if as_json:
        document = {
            "checked": [each.name for each in wanted],
            "settings_read": unread is None,
            "findings": [asdict(each) for each in findings],
        }
        typer.echo(redacted(json.dumps(document, indent=2, ensure_ascii=False)))
    else:
        _show(findings, wanted)
    if unread is not None:
        typer.echo(f"sbrpc: {redacted(unread)}", err=True)
    if findings:
        raise typer.Exit(int(Exit.FAILED))


def _show(findings: list[Finding], wanted: list[Wanted]) -> None:
    # Here, since the other commands do without.
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from sbrpc.diagnosis import Severity

    console = Console()
    if not findings:
        console.print(f"nothing found; looked at {', '.join(each.name for each in wanted)}", highlight=False)
        return
    table = Table("", "where", "what is wrong, what it means, what to do", show_lines=True)
    for each in findings:
        colour = "red" if each.severity is Severity.ERROR else "yellow"
        text = (
            f"[bold]{escape(redacted(each.problem))}[/bold]\n{escape(each.meaning)}\n-> {escape(each.mend)}"
        )
        table.add_row(f"[{colour}]{each.severity.value}[/{colour}]", escape(each.entity), text)
    console.print(table)


# -- what is found by opening --------------------------------------------------------------------------


async def _examine(
    client: ServiceBusClient,
    system: System,
    wanted: list[Wanted],
    admin: str | None,
    timeout: float,
) -> tuple[dict[str, Facts], str | None]:
    """The facts of each entity by name, and why settings could not be read."""
    from sbrpc._sdk import LinkLost
    from sbrpc.diagnosis import Facts

    facts = {each.name: Facts(trouble=f"no answer within {timeout:g} s") for each in wanted}
    lost: list[BusError] = []
    settings: dict[str, dict[str, Any]] = {}
    unread = f"settings were not read: no answer within {timeout:g} s"
    at_once = anyio.CapacityLimiter(_AT_ONCE)

    async def look(each: Wanted) -> None:
        async with at_once:
            facts[each.name] = await _opened(client, each, lost)

    async def read() -> None:
        nonlocal unread
        unread = await anyio.to_thread.run_sync(_read, admin, system, settings, abandon_on_cancel=True)

    async with client:
        with anyio.move_on_after(timeout):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(read)
                for each in wanted:
                    tasks.start_soon(look, each)
    tried = [facts[each.name] for each in wanted if each.sends or each.listens]
    if tried and not settings and all(each.trouble is not None and each.exists is None for each in tried):
        raise lost[-1] if lost else LinkLost(str(tried[0].trouble))
    for name, known in settings.items():
        if name in facts:
            facts[name] = replace(facts[name], **known)
    return facts, unread or None


async def _opened(client: ServiceBusClient, wanted: Wanted, lost: list[BusError]) -> Facts:
    """What opening a sender and a receiver tells, with the rights that there are."""
    from sbrpc import _sdk
    from sbrpc._link import PROMPT
    from sbrpc.diagnosis import Facts
    from sbrpc.errors import AccessDenied, BusError, EntityNotFound

    facts = Facts()
    for right in ("may_send",) * bool(wanted.sends) + ("may_listen",) * bool(wanted.listens):
        known: dict[str, Any] = {"exists": True, right: True}
        try:
            if right == "may_send":
                make = client.get_topic_sender if wanted.role.value == "topic" else client.get_queue_sender
                async with _sdk.opening(make(wanted.entity, **PROMPT), f"sending to {wanted.name}"):
                    pass
            else:
                known |= await _received(client, wanted)
        except EntityNotFound:
            return replace(facts, exists=False)
        except AccessDenied:
            known = {right: False}
        except _sdk.MustRequireSessions:
            known["requires_session"] = False
        except _sdk.MustNotRequireSessions:
            known["requires_session"] = True
        except BusError as error:
            if isinstance(error, _sdk.LinkLost):
                lost.append(error)
            return replace(facts, trouble=str(error))
        facts = replace(facts, **known)
    return facts


async def _received(client: ServiceBusClient, wanted: Wanted) -> dict[str, Any]:
    """What an own session tells, or a receiver that asks for nothing."""
    from sbrpc import _sdk
    from sbrpc._link import PROMPT

    options: dict[str, Any] = {"prefetch_count": 0, **PROMPT}
    if wanted.requires_session:
        options["session_id"] = f"sbrpc-doctor-{secrets.token_hex(6)}"
    receiver = (
        client.get_queue_receiver(wanted.entity, **options)
        if wanted.subscription is None
        else client.get_subscription_receiver(wanted.entity, wanted.subscription, **options)
    )
    async with _sdk.opening(receiver, f"receiving from {wanted.name}"):
        until = receiver.session.locked_until_utc if wanted.requires_session else None
        left = None if until is None else (until - datetime.now(timezone.utc)).total_seconds()
        return {"requires_session": bool(wanted.requires_session), "lock_left": left}


# -- what is read --------------------------------------------------------------------------------------


def _read(admin: str | None, system: System, known: dict[str, dict[str, Any]]) -> str:
    """Read the settings of what is wanted into `known`; why it could not be done, or nothing."""
    from azure.core.exceptions import AzureError

    times = {"connection_timeout": _HTTP_TIMEOUT, "read_timeout": _HTTP_TIMEOUT}
    try:
        with administering(admin, retry_total=0, **times) as management:
            known.update(_settings(management, system))
    except (AzureError, ValueError, ImportError) as error:
        reason = " ".join(str(error).split())[:200]
        return (
            "settings such as lock duration, time to live and rules were not read, for which Manage and "
            f"HTTPS are needed ({reason})"
        )
    return ""


def _settings(management: Any, system: System) -> dict[str, dict[str, Any]]:
    from sbrpc.provisioning import read
    from sbrpc.topology import Queue

    entities = system.entities()
    found = read(management, entities)
    known: dict[str, dict[str, Any]] = {}
    for entity in entities:
        name = entity.name.lower()
        if isinstance(entity, Queue):
            known[entity.name] = _of_queue(management, entity.name)
            continue
        known[entity.name] = {"exists": name in found.topics}
        if name not in found.topics:
            continue
        topic = management.get_topic(entity.name)
        known[entity.name] |= _common(topic)
        for each in entity.subscriptions:
            place = f"{entity.name}/{each.name}"
            known[place] = {"exists": (name, each.name.lower()) in found.subscriptions}
            if known[place]["exists"]:
                known[place] |= _taken(management, management.get_subscription(entity.name, each.name))
                known[place]["rules"] = found.rules.get((name, each.name.lower()), ())
                life = known[place]["time_to_live"], known[entity.name]["time_to_live"]
                known[place]["time_to_live"] = min(life)
    known.update((queue, _of_queue(management, queue)) for queue in system.foreign())
    return known


def _of_queue(management: Any, name: str) -> dict[str, Any]:
    from azure.core.exceptions import ResourceNotFoundError

    try:
        return {"exists": True} | _taken(management, management.get_queue(name))
    except ResourceNotFoundError:
        return {"exists": False}


def _common(properties: Any) -> dict[str, Any]:
    return {
        "status": str(getattr(properties.status, "value", properties.status)),
        "time_to_live": _seconds(properties.default_message_time_to_live),
        "auto_delete_on_idle": _seconds(properties.auto_delete_on_idle),
        "duplicate_detection": bool(getattr(properties, "requires_duplicate_detection", False)),
    }


def _taken(management: Any, properties: Any) -> dict[str, Any]:
    return {
        **_common(properties),
        "requires_session": bool(properties.requires_session),
        "lock_duration": _seconds(properties.lock_duration),
        "max_delivery_count": properties.max_delivery_count,
        "dead_letters_expired": bool(properties.dead_lettering_on_message_expiration),
        "forwards": tuple(_followed(management, properties.name, properties.forward_to)),
    }


def _followed(management: Any, start: str, target: str | None) -> Iterable[str]:
    """The queues that messages pass; ends with one seen before, or a topic."""
    from azure.core.exceptions import ResourceNotFoundError

    seen = {start.lower()}
    while target:
        name = urlsplit(target).path.strip("/") if "://" in target else target
        yield name
        if name.lower() in seen:
            return
        seen.add(name.lower())
        try:
            target = management.get_queue(name).forward_to
        except ResourceNotFoundError:
            return


def _seconds(value: timedelta | None) -> float:
    return float("inf") if value is None or value >= _FOREVER else value.total_seconds()
