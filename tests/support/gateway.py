"""A gateway on a real socket, and a client that speaks plain HTTP with it, as curl does."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import anyio
import anyio.abc
import anyio.lowlevel
import h11
from attrs import define, field

from sark_trio import GatewayClient
from sark_trio.gateway import Gateway, create_app, serve
from sark_trio.machines.sse import SSEEvent, SSEParser
from sark_trio.transports.memory import Incoming

__all__ = [
    "Answer",
    "Legacy",
    "Reader",
    "Served",
    "Stuck",
    "ask",
    "connected",
    "envelope",
    "eventually",
    "head",
    "read",
    "serving",
    "sse_events",
]

#: Longer than anything here takes on a loaded machine: a test that gets there has hung.
HUNG_S = 30.0
META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
}


@define
class Answer:
    """One response; header names are lower case."""

    status: int = 0
    headers: dict[str, str] = field(factory=dict)
    body: bytes = b""

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> Any:
        return self.json["error"]


@define(eq=False)
class Stuck:
    """A step of a scripted server: takes the call, and answers when it is told to."""

    arrived: anyio.Event = field(factory=anyio.Event)
    goes_on: anyio.Event = field(factory=anyio.Event)

    async def __call__(self, incoming: Incoming) -> dict[str, Any]:
        incoming.receive()
        self.arrived.set()
        await self.goes_on.wait()
        return {"content": [{"type": "text", "text": "late"}]}


async def eventually(check: Callable[[], bool]) -> None:
    """Wait until *check* holds; the block around it bounds the time."""
    while not check():
        await anyio.lowlevel.checkpoint()


@define(eq=False)
class Served:
    """A gateway that serves."""

    url: str
    app: Gateway
    client: GatewayClient
    #: Cancelling it ends the serving, gracefully.
    scope: anyio.CancelScope
    ended: anyio.Event = field(factory=anyio.Event)

    async def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        return await ask(self.url, method, path, body, **headers)

    async def rpc(self, method: str, params: Mapping[str, Any], **headers: str) -> Answer:
        """A modern request, complete but for what *headers* overrule."""
        own, body = envelope(method, params)
        return await self.ask("POST", "/mcp", body, **{**own, **headers})

    async def stop(self) -> None:
        """End the serving, and wait until it has ended."""
        self.scope.cancel()
        await self.ended.wait()


def envelope(method: str, params: Mapping[str, Any]) -> tuple[dict[str, str], dict[str, Any]]:
    """Headers and body of a modern request."""
    headers = {"MCP_Protocol_Version": "2026-07-28", "Mcp_Method": method}
    if "name" in params:
        headers["Mcp_Name"] = str(params["name"])
    meta = {**META, **params.get("_meta", {})}
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": {**params, "_meta": meta}}
    return headers, body


class Legacy:
    """A client of the session era, in requests of its own making."""

    def __init__(self, served: Served, **headers: str) -> None:
        self.served = served
        self.headers = headers
        self.ids = iter(range(1, 1000))

    async def post(self, body: Any, **headers: str) -> Answer:
        return await self.served.ask("POST", "/mcp", body, **{**self.headers, **headers})

    async def initialize(self, version: str = "2025-11-25", **capabilities: Any) -> Answer:
        params = {"protocolVersion": version, "capabilities": capabilities, "clientInfo": {}}
        body = {"jsonrpc": "2.0", "id": next(self.ids), "method": "initialize", "params": params}
        found = await self.post(body)
        if found.status == 200 and "result" in found.json:
            self.headers["Mcp_Session_Id"] = found.headers["mcp-session-id"]
        return found

    async def call(self, method: str, params: Any = None, **headers: str) -> Answer:
        body = {"jsonrpc": "2.0", "id": next(self.ids), "method": method, "params": params or {}}
        return await self.post(body, **headers)

    async def notify(self, method: str, params: Any = None) -> Answer:
        return await self.post({"jsonrpc": "2.0", "method": method, "params": params or {}})


@asynccontextmanager
async def serving(
    client: GatewayClient, *, grace_s: float = 5.0, **options: Any
) -> AsyncIterator[Served]:
    """Serve *client* on a free port for the length of a block."""
    app = create_app(client, **options)
    with anyio.fail_after(HUNG_S):
        async with anyio.create_task_group() as tasks:
            served = Served("", app, client, anyio.CancelScope())

            async def run(*, task_status: anyio.abc.TaskStatus[str]) -> None:
                try:
                    with served.scope:
                        await serve(app, port=0, grace_s=grace_s, task_status=task_status)
                finally:
                    served.ended.set()

            served.url = await tasks.start(partial(run))
            yield served
            await served.stop()


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[anyio.abc.SocketStream]:
    """A connection to the server at *url*."""
    address = urlsplit(url)
    stream = await anyio.connect_tcp(str(address.hostname), int(address.port or 0))
    async with stream:
        yield stream


def head(url: str, method: str, path: str, body: bytes, headers: Mapping[str, str]) -> bytes:
    """A request, down to the byte; underscores in names of headers stand for hyphens."""
    named = {name.replace("_", "-").lower(): value for name, value in headers.items()}
    named = {"host": urlsplit(url).netloc, "connection": "close", **named}
    if body:
        named = {"content-type": "application/json", "content-length": str(len(body)), **named}
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in named.items())]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


async def ask(url: str, method: str, path: str, body: Any = None, **headers: str) -> Answer:
    """One request on a connection of its own, and its whole response."""
    data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    async with connected(url) as stream:
        await stream.send(head(url, method, path, data, headers))
        return await read(stream, method)


async def read(stream: anyio.abc.SocketStream, method: str = "GET") -> Answer:
    """One whole response to a request of *method*."""
    parser, answer = h11.Connection(h11.CLIENT), Answer()
    parser.send(h11.Request(method=method, target="/", headers=[("host", "x")]))
    parser.send(h11.EndOfMessage())
    while True:
        event = parser.next_event()
        if event is h11.NEED_DATA:
            try:
                parser.receive_data(await stream.receive())
            except anyio.EndOfStream:
                parser.receive_data(b"")
        elif isinstance(event, h11.Response):
            answer.status = event.status_code
            answer.headers = {name.decode(): value.decode() for name, value in event.headers}
        elif isinstance(event, h11.Data):
            answer.body += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage | h11.ConnectionClosed):
            return answer


class Reader:
    """Reads one event stream, byte by byte as it comes."""

    def __init__(self, stream: anyio.abc.SocketStream) -> None:
        self._stream, self._http, self._sse = stream, h11.Connection(h11.CLIENT), SSEParser()
        self._http.send(h11.Request(method="GET", target="/", headers=[("host", "x")]))
        self._http.send(h11.EndOfMessage())
        self._waiting: list[SSEEvent] = []
        self.status, self.headers, self.body, self.ended = 0, {}, b"", False

    async def open(self) -> None:
        """Read until there is a response: from then on every event is on its way to us."""
        while not self.status:
            await self._read()

    async def events(self, count: int) -> list[tuple[str, Any]]:
        """The next *count* events, without their ids."""
        return [(one.event, json.loads(one.data)) for one in await self.raw(count)]

    async def raw(self, count: int) -> list[SSEEvent]:
        while len(self._waiting) < count and not self.ended:
            await self._read()
        found, self._waiting = self._waiting[:count], self._waiting[count:]
        return found

    async def rest(self) -> list[tuple[str, Any]]:
        """All events until the end of the stream."""
        return await self.events(1_000_000)

    async def _read(self) -> None:
        event = self._http.next_event()
        if event is h11.NEED_DATA:
            try:
                self._http.receive_data(await self._stream.receive())
            except (anyio.EndOfStream, anyio.BrokenResourceError):
                self._http.receive_data(b"")
        elif isinstance(event, h11.Response):
            self.status = event.status_code
            self.headers = {name.decode(): value.decode() for name, value in event.headers}
        elif isinstance(event, h11.Data):
            self.body += bytes(event.data)
            self._waiting += [one for one in self._sse.feed(bytes(event.data)) if one]
        else:
            self.ended = True


def sse_events(body: bytes) -> list[Any]:
    """The messages of an event stream."""
    assert b"\r" not in body
    found = [part for part in body.split(b"\n\n") if part and not part.startswith(b":")]
    assert all(part.startswith(b"event: message\ndata: ") for part in found)
    return [json.loads(part.partition(b"data: ")[2]) for part in found]
