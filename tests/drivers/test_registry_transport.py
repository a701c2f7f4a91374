"""One server of a registry as an upstream: what MCP asks of it, and what comes back."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from sark_trio.errors import (
    ClientClosed,
    HTTPStatusError,
    InvalidArguments,
    ProtocolError,
    RemoteError,
    ServerDisconnected,
    UnknownServer,
)
from sark_trio.mcp.results import parse_tool_result
from sark_trio.mcp.tools import Tool, parse_tool
from sark_trio.transports.base import Outgoing
from sark_trio.transports.memory import Incoming
from sark_trio.transports.registry import RegistryTransport
from tests.support.audit_disk import MemoryDisk
from tests.support.client import audited, check_log, open_client
from tests.support.http_servers import Peer, RawServer, Received, response, serve

pytestmark = pytest.mark.anyio

ABOUT = {
    "server_id": "1",
    "server_name": "db",
    "server_url": "http://127.0.0.1:1/",
    "health_status": "healthy",
    "tools_count": 1,
}
QUERY = {
    "tool_name": "query",
    "server_name": "db",
    "description": "Asks.",
    "parameters": [
        {"name": "sql", "type": "str", "required": True},
        {"name": "limit", "type": "int", "required": False},
        {"name": "hint", "type": "Mystery"},
    ],
}
OTHER = {"tool_name": "other", "server_name": "files", "description": ""}


@asynccontextmanager
async def transport_to(
    invoke: Callable[[Received], bytes], **options: Any
) -> AsyncIterator[tuple[RawServer, RegistryTransport]]:
    async def script(peer: Peer) -> None:
        while True:
            received = await peer.receive()
            if received.target.startswith("/api/v1/servers/"):
                known = received.target.endswith("/db")
                status = "200 OK" if known else "404 Not Found"
                await peer.send(response(json.dumps(ABOUT).encode(), status))
            elif received.target.startswith("/api/v1/tools"):
                page = [QUERY, OTHER] if "offset=0" in received.target else []
                await peer.send(response(json.dumps({"tools": page}).encode()))
            else:
                await peer.send(invoke(received))

    name = options.pop("server", "db")
    with anyio.fail_after(20):
        async with serve(script) as server, anyio.create_task_group() as tasks:
            transport = RegistryTransport(server.url.removesuffix("/mcp"), name, **options)
            await tasks.start(transport.run)
            try:
                yield server, transport
            finally:
                with anyio.CancelScope(shield=True):
                    await transport.aclose()


def says(value: Any, status: str = "200 OK") -> Callable[[Received], bytes]:
    return lambda _: response(json.dumps(value).encode(), status)


def call(**more: Any) -> Outgoing:
    params = {"name": "query", "arguments": {"sql": "select 1"}}
    return Outgoing(method="tools/call", params=params, **more)


async def test_connecting_asks_for_the_server_once() -> None:
    async with transport_to(says({})) as (server, transport):
        assert transport.agreed is None
        agreed = await transport.connect()
        assert (agreed.modern, agreed.server_info) == (True, {"name": "db"})
        assert await transport.connect() is transport.agreed
        assert "db" in repr(transport)
    assert len(server.requests) == 1


async def test_a_server_that_the_registry_does_not_know() -> None:
    async with transport_to(says({}), server="nobody") as (_, transport):
        with pytest.raises(UnknownServer, match="no server 'nobody'"):
            await transport.connect()
    with pytest.raises(InvalidArguments):
        RegistryTransport("http://127.0.0.1", "..")


async def test_tools_are_definitions_of_this_server_alone() -> None:
    async with transport_to(says({})) as (_, transport):
        result = await transport.request(Outgoing(method="tools/list"))
    (definition,) = result["tools"]
    tool = parse_tool(definition)
    assert isinstance(tool, Tool)
    assert (tool.name, tool.description) == ("query", "Asks.")
    assert tool.input_schema == {
        "type": "object",
        "properties": {"sql": {"type": "string"}, "limit": {"type": "integer"}, "hint": {}},
        "required": ["sql"],
    }


MCP = {"content": [{"type": "text", "text": "hi"}], "structuredContent": {"a": 1}}
ANSWERS = [
    (MCP, "hi", {"a": 1}, False),
    ({"status": "success", "result": MCP}, "hi", {"a": 1}, False),
    ({"status": "error", "result": MCP}, "hi", {"a": 1}, True),
    ({"status": "success", "result": {"rows": 2}}, '{"rows":2}', {"rows": 2}, False),
    ({"status": "success", "result": "plain"}, "plain", None, False),
    ({"status": "success", "result": [1, 2]}, "[1,2]", None, False),
    ({"status": "failed", "error": "no such table"}, "no such table", None, True),
    ({"anything": 1}, '{"anything":1}', {"anything": 1}, False),
    ({}, "{}", {}, False),
]


@pytest.mark.parametrize(("answer", "text", "structured", "failed"), ANSWERS)
async def test_whatever_invoke_answers_is_a_result(
    answer: Any, text: str, structured: Any, failed: bool
) -> None:
    async with transport_to(says(answer), user_token="u.u.u", api_key="k") as (server, transport):
        result = parse_tool_result(await transport.request(call()))
    assert (result.text, result.structured_content, result.is_error) == (text, structured, failed)
    (asked,) = server.requests
    assert asked.json == {"server": "db", "tool": "query", "parameters": {"sql": "select 1"}}
    assert (asked.headers["authorization"], asked.headers["x-api-key"]) == ("Bearer u.u.u", "k")


async def test_other_methods_are_not_offered_and_notifications_are_free() -> None:
    async with transport_to(says({})) as (server, transport):
        with pytest.raises(RemoteError) as caught:
            await transport.request(Outgoing(method="resources/list"))
        assert (caught.value.code, caught.value.delivery) == (-32601, "not_sent")
        await transport.notify("notifications/initialized", {})
        assert transport.statistics().requests == 0
    assert server.requests == []


@pytest.mark.row(15)
async def test_a_refusal_is_an_answer_and_a_closed_transport_says_so() -> None:
    async with transport_to(says({}, "503 Service Unavailable")) as (_, transport):
        with pytest.raises(HTTPStatusError) as caught:
            await transport.request(call())
        assert (caught.value.status, caught.value.delivery) == (503, "answered")
        await transport.aclose()
        with pytest.raises(ClientClosed):
            await transport.request(call())


@pytest.mark.row(7)
@pytest.mark.parametrize("safe", [True, False])
async def test_only_what_is_safe_to_repeat_asks_to_be_sent_again(safe: bool) -> None:
    asked: list[str] = []

    async def may_resend(reason: str) -> bool:
        asked.append(reason)
        return False

    async def script(peer: Peer) -> None:
        await peer.receive()
        await peer.send(response(b"{}"))
        await peer.receive()

    with anyio.fail_after(20):
        async with serve(script) as server, anyio.create_task_group() as tasks:
            transport = RegistryTransport(server.url.removesuffix("/mcp"), "db")
            await tasks.start(transport.run)
            await transport.request(call())
            with pytest.raises(ServerDisconnected) as caught:
                await transport.request(call(replay_safe=safe, may_resend=may_resend))
            await transport.aclose()
    assert caught.value.delivery == "unknown"
    assert asked == (["stale_connection"] if safe else [])


@pytest.mark.row(11)
@pytest.mark.fault(4)
async def test_the_governed_client_calls_through_it_and_sends_an_unsafe_call_once() -> None:
    """An embedded server that relays to a registry stands for the wire of an upstream."""
    answers = [says({"status": "success", "result": {"rows": 1}}), lambda _: b"garbage\r\n\r\n"]

    def next_answer(received: Received) -> bytes:
        return answers.pop(0)(received)

    async with transport_to(next_answer) as (server, transport):

        async def relay(incoming: Incoming) -> dict[str, Any]:
            outgoing = Outgoing(method=incoming.method, params=incoming.receive())
            return await transport.request(outgoing)

        disk = MemoryDisk()
        async with open_client(relay, disk) as client:
            result = await client.invoke_tool("desk", "query", {"sql": "select 1"})
            assert result.structured_content == {"rows": 1}
            with pytest.raises(ProtocolError):
                await client.invoke_tool("desk", "query", {"sql": "drop"})
        check_log(disk)
        assert len(audited(disk, "outcome")) == 2
    assert [one.target for one in server.requests].count("/api/v1/invoke") == 2
