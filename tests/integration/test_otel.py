"""One trace from a caller over a service to the handlers of its events, by the names of the conventions."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import datetime, timezone

import anyio
import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import HistogramDataPoint, InMemoryMetricReader, NumberDataPoint
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from tenacity import AsyncRetrying, stop_after_attempt

from sbrpc import CallInfo, Contract, Event, EventBus, EventInfo, Queue, RpcClient, RpcServer, Topic, method
from sbrpc.context import trace_id
from sbrpc.emulator import Emulator
from sbrpc.errors import Internal, NotFound
from sbrpc.event import envelope
from sbrpc.otel import Telemetry
from sbrpc.topology import Subscription


class Films(Contract, name="films"):
    @method
    async def get(self, request: int) -> str:
        raise NotImplementedError

    @method
    def listing(self, request: int) -> AsyncIterator[int]:
        raise NotImplementedError

    @method(one_way=True)
    async def forget(self, request: int) -> None:
        raise NotImplementedError


class Seen(Event, type="test.film.seen.v1"):
    id: int


class Counted(Event, type="test.film.counted.v1"):
    id: int


NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)


ADDRESSES = ["films", "film-events/Subscriptions/counter", "film-events/Subscriptions/batches"]


@dataclass
class World:
    emulator: Emulator
    films: Films
    bus: EventBus
    client: RpcClient
    telemetry: Telemetry
    tracers: TracerProvider
    spans: InMemorySpanExporter
    reader: InMemoryMetricReader
    infos: list[CallInfo] = field(default_factory=list)
    events: list[EventInfo] = field(default_factory=list)

    async def span(self, name: str, kind: SpanKind, count: int = 1) -> ReadableSpan:
        """The last of this many spans, as soon as they have ended."""
        return (await self.of(name, kind, count))[-1]

    async def of(self, name: str, kind: SpanKind, count: int = 1) -> list[ReadableSpan]:
        """So many spans at least, in the order in which they began."""
        found: list[ReadableSpan] = []
        with anyio.fail_after(20):
            while len(found) < count:
                await anyio.sleep(0.01)
                found = [s for s in self.spans.get_finished_spans() if (s.name, s.kind) == (name, kind)]
        return sorted(found, key=lambda span: span.start_time or 0)

    def points(self, name: str) -> list[NumberDataPoint | HistogramDataPoint]:
        data = self.reader.get_metrics_data()
        assert data is not None
        return [
            point
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == name
            for point in metric.data.data_points
        ]


@pytest.fixture(scope="module")
async def opened() -> AsyncIterator[World]:
    spans, reader = InMemorySpanExporter(), InMemoryMetricReader()
    tracers = TracerProvider(shutdown_on_exit=False)
    tracers.add_span_processor(SimpleSpanProcessor(spans))
    meters = MeterProvider([reader], shutdown_on_exit=False)
    telemetry = Telemetry(namespace="films.test", tracer_provider=tracers, meter_provider=meters)
    topic = Topic("film-events", subscriptions=(Subscription("counter"), Subscription("batches")))
    queues = [Queue("films"), Queue("films.replies", requires_session=True)]
    async with AsyncExitStack() as stack:
        emulator = await stack.enter_async_context(Emulator(queues=queues, topics=[topic]))
        connection = emulator.connection_string
        server = RpcServer(connection, Films, middleware=[telemetry.server])
        bus = EventBus(connection, topic="film-events", source="/films", middleware=[telemetry.events])
        client = RpcClient(connection, reply_queue="films.replies", middleware=[telemetry.client])
        infos: list[CallInfo] = []
        events: list[EventInfo] = []

        @server.method(Films.get)
        async def get(request: int, info: CallInfo) -> str:
            infos.append(info)
            if request == 404:
                raise NotFound("no such film: secret-title")
            if request == 500:
                raise RuntimeError("secret-title")
            await bus.publish(Seen(id=request))
            return "Alien"

        @server.method(Films.listing)
        async def listing(request: int) -> AsyncIterator[int]:
            for number in range(request):
                await bus.publish(Counted(id=number))
                yield number

        @server.method(Films.forget)
        async def forget(request: int) -> None:
            return

        once = AsyncRetrying(stop=stop_after_attempt(2))

        @bus.on(Seen, subscription="counter", ordered=False, retry=once, unknown="complete")
        async def count(event: Seen, info: EventInfo) -> None:
            events.append(info)
            if event.id == 13:
                raise ValueError("secret-title")
            await bus.publish(Counted(id=event.id))

        @bus.on(Counted, subscription="batches", ordered=False, batch=10, unknown="complete")
        async def collect(events: list[Counted], infos: list[EventInfo]) -> None:
            return

        await stack.enter_async_context(bus)
        await stack.enter_async_context(server)
        await stack.enter_async_context(client)
        telemetry.observe(client, server, bus)
        films = client.of(Films)
        await client.ready(60)
        await server.ready(60)
        await bus.ready(60)
        yield World(emulator, films, bus, client, telemetry, tracers, spans, reader, infos, events)


@pytest.fixture
async def world(opened: World) -> World:
    """Quiet: what the test before has begun is over."""
    with anyio.fail_after(30):
        while any(  # noqa: ASYNC110 - the broker tells nobody that it has become empty
            opened.emulator.broker.runtime(address).active for address in ADDRESSES
        ):
            await anyio.sleep(0.01)
    opened.spans.clear()
    opened.infos.clear()
    opened.events.clear()
    return opened


RPC = {
    "rpc.system.name": "sbrpc",
    "messaging.system": "servicebus",
    "messaging.destination.name": "films",
    "server.address": "films.test",
}
MESSAGING = {
    "messaging.system": "servicebus",
    "messaging.destination.name": "film-events",
    "server.address": "films.test",
}
SENDING = {**MESSAGING, "messaging.operation.name": "send", "messaging.operation.type": "send"}

# Name, kind, the attributes with a value that is known, and those that have to be there.
REQUIRED = [
    (
        "films/get",
        SpanKind.CLIENT,
        {**RPC, "rpc.method": "films/get", "rpc.response.status_code": "OK"},
        {"messaging.message.id"},
    ),
    (
        "films/get",
        SpanKind.SERVER,
        {
            **RPC,
            "rpc.method": "films/get",
            "rpc.response.status_code": "OK",
            "messaging.servicebus.message.delivery_count": 1,
        },
        {"messaging.message.id", "messaging.servicebus.message.enqueued_time"},
    ),
    ("send film-events", SpanKind.PRODUCER, SENDING, {"messaging.message.id"}),
    (
        "process film-events",
        SpanKind.CONSUMER,
        {
            **MESSAGING,
            "messaging.operation.name": "process",
            "messaging.operation.type": "process",
            "messaging.destination.subscription.name": "counter",
            "messaging.servicebus.message.delivery_count": 1,
        },
        {
            "messaging.message.id",
            "messaging.message.conversation_id",
            "messaging.servicebus.message.enqueued_time",
        },
    ),
]


async def test_every_span_has_what_the_conventions_require(world: World) -> None:
    """Names, kinds and attributes, by the table."""
    assert await world.films.get(1) == "Alien"
    await world.bus.publish(Seen(id=2), extensions={"correlationid": "order-1"})
    await world.of("process film-events", SpanKind.CONSUMER, 4)
    spans = world.spans.get_finished_spans()
    for name, kind, known, present in REQUIRED:
        found = [s for s in spans if (s.name, s.kind) == (name, kind)]
        assert any(
            s.attributes is not None
            and known.items() <= dict(s.attributes).items()
            and present <= s.attributes.keys()
            for s in found
        ), f"{kind} {name}: {[dict(s.attributes or {}) for s in found]}"


def parent_of(span: ReadableSpan) -> int | None:
    return span.parent.span_id if span.parent is not None else None


def id_of(span: ReadableSpan) -> int:
    assert span.context is not None
    return span.context.span_id


def trace_of(span: ReadableSpan) -> int:
    assert span.context is not None
    return span.context.trace_id


async def test_one_trace_goes_from_the_caller_to_the_last_handler(world: World) -> None:
    """Each span is the child of what brought it about; the batch at the end is linked."""
    with world.tracers.get_tracer("web").start_as_current_span("GET /films/1", kind=SpanKind.SERVER):
        await world.films.get(1)
    request = await world.span("GET /films/1", SpanKind.SERVER)
    call = await world.span("films/get", SpanKind.CLIENT)
    handler = await world.span("films/get", SpanKind.SERVER)
    first, second = await world.of("send film-events", SpanKind.PRODUCER, 2)
    handled, collected = await world.of("process film-events", SpanKind.CONSUMER, 2)
    way = [request, call, handler, first, handled, second]
    assert [parent_of(span) for span in way[1:]] == [id_of(span) for span in way[:-1]]
    assert {trace_of(span) for span in [*way, collected]} == {trace_of(request)}
    assert trace_id(world.infos[0].metadata["traceparent"]) == format(trace_of(request), "032x")
    assert trace_id(world.events[0].traceparent) == format(trace_of(request), "032x")


async def test_what_travels_is_text(world: World) -> None:
    """In the header that W3C names and in the one that the Azure SDKs know, with the same value."""
    await world.films.get(1)
    metadata = world.infos[0].metadata
    call = await world.span("films/get", SpanKind.CLIENT)
    assert metadata["traceparent"].startswith(f"00-{trace_of(call):032x}-{id_of(call):016x}-")
    assert metadata["Diagnostic-Id"] == metadata["traceparent"]


async def test_a_batch_links_to_where_its_events_were_created(world: World) -> None:
    """Each event has a span of its own; sending them is one more, and so is handling them."""
    await world.bus.publish_many([Counted(id=1), Counted(id=2)])
    created = await world.of("create film-events", SpanKind.PRODUCER, 2)
    sent = await world.span("send film-events", SpanKind.CLIENT)
    assert sent.attributes is not None
    assert sent.attributes["messaging.batch.message_count"] == 2
    assert {link.context.span_id for link in sent.links} == {id_of(span) for span in created}
    linked: set[int] = set()
    with anyio.fail_after(20):
        while len(linked) < 2:
            await anyio.sleep(0.01)
            for span in await world.of("process film-events", SpanKind.CONSUMER):
                found = [link.context.span_id for link in span.links]
                linked |= {*found, parent_of(span) or 0} & {id_of(span) for span in created}
    assert not await world.of("send film-events", SpanKind.PRODUCER, 0)


async def test_an_event_that_was_kept_stays_in_the_trace_it_was_made_in(world: World) -> None:
    """An outbox stores the event with its trace; whoever relays it later is linked only."""
    with world.tracers.get_tracer("web").start_as_current_span("transaction") as span:
        context = span.get_span_context()
    traceparent = f"00-{context.trace_id:032x}-{context.span_id:016x}-01"
    kept = envelope(Seen(id=7), id="kept", source="/films", time=NOW, extensions={"traceparent": traceparent})
    await world.bus.publish_as_is([kept])
    relayed = await world.span("send film-events", SpanKind.CLIENT)
    handled = (await world.of("process film-events", SpanKind.CONSUMER, 2))[0]
    assert [link.context.span_id for link in relayed.links] == [context.span_id]
    assert (trace_of(handled), parent_of(handled)) == (context.trace_id, context.span_id)


async def test_links_can_be_had_instead_of_parents(world: World) -> None:
    """For those whose traces would grow too long."""
    before = world.telemetry._parenting
    world.telemetry._parenting = "link"
    try:
        await world.bus.publish(Seen(id=1))
        sent = (await world.of("send film-events", SpanKind.PRODUCER))[0]
        handled = (await world.of("process film-events", SpanKind.CONSUMER, 2))[0]
    finally:
        world.telemetry._parenting = before
    assert parent_of(handled) is None
    assert [link.context.span_id for link in handled.links] == [id_of(sent)]
    with pytest.raises(ValueError, match="trace_parenting must be 'parent' or 'link'"):
        Telemetry(trace_parenting="both")  # type: ignore[arg-type]


async def test_errors_are_the_code_or_the_type_and_never_the_text(world: World) -> None:
    """The caller's mistake is none of the server; a crash is, and the caller sees INTERNAL."""
    with pytest.raises(NotFound):
        await world.films.get(404)
    with pytest.raises(Internal):
        await world.films.get(500)
    missing, crashed = await world.of("films/get", SpanKind.CLIENT, 2)
    excused, guilty = await world.of("films/get", SpanKind.SERVER, 2)
    for span, status, reason in [
        (missing, "NOT_FOUND", "NOT_FOUND"),
        (crashed, "INTERNAL", "INTERNAL"),
        (excused, "NOT_FOUND", None),
        (guilty, "INTERNAL", "RuntimeError"),
    ]:
        assert span.attributes is not None
        assert span.attributes["rpc.response.status_code"] == status
        assert span.attributes.get("error.type") == reason
        assert span.status.status_code is (StatusCode.UNSET if reason is None else StatusCode.ERROR)
    await world.bus.publish(Seen(id=13))
    failed = await world.of("process film-events", SpanKind.CONSUMER, 2)
    assert [(span.attributes or {})["error.type"] for span in failed] == ["ValueError"] * 2
    assert [(span.attributes or {})["sbrpc.event.attempt"] for span in failed] == [0, 1]
    assert "secret-title" not in "".join(span.to_json() for span in world.spans.get_finished_spans())


async def test_a_stream_is_one_span_until_it_is_over(world: World) -> None:
    """What is published between two parts belongs to it; reading no further is no error."""
    assert [number async for number in world.films.listing(2)] == [0, 1]
    call = await world.span("films/listing", SpanKind.CLIENT)
    handler = await world.span("films/listing", SpanKind.SERVER)
    sent = await world.of("send film-events", SpanKind.PRODUCER, 2)
    assert parent_of(handler) == id_of(call)
    assert {parent_of(span) for span in sent} == {id_of(handler)}
    async for _ in world.films.listing(3):
        break
    call = await world.span("films/listing", SpanKind.CLIENT, 2)
    assert call.status.status_code is StatusCode.UNSET


async def test_a_command_is_traced_like_a_call(world: World) -> None:
    """Its handler's span is the child of a caller that has long gone on."""
    await world.films.forget(1)
    call = await world.span("films/forget", SpanKind.CLIENT)
    assert parent_of(await world.span("films/forget", SpanKind.SERVER)) == id_of(call)


async def test_metrics_have_the_names_and_buckets_of_the_conventions(world: World) -> None:
    """And sbrpc's own are there for what the conventions do not know."""
    await world.films.get(1)
    await world.of("process film-events", SpanKind.CONSUMER, 2)
    buckets = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)
    for name in [
        "rpc.client.call.duration",
        "rpc.server.call.duration",
        "messaging.client.operation.duration",
        "messaging.process.duration",
    ]:
        points = world.points(name)
        assert points, name
        assert all(isinstance(p, HistogramDataPoint) and p.explicit_bounds == buckets for p in points), name
    good = {"rpc.system.name": "sbrpc", "rpc.method": "films/get", "rpc.response.status_code": "OK"}
    for name in ["rpc.client.call.duration", "rpc.server.call.duration"]:
        assert any(good.items() <= dict(p.attributes or {}).items() for p in world.points(name)), name
    for name in ["messaging.client.sent.messages", "messaging.client.consumed.messages"]:
        assert world.points(name), name
    for name in [
        "sbrpc.client.calls.in_flight",
        "sbrpc.server.calls.in_flight",
        "sbrpc.client.reply_session.changes",
        "sbrpc.client.replies.late",
        "sbrpc.client.replies.foreign",
        "sbrpc.client.heartbeat.duration",
    ]:
        assert len(world.points(name)) == 1, name
    assert len(world.points("sbrpc.throttles")) == 3  # the client's, the server's and the bus'


async def test_what_ran_once_can_be_observed_after_it_ended(world: World) -> None:
    """A client that is not running counts nothing, and does not disturb the others."""
    idle = RpcClient(
        "Endpoint=sb://none/;SharedAccessKeyName=a;SharedAccessKey=b", reply_queue="idle.replies"
    )
    world.telemetry.observe(idle)
    names = {
        (p.attributes or {})["messaging.destination.name"] for p in world.points("sbrpc.client.replies.late")
    }
    assert names == {"films.replies"}
