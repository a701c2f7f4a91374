"""The unified client's ten subjects of the original's integration report, one test each."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from sark_trio import (
    AllowAll,
    AuditLog,
    GatewayClient,
    RetryConfig,
    TransportMode,
    TransportNotAvailableError,
)
from sark_trio.client.servers import Http, Memory, Stdio
from sark_trio.errors import CircuitOpen, ClientClosed, ConfigError, Denied, HTTPStatusError
from tests.support.audit_disk import MemoryDisk
from tests.support.client import check_log, desk, outcomes, tool
from tests.support.http_servers import Peer, Received, modern, response, result, serve
from tests.support.peers import sse_server, stdio_server
from tests.support.registry import RegistryDesk, client_of, registry
from tests.support.stdio import SCRIPTED

pytestmark = pytest.mark.anyio

#: A process that speaks plain MCP and starts fast.
PLAIN = [*SCRIPTED[:-1], str(Path(SCRIPTED[-1]).with_name("plain.py"))]
AT_ONCE = RetryConfig(initial_delay_s=0.001)


async def echoes(peer: Peer, received: Received) -> None:
    """A server behind a URL, with one tool."""
    if received.rpc == "tools/list":
        await peer.send(result(received, {"tools": [tool()], "ttlMs": 60_000}))
    else:
        await peer.send(result(received, {"content": [{"type": "text", "text": "over http"}]}))


async def broken(_: Peer, __: Received) -> bytes:
    return response(b"{}", "500 Internal Server Error")


@asynccontextmanager
async def everything(disk: MemoryDisk, **options: Any) -> AsyncIterator[GatewayClient]:
    """A client with a gateway, a server behind a URL, a process, and one in memory."""
    async with (
        registry() as (_, url),
        serve(modern(echoes)) as remote,
        client_of(
            url,
            disk,
            servers={
                "remote": Http(remote.url),
                "local": Stdio(PLAIN),
                "inside": Memory(desk()),
            },
            **options,
        ) as client,
    ):
        yield client


async def test_auto_transport_selection() -> None:
    disk = MemoryDisk()
    async with everything(disk) as client:
        assert (await client.invoke_tool("remote", "echo")).text == "over http"
        assert (await client.invoke_tool("inside", "echo")).text == "done"
        assert (await client.invoke_tool("server-1", "echo")).structured_content == {"echo": {}}
        tools = await client.list_tools("local")
        assert len(tools) > 0
        kinds = {name: one.transport for name, one in client.statistics().servers.items()}
        assert kinds == {
            "remote": "http",
            "local": "stdio",
            "inside": "memory",
            "server-1": "registry",
        }
        assert set(client.get_metrics().active_transports) == {
            "http",
            "memory",
            "registry",
            "stdio",
        }
    assert outcomes(disk) == [("ok", "answered")] * 3
    check_log(disk)


@pytest.mark.parametrize(
    ("mode", "reached"),
    [
        (TransportMode.HTTP_ONLY, {"remote", "server-0", "inside"}),
        (TransportMode.STDIO_ONLY, {"local", "inside"}),
        (TransportMode.SSE_ONLY, {"inside"}),
    ],
)
async def test_transport_mode_enforcement(mode: TransportMode, reached: set[str]) -> None:
    async with everything(MemoryDisk(), transport_mode=mode) as client:
        for name in ("local", "server-0", "inside", "remote"):
            if name == "remote" and mode is TransportMode.SSE_ONLY:
                continue  # the mode makes MCP's old HTTP+SSE of a URL, which this server lacks
            if name in reached:
                await client.list_all_tools(name)
            else:
                with pytest.raises(TransportNotAvailableError):
                    await client.list_all_tools(name)
        if mode is not TransportMode.SSE_ONLY:
            with pytest.raises(TransportNotAvailableError):
                client.stream_events()
        if mode is not TransportMode.STDIO_ONLY:
            with pytest.raises(TransportNotAvailableError):
                await client.connect_local_server(SCRIPTED)


async def test_transport_mode_enforcement_of_the_old_http_sse() -> None:
    with sse_server("everything-mcp1") as url:
        client = GatewayClient(
            servers={"old": Http(url)},
            audit=AuditLog("log", files=MemoryDisk()),
            policy=AllowAll(),
            transport_mode="sse_only",
        )
        async with client:
            assert len(await client.list_tools("old")) > 0
            assert client.statistics().servers["old"].transport == "sse"


async def test_context_manager_cleanup() -> None:
    async with registry() as (_, url):
        client = GatewayClient(
            gateway_url=url, audit=AuditLog("log", files=MemoryDisk()), policy=AllowAll()
        )
        async with client:
            await client.connect_local_server(SCRIPTED, server_id="local")
            pid = (await client.health_check()).stdio["local"].pid
            assert pid is not None
            await client.invoke_tool("server-0", "echo")
        pool = client._gateway.pool.statistics()
        assert (pool.idle, pool.leased, pool.connecting, pool.closing) == (0, 0, 0, 0)
        for operation in (client.list_servers, client.list_tools, client.list_all_servers):
            with pytest.raises(ClientClosed):  # and no connection is made by the way
                await operation()
        with pytest.raises(ClientClosed):
            await client.invoke_tool("server-0", "echo")
        await client.close()


async def test_multiple_operations() -> None:
    disk = MemoryDisk()
    async with everything(disk) as client:
        assert len(await client.list_all_servers()) == 6
        assert len(await client.list_all_tools("server-2")) == 2
        assert (await client.get_server_info("server-2")).tools_count == 2
        for name in ("remote", "inside", "server-2"):
            await client.invoke_tool(name, "echo", {"n": 1})
        handle = await client.connect_local_server(SCRIPTED)
        await client.disconnect_local_server(handle.server_id)
        assert (await client.health_check()).healthy
    check_log(disk)


async def test_concurrent_operations() -> None:
    disk = MemoryDisk()
    async with everything(disk) as client:
        done: list[str] = []

        async def work(name: str) -> None:
            await client.invoke_tool(name, "echo")
            await client.list_servers()
            done.append(name)

        names = ["remote", "inside", "server-0", "server-1"]
        async with anyio.create_task_group() as tasks:
            for number in range(40):
                tasks.start_soon(work, names[number % 4])
        assert sorted(done) == sorted(names * 10)
        assert client.statistics().running_calls == 0
    assert outcomes(disk) == [("ok", "answered")] * 40
    check_log(disk)


async def test_health_check_all_transports() -> None:
    async with everything(MemoryDisk()) as client:
        await client.connect("local")
        report = await client.health_check(timeout_s=20)
        said = report.to_dict()
        assert said["healthy"]
        assert said["http"]["status"] == "healthy"
        assert said["sse"]["connection_state"] == "disconnected"
        assert said["stdio"]["local"]["status"] == "running"
        assert {name: one["transport"] for name, one in said["servers"].items()} == {
            "remote": "http",
            "local": "stdio",
            "inside": "memory",
        }
        await client.disconnect("remote")
        report = await client.health_check(timeout_s=20)
        assert (report.healthy, report.servers["remote"].status) == (False, "unhealthy")
        assert report.servers["local"].status == "healthy"


async def test_metrics_collection() -> None:
    async with everything(MemoryDisk()) as client:
        for _ in range(10):
            await client.list_servers()
        await client.invoke_tool("inside", "echo")
        metrics = client.get_metrics().to_dict()
        assert metrics["transport_mode"] == "auto"
        assert metrics["http_cache_hit_rate"] >= 0.8
        assert metrics["stdio_servers_count"] == 0
        breakers = metrics["error_handler"]["circuit_breakers"]
        assert breakers["inside"]["total_successes"] == 2


@pytest.mark.fault(52)
async def test_error_handler_integration() -> None:
    shown = RegistryDesk()
    async with registry(shown) as (_, url), client_of(url, retry=AT_ONCE) as client:
        await client.list_tools()
        shown.script = [broken] * 5
        with pytest.raises(HTTPStatusError):
            await client.list_servers(page_size=1)
        # The fifth failure in a row opens the breaker of the gateway's lists...
        with pytest.raises((HTTPStatusError, CircuitOpen)):
            await client.list_servers(page_size=2)
        with pytest.raises(CircuitOpen) as caught:
            await client.list_servers(page_size=3)
        assert caught.value.retry_after_s is not None
        assert sum(shown.asked.values()) == 6
        # ... while what is at hand is given, and other servers' calls have their own.
        assert len(await client.list_tools()) == 6


async def test_disable_error_handling_option() -> None:
    shown = RegistryDesk()
    async with registry(shown) as (_, url):
        async with client_of(url, enable_error_handling=False) as client:
            shown.script = [broken] * 9
            for number in range(9):
                with pytest.raises(HTTPStatusError):
                    await client.list_servers(page_size=number + 1)
            assert sum(shown.asked.values()) == 9  # one attempt each, and no breaker
            assert (await client.health_check()).error_handler is None
        async with client_of(url, policy=None, enable_error_handling=False) as client:
            with pytest.raises(Denied):  # governance is no part of error handling
                await client.invoke_tool("server-0", "echo")


async def test_initialization_without_gateway_url() -> None:
    disk = MemoryDisk()
    client = GatewayClient(
        audit=AuditLog("log", files=disk),
        policy=AllowAll(),
        transport_mode="stdio_only",
    )
    async with client:
        local = await client.connect_local_server(stdio_server("everything-mcp2"))
        assert len(await client.list_tools(local.server_id)) > 0
        assert [info.server_name for info in await client.list_servers()] == [local.server_id]
        report = await client.health_check()
        assert (report.gateway, report.http.status) == (None, "unknown")
        assert client.get_metrics().stdio_servers_count == 1
    async with GatewayClient(audit=AuditLog("log", files=MemoryDisk())) as without:
        with pytest.raises(ConfigError, match="gateway_url="):
            without.stream_events()
