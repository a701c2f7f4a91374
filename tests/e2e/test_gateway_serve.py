"""The gateway on a real socket, in front of a real server, driven by other people's clients."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from sark_trio import AllowAll, GatewayClient, Http, Principal, Progress
from sark_trio.errors import AuthenticationRequired, HTTPStatusError, RemoteError, UnknownServer
from sark_trio.mcp.results import parse_tool_result
from sark_trio.transports.base import Outgoing
from sark_trio.transports.registry import RegistryClient, RegistryTransport
from tests.support.client import audited, check_log
from tests.support.gateway import Served, serving
from tests.support.peers import peer, stdio_server

pytestmark = pytest.mark.anyio

CLIENTS = Path(__file__).parents[1] / "peers" / "clients"
KEY = "0123456789-abcdef-key"
HOST = Principal(id="some-host", kind="service")
TOOLS = ("add", "echo", "slow", "fail", "person")


@asynccontextmanager
async def gateway(folder: Path, **options: Any) -> AsyncIterator[Served]:
    """A gateway with one real server behind it, under the name ``peer``."""
    servers = {"peer": stdio_server("everything-mcp2")}
    options.setdefault("api_keys", {KEY: HOST})
    audit = folder / "audit"
    async with (
        GatewayClient(servers=servers, policy=AllowAll(), audit=audit) as client,
        serving(client, **options) as served,
    ):
        yield served


async def drive(name: str, script: str, *arguments: str) -> Any:
    """Run a client of the official SDK, and read what it saw."""
    command = [str(peer(name).python), str(CLIENTS / script), *arguments]
    done = await anyio.run_process(command, check=False)
    assert done.returncode == 0, done.stderr.decode()[-3000:]
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    ("name", "script", "mode", "version"),
    [
        ("mcp2", "through_mcp2.py", ["auto"], "2026-07-28"),
        ("mcp2", "through_mcp2.py", ["legacy"], "2025-11-25"),
        ("mcp1", "through_mcp1.py", [], "2025-11-25"),
    ],
    ids=["mcp2-modern", "mcp2-legacy", "mcp1"],
)
async def test_clients_of_the_official_sdk(
    name: str, script: str, mode: list[str], version: str, tmp_path: Path
) -> None:
    async with gateway(tmp_path) as served:
        saw = await drive(name, script, f"{served.url}/mcp", *mode, "X-API-Key", KEY)
    assert saw["version"] == version
    assert {f"peer__{tool}" for tool in TOOLS} <= set(saw["tools"])
    assert saw["added"] == {"result": 5}
    assert saw["slow"] == "slept 0.1"
    assert [one[:2] for one in saw["progress"]] == [[1, 3], [2, 3], [3, 3]]
    assert saw["failed"][0] is True
    assert "as asked" in saw["failed"][1]
    unknown = [-32602, "unknown_tool"]
    assert saw["errors"] == [unknown, unknown, unknown]
    found = check_log(tmp_path / "audit")
    callers = {one["principal_id"] for one in found if one["kind"] == "intent"}
    assert callers == {HOST.id}


async def test_tasks_of_the_official_sdk(tmp_path: Path) -> None:
    async with gateway(tmp_path) as served:
        saw = await drive("mcp1", "tasks_mcp1.py", f"{served.url}/mcp", "X-API-Key", KEY)
    assert (saw["version"], saw["offered"], saw["support"]) == ("2025-11-25", True, "optional")
    assert saw["statuses"][0] == "completed"
    assert saw["result"] == "slept 0.1"
    assert (saw["cancelled"], saw["errors"]) == ("cancelled", [-32602, -32602])
    found = check_log(tmp_path / "audit")
    ends = [one["outcome"] for one in found if one["kind"] == "outcome"]
    assert ends == ["ok", "cancelled"]


@pytest.mark.parametrize("version", ["2026-07-28", "2025-11-25", "2025-06-18", "2025-03-26"])
async def test_our_own_client_goes_through_in_every_era(version: str, tmp_path: Path) -> None:
    seen: list[Progress] = []
    async with gateway(tmp_path) as served:
        server = Http(f"{served.url}/mcp", headers={"X-API-Key": KEY}, protocol_version=version)
        audit = tmp_path / "outer"
        async with GatewayClient(servers={"far": server}, policy=AllowAll(), audit=audit) as client:
            agreed = await client.connect("far")
            assert (agreed.version, agreed.modern) == (version, version == "2026-07-28")
            assert agreed.server_info["name"] == "sark_trio"
            names = {one.tool_name for one in await client.list_tools("far")}
            assert {f"peer__{tool}" for tool in TOOLS} <= names
            total = await client.invoke_tool("far", "peer__add", {"a": 2, "b": 3})
            assert total.structured_content == {"result": 5}
            arguments = {"seconds": 0.1, "steps": 2}
            await client.invoke_tool("far", "peer__slow", arguments, on_progress=seen.append)
            with pytest.raises(RemoteError) as caught:
                await client.invoke_tool("far", "peer__die", {"code": 3})
            assert caught.value.code == 502
            assert caught.value.data["type"] == "outcome_unknown"
            assert caught.value.data["delivery"] == "unknown"
            assert (await client.invoke_tool("far", "peer__echo", {"text": "born again"})).text
    assert [one.progress for one in seen] == [1, 2]
    check_log(tmp_path / "outer")
    check_log(tmp_path / "audit")


async def test_a_client_without_its_key_is_told_so(tmp_path: Path) -> None:
    async with gateway(tmp_path) as served:
        servers = {"far": f"{served.url}/mcp"}
        audit = tmp_path / "outer"
        async with GatewayClient(servers=servers, policy=AllowAll(), audit=audit) as client:
            with pytest.raises(AuthenticationRequired):
                await client.invoke_tool("far", "peer__add", {"a": 2, "b": 3})
    assert audited(tmp_path / "audit", "intent") == []


@pytest.mark.fault(1)
async def test_our_registry_client_against_our_gateway(tmp_path: Path) -> None:
    async with gateway(tmp_path) as served, anyio.create_task_group() as tasks:
        registry = RegistryClient(served.url, api_key=KEY)
        await tasks.start(registry.run)
        (server,) = await registry.list_all_servers()
        assert (server.server_id, server.server_name) == ("peer", "peer")
        assert await registry.get_server("peer") == server
        with pytest.raises(HTTPStatusError) as caught:
            await registry.get_server("../peer")
        assert caught.value.status == 404
        tools = await registry.list_all_tools("peer", page_size=3)
        assert {*TOOLS} <= {tool.tool_name for tool in tools}
        streamed = [tool.tool_name async for tool in registry.tools(page_size=4)]
        assert streamed == [tool.tool_name for tool in tools]
        answer = await registry.invoke_tool("peer", "add", {"a": 2, "b": 3})
        assert (answer["status"], answer["result"]["structuredContent"]) == (
            "success",
            {"result": 5},
        )
        health = await registry.health_check()
        assert (health.healthy, health.error) == (True, None)
        await registry.aclose()


async def test_our_registry_transport_against_our_gateway(tmp_path: Path) -> None:
    async with gateway(tmp_path) as served, anyio.create_task_group() as tasks:
        transport = RegistryTransport(served.url, "peer", api_key=KEY)
        await tasks.start(transport.run)
        assert (await transport.connect()).server_info == {"name": "peer"}
        listed = await transport.request(Outgoing(method="tools/list"))
        schemas = {tool["name"]: tool["inputSchema"] for tool in listed["tools"]}
        assert schemas["add"]["required"] == ["a", "b"]
        sent: list[bool] = []
        params = {"name": "fail", "arguments": {"message": "as asked"}}
        raw = await transport.request(
            Outgoing(method="tools/call", params=params, on_sent=lambda: sent.append(True))
        )
        result = parse_tool_result(raw)
        assert result.is_error
        assert "as asked" in result.text
        assert sent
        await transport.aclose()
        stranger = RegistryTransport(served.url, "nobody", api_key=KEY)
        await tasks.start(stranger.run)
        with pytest.raises(UnknownServer):
            await stranger.connect()
        await stranger.aclose()


async def test_two_real_servers_side_by_side(tmp_path: Path) -> None:
    servers = {"peer": stdio_server("everything-mcp1"), "clock": stdio_server("time")}
    async with (
        GatewayClient(servers=servers, policy=AllowAll(), audit=tmp_path / "audit") as client,
        serving(client) as served,
    ):
        saw = await drive("mcp2", "through_mcp2.py", f"{served.url}/mcp", "auto")
        assert saw["added"] == {"result": 5}
        assert "clock__get_current_time" in saw["tools"]
        call = {"name": "clock__get_current_time", "arguments": {"timezone": "UTC"}}
        answer = await served.rpc("tools/call", call)
    text = answer.json["result"]["content"][0]["text"]
    assert json.loads(text)["timezone"] == "UTC"
