"""Paths of the gateway, as templates: few, and fit for a label."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

__all__ = ["METHODS", "STREAMS", "UNKNOWN", "methods_of", "route_of"]

#: Stands for all paths that fit no template.
UNKNOWN: Final = "unknown"
_API: Final = "/api/v1"
#: The method that each route is asked with. ``/mcp`` sees to its own.
METHODS: Final[Mapping[str, str]] = {
    "/health": "GET",
    "/ready": "GET",
    "/metrics": "GET",
    f"{_API}/servers": "GET",
    f"{_API}/servers/{{name}}": "GET",
    f"{_API}/servers/{{name}}/stream": "GET",
    f"{_API}/tools": "GET",
    f"{_API}/invoke": "POST",
    f"{_API}/events": "GET",
    f"{_API}/audit/stream": "GET",
    f"{_API}/gateway/authorize": "POST",
    f"{_API}/gateway/authorize-a2a": "POST",
    f"{_API}/gateway/servers": "GET",
    f"{_API}/gateway/tools": "GET",
    f"{_API}/gateway/audit": "POST",
}
#: Of all revisions together; each has its own.
MCP_METHODS: Final = ("GET", "POST", "DELETE")
#: Routes whose answer goes on until somebody has enough.
STREAMS: Final = frozenset(
    {f"{_API}/events", f"{_API}/audit/stream", f"{_API}/servers/{{name}}/stream"}
)


def methods_of(route: str) -> tuple[str, ...]:
    """The methods that *route* can be asked with: ``HEAD`` wherever ``GET`` has an end.

    RFC 9110, section 9.1: servers must support both.
    """
    if route == "/mcp":
        return MCP_METHODS
    method = METHODS[route]
    return (method, "HEAD") if method == "GET" and route not in STREAMS else (method,)


def route_of(path: tuple[str, ...]) -> str:
    """The template that the segments of *path* fit; :data:`UNKNOWN` if none does."""
    plain = "/" + "/".join(path)
    if plain == "/mcp" or (plain in METHODS and "{" not in plain):
        return plain
    if path[:3] != ("api", "v1", "servers") or len(path) < 4 or not path[3]:
        return UNKNOWN
    template = "/".join([f"{_API}/servers/{{name}}", *path[4:]])
    return template if template in METHODS else UNKNOWN
