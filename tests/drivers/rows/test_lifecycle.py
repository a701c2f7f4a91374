"""Rows 55, 57 and 61 to 63: cancellations, crashes, callbacks, definitions, inner places."""

from __future__ import annotations

import threading
from typing import Any

import anyio
import anyio.from_thread
import pytest

from sark_trio.client.servers import Http, WebSocket
from sark_trio.errors import ConfigError, ConnectError, GatewayError, UnknownTool
from sark_trio.net import addresses
from sark_trio.testing import no_leaks
from tests.support.audit_disk import MemoryDisk
from tests.support.client import desk, open_client, outcomes, tool
from tests.support.faulty import EVERYWHERE, cell, client_of, do, faulty, is_idle
from tests.support.http_servers import Peer, Received, modern, response, result, serve

pytestmark = pytest.mark.anyio

PROGRESS = (
    b'{"jsonrpc":"2.0","method":"notifications/progress",'
    b'"params":{"progressToken":@TOKEN,"progress":1}}'
)
#: On which a call can say that it runs.
SPEAKING = [kind for kind in EVERYWHERE if kind not in {"json", "registry", "memory"}]
HELD = do(PROGRESS, end="hang")


# -- row 55 --------------------------------------------------------------------------------------


@pytest.mark.row(55)
@pytest.mark.parametrize("how", ["once", "twice", "shielded", "with an error"])
@pytest.mark.parametrize("kind", SPEAKING)
async def test_a_cancellation_passes_and_the_call_is_over(kind: str, how: str) -> None:
    disk = MemoryDisk()
    async with cell(kind, disk=disk) as (_, client):
        reached = anyio.Event()

        async def call() -> None:
            await client.invoke_tool("desk", "echo", HELD, on_progress=lambda _: reached.set())

        with anyio.CancelScope() as outer:
            try:
                async with anyio.create_task_group() as tasks:
                    with anyio.CancelScope(shield=how == "shielded") as inner:
                        tasks.start_soon(call)
                        await reached.wait()
                        outer.cancel()
                        if how == "shielded":
                            inner.cancel()
                        if how == "twice":
                            tasks.cancel_scope.cancel()
                        if how == "with an error":
                            raise ZeroDivisionError
            except BaseExceptionGroup as group:
                assert group.subgroup(ZeroDivisionError) is not None
                assert how == "with an error"
        assert outer.cancel_called
        await is_idle(client)
    assert outcomes(disk)[0] == ("cancelled", "unknown")


@pytest.mark.row(55)
@pytest.mark.parametrize("kind", SPEAKING)
async def test_a_shielded_caller_gets_his_answer(kind: str) -> None:
    async with cell(kind) as (server, client):
        with anyio.CancelScope() as outer:
            outer.cancel()
            with anyio.CancelScope(shield=True):
                assert (await client.invoke_tool("desk", "echo", do())).text == "7"
        assert server.effects == 1


@pytest.mark.row(55)
@pytest.mark.parametrize("kind", EVERYWHERE)
async def test_a_deadline_in_the_past_sends_nothing(kind: str) -> None:
    async with cell(kind) as (server, client):
        await client.list_tools("desk")
        with anyio.CancelScope(deadline=anyio.current_time() - 1) as scope:
            await client.invoke_tool("desk", "echo", do())
        assert scope.cancelled_caught
        assert server.effects == 0


@pytest.mark.row(55)
@pytest.mark.parametrize("kind", SPEAKING)
async def test_a_cancellation_from_another_thread_passes(kind: str) -> None:
    async with cell(kind) as (_, client):
        reached, go = anyio.Event(), threading.Event()

        async def call() -> None:
            await client.invoke_tool("desk", "echo", HELD, on_progress=lambda _: reached.set())

        async with anyio.create_task_group() as tasks:

            def elsewhere() -> None:
                go.wait(30)
                anyio.from_thread.run_sync(scope.cancel)

            with anyio.CancelScope() as scope:
                async with anyio.create_task_group() as calls:
                    calls.start_soon(call)
                    tasks.start_soon(anyio.to_thread.run_sync, elsewhere)
                    await reached.wait()
                    go.set()
        assert scope.cancelled_caught


# -- row 57 --------------------------------------------------------------------------------------


@pytest.mark.row(57)
@pytest.mark.parametrize("kind", EVERYWHERE)
async def test_a_host_that_crashes_hears_of_its_own_crash_and_nothing_is_left(kind: str) -> None:
    mine = ZeroDivisionError("mine")
    disk = MemoryDisk()
    async with no_leaks():
        with pytest.raises(BaseExceptionGroup) as caught:
            async with faulty(kind) as server, client_of(server.server, disk) as client:
                await client.list_tools("desk")
                async with anyio.create_task_group() as host:
                    host.start_soon(client.invoke_tool, "desk", "echo", do(end="hang"))
                    while server.effects == 0:
                        await anyio.wait_all_tasks_blocked()
                    raise mine
        found: BaseException = caught.value
        while isinstance(found, BaseExceptionGroup):
            (found,) = found.exceptions
        assert found is mine
    assert outcomes(disk) == [("cancelled", "unknown")]


# -- row 61 --------------------------------------------------------------------------------------


@pytest.mark.row(61)
async def test_a_hook_that_raises_harms_no_transport() -> None:
    def hook(event: Any) -> None:
        raise RuntimeError(event.name)

    for kind in EVERYWHERE:
        async with cell(kind, hooks=[hook]) as (server, client):
            assert (await client.invoke_tool("desk", "echo", do())).text == "7"
            assert server.effects == 1


# -- row 62 --------------------------------------------------------------------------------------


def wide(count: int) -> dict[str, Any]:
    return {"type": "object", "properties": {f"p{n}": {"type": "string"} for n in range(count)}}


def region(header: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {"r": {"type": "string", "x-mcp-header": header}},
    }


BAD = {
    "no schema": {"name": "bad"},
    "no object": {"name": "bad", "inputSchema": {"type": "string"}},
    "too wide": {"name": "bad", "inputSchema": wide(20_000)},
    "a header with a line end": {"name": "bad", "inputSchema": region("A\r\nB")},
    "a header of no token": {"name": "bad", "inputSchema": region("a b")},
    "an unseen name": {"name": "ba\u200bd", "inputSchema": {"type": "object"}},
}


@pytest.mark.row(62)
@pytest.mark.parametrize("how", BAD)
async def test_a_definition_that_is_bad_is_not_offered_and_costs_no_other(how: str) -> None:
    async def handle(peer: Peer, received: Received) -> None:
        tools = [tool(), BAD[how]]
        answer = {"content": [{"type": "text", "text": "41"}]}
        await peer.send(
            result(received, {"tools": tools} if received.rpc == "tools/list" else answer)
        )

    async with (
        no_leaks(),
        serve(modern(handle)) as server,
        client_of(Http(server.url), MemoryDisk()) as client,
    ):
        listed = await client.list_tools("desk")
        assert [one.tool_name for one in listed] == ["echo"]
        with pytest.raises(UnknownTool):
            await client.invoke_tool("desk", BAD[how]["name"])


@pytest.mark.row(62, 63)
async def test_a_reference_to_elsewhere_is_never_followed() -> None:
    async with no_leaks(), serve(modern()) as decoy:
        places = [decoy.url, "http://169.254.169.254/latest", "file:///etc/passwd"]
        schema = {
            "type": "object",
            "properties": {str(n): {"$ref": p} for n, p in enumerate(places)},
        }
        server = desk(tools=[tool(inputSchema=schema, outputSchema=schema)])
        async with open_client(server) as client:
            await client.invoke_tool("desk", "echo", {"0": "x"})
        assert decoy.connections == 0


# -- row 63 --------------------------------------------------------------------------------------

INNER = [
    "127.0.0.1",
    "169.254.169.254",
    "10.0.0.1",
    "[::1]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "0.0.0.0",
    "2130706433",
    "0177.0.0.1",
    "0x7f.1",
    "127.1",
    "0",
    "100.64.0.1",
    "[64:ff9b::7f00:1]",
    "[fd00::1]",
]


@pytest.mark.row(63)
@pytest.mark.parametrize("host", INNER)
@pytest.mark.parametrize("kind", ["http", "websocket"])
async def test_a_url_of_a_stranger_leads_to_no_inner_place(kind: str, host: str) -> None:
    described = Http if kind == "http" else WebSocket
    scheme = "https" if kind == "http" else "wss"
    async with no_leaks():
        try:
            server = described(f"{scheme}://{host}/mcp", addresses="public")
            async with client_of(server, MemoryDisk(), heals=False) as client:
                with pytest.raises(GatewayError) as caught:
                    await client.invoke_tool("desk", "echo")
                assert isinstance(caught.value, ConnectError)
                assert caught.value.delivery == "not_sent"
        except ConfigError:
            pass  # refused before anything was begun


@pytest.mark.row(63)
@pytest.mark.parametrize("kind", ["http", "websocket"])
async def test_a_name_that_leads_elsewhere_the_second_time_gains_nothing(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DNS rebinding: the address that was checked is the one that is connected to."""
    async with no_leaks(), serve(modern()) as inner:
        answers = iter([["127.0.0.1"], ["203.0.113.7", "127.0.0.1"]])

        async def rebinding(host: str, port: int, **_: Any) -> Any:
            return [(2, 1, 6, "", (ip, inner.port)) for ip in next(answers, ["127.0.0.1"])]

        monkeypatch.setattr(addresses.anyio, "getaddrinfo", rebinding)
        described, scheme = (Http, "https") if kind == "http" else (WebSocket, "wss")
        server = described(f"{scheme}://rebinding.example:{inner.port}/mcp", addresses="public")
        async with client_of(server, MemoryDisk(), heals=False) as client:
            for _ in range(2):
                with pytest.raises(ConnectError):
                    await client.invoke_tool("desk", "echo")
        assert inner.connections == 0


@pytest.mark.row(14, 63)
@pytest.mark.parametrize("place", ["http://169.254.169.254/", "http://127.0.0.1:1/", "//10.0.0.1/"])
async def test_a_redirect_to_an_inner_place_is_not_followed(place: str) -> None:
    async def handle(peer: Peer, received: Received) -> None:
        await peer.send(response(b"", "307 Temporary Redirect", location=place))

    async with no_leaks(), serve(modern(handle)) as server:
        async with client_of(Http(server.url), MemoryDisk(), heals=False) as client:
            with pytest.raises(GatewayError):
                await client.list_tools("desk")
        assert [each.target for each in server.requests] == ["/mcp", "/mcp"]
