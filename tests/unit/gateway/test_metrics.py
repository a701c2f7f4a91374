"""The text format, where a label could break it."""

from __future__ import annotations

from sark_trio.gateway.metrics import Traffic


def test_counts_are_exact_and_methods_few() -> None:
    traffic = Traffic()
    for number in range(13):
        traffic.ended(f"M{number}", "/mcp", 200, 0.5)
    traffic.ended("GET", "/mcp", 401, 0.25)
    traffic.in_flight = 1_234_567_890
    lines = list(traffic.families())
    assert 'sark_gateway_requests_total{method="other",endpoint="/mcp",status="200"} 13' in lines
    assert "sark_gateway_requests_in_flight 1234567890" in lines
    name = "sark_gateway_request_duration_seconds"
    assert f'{name}_sum{{method="other",endpoint="/mcp"}} 6.5' in lines
    assert f'{name}_count{{method="other",endpoint="/mcp"}} 13' in lines
    assert "sark_gateway_auth_failures_total 1" in lines
