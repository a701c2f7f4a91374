"""The gateway of the benchmarks: the registry's REST interface, fast enough not to be measured.

It lists 10,000 servers of one tool each, page by page, and echoes every call. It prints its base
URL, serves until its standard input is closed, and keeps nothing.

    python benchmarks/registry.py
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec

SERVERS = 10_000

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


def server_of(number: int) -> dict[str, Any]:
    """A server, as the original system's gateway describes it."""
    return {
        "server_id": f"id-{number}",
        "server_name": f"server-{number}",
        "server_url": "http://127.0.0.1:1/",
        "health_status": "healthy",
        "tools_count": 1,
    }


def tool_of(number: int) -> dict[str, Any]:
    """The tool of a server."""
    return {
        "tool_name": "echo",
        "server_name": f"server-{number}",
        "description": "Says it again.",
        "parameters": [{"name": "text", "type": "string", "required": True}],
    }


def answer(method: str, target: str, body: bytes) -> tuple[bytes, Any]:
    """Status line and JSON of one request."""
    url = urlsplit(target)
    query = {name: values[0] for name, values in parse_qs(url.query).items()}
    offset, limit = int(query.get("offset", 0)), int(query.get("limit", 100))
    match [method, *url.path.split("/")[1:]]:
        case ["POST", "api", "v1", "invoke"]:
            said = _decode(body)["parameters"]
            return b"200 OK", {"status": "success", "result": {"echo": said}}
        case ["GET", "api", "v1", "servers"]:
            numbers = range(SERVERS)[offset : offset + limit]
            return b"200 OK", {"servers": [server_of(number) for number in numbers]}
        case ["GET", "api", "v1", "servers", name] if _number(name) is not None:
            return b"200 OK", server_of(_number(name) or 0)
        case ["GET", "api", "v1", "tools"]:
            named = range(SERVERS)
            if "server" in query:
                found = _number(query["server"])
                named = range(0) if found is None else range(found, found + 1)
            return b"200 OK", {"tools": [tool_of(n) for n in named[offset : offset + limit]]}
        case ["GET", "health"]:
            return b"200 OK", {"status": "healthy"}
    return b"404 Not Found", {"detail": "not here"}


def _number(name: str) -> int | None:
    digits = name.removeprefix("server-")
    return int(digits) if digits.isdecimal() and int(digits) < SERVERS else None


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
        head = bytes(self.buffer[:end])
        found = head.lower().partition(b"content-length:")[2]
        stop = end + 4 + int(found.split(b"\r\n", 1)[0] or 0)
        if len(self.buffer) < stop:
            return False
        body = bytes(self.buffer[end + 4 : stop])
        del self.buffer[:stop]
        method, target, _ = head.split(b"\r\n", 1)[0].decode("ascii").split(" ")
        status, value = answer(method, target, body)
        data = _encode(value)
        self.transport.write(
            b"HTTP/1.1 %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
            % (status, len(data), data)
        )
        return True


@contextmanager
def registry() -> Iterator[str]:
    """The base URL of a registry in a process of its own."""
    with subprocess.Popen(
        [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.stdin.close()


async def main() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Connection, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    print(f"http://127.0.0.1:{port}", flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    server.close()


if __name__ == "__main__":
    try:
        import uvloop
    except ImportError:
        asyncio.run(main())
    else:
        uvloop.run(main())
