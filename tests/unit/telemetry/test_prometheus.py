"""Events become the original's metrics."""

from __future__ import annotations

from typing import Any

import pytest
from attrs import evolve

from sark_trio.telemetry import events
from sark_trio.telemetry.events import CallFinished, CallInfo, Event
from sark_trio.telemetry.prometheus import Prometheus

CALL = CallInfo(request_id="r1", server="db", tool="query", transport="http")
END: dict[str, Any] = {"delivery": "answered", "seconds": 0.5, "attempts": 1}


#: Name, kind and meaning of every metric, in the order of the text.
FAMILIES = [
    ("sark_gateway_tool_invocations_total", "counter", "Tool calls ended."),
    (
        "sark_gateway_tool_execution_duration_seconds",
        "histogram",
        "Whole tool calls, however they ended.",
    ),
    ("sark_gateway_authz_requests_total", "counter", "Decisions about calls."),
    ("sark_gateway_authz_latency_seconds", "histogram", "Time until decided."),
    ("sark_policy_decisions_total", "counter", "Decisions."),
    (
        "sark_policy_evaluation_duration_seconds",
        "histogram",
        "Decisions that the policy was asked for, cached ones left out.",
    ),
    ("sark_gateway_audit_events_total", "counter", "Calls decided, as they are recorded."),
    ("sark_gateway_errors_total", "counter", "What went wrong."),
    ("sark_gateway_client_errors_total", "counter", "Operations that failed."),
    ("sark_gateway_retries_total", "counter", "Sendings after the first."),
    ("sark_gateway_circuit_transitions_total", "counter", "Moves of the breaker."),
    ("sark_gateway_cache_operations_total", "counter", "Look-ups."),
    ("sark_gateway_active_connections", "gauge", "Connections that are open."),
    ("sark_gateway_connection_pool_wait_seconds", "histogram", "Waits for a connection."),
    ("sark_gateway_process_starts_total", "counter", "Server processes."),
]


def counted(*told: Event, **options: Any) -> list[str]:
    """The samples after *told*."""
    hook = Prometheus(**options)
    for event in told:
        hook(event)
    text = hook.text()
    assert text.endswith("\n")
    return [line for line in text.splitlines() if not line.startswith("#")]


def test_every_metric_says_what_it_is_before_anything_is_counted() -> None:
    assert Prometheus().text().splitlines() == [
        line
        for name, kind, text in FAMILIES
        for line in (f"# HELP {name} {text}", f"# TYPE {name} {kind}")
    ]


def test_a_call_is_counted_by_tool_server_and_end() -> None:
    lines = counted(
        CallFinished(call=CALL, outcome="ok", **END),
        CallFinished(call=CALL, outcome="tool_error", **END),
    )
    name = "sark_gateway_tool_invocations_total"
    assert f'{name}{{tool="query",server="db",status="ok"}} 1' in lines
    assert f'{name}{{tool="query",server="db",status="tool_error"}} 1' in lines
    assert not [line for line in lines if "errors_total" in line]


@pytest.mark.fault(51)
def test_the_time_of_calls_that_failed_is_observed_as_well() -> None:
    failed = CallFinished(call=CALL, outcome="timeout", error_type="CallTimeout", **END)
    lines = counted(failed, evolve(failed, outcome="ok", error_type=None))
    name = "sark_gateway_tool_execution_duration_seconds"
    assert f'{name}_count{{tool="query",server="db"}} 2' in lines
    assert f'{name}_sum{{tool="query",server="db"}} 1' in lines


@pytest.mark.fault(51)
def test_ten_thousand_names_make_a_few_hundred_series() -> None:
    told = [
        CallFinished(call=evolve(CALL, tool=f"tool{number}"), outcome="ok", **END)
        for number in range(10_000)
    ]
    lines = counted(*told, tools_max=200)
    invocations = [line for line in lines if line.startswith("sark_gateway_tool_invocations")]
    assert len(invocations) == 201
    assert 'sark_gateway_tool_invocations_total{tool="_other",server="db",status="ok"} 9800' in (
        invocations
    )
    assert len(lines) < 201 * 20


@pytest.mark.parametrize(
    ("outcome", "severity"),
    [("denied", "warning"), ("rejected", "warning"), ("cancelled", "warning"), ("error", "error")],
)
def test_what_went_wrong_is_counted_by_its_type(outcome: Any, severity: str) -> None:
    lines = counted(CallFinished(call=CALL, outcome=outcome, error_type="Denied", **END))
    labels = f'{{error_type="Denied",component="call",severity="{severity}"}}'
    assert f"sark_gateway_errors_total{labels} 1" in lines
    counted_as = '{operation="invoke_tool",error_type="Denied"}'
    assert f"sark_gateway_client_errors_total{counted_as} 1" in lines


def test_decisions_are_counted_and_only_real_ones_timed_as_evaluations() -> None:
    yes = events.CallDecided(call=CALL, allow=True, seconds=0.002)
    lines = counted(yes, evolve(yes, cached=True), evolve(yes, allow=False, reason="denied"))
    total = "sark_gateway_authz_requests_total"
    assert f'{total}{{decision="allow",action="tool_invoke",server="db"}} 2' in lines
    assert f'{total}{{decision="deny",action="tool_invoke",server="db"}} 1' in lines
    assert 'sark_policy_decisions_total{decision="deny",resource_type="tool"} 1' in lines
    events_total = "sark_gateway_audit_events_total"
    assert f'{events_total}{{event_type="tool_invoke",decision="allow"}} 2' in lines
    assert 'sark_gateway_authz_latency_seconds_count{action="tool_invoke"} 3' in lines
    assert "sark_policy_evaluation_duration_seconds_count 2" in lines
    cache = "sark_gateway_cache_operations_total"
    assert f'{cache}{{operation="get",cache_name="decisions",result="hit"}} 1' in lines
    assert f'{cache}{{operation="get",cache_name="decisions",result="miss"}} 2' in lines


def test_what_is_no_call_of_a_tool_is_counted_by_its_method() -> None:
    call = evolve(CALL, method="prompts/get", tool=None)
    lines = counted(
        events.CallDecided(call=call, allow=True, seconds=0.002),
        CallFinished(call=call, outcome="error", error_type="RemoteError", **END),
    )
    named = '{tool="prompts/get",server="db",status="error"}'
    assert f"sark_gateway_tool_invocations_total{named} 1" in lines
    assert 'sark_policy_decisions_total{decision="allow",resource_type="server"} 1' in lines
    counted_as = '{operation="prompts/get",error_type="RemoteError"}'
    assert f"sark_gateway_client_errors_total{counted_as} 1" in lines


@pytest.mark.parametrize(
    ("event", "sample"),
    [
        (
            events.CallRetried(call=CALL, number=1, reason="ConnectError"),
            'sark_gateway_retries_total{server="db"} 1',
        ),
        (
            events.ListFetched(
                server="db", method="tools/list", seconds=1, error_type="ConnectError"
            ),
            'sark_gateway_client_errors_total{operation="tools/list",error_type="ConnectError"} 1',
        ),
        (
            events.ListFetched(
                server="db", method="tools/list", seconds=1, error_type="ConnectError"
            ),
            (
                "sark_gateway_errors_total"
                '{error_type="ConnectError",component="list",severity="error"} 1'
            ),
        ),
        (
            events.CacheLookedUp(server="db", cache="tools", hit=True),
            (
                "sark_gateway_cache_operations_total"
                '{operation="get",cache_name="tools",result="hit"} 1'
            ),
        ),
        (
            events.CacheLookedUp(server="db", cache="tools", hit=False),
            (
                "sark_gateway_cache_operations_total"
                '{operation="get",cache_name="tools",result="miss"} 1'
            ),
        ),
        (
            events.BreakerChanged(server="db", source="closed", target="open", why="failures"),
            'sark_gateway_circuit_transitions_total{server="db",state="open"} 1',
        ),
        (
            events.ConnectionOpened(server="db", seconds=0.1),
            'sark_gateway_active_connections{server="db"} 1',
        ),
        (
            events.PoolWaited(server="db", seconds=0.25, granted=True),
            'sark_gateway_connection_pool_wait_seconds_sum{pool_name="db"} 0.25',
        ),
        (
            events.ProcessStarted(server="db", pid=7, restarts=0),
            'sark_gateway_process_starts_total{server="db"} 1',
        ),
        (
            events.ProcessExited(server="db", pid=7, exit_code=1, expected=False),
            (
                "sark_gateway_errors_total"
                '{error_type="ProcessExited",component="process",severity="error"} 1'
            ),
        ),
        (
            events.AuditFailed(problem="full"),
            (
                "sark_gateway_errors_total"
                '{error_type="AuditFailed",component="audit",severity="critical"} 1'
            ),
        ),
    ],
)
def test_events_of_the_house_are_counted(event: Event, sample: str) -> None:
    assert sample in counted(event)


def test_connections_are_counted_down() -> None:
    lines = counted(
        events.ConnectionOpened(server="db", seconds=0.1),
        events.ConnectionClosed(server="db", exchanges=3),
    )
    assert lines == ['sark_gateway_active_connections{server="db"} 0']


@pytest.mark.parametrize(
    "event",
    [
        events.CallStarted(call=CALL),
        events.ListFetched(server="db", method="tools/list", seconds=1, items=2),
        events.ProcessExited(server="db", pid=7, exit_code=0, expected=True),
        events.HookDisabled(hook="h", error_type="E"),
    ],
)
def test_what_has_no_metric_leaves_no_trace(event: Event) -> None:
    assert counted(event) == []
