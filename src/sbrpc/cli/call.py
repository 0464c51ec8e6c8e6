"""`sbrpc call`, `stream` and `send`: a method of a service, by its contract or by the bare wire contract.

Owns what is sent and how an answer is printed. How calls travel is the library's business; without a contract
any JSON goes out and any comes back.
"""

from __future__ import annotations

import json
import sys
import types
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from secrets import token_hex
from typing import TYPE_CHECKING, Annotated, Any

import anyio
import typer

from sbrpc.cli.loading import load
from sbrpc.cli.options import Connection, Metadata, Namespace, Timeout, connecting, json_of, pairs_of
from sbrpc.cli.outcome import code_of, redacted

if TYPE_CHECKING:
    from sbrpc.contract import Contract, MethodSpec
    from sbrpc.errors import RpcError

__all__ = ["call", "send", "stream"]

Queue = Annotated[str, typer.Argument(metavar="QUEUE", help="The service's request queue.")]
Method = Annotated[str, typer.Argument(metavar="METHOD", help="The method's name.")]
Body = Annotated[
    str | None,
    typer.Argument(
        metavar="[JSON]", help="The request: JSON, @FILE, or - for standard input; null unless given."
    ),
]
Declared = Annotated[
    str | None,
    typer.Option(
        "--contract", metavar="MODULE:CLASS", help="Check the request before it is sent, and the reply."
    ),
]
ReplyQueue = Annotated[
    str,
    typer.Option(envvar="SBRPC_REPLY_QUEUE", help="A queue with sessions that the service may reply to."),
]
Key = Annotated[str | None, typer.Option(help="The ordering key, where the request queue requires sessions.")]


def call(
    queue: Queue,
    method: Method,
    reply_queue: ReplyQueue,
    body: Body = None,
    contract: Declared = None,
    timeout: Timeout = 30.0,
    metadata: Metadata = None,
    key: Key = None,
    connection_string: Connection = None,
    namespace: Namespace = None,
) -> None:
    """Call a method and print its reply as JSON.

    Exit codes: 3 the service answered with an error, 4 no answer in time, 5 out of reach, 6 no such queue.
    """
    declared, spec, request = _asked(queue, method, contract, body, streams=False)
    options = _options(timeout, metadata, key)
    connection = connecting(connection_string, namespace)

    async def work() -> None:
        async with _stub(connection, declared, queue, reply_queue, options) as stub:
            _show(spec, await getattr(stub, spec.name)(request))

    _run(work)


def stream(
    queue: Queue,
    method: Method,
    reply_queue: ReplyQueue,
    body: Body = None,
    contract: Declared = None,
    timeout: Annotated[
        float, typer.Option("--timeout", "-t", min=0.001, help="Seconds for all of it.")
    ] = 3600.0,
    metadata: Metadata = None,
    key: Key = None,
    connection_string: Connection = None,
    namespace: Namespace = None,
) -> None:
    """Call a streaming method and print each reply as it comes. Ctrl-C stops the handler too."""
    declared, spec, request = _asked(queue, method, contract, body, streams=True)
    options = _options(timeout, metadata, key)
    connection = connecting(connection_string, namespace)

    async def work() -> None:
        async with (
            _stub(connection, declared, queue, reply_queue, options) as stub,
            aclosing(getattr(stub, spec.name)(request)) as replies,
        ):
            async for reply in replies:
                _show(spec, reply)

    _run(work)


def send(
    queue: Queue,
    method: Method,
    body: Body = None,
    contract: Declared = None,
    timeout: Timeout = 30.0,
    metadata: Metadata = None,
    key: Key = None,
    connection_string: Connection = None,
    namespace: Namespace = None,
) -> None:
    """Send a one-way command and print its id once Service Bus has it. Needs no reply queue."""
    from sbrpc._link import PROMPT
    from sbrpc._sdk import opening, translated
    from sbrpc._wire import Request, check_metadata, request_message
    from sbrpc.errors import Unavailable

    _, spec, request = _asked(queue, method, contract, body, streams=False)
    sent = Request(
        subject=spec.subject,
        body=spec.request.encode(request),
        call_id=token_hex(16),
        metadata=check_metadata(pairs_of(metadata, "--metadata")),
        session_id=key,
    )
    connection = connecting(connection_string, namespace)

    async def work() -> None:
        what = f"queue {queue!r}"
        async with connection:
            sender = connection.get_queue_sender(queue, **PROMPT)
            async with opening(sender, what, timeout):
                with translated(what), anyio.move_on_after(timeout) as waiting:
                    await sender.send_messages(request_message(sent))
        if waiting.cancelled_caught:
            raise Unavailable(f"{what} did not take it within {timeout:g} s; it may have arrived")
        typer.echo(sent.call_id)

    _run(work)


# -- what is called ------------------------------------------------------------------------------------


def _asked(
    queue: str, method: str, reference: str | None, body: str | None, *, streams: bool
) -> tuple[type[Contract], MethodSpec, Any]:
    """What is called: the contract, its method, and the request, checked as far as the contract is known."""
    contract, spec = _method(queue, method, reference, streams=streams)
    return contract, spec, _request(spec, json_of(body))


def _options(timeout: float, metadata: list[str] | None, key: str | None) -> dict[str, Any]:
    return {"timeout": timeout, "metadata": pairs_of(metadata, "--metadata"), "key": key}


def _method(
    queue: str, method: str, reference: str | None, *, streams: bool
) -> tuple[type[Contract], MethodSpec]:
    from sbrpc.contract import Contract, MethodKind

    if reference is None:
        bare = _bare(queue, method, streams=streams)
        return bare, bare.contract_methods["anything"]
    found = load(reference)
    if not (isinstance(found, type) and issubclass(found, Contract) and found is not Contract):
        raise typer.BadParameter(
            f"{reference!r} is no contract; name one as module:Class", param_hint="--contract"
        )
    for spec in found.contract_methods.values():
        if method in (spec.name, spec.subject):
            if (spec.kind is MethodKind.STREAM) != streams:
                raise typer.BadParameter(
                    f"{spec} {'does not stream' if streams else 'streams; use sbrpc stream'}"
                )
            return found, spec
    known = ", ".join(found.contract_methods)
    raise typer.BadParameter(f"{found.__name__} has no method {method!r}; it has {known}")


def _bare(queue: str, subject: str, *, streams: bool) -> type[Contract]:
    """A contract that knows nothing of the types: any JSON goes out, any JSON comes back."""
    from sbrpc.contract import Contract, method

    async def one(self: Any, request: Any) -> Any: ...

    def many(self: Any, request: Any) -> AsyncIterator[Any]:
        raise NotImplementedError  # the body of a declaration is never run

    declared: Any = method(name=subject)(many if streams else one)
    return types.new_class(
        "Service", (Contract,), {"name": queue}, lambda body: body.update(anything=declared)
    )


def _request(spec: MethodSpec, value: Any) -> Any:
    from sbrpc.errors import DecodeError

    try:
        return spec.request.from_json_value(value)
    except DecodeError as error:
        raise typer.BadParameter(f"the request does not fit {spec}: {error}") from None


@asynccontextmanager
async def _stub(
    connection: Any, contract: type[Contract], queue: str, reply_queue: str, options: dict[str, Any]
) -> AsyncIterator[Any]:
    from sbrpc.client import RpcClient

    async with (
        connection,
        RpcClient(connection, reply_queue=reply_queue, timeout=options["timeout"]) as client,
    ):
        stub = client.of(contract, queue=queue, **options)
        await client.ready(options["timeout"])
        yield stub


# -- what is printed -----------------------------------------------------------------------------------


def _show(spec: MethodSpec, value: Any) -> None:
    """In colour and over several lines for people, in one line for programs."""
    plain = spec.response.to_json_value(value)
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.json import JSON

        Console().print(JSON.from_data(plain, ensure_ascii=False))
    else:
        typer.echo(json.dumps(plain, ensure_ascii=False))
        sys.stdout.flush()


def _run(work: Any) -> None:
    from sbrpc.errors import RpcError

    try:
        anyio.run(work)
    except RpcError as error:
        _explain(error)
        raise typer.Exit(int(code_of(error))) from None


def _explain(error: RpcError) -> None:
    typer.echo(f"sbrpc: {redacted(str(error))}", err=True)
    for detail in error.details:
        typer.echo(f"  {redacted(json.dumps(detail, ensure_ascii=False, default=str))}", err=True)
