"""WebSocket servers on real loopback sockets that do as a script says, frame by frame.

Their framing is written out here (RFC 6455, section 5), so that they can break it. They are
scripts for :func:`tests.support.http_servers.serve`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
from attrs import define, field

from sark_trio.transports.base import Outgoing, Transport
from tests.support.http_servers import Peer, Received, Script

__all__ = [
    "Socket",
    "accepted",
    "call",
    "frame",
    "legacy_socket",
    "modern_socket",
    "running",
    "url_of",
]

TEXT, BINARY, CLOSE, PING, PONG = 0x1, 0x2, 0x8, 0x9, 0xA
CONTINUATION = 0x0
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
#: Longer than anything here takes on a loaded machine: a test that gets there has hung.
HUNG_S = 30.0


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True) -> bytes:
    """One frame of a server's: unmasked."""
    head = bytes([opcode | (0x80 if fin else 0)])
    if len(payload) < 126:
        return head + bytes([len(payload)]) + payload
    if len(payload) < 2**16:
        return head + b"\x7e" + struct.pack("!H", len(payload)) + payload
    return head + b"\x7f" + struct.pack("!Q", len(payload)) + payload


@define(eq=False)
class Socket:
    """One accepted WebSocket, seen from the server."""

    peer: Peer
    request: Received
    #: Every message that came, decoded.
    messages: list[Any] = field(factory=list)
    pings: int = 0
    #: The code of the client's close frame.
    closed: int | None = None

    async def receive_frame(self) -> tuple[int, bytes]:
        head = await self._take(2)
        size = head[1] & 0x7F
        if size == 126:
            (size,) = struct.unpack("!H", await self._take(2))
        elif size == 127:
            (size,) = struct.unpack("!Q", await self._take(8))
        assert head[1] & 0x80, "a client masks its frames"
        mask = await self._take(4)
        payload = await self._take(size)
        repeated = (mask * (size // 4 + 1))[:size]
        plain = int.from_bytes(payload, "big") ^ int.from_bytes(repeated, "big")
        return head[0] & 0x0F, plain.to_bytes(size, "big")

    async def receive(self) -> Any:
        """The next message, decoded; pings are answered. Ends the script at a close frame."""
        while True:
            opcode, payload = await self.receive_frame()
            if opcode == PING:
                self.pings += 1
                await self.peer.send(frame(PONG, payload))
            elif opcode == CLOSE:
                self.closed = struct.unpack("!H", payload[:2])[0] if payload else 1005
                await self.peer.send(frame(CLOSE, payload))
                raise anyio.EndOfStream
            elif opcode == TEXT:
                message = json.loads(payload)
                self.messages.append(message)
                return message

    async def send(self, message: Any) -> None:
        await self.peer.send(frame(TEXT, json.dumps(message).encode()))

    async def result(self, request: Any, value: Any = None) -> None:
        result = {"content": []} if value is None else value
        await self.send({"jsonrpc": "2.0", "id": request["id"], "result": result})

    async def close(self, code: int, reason: str = "") -> None:
        await self.peer.send(frame(CLOSE, struct.pack("!H", code) + reason.encode()))

    async def wait_closed(self) -> None:
        """Until the client says goodbye, which is answered, or is gone."""
        while True:
            await self.receive()

    async def _take(self, size: int) -> bytes:
        while len(self.peer.buffer) < size:
            self.peer.buffer += await self.peer.stream.receive()
        data = bytes(self.peer.buffer[:size])
        del self.peer.buffer[:size]
        return data


Handler = Callable[[Socket, Any], Awaitable[None]]


async def accepted(peer: Peer, *, subprotocol: str | None = "mcp", extra: str = "") -> Socket:
    """Accept the client's opening handshake."""
    request = await peer.receive()
    key = request.headers["sec-websocket-key"].encode()
    accept = base64.b64encode(hashlib.sha1(key + _GUID).digest()).decode()
    lines = [
        "HTTP/1.1 101 Switching Protocols",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Accept: {accept}",
    ]
    if subprotocol is not None:
        lines.append(f"Sec-WebSocket-Protocol: {subprotocol}")
    if extra:
        lines.append(extra)
    await peer.send("\r\n".join(lines).encode() + b"\r\n\r\n")
    return Socket(peer, request)


async def _echo(socket: Socket, message: Any) -> None:
    await socket.result(message)


def legacy_socket(
    handler: Handler = _echo, *, version: str = "2025-11-25", sockets: list[Socket] | None = None
) -> Script:
    """A server of the session era that leaves every request but the handshake's to *handler*."""

    async def script(peer: Peer) -> None:
        socket = await accepted(peer)
        if sockets is not None:
            sockets.append(socket)
        while True:
            message = await socket.receive()
            match message.get("method"):
                case "server/discover":
                    error = {"code": -32601, "message": "no"}
                    await socket.send({"jsonrpc": "2.0", "id": message["id"], "error": error})
                case "initialize":
                    about = {"protocolVersion": version, "capabilities": {}, "serverInfo": {}}
                    await socket.result(message, about)
                case _:
                    if "method" in message and "id" in message:
                        await handler(socket, message)

    return script


def modern_socket(handler: Handler = _echo) -> Script:
    """A stateless server of 2026-07-28."""
    discovery = {
        "resultType": "complete",
        "supportedVersions": ["2026-07-28"],
        "capabilities": {"tools": {}},
    }

    async def script(peer: Peer) -> None:
        socket = await accepted(peer)
        while True:
            message = await socket.receive()
            if message.get("method") == "server/discover":
                await socket.result(message, discovery)
            elif "method" in message and "id" in message:
                await handler(socket, message)

    return script


def url_of(url: str) -> str:
    """The WebSocket URL of a server that says *url*."""
    return f"ws{url.removeprefix('http')}"


@asynccontextmanager
async def running(transport: Transport) -> AsyncIterator[Any]:
    """Run *transport* for the length of a block, then close it."""
    with anyio.fail_after(HUNG_S):
        async with anyio.create_task_group() as tasks:
            await tasks.start(transport.run)
            yield transport
            await transport.aclose()


def call(name: str = "echo", /, **fields: Any) -> Outgoing:
    """A call of that tool."""
    arguments = fields.pop("arguments", {})
    params = {"name": name, "arguments": arguments}
    return Outgoing(method="tools/call", params=params, **fields)
