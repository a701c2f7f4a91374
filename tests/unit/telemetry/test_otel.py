"""Events become spans and measurements, with OpenTelemetry's own SDK to keep them."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from attrs import define, evolve
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from sark_trio.telemetry import events
from sark_trio.telemetry.events import OTHER, CallInfo
from sark_trio.telemetry.otel import OpenTelemetry

CALL = CallInfo(
    request_id="r1",
    server="db",
    tool="query",
    transport="http",
    host="db.example",
    port=443,
    protocol_version="2026-07-28",
)
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@define(eq=False)
class Collected:
    hook: OpenTelemetry
    tracing: TracerProvider
    exporter: InMemorySpanExporter
    reader: InMemoryMetricReader

    @property
    def spans(self) -> tuple[ReadableSpan, ...]:
        return self.exporter.get_finished_spans()

    def points(self, name: str) -> list[tuple[dict[str, Any], Any]]:
        """Attributes and point of each series of a metric."""
        data = self.reader.get_metrics_data()
        return [
            (dict(point.attributes), point)
            for resource in (data.resource_metrics if data else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == name
            for point in metric.data.data_points
        ]


@pytest.fixture
def collected() -> Iterator[Collected]:
    exporter, reader = InMemorySpanExporter(), InMemoryMetricReader()
    tracing, metering = TracerProvider(), MeterProvider(metric_readers=[reader])
    tracing.add_span_processor(SimpleSpanProcessor(exporter))
    hook = OpenTelemetry(tracer_provider=tracing, meter_provider=metering)
    yield Collected(hook, tracing, exporter, reader)
    tracing.shutdown()
    metering.shutdown()


def finished(call: CallInfo = CALL, **fields: Any) -> events.CallFinished:
    known: dict[str, Any] = {
        "outcome": "ok",
        "delivery": "answered",
        "seconds": 0.5,
        "attempts": 1,
        **fields,
    }
    return events.CallFinished(call=call, **known)


def test_a_call_is_a_client_span_by_the_conventions_with_a_span_for_each_attempt(
    collected: Collected,
) -> None:
    hook = collected.hook
    hook(events.CallStarted(call=evolve(CALL, tool=OTHER, protocol_version=None)))
    hook(events.CallDecided(call=CALL, allow=True, seconds=0.001))
    hook(events.AttemptStarted(call=CALL, number=1))
    hook(
        events.AttemptFinished(
            call=CALL, number=1, seconds=0.1, error_type="HTTPStatusError", status=503
        )
    )
    hook(events.CallRetried(call=CALL, number=1, reason="HTTPStatusError", wait_s=1))
    hook(events.AttemptStarted(call=CALL, number=2))
    hook(events.CallRetried(call=CALL, number=2, reason="stale_connection"))
    hook(events.AttemptFinished(call=CALL, number=2, seconds=0.1))
    hook(finished(attempts=2))
    first, second, call = collected.spans
    assert (call.name, call.kind) == ("tools/call query", SpanKind.CLIENT)
    assert dict(call.attributes or {}) == {
        "mcp.method.name": "tools/call",
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": "query",
        "mcp.protocol.version": "2026-07-28",
        "network.transport": "tcp",
        "server.address": "db.example",
        "server.port": 443,
        "sark.server": "db",
        "sark.policy.decision": "allow",
        "sark.policy.cached": False,
        "sark.policy.seconds": 0.001,
        "sark.call.outcome": "ok",
        "sark.call.delivery": "answered",
        "sark.call.attempts": 2,
    }
    assert call.status.status_code is StatusCode.UNSET
    assert call.parent is None
    for attempt in (first, second):
        assert (attempt.name, attempt.kind) == ("attempt", SpanKind.INTERNAL)
        assert attempt.parent is not None
        assert attempt.parent.span_id == call.context.span_id
    assert dict(first.attributes or {}) == {
        "sark.attempt.number": 1,
        "error.type": "503",
        "rpc.response.status_code": "503",
    }
    assert first.status.status_code is StatusCode.ERROR
    assert dict(second.attributes or {}) == {
        "sark.attempt.number": 2,
        "sark.attempt.resent": "stale_connection",
    }


@pytest.mark.parametrize(
    ("fields", "error_type"),
    [
        ({"outcome": "ok"}, None),
        ({"outcome": "tool_error"}, "tool_error"),
        ({"outcome": "cancelled"}, "cancelled"),
        ({"outcome": "denied", "error_type": "Denied", "reason": "denied"}, "Denied"),
        ({"outcome": "error", "error_type": "RemoteError", "status": -32602}, "-32602"),
    ],
)
def test_how_a_call_ended_is_in_its_span_and_in_its_duration(
    collected: Collected, fields: dict[str, Any], error_type: str | None
) -> None:
    collected.hook(events.CallStarted(call=CALL))
    collected.hook(finished(**fields))
    (span,) = collected.spans
    attributes = dict(span.attributes or {})
    assert attributes.get("error.type") == error_type
    assert attributes.get("sark.call.reason") == fields.get("reason")
    expected = StatusCode.UNSET if error_type is None else StatusCode.ERROR
    assert (span.status.status_code, span.status.description) == (expected, None)
    ((measured, point),) = collected.points("mcp.client.operation.duration")
    assert (measured.get("error.type"), point.sum) == (error_type, 0.5)
    assert measured["gen_ai.tool.name"] == "query"
    assert tuple(point.explicit_bounds)[:3] == (0.01, 0.02, 0.05)


def test_decisions_and_lists_are_measured(collected: Collected) -> None:
    collected.hook(events.CallDecided(call=CALL, allow=False, seconds=0.25, reason="denied"))
    listed = events.ListFetched(server="db", method="tools/list", seconds=2, items=3)
    collected.hook(listed)
    collected.hook(evolve(listed, items=None, error_type="ConnectError"))
    assert [
        (attributes, point.sum)
        for attributes, point in collected.points("sark.policy.decision.duration")
    ] == [({"sark.policy.decision": "deny"}, 0.25)]
    of_lists = {"mcp.method.name": "tools/list", "sark.server": "db"}
    assert [
        (attributes, point.sum)
        for attributes, point in collected.points("mcp.client.operation.duration")
    ] == [(of_lists, 2), ({**of_lists, "error.type": "ConnectError"}, 2)]
    assert collected.spans == ()


def test_all_that_is_measured_says_whose_it_is_and_in_what_unit(collected: Collected) -> None:
    collected.hook(events.CallStarted(call=CALL))
    collected.hook(events.CallDecided(call=CALL, allow=True, seconds=0.25))
    collected.hook(finished())
    assert [span.instrumentation_scope.name for span in collected.spans] == ["sark_trio"]
    data = collected.reader.get_metrics_data()
    assert data is not None
    (scope,) = data.resource_metrics[0].scope_metrics
    assert scope.scope.name == "sark_trio"
    assert {(metric.name, metric.unit, metric.description) for metric in scope.metrics} == {
        (
            "mcp.client.operation.duration",
            "s",
            "Time from the request to its answer, or until it was given up.",
        ),
        ("sark.policy.decision.duration", "s", "Time until a call was decided."),
    }


def test_without_the_extra_only_the_hook_itself_cannot_be_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in [name for name in sys.modules if name.startswith("opentelemetry")]:
        monkeypatch.setitem(sys.modules, name, None)  # type: ignore[arg-type]
    spec = importlib.util.find_spec("sark_trio.telemetry.otel")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with pytest.raises(ImportError, match="opentelemetry"):
        module.OpenTelemetry()


def test_the_callers_span_is_the_parent(collected: Collected) -> None:
    tracer = collected.tracing.get_tracer("application")
    with tracer.start_as_current_span("outer") as outer:
        collected.hook(events.CallStarted(call=CALL))
        collected.hook(finished())
    call = collected.spans[0]
    assert call.parent is not None
    assert call.parent.span_id == outer.get_span_context().span_id


def test_a_named_parent_is_the_parent_and_the_calls_own_span_is_carried(
    collected: Collected,
) -> None:
    collected.hook(events.CallStarted(call=CALL, traceparent=PARENT))
    carried = collected.hook.carrier(CALL)
    collected.hook(finished())
    (span,) = collected.spans
    assert span.parent is not None
    assert f"{span.parent.span_id:016x}" == "b7ad6b7169203331"
    trace_id, span_id = "0af7651916cd43dd8448eb211c80319c", f"{span.context.span_id:016x}"
    assert carried["traceparent"] == f"00-{trace_id}-{span_id}-01"


@pytest.mark.parametrize(
    ("transport", "named"),
    [
        ("http", "tcp"),
        ("sse", "tcp"),
        ("websocket", "tcp"),
        ("registry", "tcp"),
        ("stdio", "pipe"),
        ("memory", None),
    ],
)
def test_transports_have_the_names_of_the_conventions(
    collected: Collected, transport: str, named: str | None
) -> None:
    call = evolve(CALL, transport=transport, host=None, port=None)
    collected.hook(events.CallStarted(call=call))
    collected.hook(finished(call))
    attributes = dict(collected.spans[0].attributes or {})
    assert attributes.get("network.transport") == named
    assert "server.address" not in attributes


def test_what_is_no_call_of_a_tool_is_named_by_its_method(collected: Collected) -> None:
    call = evolve(CALL, method="prompts/get", tool=None)
    collected.hook(events.CallStarted(call=call))
    collected.hook(finished(call))
    (span,) = collected.spans
    assert span.name == "prompts/get"
    assert "gen_ai.tool.name" not in (span.attributes or {})


def test_what_is_not_of_a_known_call_is_let_be(collected: Collected) -> None:
    """A hook may be added to a second client, or events come to it late."""
    hook = collected.hook
    hook(events.CallDecided(call=CALL, allow=True, seconds=0.1))
    hook(events.AttemptStarted(call=CALL, number=1))
    hook(events.CallRetried(call=CALL, number=1, reason="x"))
    hook(events.AttemptFinished(call=CALL, number=1, seconds=1))
    hook(finished())
    hook(events.SessionRenewed(server="db"))
    assert hook.carrier(CALL) == {}
    assert collected.spans == ()


def test_names_of_spans_and_metrics_are_bounded(collected: Collected) -> None:
    for number in range(600):
        call = evolve(CALL, request_id=str(number), tool=f"tool{number}")
        collected.hook(events.CallStarted(call=call))
        collected.hook(finished(call))
    assert len({span.name for span in collected.spans}) == 501
    assert len(collected.points("mcp.client.operation.duration")) == 501
