"""All that MCP offers, through the gateway, in front of real servers and for real clients."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import pytest

from sark_trio import AllowAll, GatewayClient, Http, Principal, Rego, Stdio
from sark_trio.errors import ConfigError
from sark_trio.gateway import callers_answer, create_app
from tests.support.client import check_log
from tests.support.gateway import Answer, Served, connected, head, serving
from tests.support.peers import http_server, peer, stdio_server
from tests.tidy.source import ROOT

pytestmark = pytest.mark.anyio

CLIENT = Path(__file__).parents[1] / "peers" / "clients" / "whole_mcp2.py"
LEGACY, MODERN = "2025-11-25", "2026-07-28"
ALICES, BOBS = "alices-key-alices-key", "bobs-key-bobs-key-123"
KEYS = {ALICES: Principal(id="alice"), BOBS: Principal(id="bob")}
CAPABILITIES = "io.modelcontextprotocol/clientCapabilities"
ASKED = {"_meta": {CAPABILITIES: {"elicitation": {}, "sampling": {}, "roots": {}}}}
#: Longer than anything takes on a loaded machine.
HUNG_S = 60.0


@pytest.fixture(scope="module")
def asks() -> Iterator[str]:
    with http_server("asking-mcp2") as url:
        yield url


@asynccontextmanager
async def gateway(
    servers: Mapping[str, Any], folder: Path, policy: Any = None, **options: Any
) -> AsyncIterator[Served]:
    client = GatewayClient(
        servers=servers,
        policy=policy or AllowAll(),
        audit=folder / "audit",
        handlers=callers_answer(),
    )
    async with client, serving(client, **options) as served:
        yield served


async def drive(mode: str, *where: str) -> dict[str, Any]:
    """What the official SDK's client saw."""
    python = str(peer("mcp2").python)
    with anyio.fail_after(HUNG_S):
        done = await anyio.run_process(
            [python, "-W", "ignore", str(CLIENT), mode, *where], check=False
        )
    assert done.returncode == 0, done.stderr.decode()[-3000:]
    saw: dict[str, Any] = json.loads(done.stdout)
    return saw


@pytest.mark.parametrize("upstream", [MODERN, LEGACY])
@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_the_official_client_uses_all_of_it(
    mode: str, upstream: str, asks: str, tmp_path: Path
) -> None:
    servers = {
        "asks": Http(asks, protocol_version=upstream),
        "peer": Stdio(stdio_server("everything-mcp2")),
    }
    async with gateway(servers, tmp_path) as served:
        saw = await drive(mode, f"{served.url}/mcp", *([] if upstream == MODERN else ["plain"]))
    assert saw["version"] == (MODERN if mode == "auto" else LEGACY)
    assert saw["resources"] == ["mcp://asks/text://hello", "mcp://asks/note://{name}"]
    assert saw["read"] == ["mcp://asks/text://hello", "hello, resource", "the note one"]
    assert saw["prompts"] == ["asks__review", "review: x"]
    assert saw["completed"] == [["aba", "abb"], ["aba", "abb"]]
    assert saw["errors"] == [-32602 if mode == "auto" else -32002, -32602]
    assert saw["greeted"] == "hello Ada"
    assert saw["progress"] == [[1.0, "hey"]]
    assert saw["logs"] == [["info", "hey"]]
    if upstream == MODERN:
        assert saw["asked"] == "seven, accept, 2 roots"
        told = {"notifications/resources/updated", "notifications/tools/list_changed"}
        heard = {"ResourceUpdated", "ToolsListChanged"}
        assert (told if mode == "legacy" else heard) <= set(saw["changed"])
    methods = {one["method"] for one in check_log(tmp_path / "audit") if one["kind"] == "intent"}
    assert {"tools/call", "prompts/get", "resources/read", "completion/complete"} <= methods


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_one_server_is_shown_as_it_is(mode: str, asks: str, tmp_path: Path) -> None:
    async with gateway({"asks": Http(asks)}, tmp_path, passthrough=True) as served:
        saw = await drive(mode, f"{served.url}/mcp")
    assert saw["resources"] == ["text://hello", "note://{name}"]
    assert (saw["prompts"][0], saw["asked"]) == ("review", "seven, accept, 2 roots")


async def test_names_of_several_servers_are_not_shown_without_them(
    asks: str, tmp_path: Path
) -> None:
    client = GatewayClient(
        servers={"a": asks, "b": asks}, policy=AllowAll(), audit=tmp_path / "audit"
    )
    async with client:
        with pytest.raises(ConfigError, match="2 are configured"):
            create_app(client, passthrough=True)


async def test_other_peoples_prompts_and_resources(tmp_path: Path) -> None:
    servers = {"all": Stdio(stdio_server("everything-node"))}
    async with gateway(servers, tmp_path) as served:
        prompts = (await served.rpc("prompts/list", {})).json["result"]["prompts"]
        assert all(one["name"].startswith("all__") for one in prompts)
        listed = (await served.rpc("resources/list", {})).json["result"]
        uri = listed["resources"][0]["uri"]
        assert uri.startswith("mcp://all/")
        read = (await ask(served, "resources/read", {"uri": uri}, Mcp_Name=uri)).json["result"]
        assert read["contents"][0]["uri"] == uri
        assert (listed["cacheScope"], read["cacheScope"]) == ("private", "private")
        unknown = await ask(served, "resources/read", {"uri": "x://y"}, Mcp_Name="x://y")
        assert (unknown.error["code"], unknown.error["data"]) == (-32602, {"uri": "x://y"})
        found = (await served.rpc("server/discover", {})).json["result"]["capabilities"]
        assert found["resources"]["subscribe"] is True


async def test_policy_decides_about_prompts_and_resources(asks: str, tmp_path: Path) -> None:
    policy = tmp_path / "policy.rego"
    policy.write_text(
        'package mcp.gateway\nallow if input.action == "gateway:prompt:get"\n'
        'allow if input.action == "gateway:resource:discover"\n'
    )
    async with gateway({"asks": asks}, tmp_path, Rego(policy)) as served:
        assert (await served.rpc("prompts/list", {})).json["result"]["prompts"] == []
        got = await served.rpc("prompts/get", {"name": "asks__review", "arguments": {"code": "x"}})
        assert got.json["result"]["messages"][0]["content"]["text"] == "review: x"
        uri = "mcp://asks/text://hello"
        listed = (await served.rpc("resources/list", {})).json["result"]["resources"]
        assert [one["uri"] for one in listed] == [uri]
        denied = await ask(served, "resources/read", {"uri": uri}, Mcp_Name=uri)
        assert denied.error["data"]["type"] == "denied"
        heard = {"notifications": {"resourceSubscriptions": [uri]}}
        denied = await served.rpc("subscriptions/listen", heard)
        assert denied.error["data"]["type"] == "denied"


# -- questions ------------------------------------------------------------------------------------


async def ask(served: Served, method: str, params: Mapping[str, Any], **headers: str) -> Answer:
    return await served.rpc(method, {**params, "_meta": {**ASKED["_meta"]}}, **headers)


@pytest.mark.parametrize("upstream", [MODERN, LEGACY])
async def test_a_question_is_answered_by_coming_again(
    upstream: str, asks: str, tmp_path: Path
) -> None:
    greet = {"name": "asks__greet", "arguments": {}}
    servers = {"asks": Http(asks, protocol_version=upstream)}
    async with gateway(servers, tmp_path, api_keys=KEYS) as served:
        first = (await ask(served, "tools/call", greet, X_API_Key=ALICES)).json["result"]
        assert first["resultType"] == "input_required"
        ((key, request),) = first["inputRequests"].items()
        assert (request["method"], request["params"]["message"]) == (
            "elicitation/create",
            "Who are you?",
        )
        state = first["requestState"]
        answer = {key: {"action": "accept", "content": {"name": "Eve"}}}
        again = {**greet, "inputResponses": answer, "requestState": state}
        for wrong, whose in (
            ({**again, "requestState": f"{state[:-4]}xxxx"}, ALICES),
            ({**again, "inputResponses": 7}, ALICES),
            *([] if upstream == MODERN else [(again, BOBS)]),
        ):
            refused = await ask(served, "tools/call", wrong, X_API_Key=whose)
            assert refused.error["code"] == -32602
        # What is left out is asked for again.
        missing = {**greet, "inputResponses": {}, "requestState": state}
        if upstream == LEGACY:
            asked = (await ask(served, "tools/call", missing, X_API_Key=ALICES)).json["result"]
            assert asked == first
        done = (await ask(served, "tools/call", again, X_API_Key=ALICES)).json["result"]
        assert (done["resultType"], done["content"][0]["text"]) == ("complete", "hello Eve")
        if upstream == LEGACY:
            gone = await ask(served, "tools/call", again, X_API_Key=ALICES)
            assert gone.error["code"] == -32602
    log = "".join(
        one.read_text(errors="replace") for one in (tmp_path / "audit").iterdir() if one.is_file()
    )
    assert state not in log
    assert "Eve" not in log


async def test_who_offers_nothing_is_asked_nothing(asks: str, tmp_path: Path) -> None:
    greet = {"name": "asks__greet", "arguments": {}}
    async with gateway({"asks": Http(asks, protocol_version=LEGACY)}, tmp_path) as served:
        refused = await served.rpc("tools/call", greet)
    assert refused.error["message"] == "this client does not offer elicitation"


# -- changes --------------------------------------------------------------------------------------


@asynccontextmanager
async def stream(
    served: Served, method: str, body: bytes, headers: Mapping[str, str]
) -> AsyncIterator[anyio.abc.ByteStream]:
    async with connected(served.url) as raw:
        await raw.send(head(served.url, method, "/mcp", body, headers))
        yield raw


async def until(raw: anyio.abc.ByteStream, *wanted: bytes) -> bytes:
    """Read until all of *wanted* has come."""
    got = b""
    with anyio.fail_after(HUNG_S):
        while not all(one in got for one in wanted):
            got += await raw.receive()
    return got


async def test_changes_are_told_after_they_were_agreed_upon(asks: str, tmp_path: Path) -> None:
    uri = "mcp://asks/text://hello"
    wanted = {"toolsListChanged": True, "resourceSubscriptions": [uri, "mcp://nobody/x://y"]}
    params = {"_meta": {"io.modelcontextprotocol/protocolVersion": MODERN, CAPABILITIES: {}}}
    message = {"jsonrpc": "2.0", "id": 7, "method": "subscriptions/listen"}
    body = json.dumps({**message, "params": {**params, "notifications": wanted}}).encode()
    headers = {"MCP_Protocol_Version": MODERN, "Mcp_Method": "subscriptions/listen"}
    async with (
        gateway({"asks": asks}, tmp_path) as served,
        stream(served, "POST", body, headers) as raw,
    ):
        first = await until(raw, b"acknowledged", b"\n\n")
        told = json.loads(first.partition(b"data: ")[2].partition(b"\n")[0])
        assert told["params"]["_meta"] == {"io.modelcontextprotocol/subscriptionId": 7}
        assert told["params"]["notifications"] == {
            "toolsListChanged": True,
            "resourceSubscriptions": [uri],
        }
        touch = {"name": "asks__touch", "arguments": {"uri": "text://hello"}}
        assert (await served.rpc("tools/call", touch)).status == 200
        rest = await until(raw, b"tools/list_changed", f'"uri":"{uri}"'.encode())
        assert rest.count(b"subscriptionId") >= 2
        assert b"prompts" not in rest
        served.scope.cancel()
        # Ended on purpose: the request is answered.
        await until(raw, b'"id":7,"result"')


async def test_a_session_hears_what_it_watches(asks: str, tmp_path: Path) -> None:
    uri = "mcp://asks/text://hello"
    async with gateway({"asks": asks}, tmp_path) as served:
        opened = await served.ask(
            "POST", "/mcp", _call(1, "initialize", {"protocolVersion": LEGACY, "capabilities": {}})
        )
        assert opened.json["result"]["capabilities"]["resources"]["subscribe"] is True
        session = {"Mcp_Session_Id": opened.headers["mcp-session-id"]}
        accept = {"Accept": "text/event-stream"}
        async with stream(served, "GET", b"", {**session, **accept}) as raw:
            await until(raw, b"text/event-stream")
            second = await served.ask("GET", "/mcp", **session, **accept)
            assert second.status == 409
            watch = _call(2, "resources/subscribe", {"uri": uri})
            assert (await served.ask("POST", "/mcp", watch, **session)).json["result"] == {}
            await _touched_until_heard(served, raw, uri)
            unknown = _call(3, "resources/subscribe", {"uri": "x://y"})
            refused = await served.ask("POST", "/mcp", unknown, **session)
            assert refused.error["code"] == -32002
            leave = _call(4, "resources/unsubscribe", {"uri": uri})
            assert (await served.ask("POST", "/mcp", leave, **session)).json["result"] == {}
            assert (await served.ask("DELETE", "/mcp", **session)).status == 204
            with anyio.fail_after(HUNG_S), pytest.raises(anyio.EndOfStream):
                while True:
                    await raw.receive()


async def _touched_until_heard(served: Served, raw: anyio.abc.ByteStream, uri: str) -> None:
    """What is watched from now on is heard of from some time later on."""
    touch = {"name": "asks__touch", "arguments": {"uri": "text://hello"}}
    async with anyio.create_task_group() as tasks:

        async def go_on() -> None:
            while True:
                await served.rpc("tools/call", touch)

        tasks.start_soon(go_on)
        await until(raw, b"resources/updated", uri.encode())
        tasks.cancel_scope.cancel()


def _call(number: int, method: str, params: Mapping[str, Any]) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": number, "method": method, "params": params}


# -- on a pipe ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("mode", "backend"), [("auto", "trio"), ("legacy", "asyncio")])
def test_a_host_that_starts_the_gateway_has_all_of_it(
    mode: str, backend: str, tmp_path: Path
) -> None:
    settings = tmp_path / "sark.toml"
    command = json.dumps(stdio_server("asking-mcp2"))
    settings.write_text(
        f"[servers.asks]\ncommand = {command}\n[policy]\nallow_all = true\n[audit]\n"
        'directory = "audit"\n[gateway]\npassthrough = true\n'
    )
    serve = [sys.executable, "-W", "error", "-m", "sark_trio", "serve", "--stdio"]
    serve += ["--config", str(settings), "--backend", backend]
    done = subprocess.run(
        [peer("mcp2").python, "-W", "ignore", CLIENT, mode, *serve],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=HUNG_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    saw = json.loads(done.stdout)
    assert saw["resources"] == ["text://hello", "note://{name}"]
    assert (saw["greeted"], saw["asked"]) == ("hello Ada", "seven, accept, 2 roots")
    assert (saw["progress"], saw["logs"]) == ([[1.0, "hey"]], [["info", "hey"]])
    assert len(saw["changed"]) >= 2
    check_log(tmp_path / "audit")
