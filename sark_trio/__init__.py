"""A governed MCP gateway client for trio and asyncio.

An application hands it a tool call; it decides whether that call may happen, writes down that
it is about to happen, makes it happen within its deadline, survives what network and servers do
meanwhile, and writes down how it ended. Begin with :class:`GatewayClient`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from sark_trio.errors import (
    CallTimeout,
    CircuitOpen,
    ConfigError,
    Denied,
    GatewayError,
    OutcomeUnknown,
    RemoteError,
    ResourceLimitExceeded,
    ServerDown,
    ToolChanged,
    TransportError,
    TransportNotAvailableError,
)

if TYPE_CHECKING:
    from sark_trio.client.approving import ApprovalRequest
    from sark_trio.client.authorizing.options import (
        Auth,
        ClientCredentials,
        EnterpriseManaged,
        OAuth,
        WorkloadIdentity,
    )
    from sark_trio.client.authorizing.redirects import AppRedirects, LoopbackRedirects
    from sark_trio.client.authorizing.signing import SignedIn, SignedOut, sign_in, sign_out
    from sark_trio.client.chapters.events import (
        EventStatistics,
        EventStream,
        EventStreamStatistics,
        ServerEvent,
    )
    from sark_trio.client.chapters.local import LocalServerClient
    from sark_trio.client.config import Settings, load
    from sark_trio.client.deciding import Authorization
    from sark_trio.client.gateway import ClientStatistics, GatewayClient
    from sark_trio.client.handlers import Handlers
    from sark_trio.client.health import HealthReport
    from sark_trio.client.identity import JwksUrl
    from sark_trio.client.listing import ServerInfo, ToolInfo, ToolListing
    from sark_trio.client.metrics import ClientMetrics
    from sark_trio.client.modes import TransportMode
    from sark_trio.client.pins import PinnedTool, Pins
    from sark_trio.client.resilience import (
        CircuitBreaker,
        GatewayErrorHandler,
        with_retry,
        with_timeout,
    )
    from sark_trio.client.servers import (
        Http,
        Memory,
        Registry,
        Server,
        Stdio,
        ToolRule,
        WebSocket,
    )
    from sark_trio.client.subscription import Subscription
    from sark_trio.governance.decision import Decision
    from sark_trio.governance.isolation import Isolation
    from sark_trio.governance.jwt import TokenVerifier
    from sark_trio.governance.opa import Opa
    from sark_trio.governance.pipeline import AllowAll, PolicyEngine
    from sark_trio.governance.principal import Principal
    from sark_trio.governance.query import Query, Question
    from sark_trio.governance.rego import Rego
    from sark_trio.machines.adaptive import AdaptiveConcurrency
    from sark_trio.machines.caching import CacheOptions
    from sark_trio.machines.circuit import BreakerOptions, CircuitState
    from sark_trio.machines.limiter import RateOptions
    from sark_trio.machines.limits import ResourceLimits
    from sark_trio.machines.retry import RetryConfig
    from sark_trio.mcp.asking import Elicitation, Root, Sampling, UrlElicitation
    from sark_trio.mcp.changes import Change
    from sark_trio.mcp.faults import HandlerFailed, InvalidParams, MethodNotFound, TaskCancelled
    from sark_trio.mcp.forms import Form
    from sark_trio.mcp.messages import Agreed
    from sark_trio.mcp.progress import LogMessage, Progress
    from sark_trio.mcp.prompts import Completion, Prompt, PromptResult
    from sark_trio.mcp.resources import Resource, ResourceContents, ResourceResult, ResourceTemplate
    from sark_trio.mcp.results import ToolResult
    from sark_trio.mcp.tasks import Task
    from sark_trio.mcp.tools import Tool
    from sark_trio.net.tls import TLSOptions
    from sark_trio.stores.audit import AuditLog
    from sark_trio.stores.tokens import FileTokens, MemoryTokens, TokenStore
    from sark_trio.stores.tokens_keyring import KeyringTokens
else:  # Hidden from type checkers: to them such a __getattr__ promises whatever anybody spells.
    #: The same by module, which is imported when somebody first asks for a name of it. All of them
    #: together take as long as the start of many a program; errors cost nothing, and stand above.
    _HOMES = {
        "client.approving": ("ApprovalRequest",),
        "client.authorizing.options": (
            "Auth",
            "ClientCredentials",
            "EnterpriseManaged",
            "OAuth",
            "WorkloadIdentity",
        ),
        "client.authorizing.redirects": ("AppRedirects", "LoopbackRedirects"),
        "client.authorizing.signing": ("SignedIn", "SignedOut", "sign_in", "sign_out"),
        "client.chapters.events": (
            "EventStatistics",
            "EventStream",
            "EventStreamStatistics",
            "ServerEvent",
        ),
        "client.chapters.local": ("LocalServerClient",),
        "client.config": ("Settings", "load"),
        "client.deciding": ("Authorization",),
        "client.gateway": ("ClientStatistics", "GatewayClient"),
        "client.handlers": ("Handlers",),
        "client.health": ("HealthReport",),
        "client.identity": ("JwksUrl",),
        "client.listing": ("ServerInfo", "ToolInfo", "ToolListing"),
        "client.metrics": ("ClientMetrics",),
        "client.modes": ("TransportMode",),
        "client.pins": ("PinnedTool", "Pins"),
        "client.resilience": (
            "CircuitBreaker",
            "GatewayErrorHandler",
            "with_retry",
            "with_timeout",
        ),
        "client.servers": (
            "Http",
            "Memory",
            "Registry",
            "Server",
            "Stdio",
            "ToolRule",
            "WebSocket",
        ),
        "client.subscription": ("Subscription",),
        "governance.decision": ("Decision",),
        "governance.isolation": ("Isolation",),
        "governance.jwt": ("TokenVerifier",),
        "governance.opa": ("Opa",),
        "governance.pipeline": ("AllowAll", "PolicyEngine"),
        "governance.principal": ("Principal",),
        "governance.query": ("Query", "Question"),
        "governance.rego": ("Rego",),
        "machines.adaptive": ("AdaptiveConcurrency",),
        "machines.caching": ("CacheOptions",),
        "machines.circuit": ("BreakerOptions", "CircuitState"),
        "machines.limiter": ("RateOptions",),
        "machines.limits": ("ResourceLimits",),
        "machines.retry": ("RetryConfig",),
        "mcp.asking": ("Elicitation", "Root", "Sampling", "UrlElicitation"),
        "mcp.changes": ("Change",),
        "mcp.faults": ("HandlerFailed", "InvalidParams", "MethodNotFound", "TaskCancelled"),
        "mcp.forms": ("Form",),
        "mcp.messages": ("Agreed",),
        "mcp.progress": ("LogMessage", "Progress"),
        "mcp.prompts": ("Completion", "Prompt", "PromptResult"),
        "mcp.resources": ("Resource", "ResourceContents", "ResourceResult", "ResourceTemplate"),
        "mcp.results": ("ToolResult",),
        "mcp.tasks": ("Task",),
        "mcp.tools": ("Tool",),
        "net.tls": ("TLSOptions",),
        "stores.audit": ("AuditLog",),
        "stores.tokens": ("FileTokens", "MemoryTokens", "TokenStore"),
        "stores.tokens_keyring": ("KeyringTokens",),
    }
    _HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

    def __getattr__(name: str) -> object:
        """A promised name, from where it is at home (PEP 562)."""
        if name not in _HOME_OF:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})


__all__ = [
    "AdaptiveConcurrency",
    "Agreed",
    "AllowAll",
    "AppRedirects",
    "ApprovalRequest",
    "AuditLog",
    "Auth",
    "Authorization",
    "BreakerOptions",
    "CacheOptions",
    "CallTimeout",
    "Change",
    "CircuitBreaker",
    "CircuitOpen",
    "CircuitState",
    "ClientCredentials",
    "ClientMetrics",
    "ClientStatistics",
    "Completion",
    "ConfigError",
    "Decision",
    "Denied",
    "Elicitation",
    "EnterpriseManaged",
    "EventStatistics",
    "EventStream",
    "EventStreamStatistics",
    "FileTokens",
    "Form",
    "GatewayClient",
    "GatewayError",
    "GatewayErrorHandler",
    "HandlerFailed",
    "Handlers",
    "HealthReport",
    "Http",
    "InvalidParams",
    "Isolation",
    "JwksUrl",
    "KeyringTokens",
    "LocalServerClient",
    "LogMessage",
    "LoopbackRedirects",
    "Memory",
    "MemoryTokens",
    "MethodNotFound",
    "OAuth",
    "Opa",
    "OutcomeUnknown",
    "PinnedTool",
    "Pins",
    "PolicyEngine",
    "Principal",
    "Progress",
    "Prompt",
    "PromptResult",
    "Query",
    "Question",
    "RateOptions",
    "Registry",
    "Rego",
    "RemoteError",
    "Resource",
    "ResourceContents",
    "ResourceLimitExceeded",
    "ResourceLimits",
    "ResourceResult",
    "ResourceTemplate",
    "RetryConfig",
    "Root",
    "Sampling",
    "Server",
    "ServerDown",
    "ServerEvent",
    "ServerInfo",
    "Settings",
    "SignedIn",
    "SignedOut",
    "Stdio",
    "Subscription",
    "TLSOptions",
    "Task",
    "TaskCancelled",
    "TokenStore",
    "TokenVerifier",
    "Tool",
    "ToolChanged",
    "ToolInfo",
    "ToolListing",
    "ToolResult",
    "ToolRule",
    "TransportError",
    "TransportMode",
    "TransportNotAvailableError",
    "UrlElicitation",
    "WebSocket",
    "WorkloadIdentity",
    "load",
    "sign_in",
    "sign_out",
    "with_retry",
    "with_timeout",
]
