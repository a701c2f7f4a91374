"""What a simulated MCP server does with a message, whatever carries it: and what it remembers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import trio
from attrs import define, field

from sark_trio import jsontext
from tests.simulation.network import Chaos

__all__ = ["Desk", "Effect"]

_TOOLS = [
    {
        "name": name,
        "inputSchema": {"type": "object", "properties": {"n": {"type": "integer"}}},
        "annotations": {"readOnlyHint": name == "read", "idempotentHint": name == "put"},
    }
    for name in ("read", "put", "write", "admin")
]
#: An id that no client of ours ever reaches.
_NOBODYS = 999_999


@define(frozen=True)
class Effect:
    """A call that was executed."""

    at: float
    server: str
    tool: str
    arguments: Mapping[str, Any]


def _unheard(_server: str, _tool: str, _arguments: Mapping[str, Any]) -> None:
    """Nobody wants to know."""


@define(eq=False)
class Desk:
    """One server's work. ``effects`` is what it did, whoever heard of it."""

    name: str
    chaos: Chaos
    modern: bool
    effects: list[Effect] = field(factory=list)
    #: Told of each call before it is executed.
    on_arrival: Callable[[str, str, Mapping[str, Any]], None] = _unheard

    async def result(self, method: str, params: Mapping[str, Any]) -> dict[str, Any] | None:
        """The result of one request; ``None``: there is no such method here."""
        if method == "tools/call":
            result = await self._work(params)
        elif method == "tools/list":
            result = {"tools": _TOOLS}
        elif method == "initialize" and not self.modern:
            result = {"protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": {}}
        elif method == "ping" and not self.modern:
            result = {}
        elif method == "server/discover" and self.modern:
            result = {"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}}
        else:
            return None
        return result | {"resultType": "complete"} if self.modern else result

    def encoded(self, request_id: Any, result: Mapping[str, Any] | None) -> bytes:
        """The answer with that *result*, or with an error; or something else entirely."""
        answer: dict[str, Any] = {"jsonrpc": "2.0", "id": request_id}
        if result is None:
            answer["error"] = {"code": -32601, "message": "no such method"}
            return jsontext.encode(answer)
        answer["result"] = result
        if self.chaos.strikes("answers to somebody else"):
            answer["id"] = _NOBODYS if self.chaos.strikes("wrong numbers") else str(request_id)
        body = jsontext.encode(answer)
        if self.chaos.strikes("garbage"):
            choice = self.chaos.size("garbage", 5) - 1
            body = (b"{}", b"[", b"\xff\xfe", b"null", body[:-2])[choice]
        return body

    async def _work(self, params: Mapping[str, Any]) -> dict[str, Any]:
        arguments = params["arguments"]
        self.on_arrival(self.name, params["name"], arguments)
        self.effects.append(Effect(trio.current_time(), self.name, params["name"], arguments))
        if self.chaos.strikes("slow work"):
            await trio.sleep(self.chaos.seconds("slow work", 0, 20))
        if self.chaos.strikes("tools that fail"):
            return {"content": [], "isError": True}
        return {"content": [{"type": "text", "text": str(arguments["n"])}]}
