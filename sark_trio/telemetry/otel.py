"""Events as traces and metrics of OpenTelemetry. Needs the extra ``otel``.

::

    client = GatewayClient(..., hooks=[OpenTelemetry()])

By the semantic conventions for MCP (in development, as of 2026): one client span for each call,
named ``tools/call TOOL``, with one internal span for each attempt; its context travels with the
call, in ``_meta`` and in the headers of HTTP. Durations are in ``mcp.client.operation.duration``,
those of failed calls as well. Which providers and propagators there are is the application's
own configuration of OpenTelemetry, and so is whether ``baggage`` goes to servers.

Arguments and results, which the conventions allow for those who want them, are never recorded.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, final

from sark_trio.telemetry import events
from sark_trio.telemetry.events import OTHER, CallInfo, Event
from sark_trio.telemetry.labels import ToolLabels
from sark_trio.telemetry.metrics import CALL_SECONDS, DECISION_SECONDS

if TYPE_CHECKING:
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.propagators.textmap import TextMapPropagator
    from opentelemetry.trace import Span, TracerProvider

__all__ = ["OpenTelemetry"]

_SCOPE: Final = "sark_trio"
_NETWORKS: Final = {
    "http": "tcp",
    "sse": "tcp",
    "websocket": "tcp",
    "registry": "tcp",
    "stdio": "pipe",
}
_Attributes = dict[str, str | int | float | bool]


@final
class OpenTelemetry:
    """A hook that traces and measures.

    :param tracer_provider, meter_provider, propagator: default: those that are set globally.
    :raises ImportError: the extra ``otel`` is not installed.
    """

    __slots__ = (
        "_attempts",
        "_call_seconds",
        "_decision_seconds",
        "_propagator",
        "_spans",
        "_tools",
        "_trace",
        "_tracer",
    )

    def __init__(
        self,
        *,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
        propagator: TextMapPropagator | None = None,
    ) -> None:
        from opentelemetry import metrics, propagate, trace  # noqa: PLC0415 - an extra

        self._trace = trace
        self._tracer = trace.get_tracer(_SCOPE, tracer_provider=tracer_provider)
        self._propagator = propagator or propagate.get_global_textmap()
        meter = metrics.get_meter(_SCOPE, meter_provider=meter_provider)
        self._call_seconds = meter.create_histogram(
            "mcp.client.operation.duration",
            unit="s",
            description="Time from the request to its answer, or until it was given up.",
            explicit_bucket_boundaries_advisory=CALL_SECONDS,
        )
        self._decision_seconds = meter.create_histogram(
            "sark.policy.decision.duration",
            unit="s",
            description="Time until a call was decided.",
            explicit_bucket_boundaries_advisory=DECISION_SECONDS,
        )
        self._tools = ToolLabels()
        #: Of calls under way, by request id: each is taken out when its call has finished.
        self._spans: dict[str, Span] = {}
        self._attempts: dict[str, Span] = {}

    def __call__(self, event: Event) -> None:
        """Trace and measure *event*."""
        match event:
            case events.CallStarted():
                self._start(event)
            case events.CallDecided():
                self._decided(event)
            case events.AttemptStarted():
                self._start_attempt(event)
            case events.CallRetried():
                self._retried(event)
            case events.AttemptFinished():
                self._finish_attempt(event)
            case events.CallFinished():
                self._finish(event)
            case events.ListFetched():
                self._listed(event)

    def carrier(self, call: CallInfo) -> Mapping[str, str]:
        """The context of the call's span, as the propagator writes it."""
        found: dict[str, str] = {}
        span = self._spans.get(call.request_id)
        if span is not None:
            self._propagator.inject(found, context=self._trace.set_span_in_context(span))
        return found

    # One call.

    def _start(self, event: events.CallStarted) -> None:
        call = event.call
        # Its parent: the span that its caller named, else the one that is current in its task.
        named = event.traceparent
        parent = None if named is None else self._propagator.extract({"traceparent": named})
        self._spans[call.request_id] = self._tracer.start_span(
            self._name(call),
            context=parent,
            kind=self._trace.SpanKind.CLIENT,
            attributes=self._attributes(call),
        )

    def _decided(self, event: events.CallDecided) -> None:
        decision = "allow" if event.allow else "deny"
        self._decision_seconds.record(event.seconds, {"sark.policy.decision": decision})
        span = self._spans.get(event.call.request_id)
        if span is not None:
            span.update_name(self._name(event.call))
            span.set_attribute("sark.policy.decision", decision)
            span.set_attribute("sark.policy.cached", event.cached)
            span.set_attribute("sark.policy.seconds", event.seconds)

    def _start_attempt(self, event: events.AttemptStarted) -> None:
        span = self._spans.get(event.call.request_id)
        if span is not None:
            self._attempts[event.call.request_id] = self._tracer.start_span(
                "attempt",
                context=self._trace.set_span_in_context(span),
                attributes={"sark.attempt.number": event.number},
            )

    def _retried(self, event: events.CallRetried) -> None:
        # Sent again within the attempt that is under way; else the attempts themselves show it.
        span = self._attempts.get(event.call.request_id)
        if span is not None:
            span.set_attribute("sark.attempt.resent", event.reason)

    def _finish_attempt(self, event: events.AttemptFinished) -> None:
        span = self._attempts.pop(event.call.request_id, None)
        if span is not None:
            self._end(span, _error_type(event), event.status)

    def _finish(self, event: events.CallFinished) -> None:
        call, error_type = event.call, _error_type(event)
        attributes = self._attributes(call)
        if error_type is not None:
            attributes["error.type"] = error_type
        self._call_seconds.record(event.seconds, attributes)
        span = self._spans.pop(call.request_id, None)
        if span is not None:
            span.set_attributes(
                {
                    **attributes,
                    "sark.call.outcome": event.outcome,
                    "sark.call.delivery": event.delivery,
                    "sark.call.attempts": event.attempts,
                }
            )
            if event.reason is not None:
                span.set_attribute("sark.call.reason", event.reason)
            self._end(span, error_type, event.status)

    def _listed(self, event: events.ListFetched) -> None:
        attributes = {"mcp.method.name": event.method, "sark.server": event.server}
        if event.error_type is not None:
            attributes["error.type"] = event.error_type
        self._call_seconds.record(event.seconds, attributes)

    def _attributes(self, call: CallInfo) -> _Attributes:
        found: _Attributes = {"mcp.method.name": call.method, "sark.server": call.server}
        if call.tool is not None:
            found["gen_ai.operation.name"] = "execute_tool"
            found["gen_ai.tool.name"] = self._tools.of(call)
        more = {
            "mcp.protocol.version": call.protocol_version,
            "network.transport": _NETWORKS.get(call.transport),
            "server.address": call.host,
            "server.port": call.port,
        }
        found.update({key: value for key, value in more.items() if value is not None})
        return found

    def _name(self, call: CallInfo) -> str:
        if call.tool is None or (tool := self._tools.of(call)) == OTHER:
            return call.method
        return f"{call.method} {tool}"

    def _end(self, span: Span, error_type: str | None, status: int | None) -> None:
        if error_type is not None:
            span.set_attribute("error.type", error_type)
            # No description: a server's words about its error may hold what it was asked.
            span.set_status(self._trace.StatusCode.ERROR)
        if status is not None:
            span.set_attribute("rpc.response.status_code", str(status))
        span.end()


def _error_type(event: events.AttemptFinished | events.CallFinished) -> str | None:
    """What ended it, in the words of the conventions: the peer's code, else the class of ours."""
    if isinstance(event, events.CallFinished) and event.outcome in {"tool_error", "cancelled"}:
        return event.outcome
    return event.error_type if event.status is None else str(event.status)
