"""The copies of the wire are read as they were written, and what is wrong in them is found."""

from __future__ import annotations

import json
from typing import Any

import pytest
from wsproto.connection import CLIENT, Connection
from wsproto.events import Message, TextMessage

from tests.interop.relay import Copied
from tests.interop.wire import (
    Sent,
    faults_in,
    http_messages,
    line_messages,
    websocket_messages,
)

MODERN, LEGACY = "2026-07-28", "2025-11-25"
META = {
    "io.modelcontextprotocol/protocolVersion": MODERN,
    "io.modelcontextprotocol/clientInfo": {"name": "c", "version": "1"},
    "io.modelcontextprotocol/clientCapabilities": {},
}


def sent(headers: dict[str, str] | None = None, **members: Any) -> Sent:
    return Sent(json.dumps({"jsonrpc": "2.0", **members}).encode(), headers or {})


def call(**params: Any) -> Sent:
    return sent(id=1, method="tools/call", params={"name": "echo", "arguments": {}, **params})


@pytest.mark.parametrize(
    ("message", "version"),
    [
        (call(), LEGACY),
        (call(_meta={"progressToken": 1}), LEGACY),
        (call(_meta=META), MODERN),
        # A probe is of its own revision, whatever is agreed in the end.
        (sent(id=0, method="server/discover", params={"_meta": META}), LEGACY),
        (sent(method="notifications/initialized"), LEGACY),
        (sent(id=7, result={"action": "accept", "content": {"name": "Ada"}}), "2024-11-05"),
        (sent(id=7, result={}), LEGACY),
        (sent(id=7, error={"code": -32601, "message": "no"}), LEGACY),
    ],
)
def test_what_is_right_is_left_alone(message: Sent, version: str) -> None:
    assert faults_in([message], version) == []


@pytest.mark.parametrize(
    ("message", "version"),
    [
        (Sent(b"no JSON"), LEGACY),
        (sent(id=None, method="ping"), LEGACY),
        (sent(id=1, method="tools/call", params={"arguments": {}}), LEGACY),
        (call(nmae="a slip"), LEGACY),
        (call(), MODERN),
        (sent(id=1, method="ping"), MODERN),
        (sent(id=1, method="server/discover"), LEGACY),
        (sent(id=7, result={"action": "agreed"}), LEGACY),
        (sent({"mcp-protocol-version": LEGACY}, id=1, method="tools/list", params={}), MODERN),
    ],
)
def test_what_is_wrong_is_found(message: Sent, version: str) -> None:
    assert len(faults_in([message], version)) == 1


def test_lines_are_messages_and_what_was_cut_off_is_none() -> None:
    found = line_messages(b'{"method":"a"}\n\n{"method":"b"}\n{"meth')
    assert [each.method for each in found] == ["a", "b"]


def test_posts_are_read_with_their_headers_and_the_type_of_their_answer() -> None:
    asked = (
        b'POST /mcp HTTP/1.1\r\nHost: a\r\nX: y\r\nContent-Length: 14\r\n\r\n{"method":"a"}'
        b"GET /mcp HTTP/1.1\r\nHost: a\r\n\r\n"
        b'POST /mcp HTTP/1.1\r\nHost: a\r\nContent-Length: 14\r\n\r\n{"method":"b"}'
        b"POST /mcp HTTP/1.1\r\nHost: a\r\nContent-Length: 99\r\n\r\n{"
    )
    answered = (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n2\r\n\n\n\r\n0\r\n\r\n"
        b"HTTP/1.1 405 No\r\nContent-Length: 0\r\n\r\n"
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{"
    )
    first, second = http_messages([Copied(bytearray(asked), bytearray(answered)), Copied()])
    assert (first.method, first.headers["x"], first.answered_with) == (
        "a",
        "y",
        "text/event-stream",
    )
    assert (second.method, second.answered_with) == ("b", "application/json")


def test_frames_are_messages() -> None:
    client = Connection(CLIENT)
    parts: list[Message] = [
        TextMessage(data='{"method":', message_finished=False),
        TextMessage(data='"a"}'),
        TextMessage(data='{"method":"b"}'),
    ]
    frames = b"".join(client.send(part) for part in parts)
    copied = Copied(bytearray(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" + frames))
    assert [each.method for each in websocket_messages([copied])] == ["a", "b"]
