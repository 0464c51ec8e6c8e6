"""`sbrpc bench`: how long a call takes, and how many a second, here and now.

Client and server are this one process, so the figures are of Service Bus and the way to it, not of two
machines. Bounded in calls and in time, and it leaves nothing on the queues but what was never answered.
"""

from __future__ import annotations

import statistics
from contextlib import AsyncExitStack
from time import monotonic
from typing import TYPE_CHECKING, Annotated, Any

import anyio
import typer

from sbrpc.cli.options import Connection, Namespace, connecting
from sbrpc.cli.output import AsJson, show_json, show_table

if TYPE_CHECKING:
    from sbrpc.contract import Contract

__all__ = ["bench", "quantile"]

# Opening links, and the calls that are under way when time is up.
_READY = 30.0
_CALL = 30.0


def bench(
    queue: Annotated[
        str | None,
        typer.Option(
            help="A request queue to use, which nobody else reads. Without one: an emulator of its own."
        ),
    ] = None,
    reply_queue: Annotated[
        str, typer.Option(envvar="SBRPC_REPLY_QUEUE", help="A queue with sessions for the replies.")
    ] = "bench.replies",
    calls: Annotated[int, typer.Option(min=1, max=100_000, help="Calls one after the other.")] = 200,
    callers: Annotated[int, typer.Option(min=1, max=1024, help="Callers at once, afterwards.")] = 64,
    size: Annotated[int, typer.Option(min=0, max=200_000, help="Bytes in each request and reply.")] = 100,
    seconds: Annotated[float, typer.Option(min=0.1, max=300, help="How long each part may take.")] = 5.0,
    as_json: AsJson = False,
    connection_string: Connection = None,
    namespace: Namespace = None,
) -> None:
    """Measure calls: one after the other, then many at once.

    Needs the Send and Listen rights on both queues.
    """
    if queue is None and (connection_string is not None or namespace is not None):
        raise typer.BadParameter(
            "a namespace is measured on a queue of it: --queue NAME", param_hint="--queue"
        )

    async def work() -> dict[str, Any]:
        async with AsyncExitStack() as stack:
            if queue is None:
                from sbrpc.emulator import Emulator
                from sbrpc.topology import Queue

                replies = Queue(reply_queue, requires_session=True)
                emulator = await stack.enter_async_context(Emulator(queues=["bench", replies]))
                connection: Any = emulator.connection_string
            else:
                connection = connecting(connection_string, namespace)
                await stack.enter_async_context(connection)
            return await _measure(
                stack, connection, queue or "bench", reply_queue, (calls, callers, size, seconds)
            )

    figures = anyio.run(work)
    if as_json:
        show_json(figures)
    else:
        _show(figures)


async def _measure(
    stack: AsyncExitStack, connection: Any, queue: str, reply_queue: str, load: tuple[int, int, int, float]
) -> dict[str, Any]:
    from sbrpc.client import RpcClient
    from sbrpc.server import RpcServer

    calls, callers, size, seconds = load
    contract: Any = _contract(queue)
    server = RpcServer(connection, contract, reply_queues=[reply_queue], concurrency=256)

    async def echo(request: str) -> str:
        return request

    server.method(contract.echo)(echo)
    await stack.enter_async_context(server)
    client = await stack.enter_async_context(RpcClient(connection, reply_queue=reply_queue, timeout=_CALL))
    stub: Any = client.of(contract)
    await server.ready(_READY)
    await client.ready(_READY)
    text = "x" * size
    await stub.echo(text)

    latencies: list[float] = []
    ends = monotonic() + seconds
    while len(latencies) < calls and monotonic() < ends:
        began = monotonic()
        await stub.echo(text)
        latencies.append((monotonic() - began) * 1000)

    answered = 0
    began = monotonic()
    ends = began + seconds

    async def caller() -> None:
        nonlocal answered
        while monotonic() < ends:
            await stub.echo(text)
            answered += 1

    async with anyio.create_task_group() as tasks:
        for _ in range(callers):
            tasks.start_soon(caller)
    elapsed = monotonic() - began
    return {
        "sequential": {
            "calls": len(latencies),
            "p50_ms": round(statistics.median(latencies), 3),
            "p99_ms": round(quantile(latencies, 0.99), 3),
        },
        "concurrent": {"callers": callers, "calls": answered, "per_second": round(answered / elapsed, 1)},
    }


def quantile(values: list[float], share: float) -> float:
    """The value below which that share of the values lies."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def _contract(queue: str) -> type[Contract]:
    from sbrpc.contract import Contract, method

    class Bench(Contract, name=queue):
        @method
        async def echo(self, request: str) -> str:
            raise NotImplementedError

    return Bench


def _show(figures: dict[str, Any]) -> None:
    one, many = figures["sequential"], figures["concurrent"]
    p50, p99 = f"{one['p50_ms']:.2f} ms", f"{one['p99_ms']:.2f} ms"
    rows = [
        ("one after the other", f"{one['calls']:,}", p50, p99, None),
        (f"{many['callers']} at once", f"{many['calls']:,}", None, None, f"{many['per_second']:,.0f}"),
    ]
    show_table(("", "calls", "p50", "p99", "calls/s"), rows, "")
