"""What is fuzzed: one function for each thing that takes bytes from a stranger.

A target returns nothing. It raises only what its docstring in the package allows, which it
catches itself, and it asserts what must hold of anything that was accepted. Whatever comes out
of a target is a finding.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import httpcore
import trio

from sark_trio import jsontext
from sark_trio.auth.challenge import parse_challenges
from sark_trio.auth.metadata import resource_metadata, server_metadata
from sark_trio.client.config import load
from sark_trio.errors import ConfigError, GatewayError, ProtocolError
from sark_trio.governance.audit_verify import verify
from sark_trio.governance.opa import read_answer
from sark_trio.machines.lines import LineSplitter, TooLong
from sark_trio.machines.retry_after import parse_retry_after
from sark_trio.machines.sse import SSEParser, TooLarge
from sark_trio.mcp.codec import decode
from sark_trio.mcp.messages import Failure, Success
from sark_trio.mcp.results import parse_tool_result
from sark_trio.mcp.tools import Tool, ToolRejected, parse_tool
from sark_trio.net.connection import Connection, Request
from sark_trio.net.options import Timeouts
from sark_trio.net.url import parse_url
from sark_trio.transports import _websocket_asyncio, _websocket_trio
from sark_trio.transports._websocket_pipe import Channel, HungUp, Pipe, Upgrade

__all__ = ["DICTIONARY", "TARGETS", "Target"]

Target = Callable[[bytes], None]

#: Far below the real limits, so that the inputs of a fuzzer reach them.
LINE_BYTES_MAX = 256
BODY_BYTES_MAX = 4096

#: Words that no chance would find.
DICTIONARY = (
    *(b"jsonrpc", b"2.0", b"method", b"params", b"result", b"error", b"code", b"message", b"id"),
    *(b"resultType", b"inputRequests", b"requestState", b"content", b"isError", b"inputSchema"),
    *(b"data:", b"event:", b"retry:", b"id:", b"\n\n", b"\r\n", b"\xef\xbb\xbf", b"\xe2\x80\xa8"),
    *(b"HTTP/1.1 200 OK\r\n", b"Content-Length: ", b"Transfer-Encoding: chunked\r\n"),
    *(b"Content-Encoding: gzip\r\n", b"Content-Type: text/event-stream\r\n", b"\r\n\r\n"),
    *(
        b"[servers.x]",
        b"url = ",
        b"command = [",
        b"[policy]",
        b"rego = ",
        b"[audit]",
        b"mcpServers",
    ),
    *(b"resource_metadata=", b"Bearer ", b"realm=", b"issuer", b"token_endpoint", b"scope="),
    *(b"allow", b"deny", b"reason", b"filtered_parameters", b"obligations", b"kind", b"prev"),
    *(
        b"\x81\x02{}",
        b"\x01\x01{",
        b"\x80\x01}",
        b"\x89\x00",
        b"\x88\x02\x03\xe8",
        b"\x81\x7e\x01\x00",
    ),
)


def http(data: bytes) -> None:
    """A whole HTTP answer on a connection: its head, its body, and whether it can be used again."""

    async def exchange() -> None:
        stream = httpcore.AsyncMockStream([data[:7], data[7:]] if len(data) > 7 else [data])
        connection = Connection(stream, Timeouts())
        head = await connection.send(Request(b"POST", b"/", ((b"host", b"x"),), b"{}"), _nothing)
        assert 200 <= head.status <= 999
        body = await connection.read_body(BODY_BYTES_MAX)
        assert len(body) <= BODY_BYTES_MAX

    with suppress(GatewayError):
        trio.run(exchange)


def sse(data: bytes) -> None:
    """An event stream, whole and byte by byte: the same events, and never more than is held."""
    whole, split = _sse(), _sse()
    found = whole.feed(data)
    pieces = [event for at in range(len(data)) for event in split.feed(data[at : at + 1])]
    whole.check_invariants()
    assert _until_too_large(found) == _until_too_large(pieces)
    assert whole.held_bytes <= 2 * LINE_BYTES_MAX + 16


def _sse() -> SSEParser:
    return SSEParser(line_bytes_max=LINE_BYTES_MAX, event_bytes_max=LINE_BYTES_MAX)


def _until_too_large(events: list[Any]) -> list[Any]:
    ends = [at for at, event in enumerate(events) if isinstance(event, TooLarge)]
    return events[: ends[0]] if ends else events


def lines(data: bytes) -> None:
    """What a process writes: the same lines however they are cut."""
    whole, split = (LineSplitter(line_bytes_max=LINE_BYTES_MAX) for _ in range(2))
    found = whole.feed(data)
    pieces = [line for at in range(len(data)) for line in split.feed(data[at : at + 1])]
    assert [_line(one) for one in found] == [_line(one) for one in pieces]
    assert whole.held_bytes <= LINE_BYTES_MAX


def _line(line: bytes | TooLong) -> object:
    return "too long" if isinstance(line, TooLong) else line


def message(data: bytes) -> None:
    """A JSON-RPC message; of what was accepted, an answer's result can be read."""
    with suppress(ProtocolError):
        found = decode(data)
        assert not isinstance(found, Success | Failure) or isinstance(found.id, int | str | None)
        if isinstance(found, Success):
            parse_tool_result(found.result)


def tool(data: bytes) -> None:
    """A tool's definition: taken, or refused with a reason."""
    with suppress(jsontext.JSONError):
        found = parse_tool(jsontext.decode(data))
        assert isinstance(found, Tool | ToolRejected)
        assert not isinstance(found, ToolRejected) or found.reason


def opa(data: bytes) -> None:
    """A policy server's answer: an allow only where it says so."""
    decision = read_answer(200, data)
    if decision.allow:
        result = json.loads(data)["result"]
        assert result is True or result["allow"] is True, result
        assert not (isinstance(result, dict) and result.get("deny"))


def canonical(data: bytes) -> None:
    """JSON text to its canonical form and back: the same value, and a fixed point."""
    with suppress(jsontext.JSONError):
        value = jsontext.decode_strict(data)
        encoded = jsontext.canonical(value)
        assert jsontext.canonical(jsontext.decode_strict(encoded)) == encoded


def audit(data: bytes) -> None:
    """An audit log that anybody may have written: verified, never believed blindly."""
    report = verify([("audit-0000000000000000.log", [data])])
    assert report.fault is not None or report.records > 0 or not data


def configuration(data: bytes) -> None:
    """A configuration file, TOML and JSON: settings, or one error that names the file."""
    with tempfile.TemporaryDirectory() as folder:
        for name in ("sark.toml", "mcp.json"):
            path = Path(folder, name)
            path.write_bytes(data)
            try:
                load(path, environ={})
            except ConfigError as exc:
                assert name in str(exc)


def authorization(data: bytes) -> None:
    """What an authorization server and a challenge say."""
    text = data.decode("latin-1")
    parse_challenges([text, text[::2]])
    for parse in (resource_metadata, server_metadata):
        with suppress(GatewayError):
            parse(data, "https://a.example")


def websocket(data: bytes) -> None:
    """Frames after an opening handshake, or instead of one: whole messages, and then an end.

    The first byte says which, and where what was sent is cut in two.
    """
    for backend, converse in (
        ("trio", _websocket_trio.converse),
        ("asyncio", _websocket_asyncio.converse),
    ):
        upgrade = Upgrade(
            url=parse_url("http://x/mcp"), headers=(), message_bytes_max=LINE_BYTES_MAX
        )
        pipe = Pipe(_Acceptor(data[:1], data[1:]), LINE_BYTES_MAX, write_timeout_s=1.0)
        with suppress(GatewayError):
            anyio.run(converse, pipe, upgrade, _hear_out, backend=backend)


async def _hear_out(channel: Channel) -> None:
    with suppress(HungUp):
        while True:
            message = await channel.receive()
            if message is not None:
                assert len(message.decode()) <= LINE_BYTES_MAX  # its octets: whoever takes it


class _Acceptor(httpcore.AsyncNetworkStream):
    """A server that accepts a WebSocket (RFC 6455, section 4.2.2), if it does, and says *data*."""

    def __init__(self, how: bytes, data: bytes) -> None:
        at = how[0] >> 1 if how else 0
        self._accepts = not (how and how[0] & 1)
        self._inbox = [data[:at], data[at:]]

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        await anyio.lowlevel.checkpoint()
        while self._inbox:
            if piece := self._inbox.pop(0):
                return piece
        return b""

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        await anyio.lowlevel.checkpoint()
        key = re.search(rb"(?i)sec-websocket-key: (\S+)", buffer) if self._accepts else None
        if key is None:
            return
        accept = hashlib.sha1(key[1] + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
        head = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        head += b"Sec-WebSocket-Protocol: mcp\r\nSec-WebSocket-Accept: "
        self._inbox[0] = head + base64.b64encode(accept) + b"\r\n\r\n" + self._inbox[0]

    async def aclose(self) -> None:
        await anyio.lowlevel.checkpoint()


def retry_after(data: bytes) -> None:
    """A ``Retry-After``: no number that is not one of seconds."""
    found = parse_retry_after(data.decode("latin-1"), 1_000_000.0)
    assert found is None or 0 <= found < float("inf")


def _nothing() -> None:
    """Nobody needs to know."""


TARGETS: Mapping[str, Target] = {
    one.__name__: one
    for one in (
        audit,
        authorization,
        canonical,
        configuration,
        http,
        lines,
        message,
        opa,
        retry_after,
        sse,
        tool,
        websocket,
    )
}
