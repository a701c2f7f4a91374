"""What the operator has switched off sends nothing (security, line 37): not one byte, recorded.

The servers are real and count what reaches them: an HTTP server its connections, a child process
the lines on its standard input.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from attrs import define

from sark_trio import AllowAll, Denied, GatewayClient, Http, Principal, Stdio
from tests.support.client import ALICE, audited, check_log
from tests.support.http_servers import Peer, RawServer, Received, modern, result, serve
from tests.support.stdio import changeable

pytestmark = [pytest.mark.anyio, pytest.mark.security(37)]

BOB = Principal(id="bob", roles=("analyst",))
TOOLS = [{"name": name, "inputSchema": {"type": "object"}} for name in ("echo", "other")]
#: Everything that can be asked of a server, in its name.
Ask = Callable[[GatewayClient, str], Awaitable[Any]]
ASKS: dict[str, Ask] = {
    "invoke_tool": lambda client, name: client.invoke_tool(name, "echo"),
    "list_tools": lambda client, name: client.list_tools(name),
    "list_prompts": lambda client, name: client.list_prompts(name),
    "get_prompt": lambda client, name: client.get_prompt(name, "greet"),
    "list_resources": lambda client, name: client.list_resources(name),
    "read_resource": lambda client, name: client.read_resource(name, "file:///a"),
    "ping": lambda client, name: client.ping(name),
    "set_log_level": lambda client, name: client.set_log_level(name, "error"),
    "connect": lambda client, name: client.connect(name),
}


@define
class House:
    """A client, and what its two servers have received."""

    client: GatewayClient
    web: RawServer
    seen: Path

    def received(self) -> tuple[int, int]:
        """Requests at the HTTP server, and bytes at the child."""
        size = self.seen.stat().st_size if self.seen.exists() else 0
        return len(self.web.requests), size


async def answer(peer: Peer, received: Received) -> None:
    if received.rpc == "tools/list":
        await peer.send(result(received, {"tools": TOOLS, "ttlMs": 0}))
    else:
        await peer.send(result(received))


@asynccontextmanager
async def house(folder: Path) -> AsyncIterator[House]:
    await anyio.Path(folder / "tools.json").write_text(json.dumps(TOOLS))
    command = changeable(folder / "tools.json", folder / "seen.txt")
    with anyio.fail_after(90):
        async with serve(modern(answer)) as web:
            servers = {"web": Http(web.url), "child": Stdio(command)}
            options: dict[str, Any] = {"policy": AllowAll(), "principal": ALICE}
            async with GatewayClient(servers=servers, audit=folder / "audit", **options) as client:
                yield House(client, web, folder / "seen.txt")


@pytest.mark.parametrize("connected", [False, True], ids=["cold", "connected"])
@pytest.mark.parametrize("ask", ASKS)
@pytest.mark.parametrize("name", ["web", "child"])
async def test_nothing_is_sent_to_a_server_that_is_off(
    name: str, ask: str, connected: bool, tmp_path: Path
) -> None:
    async with house(tmp_path) as home:
        if connected:
            await home.client.invoke_tool(name, "echo")
        before = home.received()
        home.client.block(name, reason="incident 7")
        try:
            listed = await ASKS[ask](home.client, name)
        except Denied as exc:
            assert (exc.reason, exc.delivery) == ("blocked", "not_sent")
        else:
            assert (ask, len(listed)) == ("list_tools", 0)
        assert home.received() == before


async def test_a_block_is_of_what_it_names_and_both_ends_of_it_are_recorded(
    tmp_path: Path,
) -> None:
    async with house(tmp_path) as home:
        client = home.client
        for name in ("web", "child"):
            await client.invoke_tool(name, "echo")
        client.block("web", "echo", reason="incident 7")
        client.block("child", principal="bob", reason="incident 8")
        refused = {
            (name, tool, who.id)
            for name in ("web", "child")
            for tool in ("echo", "other")
            for who in (ALICE, BOB)
            if not await allowed(home, name, tool, who)
        }
        assert refused == {
            ("web", "echo", "alice"),
            ("web", "echo", "bob"),
            ("child", "echo", "bob"),
            ("child", "other", "bob"),
        }
        assert client.unblock("web", "echo")
        assert await allowed(home, "web", "echo", BOB)
    check_log(tmp_path / "audit")
    assert len(audited(tmp_path / "audit", "denied")) == 4
    told = [
        (e["name"], e["details"]["reason"])
        for e in audited(tmp_path / "audit", "event")
        if e["name"] != "program_started"
    ]
    assert told == [("blocked", "incident 7"), ("blocked", "incident 8"), ("unblocked", "")]


async def allowed(home: House, name: str, tool: str, who: Principal) -> bool:
    """Whether *who* may call it; if not, nothing has reached a server."""
    before = home.received()
    try:
        await home.client.invoke_tool(name, tool, principal=who)
    except Denied:
        assert home.received() == before
        return False
    assert home.received() != before
    return True


async def test_whether_it_is_well_is_not_asked_either(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        await home.client.invoke_tool("child", "echo")
        before = home.received()
        home.client.block(reason="incident 7")
        report = await home.client.health_check(timeout_s=30)
        for health in report.servers.values():
            assert (health.status, health.error) == ("unknown", "blocked by the operator")
        assert home.received() == before


async def test_a_notification_that_waits_for_the_log_is_stopped(tmp_path: Path) -> None:
    """A block that comes between the decision and the sending counts as well."""
    async with house(tmp_path) as home:
        command = changeable(tmp_path / "tools.json", tmp_path / "seen.txt")
        local = await home.client.connect_local_server(command, server_id="mine")
        before = home.received()

        def stop(_seq: int, record: Any) -> None:
            if record["kind"] == "intent":
                home.client.block("mine", reason="incident 9")

        home.client.observe(stop)
        with pytest.raises(Denied) as caught:
            await local.send_notification("notifications/roots/list_changed")
        assert caught.value.delivery == "not_sent"
        assert home.received() == before


async def test_everything_is_off_at_once(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        await home.client.invoke_tool("web", "echo")
        before = home.received()
        home.client.block(reason="all hands")
        async with anyio.create_task_group() as tasks:
            for name in ("web", "child"):
                for ask in ASKS.values():
                    tasks.start_soon(refused, home, name, ask)
        assert home.received() == before


async def refused(home: House, name: str, ask: Ask) -> None:
    try:
        assert len(await ask(home.client, name)) == 0
    except Denied as exc:
        assert exc.reason == "blocked"


async def test_requests_in_ones_own_words_are_off_too(tmp_path: Path) -> None:
    async with house(tmp_path) as home:
        command = changeable(tmp_path / "tools.json", tmp_path / "seen.txt")
        local = await home.client.connect_local_server(command, server_id="mine")
        before = home.received()
        home.client.block("mine", reason="incident 9")
        with pytest.raises(Denied):
            await local.send_request("tools/list")
        with pytest.raises(Denied):
            await local.send_request("tools/call", {"name": "echo", "arguments": {}})
        with pytest.raises(Denied):
            await local.send_notification("notifications/roots/list_changed")
        assert home.received() == before
