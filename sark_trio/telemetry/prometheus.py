"""Events as metrics for Prometheus, under the original system's names.

::

    metrics = Prometheus()
    client = GatewayClient(..., hooks=[metrics])
    print(metrics.text())

Its labels are servers of the configuration, words of our own, and tools as
:class:`~.labels.ToolLabels` lets them in. None is a user or anything else that a caller chose.
What failed is timed as what succeeded is.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Literal, final

from attrs import define, field

from sark_trio.telemetry import events
from sark_trio.telemetry.events import Event
from sark_trio.telemetry.labels import TOOLS_MAX, ToolLabels
from sark_trio.telemetry.metrics import (
    CALL_SECONDS,
    DECISION_SECONDS,
    Counter,
    Gauge,
    Histogram,
    Registry,
)

__all__ = ["Prometheus"]

#: Ends that are somebody's decision; all other errors are failures.
_DECIDED: Final = frozenset({"denied", "rejected", "cancelled"})
#: Action and kind of resource as the original names them; other methods stand for themselves.
_ACTIONS: Final = {"tools/call": ("tool_invoke", "tool")}
_PREFIX: Final = "sark_gateway"
_Severity = Literal["warning", "error", "critical"]


@final
@define(eq=False)
class Prometheus:
    """A hook that counts.

    :param tools_max: tools that get a label of their own; all others are ``_other``.
    """

    tools_max: int = field(default=TOOLS_MAX)
    registry: Registry = field(factory=Registry, init=False)
    _tools: ToolLabels = field(init=False)
    _calls: Counter = field(init=False)
    _call_seconds: Histogram = field(init=False)
    _decisions: Counter = field(init=False)
    _policy_decisions: Counter = field(init=False)
    _decision_seconds: Histogram = field(init=False)
    _evaluation_seconds: Histogram = field(init=False)
    _audit_events: Counter = field(init=False)
    _errors: Counter = field(init=False)
    _client_errors: Counter = field(init=False)
    _retries: Counter = field(init=False)
    _transitions: Counter = field(init=False)
    _caches: Counter = field(init=False)
    _connections: Gauge = field(init=False)
    _pool_seconds: Histogram = field(init=False)
    _processes: Counter = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._tools = ToolLabels(self.tools_max)
        self._calls = self._counter(
            "tool_invocations_total", "Tool calls ended.", "tool", "server", "status"
        )
        self._call_seconds = self._histogram(
            "tool_execution_duration_seconds",
            "Whole tool calls, however they ended.",
            "tool",
            "server",
        )
        self._decisions = self._counter(
            "authz_requests_total", "Decisions about calls.", "decision", "action", "server"
        )
        self._decision_seconds = self._histogram(
            "authz_latency_seconds", "Time until decided.", "action", bounds=DECISION_SECONDS
        )
        self._policy_decisions = self._counter(
            "decisions_total", "Decisions.", "decision", "resource_type", prefix="sark_policy"
        )
        self._evaluation_seconds = self._histogram(
            "evaluation_duration_seconds",
            "Decisions that the policy was asked for, cached ones left out.",
            prefix="sark_policy",
            bounds=DECISION_SECONDS,
        )
        self._audit_events = self._counter(
            "audit_events_total", "Calls decided, as they are recorded.", "event_type", "decision"
        )
        self._errors = self._counter(
            "errors_total", "What went wrong.", "error_type", "component", "severity"
        )
        self._client_errors = self._counter(
            "client_errors_total", "Operations that failed.", "operation", "error_type"
        )
        self._retries = self._counter("retries_total", "Sendings after the first.", "server")
        self._transitions = self._counter(
            "circuit_transitions_total", "Moves of the breaker.", "server", "state"
        )
        self._caches = self._counter(
            "cache_operations_total", "Look-ups.", "operation", "cache_name", "result"
        )
        self._connections = self.registry.add(
            Gauge("sark_gateway_active_connections", "Connections that are open.", ("server",))
        )
        self._pool_seconds = self._histogram(
            "connection_pool_wait_seconds", "Waits for a connection.", "pool_name"
        )
        self._processes = self._counter("process_starts_total", "Server processes.", "server")

    def text(self) -> str:
        """All metrics, in the text format 0.0.4."""
        return "".join(f"{line}\n" for line in self.lines())

    def lines(self) -> Iterator[str]:
        """The same, line by line."""
        return self.registry.lines()

    def __call__(self, event: Event) -> None:
        """Count *event*."""
        match event:
            case events.CallDecided():
                self._decided(event)
            case events.CallFinished():
                self._finished(event)
            case events.CallRetried():
                self._retries.add(event.call.server)
            case events.ListFetched(error_type=str() as kind):
                self._failed(event.method, kind, "list", "error")
            case events.CacheLookedUp():
                self._caches.add("get", event.cache, "hit" if event.hit else "miss")
            case events.BreakerChanged():
                self._transitions.add(event.server, event.target)
            case events.ConnectionOpened():
                self._connections.add(event.server)
            case events.ConnectionClosed():
                self._connections.add(event.server, by=-1)
            case events.PoolWaited():
                self._pool_seconds.observe(event.seconds, event.server)
            case events.ProcessStarted():
                self._processes.add(event.server)
            case events.ProcessExited(expected=False):
                self._errors.add("ProcessExited", "process", "error")
            case events.AuditFailed():
                self._errors.add("AuditFailed", "audit", "critical")

    def _decided(self, event: events.CallDecided) -> None:
        decision = "allow" if event.allow else "deny"
        action, kind = _ACTIONS.get(event.call.method, (event.call.method, "server"))
        self._decisions.add(decision, action, event.call.server)
        self._policy_decisions.add(decision, kind)
        self._audit_events.add(action, decision)
        self._decision_seconds.observe(event.seconds, action)
        self._caches.add("get", "decisions", "hit" if event.cached else "miss")
        if not event.cached:
            self._evaluation_seconds.observe(event.seconds)

    def _finished(self, event: events.CallFinished) -> None:
        tool, server = self._tools.of(event.call), event.call.server
        self._calls.add(tool, server, event.outcome)
        self._call_seconds.observe(event.seconds, tool, server)
        if event.error_type is not None:
            severity: _Severity = "warning" if event.outcome in _DECIDED else "error"
            operation = "invoke_tool" if event.call.tool else event.call.method
            self._failed(operation, event.error_type, "call", severity)

    def _failed(self, operation: str, kind: str, component: str, severity: _Severity) -> None:
        self._errors.add(kind, component, severity)
        self._client_errors.add(operation, kind)

    def _counter(self, name: str, text: str, *labels: str, prefix: str = _PREFIX) -> Counter:
        return self.registry.add(Counter(f"{prefix}_{name}", text, labels))

    def _histogram(
        self,
        name: str,
        text: str,
        *labels: str,
        prefix: str = _PREFIX,
        bounds: tuple[float, ...] = CALL_SECONDS,
    ) -> Histogram:
        return self.registry.add(Histogram(f"{prefix}_{name}", text, labels, bounds=bounds))
