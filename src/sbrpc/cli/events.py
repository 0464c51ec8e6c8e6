"""`sbrpc publish` and `sbrpc tail`: an event to a topic, and what comes by in a queue or a subscription.

Owns how an event is put together from arguments, and how messages are shown while nobody is kept from them.
`tail` only peeks: it locks nothing but a session that it is told to look at.
"""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Annotated, Any
from uuid import uuid4

import anyio
import typer

from sbrpc.cli.loading import load
from sbrpc.cli.options import Connection, Namespace, Timeout, connecting, json_of
from sbrpc.cli.outcome import code_of, failed

if TYPE_CHECKING:
    from azure.servicebus import ServiceBusReceivedMessage
    from azure.servicebus.aio import ServiceBusClient, ServiceBusReceiver

__all__ = ["publish", "tail"]

_PAGE = 100


def publish(
    topic: Annotated[str, typer.Argument(metavar="TOPIC", help="The topic.")],
    kind: Annotated[str, typer.Argument(metavar="TYPE", help="The event's type, such as a.b.created.v1.")],
    body: Annotated[
        str | None,
        typer.Argument(
            metavar="[JSON]", help="The event: JSON, @FILE, or - for standard input; {} unless given."
        ),
    ] = None,
    key: Annotated[
        str | None, typer.Option(help="Events of one key are handled in order. Checked events know theirs.")
    ] = None,
    source: Annotated[
        str, typer.Option(envvar="SBRPC_SOURCE", help="Who publishes, as a URI reference.")
    ] = "/sbrpc/cli",
    subject: Annotated[str | None, typer.Option(help="What the event is about.")] = None,
    id: Annotated[str | None, typer.Option(help="Its id, a new one unless given.")] = None,
    event: Annotated[
        str | None, typer.Option(metavar="MODULE:CLASS", help="Check the event before it is sent.")
    ] = None,
    timeout: Timeout = 30.0,
    connection_string: Connection = None,
    namespace: Namespace = None,
) -> None:
    """Publish an event as a CloudEvent and print its id once Service Bus has it.

    Exit codes: 4 not taken in time, 5 out of reach, 6 no such topic, 7 no right to send.
    """
    from sbrpc.event import CloudEvent
    from sbrpc.events import EventBus

    value = {} if body is None else json_of(body, "the event")
    data = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    if event is not None:
        data, key = _checked(event, kind, data, key)
    for what, text in (("TYPE", kind), ("--source", source)):
        if not text.strip():
            raise typer.BadParameter("must not be empty", param_hint=what)
    for what, short in (("--key", key), ("--id", id)):
        if short is not None and not 0 < len(short) <= 128:
            raise typer.BadParameter("has 1 to 128 characters", param_hint=what)
    published = CloudEvent(
        id=id or str(uuid4()),
        source=source,
        type=kind,
        data=data,
        time=datetime.now(timezone.utc),
        subject=subject,
        extensions={} if key is None else {"partitionkey": key},
    )
    connection = connecting(connection_string, namespace)

    async def work() -> None:
        async with connection, EventBus(connection, topic=topic, source=source, timeout=timeout) as bus:
            await bus.publish_as_is([published])

    anyio.run(work)
    typer.echo(published.id)


def _checked(reference: str, kind: str, data: bytes, key: str | None) -> tuple[bytes, str | None]:
    """The body as the event's class writes it, and the key that it gives."""
    from sbrpc.errors import DecodeError
    from sbrpc.event import Event, key_of

    found = load(reference)
    if not (isinstance(found, type) and issubclass(found, Event)):
        raise typer.BadParameter(f"{reference!r} is no event", param_hint="--event")
    if found.__event_type__ != kind:
        raise typer.BadParameter(
            f"{found.__name__} has the type {found.__event_type__!r}, not {kind!r}", param_hint="TYPE"
        )
    try:
        event = found.decode(kind, data)
        return event.model_dump_json(by_alias=True).encode(), key_of(event, key)
    except (DecodeError, ValueError) as error:
        raise typer.BadParameter(str(error)) from None


def tail(
    topic: Annotated[str | None, typer.Argument(metavar="[TOPIC]", help="A topic")] = None,
    subscription: Annotated[
        str | None, typer.Argument(metavar="[SUBSCRIPTION]", help="and one of its subscriptions,")
    ] = None,
    queue: Annotated[str | None, typer.Option("--queue", "-q", help="or a queue.")] = None,
    session: Annotated[
        str | None,
        typer.Option(
            help="The key to look at, where sessions are required. Nobody else gets it while it is read."
        ),
    ] = None,
    count: Annotated[int | None, typer.Option("--count", "-n", min=1, help="End after so many.")] = None,
    first: Annotated[int, typer.Option("--from", min=1, help="Begin at this sequence number.")] = 1,
    interval: Annotated[float, typer.Option(min=0.05, help="Seconds between looks.")] = 0.5,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document per line.")] = False,
    connection_string: Connection = None,
    namespace: Namespace = None,
) -> None:
    """Show the messages of a queue or subscription, and each that comes, until Ctrl-C.

    Messages are only peeked at: they stay for who handles them, who may also be quicker than the next look.
    Exit codes: 5 out of reach, 6 no such queue or subscription, 7 no right to listen.
    """
    if (queue is None) == (topic is None) or (topic is None) != (subscription is None):
        raise typer.BadParameter("name a topic and one of its subscriptions, or --queue")
    what = f"queue {queue!r}" if queue else f"subscription {subscription!r} of topic {topic!r}"
    connection = connecting(connection_string, namespace)

    async def work() -> None:
        follower = _Follower(what, first, count, interval, as_json)
        async with connection:
            await _until_interrupted(
                lambda: follower.follow(
                    lambda: _receiver(connection, queue, topic, subscription, session), session is not None
                )
            )

    anyio.run(work)


async def _until_interrupted(work: Callable[[], Awaitable[None]]) -> None:
    """Work until it is done or Ctrl-C comes, which a scope does not let the SDK swallow in a request."""
    interrupted = False

    async def listen() -> None:
        nonlocal interrupted
        # Where loops hear no signals, Ctrl-C raises KeyboardInterrupt as usual.
        with suppress(NotImplementedError), anyio.open_signal_receiver(signal.SIGINT) as signals:
            async for _ in signals:
                interrupted = True
                tasks.cancel_scope.cancel()
                return

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(listen)
        await work()
        tasks.cancel_scope.cancel()
    if interrupted:
        raise KeyboardInterrupt


def _receiver(
    connection: ServiceBusClient,
    queue: str | None,
    topic: str | None,
    subscription: str | None,
    session: str | None,
) -> ServiceBusReceiver:
    if queue is not None:
        return connection.get_queue_receiver(queue, session_id=session)
    return connection.get_subscription_receiver(str(topic), str(subscription), session_id=session)


class _Follower:
    """Where a look has come to, through lost links."""

    def __init__(self, what: str, first: int, count: int | None, interval: float, as_json: bool) -> None:
        self._what = what
        self._next = first
        self._left = count
        self._interval = interval
        self._as_json = as_json

    async def follow(self, create: Any, sessions: bool) -> None:
        """Print until enough have come."""
        from sbrpc._sdk import MustNotRequireSessions, SessionHeld, is_transient, opening
        from sbrpc.errors import BusError

        reached = False
        while self._left != 0:
            receiver = create()
            try:
                async with opening(receiver, self._what):
                    reached = True
                    # A session is let go of between looks: who handles its messages waits for it.
                    while await self._look(receiver) or not sessions:
                        if self._left == 0:
                            return
            except MustNotRequireSessions as error:
                raise failed(f"{error}; say which key to look at with --session", code_of(error)) from None
            except SessionHeld:
                pass  # who handles it comes first
            except BusError as error:
                if not reached or not is_transient(error):
                    raise
                typer.echo(f"sbrpc: {error}; trying again", err=True)
            await anyio.sleep(self._interval)

    async def _look(self, receiver: ServiceBusReceiver) -> bool:
        """Print what is new; whether there was anything. Waits a while where there was not."""
        from sbrpc._sdk import translated

        most = _PAGE if self._left is None else min(_PAGE, self._left)
        with translated(self._what):
            messages = await receiver.peek_messages(most, sequence_number=self._next)
        for message in messages:
            self._print(_facts(message))
            self._next = (message.sequence_number or 0) + 1
        if self._left is not None:
            self._left -= len(messages)
        if not messages and receiver.session is None:
            await anyio.sleep(self._interval)
        return bool(messages)

    def _print(self, facts: dict[str, Any]) -> None:
        if self._as_json:
            line = json.dumps(facts, ensure_ascii=False, default=str)
        else:
            body = facts["body"]
            shown = body if isinstance(body, str) else json.dumps(body, ensure_ascii=False)
            columns = ("sequence_number", "enqueued_at", "type", "session_id")
            line = " ".join([*(str(facts[name] or "-") for name in columns), " ".join(shown.split())])
        typer.echo(line)
        sys.stdout.flush()


def _facts(message: ServiceBusReceivedMessage) -> dict[str, Any]:
    from sbrpc._cloudevents import body_of, type_in
    from sbrpc._wire import properties_of
    from sbrpc.errors import DecodeError

    properties = properties_of(message.application_properties)
    try:
        text = body_of(message).decode(errors="replace")
    except DecodeError:
        text = str(message.body)
    try:
        body = json.loads(text)
    except ValueError:
        body = text
    enqueued = message.enqueued_time_utc
    return {
        "sequence_number": message.sequence_number,
        "enqueued_at": enqueued.isoformat(timespec="milliseconds") if enqueued else None,
        "type": type_in(properties) or message.subject,
        "state": message.state.name.lower(),
        "message_id": message.message_id,
        "session_id": message.session_id,
        "correlation_id": message.correlation_id,
        "delivery_count": message.delivery_count,
        "content_type": message.content_type,
        "properties": properties,
        "body": body,
    }
