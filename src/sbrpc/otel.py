"""Traces and metrics by OpenTelemetry's conventions, for clients, servers and event buses.

    telemetry = Telemetry()
    client = RpcClient(connection, reply_queue="gateway.replies", middleware=[telemetry.client])
    server = RpcServer(connection, Movies, middleware=[telemetry.server])
    bus = EventBus(connection, topic="movie-events", source="/movies", middleware=[telemetry.events])
    telemetry.observe(client, server, bus)

Needs `pip install "sbrpc[otel]"`, which is OpenTelemetry's API and nothing else; the application chooses an
SDK and where things are sent. Owns names and attributes of spans and metrics. Knows calls and events as their
middleware sees them, no message and no link. Records no payload, no metadata and no text of an exception.
Conventions: opentelemetry.io/docs/specs/semconv, "RPC" and "Messaging: Azure Service Bus".
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from time import monotonic
from typing import Any, Literal
from weakref import WeakSet

from opentelemetry import context as otel_context
from opentelemetry import metrics, trace
from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation
from opentelemetry.trace import Link, Span, SpanContext, SpanKind, Status, StatusCode, TracerProvider
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from .client import RpcClient
from .context import CallInfo
from .errors import ErrorCode, RpcError
from .event import CloudEvent, EventInfo, current_trace
from .events import EventBus
from .middleware import Delivered, EventMiddleware, Next, Publication
from .server import RpcServer

__all__ = ["Telemetry"]

_SCHEMA = "https://opentelemetry.io/schemas/1.37.0"
_DIAGNOSTIC_ID = "Diagnostic-Id"

# What both metrics of the messaging conventions and those of the RPC conventions ask for, in seconds.
_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)

# Errors that say something about the server; the others say something about the request. As for gRPC.
_SERVER_ERRORS = frozenset(
    {
        ErrorCode.UNKNOWN,
        ErrorCode.DEADLINE_EXCEEDED,
        ErrorCode.UNIMPLEMENTED,
        ErrorCode.INTERNAL,
        ErrorCode.UNAVAILABLE,
        ErrorCode.DATA_LOSS,
    }
)

_propagator = TraceContextTextMapPropagator()

Attributes = dict[str, str | int]


class Telemetry:
    """What one application records. Make one, and hand its parts to clients, servers and event buses.

    Safe for concurrent use. Where no SDK is configured, recording does nothing.

    Args:
        namespace: the host of the Service Bus, for `server.address`.
        trace_parenting: what a handled event's span is to the one it was published in: its child
            (`"parent"`), or linked to it in a trace of its own (`"link"`). Where there is a current span
            already, and for batches, it is linked always. Calls are children always.
        tracer_provider, meter_provider: the global ones unless given.
    """

    def __init__(
        self,
        *,
        namespace: str | None = None,
        trace_parenting: Literal["parent", "link"] = "parent",
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
    ) -> None:
        if trace_parenting not in ("parent", "link"):
            raise ValueError(f"trace_parenting must be 'parent' or 'link', not {trace_parenting!r}")
        self._parenting = trace_parenting
        self._common: Attributes = {"server.address": namespace} if namespace else {}
        self._tracer = trace.get_tracer("sbrpc", tracer_provider=tracer_provider, schema_url=_SCHEMA)
        self._meter = metrics.get_meter("sbrpc", meter_provider=meter_provider, schema_url=_SCHEMA)
        self._client_calls = self._duration(
            "rpc.client.call.duration", "Duration of calls, as callers see it"
        )
        self._server_calls = self._duration("rpc.server.call.duration", "Duration of handlers of calls")
        self._operations = self._duration(
            "messaging.client.operation.duration", "Duration of sending events to Service Bus"
        )
        self._processing = self._duration("messaging.process.duration", "Duration of handlers of events")
        self._sent = self._meter.create_counter(
            "messaging.client.sent.messages", "{message}", "Events that were to be sent"
        )
        self._consumed = self._meter.create_counter(
            "messaging.client.consumed.messages", "{message}", "Events that were handed to a handler"
        )
        self._observing = False
        self._observed: WeakSet[RpcClient | RpcServer | EventBus] = WeakSet()
        self.events: EventMiddleware = _Events(self)
        """For `EventBus(middleware=[...])`: spans for what is published and for each attempt of a handler."""

    def _duration(self, name: str, description: str) -> metrics.Histogram:
        return self._meter.create_histogram(
            name, "s", description, explicit_bucket_boundaries_advisory=_BUCKETS
        )

    # -- calls -------------------------------------------------------------------------------------------

    async def client(self, request: Any, info: CallInfo, call_next: Next) -> Any:
        """For `RpcClient(middleware=[...])`: a CLIENT span, whose context travels with the call."""
        call = _Call(self, info, SpanKind.CLIENT, None, self._client_calls)
        carrier = carrier_of(call.span.get_span_context())
        metadata = {**info.metadata, **carrier}
        return await call.run(lambda: call_next(request, replace(info, metadata=metadata)))

    async def server(self, request: Any, info: CallInfo, call_next: Next) -> Any:
        """For `RpcServer(middleware=[...])`: a SERVER span, child of the caller's."""
        call = _Call(self, info, SpanKind.SERVER, info.metadata, self._server_calls)
        return await call.run(lambda: call_next(request, info))

    # -- what is counted elsewhere -----------------------------------------------------------------------

    def observe(self, *observed: RpcClient | RpcServer | EventBus) -> None:
        """Report what these count themselves while they live: calls in flight, late replies, throttling.

        May be called before they run, and more than once.
        """
        self._observed.update(observed)
        if not self._observing:
            self._observing = True
            self._create_observables()

    def _create_observables(self) -> None:
        meter = self._meter
        up_down, counter = meter.create_observable_up_down_counter, meter.create_observable_counter
        up_down(
            "sbrpc.client.calls.in_flight",
            [self._over(RpcClient, lambda client: client.pending)],
            "{call}",
            "Calls that wait for a reply",
        )
        up_down(
            "sbrpc.server.calls.in_flight",
            [self._over(RpcServer, lambda server: server.running)],
            "{call}",
            "Calls that are being served",
        )
        counter(
            "sbrpc.client.reply_session.changes",
            [self._over(RpcClient, lambda client: _replies(client, lambda it: it.epoch.number - 1))],
            "{change}",
            "How often replies had to move to another session",
        )
        counter(
            "sbrpc.client.replies.late",
            [self._over(RpcClient, lambda client: _replies(client, lambda it: it.late))],
            "{reply}",
            "Replies that came when nobody waited for them any more",
        )
        counter(
            "sbrpc.client.replies.foreign",
            [self._over(RpcClient, lambda client: _replies(client, lambda it: it.foreign))],
            "{message}",
            "Messages on a reply session that answer none of its calls",
        )
        meter.create_observable_gauge(
            "sbrpc.client.heartbeat.duration",
            [self._over(RpcClient, lambda client: _replies(client, lambda it: it.round_trip))],
            "s",
            "How long the last heartbeat took from the client over Service Bus to itself",
        )
        counter(
            "sbrpc.throttles",
            [self._over((RpcClient, RpcServer, EventBus), lambda each: each.throttled)],
            "{throttle}",
            "How often Service Bus has put off what was sent",
        )

    def _over(
        self, kind: type | tuple[type, ...], value: Callable[[Any], float | None]
    ) -> Callable[[CallbackOptions], Iterable[Observation]]:
        def observe(options: CallbackOptions) -> Iterator[Observation]:
            sums: dict[str, float] = {}
            for each in list(self._observed):
                if isinstance(each, kind) and (found := value(each)) is not None:
                    name = _entity(each)
                    sums[name] = sums.get(name, 0) + found
            for name, total in sums.items():
                yield Observation(
                    total,
                    {"messaging.system": "servicebus", "messaging.destination.name": name, **self._common},
                )

        return observe


def _entity(observed: RpcClient | RpcServer | EventBus) -> str:
    if isinstance(observed, RpcClient):
        return observed.reply_queue
    return observed.queue if isinstance(observed, RpcServer) else observed.topic


def _replies(client: RpcClient, value: Callable[[Any], float | None]) -> float | None:
    return value(client.replies) if client.is_running else None


# -- calls ---------------------------------------------------------------------------------------------


def call_attributes(info: CallInfo, kind: SpanKind) -> Attributes:
    """The attributes that a call's span has from its start, so that a sampler can go by them."""
    found: Attributes = {
        "rpc.system.name": "sbrpc",
        "rpc.method": f"{info.contract}/{info.method}",
        "messaging.system": "servicebus",
        "messaging.operation.name": "send" if kind is SpanKind.CLIENT else "process",
        "messaging.operation.type": "send" if kind is SpanKind.CLIENT else "process",
        "messaging.destination.name": info.queue,
        "messaging.message.id": info.call_id,
    }
    if kind is SpanKind.SERVER:
        found["messaging.servicebus.message.delivery_count"] = info.delivery_count + 1
        if info.enqueued_at is not None:
            found["messaging.servicebus.message.enqueued_time"] = int(info.enqueued_at.timestamp())
    return found


def call_outcome(error: BaseException | None, info: CallInfo, kind: SpanKind) -> tuple[Attributes, bool]:
    """The attributes that tell how a call ended, and whether that is an error of this side's span."""
    if error is None:
        return {"rpc.response.status_code": "OK"}, False
    if isinstance(error, RpcError):
        code = error.code
        reason = code.value
    elif isinstance(error, Exception):
        # The caller is told INTERNAL and no more; for operators it is the exception's type.
        code = ErrorCode.INTERNAL
        reason = type_name(error)
        if kind is SpanKind.CLIENT:
            return {"error.type": reason}, True
    else:
        code = ErrorCode.DEADLINE_EXCEEDED if info.deadline.passed else ErrorCode.CANCELLED
        reason = code.value
    found: Attributes = {"rpc.response.status_code": code.value}
    failed = kind is SpanKind.CLIENT or code in _SERVER_ERRORS
    if failed:
        found["error.type"] = reason
    return found, failed


class _Call:
    """One call with its span: begun when it is made, ended when its result is there or its stream is over."""

    def __init__(
        self,
        telemetry: Telemetry,
        info: CallInfo,
        kind: SpanKind,
        carrier: Mapping[str, str] | None,
        histogram: metrics.Histogram,
    ) -> None:
        self._info = info
        self._kind = kind
        self._common = telemetry._common
        self._histogram = histogram
        self._began = monotonic()
        attributes = call_attributes(info, kind)
        self.span = telemetry._tracer.start_span(
            str(attributes["rpc.method"]),
            # A handler runs in a task of the server's, which may have been started inside some other span.
            context=extracted(carrier) if carrier is not None else None,
            kind=kind,
            attributes={**attributes, **self._common},
        )

    async def run(self, call: Callable[[], Awaitable[Any]]) -> Any:
        try:
            with entered(self.span):
                result = await call()
        except BaseException as error:
            self._end(error)
            raise
        if isinstance(result, AsyncIterator):
            return self._stream(result)
        self._end(None)
        return result

    async def _stream(self, replies: AsyncIterator[Any]) -> AsyncIterator[Any]:
        error: BaseException | None = None
        try:
            while True:
                # Entered for each step: between them this runs in the context of whoever iterates.
                try:
                    with entered(self.span):
                        reply = await anext(replies)
                except StopAsyncIteration:
                    break
                yield reply
        except GeneratorExit:
            raise  # whoever reads has had enough, which is no error
        except BaseException as failure:
            error = failure
            raise
        finally:
            try:
                close = getattr(replies, "aclose", None)
                if close is not None:
                    await close()
            finally:
                self._end(error)

    def _end(self, error: BaseException | None) -> None:
        outcome, failed = call_outcome(error, self._info, self._kind)
        self.span.set_attributes(outcome)
        if failed:
            self.span.set_status(Status(StatusCode.ERROR))
        known = {"rpc.system.name": "sbrpc", "rpc.method": f"{self._info.contract}/{self._info.method}"}
        self._histogram.record(
            monotonic() - self._began,
            {**known, **outcome, **self._common},
            context=trace.set_span_in_context(self.span),
        )
        self.span.end()


# -- events --------------------------------------------------------------------------------------------


class _Events(EventMiddleware):
    def __init__(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry
        self._tracer = telemetry._tracer

    async def publish(
        self, publication: Publication, call_next: Callable[[Publication], Awaitable[Any]]
    ) -> Any:
        attributes = self._sending(publication.operation, "send", publication.topic)
        events = publication.events
        if len(events) == 1 and not (publication.as_is and "traceparent" in events[0].extensions):
            # The message is created by being sent: one span is both.
            span = self._start("send", SpanKind.PRODUCER, attributes, events)
            publication = replace(publication, events=(traced(events[0], span.get_span_context()),))
        else:
            # What was created before, here or by whoever filled an outbox, is only linked to.
            events = tuple(self._created(publication, event) for event in events)
            publication = replace(publication, events=events)
            links = [Link(found) for event in events if (found := span_context(event.extensions)) is not None]
            span = self._start("send", SpanKind.CLIENT, attributes, events, links)
        measured = dict(attributes)
        began = monotonic()
        try:
            with entered(span):
                return await call_next(publication)
        except BaseException as error:
            measured["error.type"] = type_name(error)
            failed(span, error)
            raise
        finally:
            context = trace.set_span_in_context(span)
            self._telemetry._operations.record(monotonic() - began, measured, context=context)
            self._telemetry._sent.add(len(events), _counted(measured), context=context)
            span.end()

    def _sending(self, operation: str, kind: str, topic: str) -> Attributes:
        return {
            "messaging.system": "servicebus",
            "messaging.operation.name": operation,
            "messaging.operation.type": kind,
            "messaging.destination.name": topic,
            **self._telemetry._common,
        }

    def _created(self, publication: Publication, event: CloudEvent) -> CloudEvent:
        if publication.as_is and "traceparent" in event.extensions:
            return event
        attributes = self._sending("create", "create", publication.topic)
        span = self._start("create", SpanKind.PRODUCER, attributes, [event])
        span.end()
        return traced(event, span.get_span_context())

    def _start(
        self,
        operation: str,
        kind: SpanKind,
        attributes: Attributes,
        events: Sequence[CloudEvent],
        links: Sequence[Link] = (),
    ) -> Span:
        more: Attributes = {"messaging.message.id": events[0].id}
        if len(events) > 1:
            more = {"messaging.batch.message_count": len(events)}
        name = f"{attributes['messaging.operation.name']} {attributes['messaging.destination.name']}"
        return self._tracer.start_span(name, kind=kind, attributes={**attributes, **more}, links=links)

    async def handle(self, delivered: Delivered, call_next: Callable[[], Awaitable[None]]) -> None:
        attributes: Attributes = {
            **self._sending("process", "process", delivered.topic),
            "messaging.destination.subscription.name": delivered.subscription,
        }
        origins = [found for info in delivered.infos if (found := span_context(_trace(info))) is not None]
        alone = len(delivered.infos) == 1
        ambient = trace.get_current_span().get_span_context().is_valid
        child = alone and origins and not ambient and self._telemetry._parenting == "parent"
        span = self._tracer.start_span(
            f"process {delivered.topic}",
            context=trace.set_span_in_context(trace.NonRecordingSpan(origins[0])) if child else None,
            kind=SpanKind.CONSUMER,
            attributes={**attributes, **delivery_attributes(delivered)},
            links=[] if child else [Link(origin) for origin in origins],
        )
        measured = dict(attributes)
        began = monotonic()
        try:
            with entered(span):
                await call_next()
        except BaseException as error:
            measured["error.type"] = type_name(error)
            failed(span, error)
            raise
        finally:
            context = trace.set_span_in_context(span)
            self._telemetry._processing.record(monotonic() - began, measured, context=context)
            if all(info.attempt == 0 for info in delivered.infos):
                self._telemetry._consumed.add(len(delivered.infos), _counted(attributes), context=context)
            span.end()


def _counted(attributes: Attributes) -> Attributes:
    """What a counter has of the attributes of a duration: the conventions give it no type of operation."""
    return {name: value for name, value in attributes.items() if name != "messaging.operation.type"}


def delivery_attributes(delivered: Delivered) -> Attributes:
    """What a handled event's span has besides what all of its subscription have."""
    if len(delivered.infos) > 1:
        return {"messaging.batch.message_count": len(delivered.infos)}
    info = delivered.infos[0]
    found: Attributes = {
        "messaging.message.id": info.id,
        "messaging.servicebus.message.delivery_count": info.delivery_count + 1,
        "messaging.servicebus.message.enqueued_time": int(info.enqueued_at.timestamp()),
        "sbrpc.event.type": info.type,
        "sbrpc.event.attempt": info.attempt,
    }
    if info.correlation_id is not None:
        found["messaging.message.conversation_id"] = info.correlation_id
    return found


# -- spans and their context ---------------------------------------------------------------------------


@contextmanager
def entered(span: Span) -> Iterator[None]:
    """The span is the current one, for OpenTelemetry and for the events that an outbox keeps."""
    token = otel_context.attach(trace.set_span_in_context(span))
    carrier = carrier_of(span.get_span_context())
    carrier.pop(_DIAGNOSTIC_ID, None)
    trace_token = current_trace.set(carrier)
    try:
        yield
    finally:
        current_trace.reset(trace_token)
        otel_context.detach(token)


def failed(span: Span, error: BaseException) -> None:
    """Mark a span as failed. Without the exception's text: it may quote what was sent."""
    span.set_attribute("error.type", type_name(error))
    span.set_status(Status(StatusCode.ERROR))


def type_name(error: BaseException) -> str:
    """An error's `error.type`: the code of an `RpcError`, else the class by its full name."""
    if isinstance(error, RpcError):
        return error.code.value
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def carrier_of(context: SpanContext) -> dict[str, str]:
    """A span's context as it travels: `traceparent`, the same as `Diagnostic-Id` for Azure, `tracestate`."""
    carrier: dict[str, str] = {}
    _propagator.inject(carrier, trace.set_span_in_context(trace.NonRecordingSpan(context)))
    if "traceparent" in carrier:
        carrier[_DIAGNOSTIC_ID] = carrier["traceparent"]
    return carrier


def extracted(carrier: Mapping[str, Any]) -> otel_context.Context:
    """The context that travelled in these, empty if none did."""
    found = {name: value for name, value in carrier.items() if isinstance(value, str)}
    found.setdefault("traceparent", found.get(_DIAGNOSTIC_ID, ""))
    return _propagator.extract(found, otel_context.Context())


def span_context(carrier: Mapping[str, Any]) -> SpanContext | None:
    """The span that the carrier names, None if it names none."""
    found = trace.get_current_span(extracted(carrier)).get_span_context()
    return found if found.is_valid else None


def traced(event: CloudEvent, context: SpanContext) -> CloudEvent:
    """The event with the span it was created in, as the distributed tracing extension of CloudEvents."""
    carrier = carrier_of(context)
    carrier.pop(_DIAGNOSTIC_ID, None)
    if not carrier:
        return event
    kept = {k: v for k, v in event.extensions.items() if k not in ("traceparent", "tracestate")}
    return replace(event, extensions={**kept, **carrier})


def _trace(info: EventInfo) -> Mapping[str, str | None]:
    return {"traceparent": info.traceparent, "tracestate": info.tracestate}
