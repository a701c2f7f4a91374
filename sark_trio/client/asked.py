"""What an application asks for: a call of a tool, as a question to policy and to the filter."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, final

from attrs import field, frozen

from sark_trio.client.plans import Asked, Composed, Plan
from sark_trio.client.servers import Server
from sark_trio.client.upstream import Upstream
from sark_trio.governance.filters import ToolFacts
from sark_trio.governance.query import Query
from sark_trio.machines.retry import safety_of
from sark_trio.mcp.headers import param_headers
from sark_trio.mcp.results import ToolResult, parse_tool_result
from sark_trio.mcp.tools import Tool

__all__ = ["ToolCall", "facts_of", "query_of"]


@final
@frozen(kw_only=True)
class ToolCall(Asked[ToolResult]):
    """A call of a tool.

    :param replay_safe: the caller's word that the call may be made twice; ``None`` leaves it to
        the operator's rule and, for a trusted server, to the tool's annotations.
    """

    method: str = field(default="tools/call", init=False)
    tool: str
    arguments: Mapping[str, Any] = field(repr=False)
    replay_safe: bool | None = None

    @property
    def what(self) -> str:
        """See :attr:`Asked.what`."""
        return f"tool {self.tool!r}"

    def configured_s(self, server: Server) -> float | None:
        """The deadline of the tool's rule, else the server's."""
        return server.rule(self.tool).timeout_s or server.timeout_s

    async def plan(self, upstream: Upstream) -> Plan[ToolResult]:
        """Find the tool in the catalogue.

        :raises UnknownTool: the server has no such tool, or it was rejected.
        """
        tool, server = await upstream.catalogue.tool(self.tool), upstream.server
        hints, rule = tool.annotations, server.rule(tool.name)
        # The operator's rule, else the caller's word, else a trusted server's annotations.
        own, ttl_s = rule.replay_safe, rule.cache_ttl_s
        kept = server.trusted and hints.read_only_hint and ttl_s is not None
        return Plan(
            query=query_of(upstream, self),
            facts=facts_of(tool, rule.sensitive_params),
            safety=safety_of(
                read_only_hint=hints.read_only_hint,
                idempotent_hint=hints.idempotent_hint,
                trusted=server.trusted,
                override=self.replay_safe if own is None else own,
            ),
            compose=partial(_compose, tool, {"task": {}} if _wants_task(tool, upstream) else {}),
            parse=parse_tool_result,
            kept_s=(lambda _: ttl_s) if kept else None,
        )


def _compose(tool: Tool, more: Mapping[str, Any], arguments: Mapping[str, Any]) -> Composed:
    params = {"name": tool.name, "arguments": arguments, **more}
    return params, param_headers(tool.param_headers, arguments)


def query_of(upstream: Upstream, asked: ToolCall) -> Query:
    """The question to the policy that *asked* is."""
    server = upstream.server
    return Query(
        principal=asked.principal,
        server=upstream.name,
        tool=asked.tool,
        arguments=asked.arguments,
        sensitivity=server.rule(asked.tool).sensitivity or server.sensitivity,
        context=asked.context,
    )


def facts_of(tool: Tool, sensitive_params: tuple[str, ...]) -> ToolFacts:
    """What the filter needs to know of *tool*: the names it declares, if it declares them all."""
    schema = tool.input_schema
    closed = schema.get("additionalProperties") is False and "patternProperties" not in schema
    names = schema.get("properties")
    declared = frozenset(names) if closed and isinstance(names, dict) else None
    return ToolFacts(parameters=declared, sensitive_params=frozenset(sensitive_params))


def _wants_task(tool: Tool, upstream: Upstream) -> bool:
    """Whether the tool can only be called as a task (2025-11-25, "Tool-Level Negotiation")."""
    agreed, execution = upstream.agreed, tool.raw.get("execution")
    if agreed is None or agreed.version != "2025-11-25" or not isinstance(execution, Mapping):
        return False
    offered: Any = agreed.capabilities
    for key in ("tasks", "requests", "tools", "call"):
        offered = offered.get(key) if isinstance(offered, Mapping) else None
    return execution.get("taskSupport") == "required" and offered is not None
