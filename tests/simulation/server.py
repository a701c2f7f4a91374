"""A simulated MCP server behind HTTP, and the policy service beside it: and all their failures."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import httpcore
import trio
from attrs import define, field

from sark_trio import jsontext
from tests.simulation.desk import Desk
from tests.simulation.network import Chaos, Wire

__all__ = ["PolicyService", "SimServer"]

_STATUS = {200: "OK", 202: "Accepted", 400: "Bad Request", 404: "Not Found"}
#: How OPA must not answer (laws, fault matrix, row 46), beside errors and half answers.
_NO_DECISIONS = (
    b"{}",
    b'{"result":null}',
    b'{"result":"true"}',
    b'{"result":1}',
    b'{"result":{}}',
    b'{"result":{"allow":"yes"}}',
    b'{"result":{"allow":true,"deny":["x"]}}',
    b'{"result":tru',
    b"<html>",
)


@define(eq=False)
class _Listener:
    """Whoever serves connections."""

    chaos: Chaos
    down: bool = field(default=False, init=False)
    wires: list[Wire] = field(factory=list, init=False)

    async def accept(self, wire: Wire) -> None:
        """Serve one connection."""
        if self.down:
            wire.reset()
            wire.close()
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
        """Die, and come back without any memory."""
        self.down = True
        for wire in list(self.wires):
            wire.reset()
        await trio.sleep(self.chaos.seconds("restarts", 0, 3))
        self.down = False

    async def _exchange(self, wire: Wire) -> bool:
        """Serve one request; whether another one may follow."""
        raise NotImplementedError


@define(eq=False)
class PolicyService(_Listener):
    """Open Policy Agent, as far as a client sees it: allows everything but the tool ``admin``."""

    #: Numbers of the calls that it has allowed.
    allowed: set[int] = field(factory=set)

    async def _exchange(self, wire: Wire) -> bool:
        request = await _receive(wire)
        if request is None:
            return False
        question = jsontext.decode(request[2])["input"]
        if self.chaos.strikes("slow policy"):
            await trio.sleep(self.chaos.seconds("slow policy", 0, 2))
        if self.chaos.strikes("policy errors"):
            await _reply(wire, 500, b"no", kind=b"text/plain")
            return True
        if self.chaos.strikes("policy without a decision"):
            choice = self.chaos.size("policy without a decision", len(_NO_DECISIONS)) - 1
            await _reply(wire, 200, _NO_DECISIONS[choice])
            return True
        allow = question["tool_name"] != "admin"
        if allow:
            self.allowed.add(question["parameters"]["n"])
        await _reply(wire, 200, jsontext.encode({"result": {"allow": allow, "cache_ttl": 1}}))
        return True


@define(eq=False)
class SimServer(_Listener):
    """One MCP server."""

    desk: Desk = field(kw_only=True)
    sessions: set[str] = field(factory=set, init=False)
    _minted: int = field(default=0, init=False)

    @property
    def name(self) -> str:
        return self.desk.name

    async def restart(self) -> None:
        """Die, and come back without any memory of sessions."""
        self.sessions.clear()
        await super().restart()

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
        status = (500, 502, 503, 429, 401)[self.chaos.size("errors before work", 5) - 1]
        more = b"retry-after: 1\r\n" if status in {429, 503} else b""
        await _reply(wire, status, b"no", more=more, kind=b"text/plain")
        return True

    async def _answer(self, wire: Wire, headers: Mapping[str, str], message: Any) -> bool:
        method, session = message["method"], headers.get("mcp-session-id")
        in_session = self.desk.modern or session in self.sessions
        if not in_session and method not in {"initialize", "server/discover"}:
            await _reply(wire, 404, b"")
            return True
        result = await self.desk.result(method, message.get("params", {}))
        if method == "tools/call" and self.chaos.strikes("dropped answers"):
            return False
        body = self.desk.encoded(message["id"], result)
        if result is None:
            await _reply(wire, 200 if in_session else 400, body)
            return True
        return await self._send(wire, body, self._new_session(method))

    def _new_session(self, method: str) -> bytes:
        if method != "initialize" or self.desk.modern:
            return b""
        self._minted += 1
        name = f"{self.name}-{self._minted}"
        self.sessions.add(name)
        return b"mcp-session-id: %s\r\n" % name.encode()

    async def _send(self, wire: Wire, body: bytes, more: bytes) -> bool:
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
            await trio.sleep(self.chaos.seconds("streams without an end", 0, 40))
            return False
        await wire.write(b"0\r\n\r\n")
        return True


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
