"""The ``_meta`` member of a request: MCP 2026-07-28, "General fields".

The gateway owns every key that the protocol reserves. A caller who sets one is refused, not
overruled in silence: a version that differs from the HTTP header, capabilities that we do not
have, or a progress token that is in use elsewhere are mistakes its author should hear about.
The three trace keys are the exception. They name the *parent* span, and a hop that makes a
span of its own is meant to replace them (W3C Trace Context, section 3.5).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

from sark_trio.errors import InvalidArguments
from sark_trio.mcp.messages import RequestId
from sark_trio.mcp.versions import is_modern

__all__ = [
    "CLIENT_CAPABILITIES",
    "CLIENT_INFO",
    "LOG_LEVEL",
    "LOG_LEVELS",
    "PROGRESS_TOKEN",
    "PROTOCOL_VERSION",
    "SERVER_INFO",
    "SUBSCRIPTION_ID",
    "TRACE_KEYS",
    "LogLevel",
    "request_meta",
    "with_meta",
]

PROTOCOL_VERSION: Final = "io.modelcontextprotocol/protocolVersion"
CLIENT_INFO: Final = "io.modelcontextprotocol/clientInfo"
CLIENT_CAPABILITIES: Final = "io.modelcontextprotocol/clientCapabilities"
LOG_LEVEL: Final = "io.modelcontextprotocol/logLevel"
SERVER_INFO: Final = "io.modelcontextprotocol/serverInfo"
SUBSCRIPTION_ID: Final = "io.modelcontextprotocol/subscriptionId"
PROGRESS_TOKEN: Final = "progressToken"  # noqa: S105 - names a member, is no secret
#: OpenTelemetry's trace context; the only keys without a prefix that mean something.
TRACE_KEYS: Final = ("traceparent", "tracestate", "baggage")

LogLevel = Literal["debug", "info", "notice", "warning", "error", "critical", "alert", "emergency"]
#: RFC 5424 severities, least severe first.
LOG_LEVELS: Final[tuple[LogLevel, ...]] = (
    "debug",
    "info",
    "notice",
    "warning",
    "error",
    "critical",
    "alert",
    "emergency",
)

#: A prefix is reserved when its *second* label is one of these: ``com.example.mcp/`` is free.
_RESERVED_LABELS: Final = frozenset({"modelcontextprotocol", "mcp"})


def request_meta(
    version: str,
    *,
    client_info: Mapping[str, Any],
    client_capabilities: Mapping[str, Any],
    own: Mapping[str, Any] | None = None,
    log_level: LogLevel | None = None,
    progress_token: RequestId | None = None,
    trace: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """The ``_meta`` of one request in the agreed *version*; nothing handed in is changed.

    A legacy request gets only the progress token and the trace: its version, client and
    capabilities were told once, in ``initialize``.

    :param own: what the caller wants in ``_meta``; its keys must not be reserved.
    :param log_level: least severe log message to send along (modern only).
    :param progress_token: asks for progress; unique among the requests in flight.
    :param trace: any of ``traceparent``, ``tracestate``, ``baggage``; they replace *own*'s.
    :raises InvalidArguments: *own* is no object or holds a reserved key.
    """
    meta = _checked(own) if own is not None else {}
    if is_modern(version):
        meta[PROTOCOL_VERSION] = version
        meta[CLIENT_INFO] = client_info
        meta[CLIENT_CAPABILITIES] = client_capabilities
        if log_level is not None:
            meta[LOG_LEVEL] = log_level
    if progress_token is not None:
        meta[PROGRESS_TOKEN] = progress_token
    if trace is not None:
        for key in TRACE_KEYS:
            if key in trace:
                meta[key] = trace[key]
    return meta


def with_meta(params: Mapping[str, Any], meta: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of *params* whose ``_meta`` is *meta*; an empty *meta* is left out."""
    merged = dict(params)
    if meta:
        merged["_meta"] = meta
    else:
        merged.pop("_meta", None)
    return merged


def _checked(own: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(own, Mapping):
        raise InvalidArguments(f"_meta must be an object, not {type(own).__name__}")
    for key in own:
        if type(key) is not str:
            raise InvalidArguments(f"a key of _meta must be a string, not {type(key).__name__}")
        if key == PROGRESS_TOKEN or _is_reserved(key):
            raise InvalidArguments(f"_meta key {key!r} is reserved: the gateway sets it itself")
    return dict(own)


def _is_reserved(key: str) -> bool:
    prefix, slash, _ = key.partition("/")
    labels = prefix.split(".", 2)
    return bool(slash) and len(labels) > 1 and labels[1] in _RESERVED_LABELS
