"""A governed MCP gateway client for trio and asyncio.

An application hands it a tool call; it decides whether that call may happen, writes down that
it is about to happen, makes it happen within its deadline, survives what network and servers do
meanwhile, and writes down how it ended. Begin with :class:`GatewayClient`.
"""

from __future__ import annotations

from sark_trio.client.config import Settings, load
from sark_trio.client.gateway import ClientStatistics, GatewayClient
from sark_trio.client.identity import JwksUrl
from sark_trio.client.listing import ServerInfo, ToolInfo, ToolListing
from sark_trio.client.resilience import (
    CircuitBreaker,
    GatewayErrorHandler,
    with_retry,
    with_timeout,
)
from sark_trio.client.servers import Http, Memory, Registry, Server, Stdio, ToolRule
from sark_trio.errors import (
    CallTimeout,
    CircuitOpen,
    ConfigError,
    Denied,
    GatewayError,
    OutcomeUnknown,
    RemoteError,
    TransportError,
)
from sark_trio.governance.decision import Decision
from sark_trio.governance.jwt import TokenVerifier
from sark_trio.governance.opa import Opa
from sark_trio.governance.pipeline import AllowAll, PolicyEngine
from sark_trio.governance.principal import Principal
from sark_trio.governance.query import Query, Question
from sark_trio.governance.rego import Rego
from sark_trio.machines.circuit import BreakerOptions, CircuitState
from sark_trio.machines.retry import RetryConfig
from sark_trio.mcp.messages import Agreed
from sark_trio.mcp.progress import Progress
from sark_trio.mcp.results import ToolResult
from sark_trio.mcp.tools import Tool
from sark_trio.net.tls import TLSOptions
from sark_trio.stores.audit import AuditLog

__all__ = [
    "Agreed",
    "AllowAll",
    "AuditLog",
    "BreakerOptions",
    "CallTimeout",
    "CircuitBreaker",
    "CircuitOpen",
    "CircuitState",
    "ClientStatistics",
    "ConfigError",
    "Decision",
    "Denied",
    "GatewayClient",
    "GatewayError",
    "GatewayErrorHandler",
    "Http",
    "JwksUrl",
    "Memory",
    "Opa",
    "OutcomeUnknown",
    "PolicyEngine",
    "Principal",
    "Progress",
    "Query",
    "Question",
    "Registry",
    "Rego",
    "RemoteError",
    "RetryConfig",
    "Server",
    "ServerInfo",
    "Settings",
    "Stdio",
    "TLSOptions",
    "TokenVerifier",
    "Tool",
    "ToolInfo",
    "ToolListing",
    "ToolResult",
    "ToolRule",
    "TransportError",
    "load",
    "with_retry",
    "with_timeout",
]
