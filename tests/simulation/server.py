"""A simulated MCP server: does what it is asked, remembers it, and fails in every way it can."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import anyio
import httpcore
from attrs import define, field

from sark_trio import jsontext
from tests.simulation.network import Chaos, Wire

__all__ = ["Effect", "SimServer"]

_TOOLS = [
    {
        "name": name,
        "inputSchema": {"type": "object", "properties": {"n": {"type": "integer"}}},
        "annotations": {"readOnlyHint": name == "read", "idempotentHint": name == "put"},
    }
    for name in ("read", "put", "write", "admin")
]
_STATUS = {200: "OK", 202: "Accepted", 400: "Bad Request", 404: "Not Found"}


@define(frozen=True)
class Effect:
    """A call that was executed."""

    at: float
    server: str
    tool: str
    arguments: Mapping[str, Any]


@define(eq=False)
class SimServer:
    """One server. ``effects`` is what it did, whoever heard of it."""

    name: str
    chaos: Chaos
    modern: bool
    effects: list[Effect] = field(factory=list)
    #: Told of each call before it is executed.
    on_arrival: Any = None
    sessions: set[str] = field(factory=set)
    wires: list[Wire] = field(factory=list)
    down: bool = False
    _minted: int = 0

    async def accept(self, wire: Wire) -> None:
        """Serve one connection."""
        if self.down:
            wire.reset()
            return
        self.wires.append(wire)
        try:
            with suppress(httpcore.NetworkError, ValueError):
                while await self._exchange(wire):
                    pass
        finally:
            self.wires.remove(wire)
            wire.close()

    async def restart(self) -> None:
        """Die, and come back without any memory of sessions."""
        self.down = True
        self.sessions.clear()
        for wire in list(self.wires):
            wire.reset()
        await anyio.sleep(self.chaos.seconds(0, 3))
        self.down = False

    async def _exchange(self, wire: Wire) -> bool:
        request = await _receive(wire)
        if request is None:
            return False
        method, headers, body = request
        if self.chaos.strikes("dropped requests"):
            return False
        if self.chaos.strikes("errors before work"):
            return await self._status(wire)
        if method != "POST":
            if method == "DELETE":
                self.sessions.discard(headers.get("mcp-session-id", ""))
            await _reply(wire, 405 if method == "GET" else 200, b"")
            return True
        message = jsontext.decode(body)
        if "id" not in message:
            await _reply(wire, 202, b"")
            return True
        return await self._answer(wire, headers, message)

    async def _status(self, wire: Wire) -> bool:
        status = (500, 502, 503, 429, 401)[self.chaos.size(5) - 1]
        more = b"retry-after: 1\r\n" if status in {429, 503} else b""
        await _reply(wire, status, b"no", more=more, kind=b"text/plain")
        return True

    async def _answer(self, wire: Wire, headers: Mapping[str, str], message: Any) -> bool:
        method, session = message["method"], headers.get("mcp-session-id")
        if not self.modern and method != "initialize" and session not in self.sessions:
            if method == "server/discover":
                error = {"code": -32601, "message": "no such method"}
                await _reply(wire, 400, _failure(message, error))
                return True
            await _reply(wire, 404, b"")
            return True
        more = b""
        if method == "tools/call":
            result = await self._work(message["params"])
            if self.chaos.strikes("dropped answers"):
                return False
        elif method == "tools/list":
            result = {"tools": _TOOLS}
        elif method == "initialize" and not self.modern:
            self._minted += 1
            name = f"{self.name}-{self._minted}"
            self.sessions.add(name)
            more = b"mcp-session-id: %s\r\n" % name.encode()
            result = {"protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": {}}
        elif method == "server/discover" and self.modern:
            result = {"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}}
        else:
            error = {"code": -32601, "message": "no such method"}
            await _reply(wire, 200, _failure(message, error))
            return True
        if self.modern:
            result |= {"resultType": "complete"}
        return await self._send(wire, message, result, more)

    async def _work(self, params: Mapping[str, Any]) -> dict[str, Any]:
        arguments = params["arguments"]
        if self.on_arrival is not None:
            self.on_arrival(self.name, params["name"], arguments)
        self.effects.append(Effect(anyio.current_time(), self.name, params["name"], arguments))
        if self.chaos.strikes("slow work"):
            await anyio.sleep(self.chaos.seconds(0, 20))
        if self.chaos.strikes("tools that fail"):
            return {"content": [], "isError": True}
        return {"content": [{"type": "text", "text": str(arguments["n"])}]}

    async def _send(self, wire: Wire, message: Any, result: Any, more: bytes) -> bool:
        answer = {"jsonrpc": "2.0", "id": message["id"], "result": result}
        if self.chaos.strikes("answers to somebody else"):
            answer["id"] = 999_999 if self.chaos.strikes("wrong numbers") else str(message["id"])
        body = jsontext.encode(answer)
        if self.chaos.strikes("garbage"):
            body = (b"{}", b"[", b"\xff\xfe", b"null", body[:-2])[self.chaos.size(5) - 1]
        if not self.chaos.strikes("event streams"):
            if self.chaos.strikes("cut answers"):
                await wire.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n" % len(body))
                return False
            await _reply(wire, 200, body, more=more)
            return True
        events = [b": wait\n\n", b"event: message\ndata: %s\n\n" % body]
        if self.chaos.strikes("answers twice"):
            events.append(events[-1])
        if self.chaos.strikes("cut streams"):
            events.pop()
        head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked"
        await wire.write(head + b"\r\n" + more + b"\r\n")
        for event in events:
            await wire.write(b"%x\r\n%s\r\n" % (len(event), event))
        if self.chaos.strikes("streams without an end"):
            await anyio.sleep(self.chaos.seconds(0, 40))
            return False
        await wire.write(b"0\r\n\r\n")
        return True


def _failure(message: Any, error: Any) -> bytes:
    return jsontext.encode({"jsonrpc": "2.0", "id": message["id"], "error": error})


async def _reply(
    wire: Wire, status: int, body: bytes, *, more: bytes = b"", kind: bytes = b"application/json"
) -> None:
    reason = _STATUS.get(status, "Odd").encode()
    head = b"HTTP/1.1 %d %s\r\ncontent-length: %d\r\n" % (status, reason, len(body))
    if body:
        head += b"content-type: %s\r\n" % kind
    await wire.write(head + more + b"\r\n" + body)


async def _receive(wire: Wire) -> tuple[str, dict[str, str], bytes] | None:
    """One request; ``None`` at the end."""
    data = b""
    while b"\r\n\r\n" not in data:
        piece = await wire.read(65_536)
        if not piece:
            return None
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    pairs = (line.partition(":") for line in lines[1:])
    headers = {name.lower(): value.strip() for name, _, value in pairs}
    length = int(headers.get("content-length", "0"))
    while len(body) < length:
        piece = await wire.read(65_536)
        if not piece:
            return None
        body += piece
    return lines[0].split()[0], headers, body
