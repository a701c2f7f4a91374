"""What the client says about servers and tools, in the original system's words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal, final, overload

from attrs import field, frozen

from sark_trio.client.servers import Sensitivity
from sark_trio.client.upstream import Upstream
from sark_trio.errors import GatewayError
from sark_trio.mcp.tools import Tool

__all__ = ["ServerInfo", "ToolInfo", "ToolListing", "server_info", "tool_info"]

Health = Literal["unknown", "healthy", "unhealthy"]


@final
@frozen(kw_only=True)
class ToolInfo:
    """One tool of one server.

    ``sensitivity_level`` and ``sensitive_params`` are the operator's; everything else is the
    server's own word.
    """

    tool_name: str
    server_name: str
    description: str
    sensitivity_level: Sensitivity
    sensitive_params: tuple[str, ...]
    definition: Tool = field(repr=False)

    @property
    def input_schema(self) -> Mapping[str, Any]:
        """JSON Schema of the arguments."""
        return self.definition.input_schema


@final
@frozen(kw_only=True)
class ServerInfo:
    """One server: configured here, or the gateway's.

    :param health_status: what the breaker last saw, ``unknown`` before the first call; of a
        server of the gateway's, what the gateway says.
    :param tools_count: tools in the list that is at hand; ``None`` if none was fetched.
    :param stale: what the gateway said some time ago: it could not be asked now.
    """

    server_name: str
    transport: str
    address: str
    sensitivity_level: Sensitivity
    health_status: Health
    protocol_version: str | None
    tools_count: int | None
    stale: bool = False


@final
@frozen(kw_only=True)
class ToolListing:
    """Tools of several servers, and the servers that could not be asked.

    Iterates over its tools. One dead server costs its own tools, never the list.

    :param failures: by the server's name; the gateway's own by its URL.
    :param stale: the gateway's tools are what it said some time ago: it could not be asked now.
    """

    tools: tuple[ToolInfo, ...]
    failures: Mapping[str, GatewayError] = field(factory=dict)
    stale: bool = False

    def __iter__(self) -> Iterator[ToolInfo]:
        return iter(self.tools)

    def __len__(self) -> int:
        return len(self.tools)

    @overload
    def __getitem__(self, index: int) -> ToolInfo: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[ToolInfo, ...]: ...

    def __getitem__(self, index: int | slice) -> ToolInfo | tuple[ToolInfo, ...]:
        return self.tools[index]


def tool_info(upstream: Upstream, tool: Tool) -> ToolInfo:
    """*tool* of *upstream*, with what the operator says of it."""
    rule = upstream.server.rule(tool.name)
    return ToolInfo(
        tool_name=tool.name,
        server_name=upstream.name,
        description=tool.description or "",
        sensitivity_level=rule.sensitivity or upstream.server.sensitivity,
        sensitive_params=rule.sensitive_params,
        definition=tool,
    )


def server_info(upstream: Upstream) -> ServerInfo:
    """What is known of *upstream* without asking it."""
    statistics = upstream.statistics()
    return ServerInfo(
        server_name=upstream.name,
        transport=statistics.transport,
        address=upstream.server.address,
        sensitivity_level=upstream.server.sensitivity,
        health_status=upstream.health,
        protocol_version=statistics.protocol_version,
        tools_count=upstream.catalogue.size,
    )
