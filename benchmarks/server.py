"""The upstream of the benchmarks: a small MCP server, fast enough not to be what is measured.

A real server process on a real socket: it parses each request's head, decodes each JSON-RPC
message and answers with the right id, in both eras of the protocol. It prints its URL, serves
until its standard input is closed, and keeps nothing.

    python benchmarks/server.py
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import msgspec

MODERN = "2026-07-28"
LEGACY = "2025-11-25"
TOOL = {
    "name": "echo",
    "description": "Answers with the text it was given.",
    "inputSchema": {
        "type": "object",
        "properties": {"text": {"type": "string"}},
        "required": ["text"],
    },
    "annotations": {"readOnlyHint": True},
}
INFO = {"name": "bench", "version": "1"}

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


def answer(message: dict[str, Any]) -> dict[str, Any] | None:
    """The result of one request; ``None`` for a notification."""
    method, params = message["method"], message.get("params", {})
    if "id" not in message:
        return None
    if method == "tools/call":
        text = params["arguments"]["text"]
        return {"resultType": "complete", "content": [{"type": "text", "text": text}]}
    if method == "tools/list":
        return {
            "resultType": "complete",
            "tools": [TOOL],
            "ttlMs": 3_600_000,
            "cacheScope": "public",
        }
    if method == "server/discover":
        return {
            "resultType": "complete",
            "supportedVersions": [MODERN],
            "capabilities": {"tools": {}},
            "_meta": {"io.modelcontextprotocol/serverInfo": INFO},
            "ttlMs": 3_600_000,
            "cacheScope": "public",
        }
    if method == "initialize":
        return {"protocolVersion": LEGACY, "capabilities": {"tools": {}}, "serverInfo": INFO}
    return {}


class Connection(asyncio.Protocol):
    """HTTP/1.1 with keep-alive and pipelining; bodies by Content-Length only."""

    def connection_made(self, transport: asyncio.WriteTransport) -> None:  # type: ignore[override]
        self.transport = transport
        self.buffer = bytearray()

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while self._take_one():
            pass

    def _take_one(self) -> bool:
        end = self.buffer.find(b"\r\n\r\n")
        if end < 0:
            return False
        head = bytes(self.buffer[:end]).lower()
        if not head.startswith(b"post "):
            self._send(b"405 Method Not Allowed", b"")
            del self.buffer[: end + 4]
            return True
        length = int(head.partition(b"content-length:")[2].split(b"\r\n", 1)[0])
        stop = end + 4 + length
        if len(self.buffer) < stop:
            return False
        message = _decode(bytes(self.buffer[end + 4 : stop]))
        del self.buffer[:stop]
        result = answer(message)
        if result is None:
            self._send(b"202 Accepted", b"")
        else:
            self._send(
                b"200 OK", _encode({"jsonrpc": "2.0", "id": message["id"], "result": result})
            )
        return True

    def _send(self, status: bytes, body: bytes) -> None:
        self.transport.write(
            b"HTTP/1.1 %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
            % (status, len(body), body)
        )


async def main() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Connection, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    print(f"http://127.0.0.1:{port}/mcp", flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    server.close()


if __name__ == "__main__":
    try:
        import uvloop
    except ImportError:
        asyncio.run(main())
    else:
        uvloop.run(main())
