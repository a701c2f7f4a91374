"""The least that an MCP server of revision 2026-07-28 must say; shared by the demo's servers.

They stand for anybody's servers, so nothing of the client is used here: standard library only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

__all__ = ["Json", "Notify", "Tool", "ToolFailed", "answer"]

Json: TypeAlias = dict[str, Any]
#: Sends a notification that belongs to the request being served.
Notify: TypeAlias = Callable[[str, Json], None]
Tool: TypeAlias = Callable[[Json, Notify], Json]

REVISION = "2026-07-28"
_META = "io.modelcontextprotocol/"


class ToolFailed(Exception):
    """What a tool says when it could not do it; the model reads this."""


def answer(message: Json, name: str, tools: dict[str, tuple[Json, Tool]], notify: Notify) -> Json:
    """The response to one request."""
    params = message.get("params", {})
    version = params.get("_meta", {}).get(f"{_META}protocolVersion")
    if version != REVISION:
        data = {"supported": [REVISION], "requested": version}
        return _error(message, -32022, "Unsupported protocol version", data)
    method = message["method"]
    if method == "server/discover":
        return _result(message, _discovered(name))
    if method == "tools/list":
        listed = [{"name": tool, **facts} for tool, (facts, _) in tools.items()]
        result = {"tools": listed, "ttlMs": 60_000, "cacheScope": "public"}
        return _result(message, result)
    if method == "tools/call":
        return _result(message, _called(params, tools, notify))
    return _error(message, -32601, f"Method not found: {method}")


def _discovered(name: str) -> Json:
    return {
        "supportedVersions": [REVISION],
        "capabilities": {"tools": {}},
        "_meta": {f"{_META}serverInfo": {"name": name, "version": "1.0"}},
        "ttlMs": 60_000,
        "cacheScope": "public",
    }


def _called(params: Json, tools: dict[str, tuple[Json, Tool]], notify: Notify) -> Json:
    name = params.get("name")
    if name not in tools:
        return {"content": [{"type": "text", "text": f"no tool {name!r}"}], "isError": True}
    try:
        return tools[name][1](params.get("arguments", {}), notify)
    except ToolFailed as exc:
        return {"content": [{"type": "text", "text": str(exc)}], "isError": True}


def _result(message: Json, result: Json) -> Json:
    complete = {"resultType": "complete", **result}
    return {"jsonrpc": "2.0", "id": message["id"], "result": complete}


def _error(message: Json, code: int, text: str, data: Any = None) -> Json:
    error = {"code": code, "message": text, **({} if data is None else {"data": data})}
    return {"jsonrpc": "2.0", "id": message["id"], "error": error}
