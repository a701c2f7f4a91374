"""Raw HTTP servers on real loopback sockets that do as a script says, down to the byte.

A script is an async function that gets a :class:`Peer`: one accepted connection. It reads
requests and sends whatever it likes. :func:`modern` and :func:`legacy` make scripts that shake
hands as an MCP server does, and leave every other request to a handler.
"""

from __future__ import annotations

import gc
import json
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
from anyio.streams.tls import TLSListener
from attrs import define, field

from sark_trio.transports.http import HttpTransport

__all__ = [
    "Handler",
    "Peer",
    "RawServer",
    "Received",
    "Script",
    "event",
    "legacy",
    "modern",
    "no_leaked_descriptors",
    "open_transport",
    "response",
    "result",
    "serve",
    "sse",
    "streaming",
]

DISCOVERY = {
    "resultType": "complete",
    "supportedVersions": ["2026-07-28"],
    "capabilities": {"tools": {}},
    "_meta": {"io.modelcontextprotocol/serverInfo": {"name": "scripted", "version": "1"}},
    "ttlMs": 0,
    "cacheScope": "private",
}


@define
class Received:
    """One request as the server saw it; header names are lower case."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body) if self.body else {}

    @property
    def rpc(self) -> str:
        return str(self.json.get("method", ""))

    @property
    def id(self) -> Any:
        return self.json.get("id")


@define(eq=False)
class Peer:
    """One accepted connection."""

    number: int
    server: RawServer
    stream: anyio.abc.ByteStream
    buffer: bytearray = field(factory=bytearray)

    async def receive(self) -> Received:
        """The next request. Ends the script where the client closes instead."""
        while (end := self.buffer.find(b"\r\n\r\n")) < 0:
            self.buffer += await self.stream.receive()
        lines = bytes(self.buffer[:end]).decode("ascii").split("\r\n")
        del self.buffer[: end + 4]
        method, target, _ = lines[0].split(" ")
        headers = {}
        for line in lines[1:]:
            name, _, value = line.partition(": ")
            assert name.lower() not in headers, f"{name} stands twice"
            headers[name.lower()] = value
        size = int(headers.get("content-length", "0"))
        while len(self.buffer) < size:
            self.buffer += await self.stream.receive()
        body = bytes(self.buffer[:size])
        del self.buffer[:size]
        received = Received(method, target, headers, body)
        self.server.requests.append(received)
        return received

    async def send(self, data: bytes) -> None:
        await self.stream.send(data)

    async def wait_closed(self) -> None:
        """Until the client has closed or reset the connection."""
        with _ended():
            while True:
                self.buffer += await self.stream.receive()

    async def reset(self) -> None:
        """Close with RST instead of FIN."""
        raw = self.stream.extra(anyio.abc.SocketAttribute.raw_socket)
        if raw.fileno() < 0:
            return  # closed already
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await anyio.aclose_forcefully(self.stream)


Script = Callable[[Peer], Awaitable[None]]
Handler = Callable[[Peer, Received], Awaitable[None]]


@define(eq=False)
class RawServer:
    """What a scripted server saw."""

    port: int = 0
    scheme: str = "http"
    connections: int = 0
    open: int = 0
    requests: list[Received] = field(factory=list)
    closed: anyio.Event = field(factory=anyio.Event)

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}/mcp"

    @property
    def calls(self) -> list[str]:
        """The JSON-RPC methods that came, in order."""
        return [received.rpc for received in self.requests]


@asynccontextmanager
async def serve(
    *scripts: Script, tls: ssl.SSLContext | None = None, port: int = 0
) -> AsyncIterator[RawServer]:
    """Run *scripts*: the n-th connection gets the n-th, all later ones the last."""
    server = RawServer(scheme="http" if tls is None else "https")
    listener: Any = await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=port)
    server.port = listener.extra(anyio.abc.SocketAttribute.local_port)
    if tls is not None:
        listener = TLSListener(listener, tls, standard_compatible=False)

    async def handle(stream: anyio.abc.ByteStream) -> None:
        number = server.connections
        server.connections += 1
        server.open += 1
        try:
            with _ended():
                async with stream:
                    await scripts[min(number, len(scripts) - 1)](Peer(number, server, stream))
        finally:
            server.open -= 1
            server.closed.set()

    async with listener, anyio.create_task_group() as group:
        group.start_soon(listener.serve, handle)
        try:
            yield server
        finally:
            group.cancel_scope.cancel()


@asynccontextmanager
async def open_transport(url: str, **options: Any) -> AsyncIterator[HttpTransport]:
    """A running transport, closed at the end."""
    transport = HttpTransport(url, **options)
    async with anyio.create_task_group() as group:
        await group.start(transport.run)
        try:
            yield transport
        finally:
            with anyio.CancelScope(shield=True):
                await transport.aclose()


def _ended() -> suppress:
    return suppress(anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError)


@contextmanager
def no_leaked_descriptors() -> Iterator[None]:
    """Fail where the block leaves a descriptor open that only the garbage collector would close."""
    gc.collect()
    gc.disable()
    before = _descriptors()
    try:
        yield
        left = _descriptors() - before
        assert not left, f"descriptors left open: {left}"
    finally:
        gc.enable()


def _descriptors() -> set[str]:
    found = set()
    for entry in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # the descriptor of this very listing
            found.add(f"{entry.name} {entry.readlink()}")
    return found


# Bytes.


def response(
    body: bytes = b"", status: str = "200 OK", content_type: str = "application/json", **more: str
) -> bytes:
    """A whole response with ``Content-Length``; *more* headers with ``_`` for ``-``."""
    lines = [f"HTTP/1.1 {status}", f"content-length: {len(body)}"]
    if content_type:
        lines.append(f"content-type: {content_type}")
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in more.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def result(received: Received, value: Any = None, **more: str) -> bytes:
    """The JSON response with the result *value* to *received*."""
    message = {"jsonrpc": "2.0", "id": received.id, "result": value or {"content": []}}
    return response(json.dumps(message).encode(), **more)


def error(received: Received, code: int, status: str = "200 OK", **members: Any) -> bytes:
    """The JSON response with a JSON-RPC error."""
    failure = {"code": code, "message": "no", **members}
    message = {"jsonrpc": "2.0", "id": received.id, "error": failure}
    return response(json.dumps(message).encode(), status)


SSE_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
)
SSE_END = b"0\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def event(message: Any, *, kind: str | None = None, event_id: str | None = None) -> bytes:
    """One event in a chunk of its own."""
    text = "" if kind is None else f"event: {kind}\n"
    text += "" if event_id is None else f"id: {event_id}\n"
    data = message if isinstance(message, str) else json.dumps(message)
    return chunk(f"{text}data: {data}\n\n".encode())


def sse(*messages: Any) -> bytes:
    """A whole event stream."""
    return SSE_HEAD + b"".join(event(message) for message in messages) + SSE_END


# Handshakes.


def modern(handler: Handler | None = None) -> Script:
    """A stateless server of 2026-07-28."""

    async def script(peer: Peer) -> None:
        while True:
            received = await peer.receive()
            if received.rpc == "server/discover":
                await peer.send(result(received, DISCOVERY))
            elif handler is not None:
                await handler(peer, received)
            else:
                await peer.send(result(received))

    return script


def legacy(
    handler: Handler | None = None,
    *,
    version: str = "2025-11-25",
    session: Callable[[], str | None] = lambda: "session-1",
) -> Script:
    """A server of the session era; *session* names each new session."""

    async def script(peer: Peer) -> None:
        while True:
            received = await peer.receive()
            if received.rpc == "server/discover":
                await peer.send(error(received, -32601, "400 Bad Request"))
            elif received.rpc == "initialize":
                session_id = session()
                more = {} if session_id is None else {"Mcp_Session_Id": session_id}
                named = {"name": "scripted", "version": "1"}
                about = {"protocolVersion": version, "capabilities": {}, "serverInfo": named}
                await peer.send(result(received, about, **more))
            elif received.id is None or received.method == "DELETE":
                await peer.send(response(status="202 Accepted", content_type=""))
            elif handler is not None:
                await handler(peer, received)
            else:
                await peer.send(result(received))

    return script


@define(eq=False)
class _Sorting(Peer):
    """A connection that leaves GET requests, and what the client answers, to *handler*."""

    handler: Handler = field(kw_only=True)

    async def receive(self) -> Received:
        while True:
            received = await Peer.receive(self)
            if received.method != "GET" and not {"result", "error"} & received.json.keys():
                return received
            await self.handler(self, received)


def streaming(handler: Handler, **options: Any) -> Script:
    """A :func:`legacy` server whose *handler* sees everything but the handshake."""
    plain = legacy(handler, **options)

    async def script(peer: Peer) -> None:
        sorting = _Sorting(peer.number, peer.server, peer.stream, peer.buffer, handler=handler)
        await plain(sorting)

    return script
