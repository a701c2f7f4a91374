"""The ten subjects of the original system's report on local servers, with real servers.

Each test is one subject, named as the report names it.
"""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from sark_trio import AllowAll, GatewayClient
from sark_trio.client.chapters.local import LocalServerClient
from sark_trio.errors import (
    CallTimeout,
    ClientClosed,
    OutcomeUnknown,
    ProcessExited,
    RemoteError,
    ResourceLimitExceeded,
    UnknownServer,
)
from sark_trio.machines.limits import ResourceLimits
from sark_trio.machines.supervise import Phase
from tests.support.backends import BACKENDS
from tests.support.client import audited, check_log
from tests.support.peers import stdio_server
from tests.support.stdio import baseline

pytestmark = pytest.mark.anyio
#: Longer than anything here takes on a loaded machine: a test that gets there has hung.
HUNG_S = 90.0


@pytest.fixture(params=BACKENDS)
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    """The two of them: a real server takes a second to start."""
    return request.param


@asynccontextmanager
async def gateway(folder: Path, **options: Any) -> AsyncIterator[GatewayClient]:
    with anyio.fail_after(HUNG_S):
        async with GatewayClient(
            **{"policy": AllowAll(), "audit": folder / "audit", **options}
        ) as client:
            yield client


async def everything(client: GatewayClient, **options: Any) -> LocalServerClient:
    return await client.connect_local_server(stdio_server("everything-mcp2"), **options)


def call(name: str, /, **arguments: Any) -> dict[str, Any]:
    return {"name": name, "arguments": arguments}


def open_files_of(pid: int | None) -> list[str]:
    """Soft and hard limit."""
    lines = Path(f"/proc/{pid}/limits").read_text().splitlines()
    return next(line.split()[3:5] for line in lines if "open files" in line)


def folder_of(pid: int | None) -> Path:
    return Path(f"/proc/{pid}/cwd").readlink()


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


async def test_connect_and_disconnect(tmp_path: Path) -> None:
    with baseline():
        async with gateway(tmp_path) as client:
            server = await everything(client)
            pid = server.pid
            assert pid is not None
            assert server.is_running
            info = await client.get_server_info(server.server_id)
            assert (info.transport, info.protocol_version) == ("stdio", "2026-07-28")
            await client.disconnect_local_server(server.server_id)
            assert (server.is_running, server.pid, is_gone(pid)) == (False, None, True)
            with pytest.raises(UnknownServer):
                await client.invoke_tool(server.server_id, "echo", {"text": "x"})


@pytest.mark.fault(44)
async def test_json_rpc_requests(tmp_path: Path) -> None:
    async with gateway(tmp_path) as client:
        server = await everything(client)
        listed = await server.send_request("tools/list")
        assert {"add", "echo", "slow"} <= {one["name"] for one in listed["tools"]}
        total = await server.send_request("tools/call", call("add", a=2, b=3))
        assert total["structuredContent"] == {"result": 5}
        with pytest.raises(RemoteError) as caught:
            await server.send_request("no/such/method")
        assert (caught.value.code, caught.value.delivery) == (-32601, "answered")
    found = check_log(tmp_path / "audit")
    methods = [one["method"] for one in found if one["kind"] == "intent"]
    assert methods == ["tools/list", "tools/call", "no/such/method"]


async def test_notifications(tmp_path: Path) -> None:
    async with gateway(tmp_path) as client:
        server = await everything(client)
        await server.send_notification("notifications/roots/list_changed")
        # They go in order, so that one that harmed it would be noticed here.
        echo = await server.send_request("tools/call", call("echo", text="still here"))
        assert echo["content"][0]["text"] == "still here"
    (told, _) = audited(tmp_path / "audit", "intent")
    assert told["method"] == "notifications/roots/list_changed"


async def test_process_start_and_stop(tmp_path: Path) -> None:
    async with gateway(tmp_path) as client:
        server = await everything(client, server_id="first")
        pid = server.pid
        assert pid is not None
        assert os.getpgid(pid) == pid  # a group of its own, so that its children end with it
        await server.stop()
        await server.stop()
        assert is_gone(pid)
        with pytest.raises(ClientClosed):
            await server.send_request("tools/list")
        again = await everything(client, server_id="first")
        assert again.is_running
        assert again.pid != pid
        last = again.pid
    assert last is not None
    assert is_gone(last)


@pytest.mark.fault(39, 45)
async def test_health_monitoring(tmp_path: Path) -> None:
    async with gateway(tmp_path, timeout_s=0.5) as client:
        server = await everything(client, timeout_s=0.5)
        await server.send_request("tools/list", timeout_s=60)
        pid = server.pid
        for _ in range(4):
            with pytest.raises(CallTimeout):
                await server.send_request(
                    "tools/call", call("slow", seconds=60, steps=1), timeout_s=None
                )
            # It was asked whether it lives, and says so before it says anything else.
            await server.send_request("tools/list", timeout_s=60)
            supervision = server.statistics().wire.supervision
            assert supervision is not None
            assert (supervision.phase, supervision.timeouts) == (Phase.RUNNING, 0)
        assert (server.pid, server.statistics().wire.restarts) == (pid, 0)


@pytest.mark.fault(46)
async def test_multiple_concurrent_servers(tmp_path: Path) -> None:
    answers: dict[str, str] = {}

    async def ask(server: LocalServerClient) -> None:
        said = await server.send_request("tools/call", call("echo", text=server.server_id))
        answers[server.server_id] = said["content"][0]["text"]

    async with gateway(tmp_path) as client:
        servers: list[LocalServerClient] = []

        async def start() -> None:
            servers.append(await everything(client))

        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(start)
        assert len({server.pid for server in servers}) == 3
        async with anyio.create_task_group() as tasks:
            for server in servers:
                tasks.start_soon(ask, server)
        names = {server.server_id for server in servers}
        assert answers == {name: name for name in names}
        assert len(names) == 3
        await servers[1].stop()
        assert [server.is_running for server in servers] == [True, False, True]
        pids = [server.pid for server in servers if server.pid is not None]
    assert all(is_gone(pid) for pid in pids)


async def test_crash_detection(tmp_path: Path) -> None:
    async with gateway(tmp_path) as client:
        server = await everything(client)
        pid = server.pid
        with pytest.raises(OutcomeUnknown) as caught:
            await server.send_request("tools/call", call("die", code=7))
        cause = caught.value.__cause__
        assert isinstance(cause, ProcessExited)
        assert cause.exit_code == 7
        assert "dying with 7" in cause.stderr_tail
        assert not server.is_running
        # The next request has a process again: nothing of the old one is sent twice.
        assert await server.send_request("tools/list")
        assert server.pid not in {pid, None}
        assert server.statistics().wire.restarts == 1


@pytest.mark.fault(43)
async def test_resource_cleanup(tmp_path: Path) -> None:
    with baseline():
        pids = []
        for how in ("close", "disconnect", "crash"):
            async with gateway(tmp_path / how) as client:
                server = await everything(client)
                assert server.pid is not None
                pids.append(server.pid)
                if how == "disconnect":
                    await client.disconnect_local_server(server.server_id)
                elif how == "crash":
                    os.kill(server.pid, signal.SIGKILL)
    assert all(is_gone(pid) for pid in pids)


@pytest.mark.fault(43)
async def test_custom_environment(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary")
    async with gateway(tmp_path) as client:
        server = await everything(client, env={"GREETING": "grüße"}, cwd=tmp_path)

        async def variable(name: str) -> str:
            said = await server.send_request("tools/call", call("environment", name=name))
            text: str = said["content"][0]["text"]
            return text

        assert await variable("GREETING") == "grüße"
        assert await variable("AWS_SECRET_ACCESS_KEY") == ""
        assert await variable("PATH") != ""
        assert folder_of(server.pid) == tmp_path


@pytest.mark.fault(41, 43)
async def test_resource_limits(tmp_path: Path) -> None:
    limits = ResourceLimits(rss_bytes_max=200 << 20, open_files_max=64, interval_s=0.02)
    async with gateway(tmp_path) as client:
        server = await everything(client, limits=limits)
        assert open_files_of(server.pid) == ["64", "64"]
        pid = server.pid
        with pytest.raises((OutcomeUnknown, ResourceLimitExceeded)) as caught:
            await server.send_request("tools/call", call("big", size=500 << 20))
        error = caught.value.__cause__ or caught.value
        assert isinstance(error, ResourceLimitExceeded)
        assert error.limit == "rss_bytes_max"
        assert await server.send_request("tools/list")
        assert server.pid != pid
