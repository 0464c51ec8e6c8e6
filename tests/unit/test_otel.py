"""What spans and metrics say, without any span."""

from __future__ import annotations

import asyncio

import pytest
from opentelemetry.trace import SpanKind

from sbrpc.context import CallInfo, Deadline, log_fields, trace_id
from sbrpc.errors import BusError, Internal, NotFound
from sbrpc.otel import call_outcome, carrier_of, span_context, type_name

TRACE = "0af7651916cd43dd8448eb211c80319c"
TRACEPARENT = f"00-{TRACE}-b7ad6b7169203331-01"


def info(deadline: Deadline | None = None) -> CallInfo:
    return CallInfo("get", "1", deadline or Deadline.never(), contract="films")


@pytest.mark.parametrize(
    ("error", "kind", "status", "reason"),
    [
        (None, SpanKind.CLIENT, "OK", None),
        (NotFound("no"), SpanKind.CLIENT, "NOT_FOUND", "NOT_FOUND"),
        (NotFound("no"), SpanKind.SERVER, "NOT_FOUND", None),
        (Internal("no"), SpanKind.SERVER, "INTERNAL", "INTERNAL"),
        (KeyError("no"), SpanKind.SERVER, "INTERNAL", "KeyError"),
        (BusError("no"), SpanKind.CLIENT, None, "sbrpc.errors.BusError"),
        (asyncio.CancelledError(), SpanKind.CLIENT, "CANCELLED", "CANCELLED"),
        (asyncio.CancelledError(), SpanKind.SERVER, "CANCELLED", None),
    ],
)
def test_how_a_call_ended(
    error: BaseException | None, kind: SpanKind, status: str | None, reason: str | None
) -> None:
    """The code where there is one; an error of the span where this side is to blame, as gRPC has it."""
    found, failed = call_outcome(error, info(), kind)
    assert found.get("rpc.response.status_code") == status
    assert found.get("error.type") == reason
    assert failed is (reason is not None)


def test_a_handler_cancelled_by_its_deadline_is_late_and_not_cancelled() -> None:
    """The exception is the same; the deadline tells which it was."""
    found, failed = call_outcome(asyncio.CancelledError(), info(Deadline.after(-1)), SpanKind.SERVER)
    assert (found["error.type"], failed) == ("DEADLINE_EXCEEDED", True)


@pytest.mark.parametrize("name", ["traceparent", "Diagnostic-Id"])
def test_both_headers_are_understood(name: str) -> None:
    """The Azure SDKs of some languages send only their own."""
    context = span_context({name: TRACEPARENT, "tracestate": "a=b"})
    assert context is not None
    assert carrier_of(context) == {
        "traceparent": TRACEPARENT,
        "Diagnostic-Id": TRACEPARENT,
        "tracestate": "a=b",
    }


@pytest.mark.parametrize("value", ["", "nonsense", "00-0-0-00", f"00-{'0' * 32}-b7ad6b7169203331-01"])
def test_what_is_no_trace_context_is_none(value: str) -> None:
    """Anybody can send anything."""
    assert span_context({"traceparent": value}) is None


def test_log_records_name_the_trace() -> None:
    """Also without OpenTelemetry: it stands in the metadata."""
    assert log_fields("1", {"traceparent": TRACEPARENT}) == {"call_id": "1", "trace_id": TRACE}
    assert log_fields("1") == {"call_id": "1", "trace_id": None}
    assert trace_id("nonsense") is None


def test_errors_are_named_in_full() -> None:
    """So that two classes of one name can be told apart."""
    assert type_name(ValueError()) == "ValueError"
    assert type_name(NotFound("no")) == "NOT_FOUND"
