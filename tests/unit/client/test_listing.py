"""What a client says about its servers and tools."""

from __future__ import annotations

from sark_trio import BreakerOptions, Http, RetryConfig, ToolInfo, ToolListing, ToolRule
from sark_trio.client.listing import server_info, tool_info
from sark_trio.client.upstream import Upstream
from sark_trio.errors import ConnectError
from sark_trio.machines.circuit import Admit, Outcome
from sark_trio.mcp.tools import Tool, parse_tool


def upstream() -> Upstream:
    rules = {"drop": ToolRule(sensitivity="critical", sensitive_params=("password",))}
    server = Http("https://db.example/mcp?key=x", sensitivity="high", tools=rules)
    return Upstream.of("db", server, breaker=BreakerOptions(failures=1), retry=RetryConfig())


def tool(name: str) -> Tool:
    parsed = parse_tool({"name": name, "inputSchema": {"type": "object"}, "description": "does"})
    assert isinstance(parsed, Tool)
    return parsed


def test_a_tool_has_the_operators_sensitivity() -> None:
    critical, plain = tool_info(upstream(), tool("drop")), tool_info(upstream(), tool("read"))
    assert (critical.sensitivity_level, critical.sensitive_params) == ("critical", ("password",))
    assert (plain.sensitivity_level, plain.sensitive_params) == ("high", ())
    assert (plain.server_name, plain.description) == ("db", "does")
    assert plain.input_schema == {"type": "object"}


def test_a_server_that_was_never_called_is_unknown_then_sick() -> None:
    mine = upstream()
    info = server_info(mine)
    assert (info.server_name, info.transport, info.address) == (
        "db",
        "http",
        "https://db.example/mcp",
    )
    assert (info.health_status, info.protocol_version, info.tools_count) == ("unknown", None, None)
    admitted = mine.breaker.acquire(0.0)
    assert isinstance(admitted, Admit)
    mine.breaker.settle(0.0, admitted.permit, Outcome.FAILURE, 0.0)
    assert server_info(mine).health_status == "unhealthy"


def test_a_listing_is_a_sequence_of_tools_and_names_who_failed() -> None:
    infos = tuple(tool_info(upstream(), tool(name)) for name in ("a", "b", "c"))
    listing = ToolListing(tools=infos, failures={"dead": ConnectError("refused")})
    assert len(listing) == 3
    assert list(listing) == list(infos)
    assert listing[1].tool_name == "b"
    assert [one.tool_name for one in listing[1:]] == ["b", "c"]
    assert isinstance(listing[0], ToolInfo)
    assert set(listing.failures) == {"dead"}
