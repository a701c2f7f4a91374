"""The MCP endpoint of the gateway, message by message, in both eras."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from sark_trio import AllowAll, AuditLog, GatewayClient, Principal
from sark_trio.client.servers import Memory
from sark_trio.errors import RemoteError
from sark_trio.gateway import answering
from sark_trio.gateway.endpoint import McpEndpoint
from sark_trio.gateway.methods import Methods
from sark_trio.gateway.sessions import Sessions
from sark_trio.transports.memory import Incoming
from tests.support.audit_disk import MemoryDisk
from tests.support.client import Desk, answer, audited, desk, open_client, tool
from tests.support.gateway import (
    Answer,
    Legacy,
    Served,
    Stuck,
    connected,
    envelope,
    eventually,
    head,
    serving,
    sse_events,
)

pytestmark = pytest.mark.anyio

ECHO = {"name": "desk__echo", "arguments": {"a": 1}}
ABOUT = "io.modelcontextprotocol/serverInfo"
ALICE, BOB = Principal(id="alice"), Principal(id="bob")
ALICES, BOBS = "alices-key-alices-key", "bobs-key-bobs-key-123"


@asynccontextmanager
async def served_by(
    server: Any, disk: MemoryDisk | None = None, client: Any = None, **options: Any
) -> AsyncIterator[Served]:
    async with (
        open_client(server, disk, **(client or {})) as inner,
        serving(inner, **options) as served,
    ):
        yield served


async def with_progress(incoming: Incoming) -> Mapping[str, Any]:
    """Progress in steps, one of them backwards, then the answer."""
    params = incoming.receive()
    token = params["_meta"]["progressToken"] if "_meta" in params else "none"
    for value in (1, 2, 2, 1.5, 3):
        incoming.notify(
            "notifications/progress",
            {"progressToken": token, "progress": value, "total": 3, "message": f"at {value}"},
        )
    return answer("done")


# -- 2026-07-28 -----------------------------------------------------------------------------------


async def test_discovery_says_what_there_is() -> None:
    async with served_by(desk(), instructions="Ask first.") as served:
        found = await served.rpc("server/discover", {})
    assert found.headers["content-type"] == "application/json"
    result = found.json["result"]
    assert found.json["id"] == 1
    assert (result["supportedVersions"], result["resultType"]) == (["2026-07-28"], "complete")
    assert result["capabilities"] == {"tools": {}}
    assert (result["instructions"], result["cacheScope"]) == ("Ask first.", "public")
    assert result["ttlMs"] > 0
    assert result["_meta"][ABOUT]["name"] == "sark_trio"
    assert "mcp-session-id" not in found.headers


async def test_tools_are_listed_under_their_servers_and_not_mirrored() -> None:
    schema = {
        "type": "object",
        "properties": {"region": {"type": "string", "x-mcp-header": "Region"}},
    }
    listed = tool("query", inputSchema=schema, execution={"taskSupport": "required"}, title="Ask")
    async with served_by(desk(tools=[listed])) as served:
        result = (await served.rpc("tools/list", {})).json["result"]
    (item,) = result["tools"]
    plain = {"type": "object", "properties": {"region": {"type": "string"}}}
    assert item == {"name": "desk__query", "title": "Ask", "inputSchema": plain}
    assert (result["cacheScope"], result["resultType"]) == ("private", "complete")
    assert "nextCursor" not in result


async def test_long_lists_have_pages() -> None:
    async with served_by(desk(tools=[tool(f"t{n}") for n in range(1500)])) as served:
        first = (await served.rpc("tools/list", {})).json["result"]
        rest = (await served.rpc("tools/list", {"cursor": first["nextCursor"]})).json["result"]
        names = [one["name"] for one in first["tools"] + rest["tools"]]
        assert names == [f"desk__t{n}" for n in range(1500)]
        assert "nextCursor" not in rest
        for cursor in ("x", "-1", "²", 7, "9" * 30):
            found = await served.rpc("tools/list", {"cursor": cursor})
            assert found.error["code"] == -32602


async def test_a_call_is_answered_in_json_where_nothing_comes_before() -> None:
    said = answer("hi", structuredContent={"a": 1}, _meta={ABOUT: {"name": "behind"}, "own": 1})
    server = desk(said, answer("no", isError=True))
    async with served_by(server) as served:
        found = await served.rpc("tools/call", {**ECHO, "_meta": {"progressToken": 7}})
        assert found.headers["content-type"] == "application/json"
        result = found.json["result"]
        assert result["structuredContent"] == {"a": 1}
        assert (result["resultType"], result["_meta"]["own"]) == ("complete", 1)
        assert result["_meta"][ABOUT]["name"] == "sark_trio"
        failed = await served.rpc("tools/call", {"name": "desk__echo"})
        assert failed.json["result"]["isError"] is True
    assert server.arrived == [{"a": 1}, {}]


@pytest.mark.parametrize("token", [7, "seven", 0, ""])
async def test_progress_comes_as_events_under_the_callers_token_and_only_forward(
    token: Any,
) -> None:
    async with served_by(desk(with_progress)) as served:
        found = await served.rpc("tools/call", {**ECHO, "_meta": {"progressToken": token}})
    assert found.headers["content-type"] == "text/event-stream"
    assert found.headers["x-accel-buffering"] == "no"
    *events, last = sse_events(found.body)
    assert [one["params"]["progress"] for one in events] == [1, 2, 3]
    assert {one["method"] for one in events} == {"notifications/progress"}
    assert {json.dumps(one["params"]["progressToken"]) for one in events} == {json.dumps(token)}
    assert (events[0]["params"]["total"], events[0]["params"]["message"]) == (3, "at 1")
    assert last["id"] == 1
    assert last["result"]["content"][0]["text"] == "done"


@pytest.mark.parametrize(
    ("params", "accept"),
    [({}, "*/*"), ({"progressToken": 7}, "application/json"), ({"progressToken": True}, "*/*")],
)
async def test_progress_is_not_told_where_it_is_not_wanted(params: Any, accept: str) -> None:
    async with served_by(desk(with_progress)) as served:
        found = await served.rpc("tools/call", {**ECHO, "_meta": params}, Accept=accept)
    assert found.headers["content-type"] == "application/json"
    assert found.json["result"]["content"][0]["text"] == "done"


async def test_a_long_silence_is_filled_with_comments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answering, "PING_S", 0.02)
    late = Stuck()
    async with served_by(desk(late)) as served:
        headers, body = envelope("tools/call", ECHO)
        async with connected(served.url) as stream:
            await stream.send(head(served.url, "POST", "/mcp", json.dumps(body).encode(), headers))
            got = b""
            while got.count(b": ping\n\n") < 3:
                got += await stream.receive()
            late.goes_on.set()
            while not got.endswith(b"0\r\n\r\n"):
                got += await stream.receive()
    assert b"text/event-stream" in got
    assert b'"late"' in got


FAULTY: list[tuple[dict[str, Any], dict[str, str], int, int]] = [
    # parameters, headers, HTTP status, JSON-RPC code
    (ECHO, {"Mcp_Name": "desk__other"}, 400, -32020),
    (ECHO, {"Mcp_Name": "=?base64?!!?="}, 400, -32020),
    (ECHO, {"Mcp_Method": "tools/list"}, 400, -32020),
    (ECHO, {"Mcp_Method": "TOOLS/CALL"}, 400, -32020),
    (ECHO, {"MCP_Protocol_Version": "2025-11-25"}, 400, -32020),
    (ECHO, {"MCP_Protocol_Version": "2099-01-01"}, 400, -32020),
    (
        {**ECHO, "_meta": {"io.modelcontextprotocol/protocolVersion": "2099-01-01"}},
        {"MCP_Protocol_Version": "2099-01-01"},
        400,
        -32022,
    ),
    (
        {**ECHO, "_meta": {"io.modelcontextprotocol/protocolVersion": None}},
        {"MCP_Protocol_Version": "2099-01-01"},
        400,
        -32022,
    ),
    ({**ECHO, "_meta": {"io.modelcontextprotocol/protocolVersion": None}}, {}, 400, -32602),
    ({**ECHO, "_meta": {"io.modelcontextprotocol/clientCapabilities": 3}}, {}, 400, -32602),
    ({**ECHO, "name": 3}, {}, 400, -32020),
    ({"arguments": {}}, {"Mcp_Name": "desk__echo"}, 400, -32020),
    ({**ECHO, "arguments": []}, {}, 200, -32602),
]


@pytest.mark.security(22)
@pytest.mark.parametrize(("params", "headers", "status", "code"), FAULTY)
async def test_headers_and_body_must_agree(
    params: dict[str, Any], headers: dict[str, str], status: int, code: int
) -> None:
    server = desk()
    async with served_by(server) as served:
        found = await served.rpc("tools/call", params, **headers)
    assert (found.status, found.error["code"]) == (status, code)
    assert found.json["id"] == 1
    if code == -32022:
        assert found.error["data"] == {"supported": ["2026-07-28"], "requested": "2099-01-01"}
    assert server.arrived == []


@pytest.mark.parametrize("missing", ["MCP_Protocol_Version", "Mcp_Method", "Mcp_Name"])
async def test_a_header_that_is_missing_is_a_mismatch(missing: str) -> None:
    async with served_by(desk()) as served:
        headers, body = envelope("tools/call", ECHO)
        del headers[missing]
        found = await served.ask("POST", "/mcp", body, **headers)
    assert (found.status, found.error["code"]) == (400, -32020)


async def test_a_name_that_no_header_can_hold_comes_encoded() -> None:
    async with served_by(desk()) as served:
        found = await served.rpc(
            "tools/call", {"name": "desk__ä"}, Mcp_Name="=?base64?ZGVza19fw6Q=?="
        )
    assert (found.status, found.error["code"]) == (200, -32602)
    assert found.error["data"]["type"] == "unknown_tool"


@pytest.mark.parametrize("method", ["ping", "initialize", "resources/list", "logging/setLevel"])
async def test_a_method_that_is_not_there_is_404(method: str) -> None:
    async with served_by(desk()) as served:
        found = await served.rpc(method, {})
    assert (found.status, found.error["code"]) == (404, -32601)


@pytest.mark.parametrize(
    ("body", "code", "request_id"),
    [
        (b"{", -32700, None),
        (b"\xff", -32700, None),
        (b'{"jsonrpc":"2.0","id":1,"id":2,"method":"ping"}', -32700, None),
        (b"[]", -32600, None),
        (b'[{"jsonrpc":"2.0","id":1,"method":"tools/list"}]', -32600, None),
        (b'{"jsonrpc":"1.0","id":1,"method":"tools/list"}', -32600, 1),
        (b'{"jsonrpc":"2.0","id":null,"method":"tools/list"}', -32600, None),
        (b'{"jsonrpc":"2.0","id":1,"method":"tools/list","params":[]}', -32600, 1),
    ],
)
async def test_what_is_no_message_is_refused(
    body: bytes, code: int, request_id: int | None
) -> None:
    async with served_by(desk()) as served:
        found = await served.ask("POST", "/mcp", body, MCP_Protocol_Version="2026-07-28")
    assert (found.status, found.error["code"]) == (400, code)
    assert found.json["id"] == request_id


async def test_notifications_are_taken_and_responses_are_not() -> None:
    async with served_by(desk()) as served:
        modern = {"MCP_Protocol_Version": "2026-07-28"}
        note = {"jsonrpc": "2.0", "method": "notifications/anything"}
        found = await served.ask("POST", "/mcp", note, **modern)
        assert (found.status, found.body) == (202, b"")
        answered = {"jsonrpc": "2.0", "id": 1, "result": {}}
        assert (await served.ask("POST", "/mcp", answered, **modern)).status == 400
        found = await served.ask("POST", "/mcp", note, MCP_Protocol_Version="2099-01-01")
        assert (found.status, found.error["code"]) == (400, -32022)
        assert (await served.ask("GET", "/mcp", **modern)).status == 405
        assert (await served.rpc("tools/list", {}, Accept="text/html")).status == 406


async def test_failures_have_codes_of_their_own() -> None:
    failures = [
        RemoteError("theirs", code=-32602),
        RemoteError("theirs", code=-32020),
        RemoteError("theirs", code=42),
    ]
    async with served_by(desk(*failures)) as served:
        codes = [(await served.rpc("tools/call", ECHO)).error["code"] for _ in failures]
    assert codes == [-32602, -32603, 42]
    async with served_by(desk(), client={"policy": None}) as served:
        found = await served.rpc("tools/call", ECHO)
        assert (found.status, found.error["code"]) == (200, 403)
        assert found.error["data"]["type"] == "denied"
        assert (await served.rpc("tools/list", {})).json["result"]["tools"] == []


async def test_a_caller_that_goes_away_gives_up_its_call() -> None:
    disk = MemoryDisk()
    stuck = Stuck()
    async with served_by(desk(stuck), disk) as served:
        headers, body = envelope("tools/call", ECHO)
        async with connected(served.url) as stream:
            await stream.send(head(served.url, "POST", "/mcp", json.dumps(body).encode(), headers))
            await stuck.arrived.wait()
        await eventually(lambda: served.client.statistics().running_calls == 0)
        assert (await served.rpc("tools/call", ECHO)).status == 200
    first, second = audited(disk, "outcome")
    assert (first["outcome"], first["delivery"]) == ("cancelled", "unknown")
    assert second["outcome"] == "ok"


@pytest.mark.security(15)
async def test_names_that_could_mean_two_tools_are_not_offered() -> None:
    one, two = Desk(tools=[tool("b__c"), tool("d")]), Desk(tools=[tool("c"), tool("x" * 128)])
    client = GatewayClient(
        servers={"a": Memory(one), "a__b": Memory(two)},
        policy=AllowAll(),
        audit=AuditLog("log", files=MemoryDisk()),
    )
    async with client, serving(client) as served:
        listed = (await served.rpc("tools/list", {})).json["result"]["tools"]
        assert [each["name"] for each in listed] == ["a__d", "a__b__c"]
        assert (await served.rpc("tools/call", {"name": "a__b__c"})).status == 200
    assert (one.arrived, two.arrived) == ([], [{}])


# -- the revisions with sessions ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "agreed"),
    [
        ("2025-11-25", "2025-11-25"),
        ("2025-06-18", "2025-06-18"),
        ("2025-03-26", "2025-03-26"),
        ("2024-11-05", "2025-11-25"),
        ("2099-01-01", "2025-11-25"),
    ],
)
async def test_a_session_from_its_beginning_to_its_end(wanted: str, agreed: str) -> None:
    async with served_by(desk(with_progress)) as served:
        client = Legacy(served)
        result = (await client.initialize(wanted)).json["result"]
        assert result["protocolVersion"] == agreed
        assert result["serverInfo"]["name"] == "sark_trio"
        assert "resultType" not in result
        assert (await client.notify("notifications/initialized")).status == 202
        version = {"MCP_Protocol_Version": agreed}
        assert (await client.call("ping", **version)).json["result"] == {}
        listed = (await client.call("tools/list", **version)).json["result"]
        assert [one["name"] for one in listed["tools"]] == ["desk__echo"]
        assert "resultType" not in listed
        found = await client.call("tools/call", {**ECHO, "_meta": {"progressToken": "t"}})
        *events, last = sse_events(found.body)
        assert [one["params"]["progress"] for one in events] == [1, 2, 3]
        assert last["result"]["content"][0]["text"] == "done"
        assert "resultType" not in last["result"]
        unknown = await client.call("resources/list")
        assert (unknown.status, unknown.error["code"]) == (200, -32601)
        assert (await client.post({"jsonrpc": "2.0", "id": 9, "result": {}})).status == 202
        assert (await client.notify("notifications/cancelled", {"requestId": 99})).status == 202
        session = {"Mcp_Session_Id": client.headers["Mcp_Session_Id"]}
        assert (await served.ask("DELETE", "/mcp", **session)).status == 204
        assert (await client.call("ping")).status == 404
        assert (await served.ask("DELETE", "/mcp", **session)).status == 404


async def test_a_session_that_is_not_there_or_speaks_otherwise() -> None:
    async with served_by(desk()) as served:
        client = Legacy(served)
        assert (await client.call("ping")).status == 400
        assert (await client.notify("notifications/initialized")).status == 400
        assert (await served.ask("DELETE", "/mcp")).status == 400
        assert (await client.call("ping", Mcp_Session_Id="invented")).status == 404
        wrong = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {}}
        assert (await client.post(wrong)).error["code"] == -32602
        await client.initialize()
        found = await client.call("ping", MCP_Protocol_Version="2025-06-18")
        assert (found.status, found.error["code"]) == (400, -32600)


@pytest.mark.security(12)
@pytest.mark.fault(48)
async def test_a_session_is_its_owners_alone() -> None:
    async with served_by(desk(), api_keys={ALICES: ALICE, BOBS: BOB}) as served:
        alice = Legacy(served, X_API_Key=ALICES)
        await alice.initialize()
        assert (await alice.call("ping")).status == 200
        session = alice.headers["Mcp_Session_Id"]
        bob = Legacy(served, X_API_Key=BOBS, Mcp_Session_Id=session)
        assert (await bob.call("ping")).status == 404
        assert (await bob.served.ask("DELETE", "/mcp", **bob.headers)).status == 404
        assert (await alice.call("ping")).status == 200


@pytest.mark.parametrize("how", ["cancelled", "deleted"])
async def test_a_call_is_given_up_by_its_owner(how: str) -> None:
    disk = MemoryDisk()
    stuck = Stuck()
    async with served_by(desk(stuck), disk) as served, anyio.create_task_group() as tasks:
        client = Legacy(served)
        await client.initialize()
        found: list[Answer] = []

        async def call() -> None:
            found.append(await client.call("tools/call", ECHO))

        tasks.start_soon(call)
        await stuck.arrived.wait()
        same = {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": ECHO}
        assert (await client.post(same)).error["code"] == -32600
        if how == "cancelled":
            await client.notify("notifications/cancelled", {"requestId": 2})
        else:
            await served.ask("DELETE", "/mcp", **client.headers)
        await eventually(lambda: bool(found))
    assert (found[0].status, sse_events(found[0].body)) == (200, [])
    (ended,) = audited(disk, "outcome")
    assert ended["outcome"] == "cancelled"


async def test_a_legacy_caller_that_goes_away_gives_up_nothing() -> None:
    disk = MemoryDisk()
    late = Stuck()
    async with served_by(desk(late), disk) as served:
        client = Legacy(served)
        await client.initialize()
        body = {"jsonrpc": "2.0", "id": 5, "method": "tools/call", "params": ECHO}
        async with connected(served.url) as stream:
            data = json.dumps(body).encode()
            await stream.send(head(served.url, "POST", "/mcp", data, client.headers))
            await late.arrived.wait()
        assert (await client.call("ping")).status == 200
        late.goes_on.set()
        await eventually(lambda: served.client.statistics().running_calls == 0)
    (ended,) = audited(disk, "outcome")
    assert ended["outcome"] == "ok"


async def test_more_sessions_than_can_be_are_turned_away() -> None:
    stuck = Stuck()
    async with served_by(desk(stuck)) as served, anyio.create_task_group() as tasks:
        served.app.mcp = McpEndpoint(
            Methods(served.client), served.app.lapses, Sessions(sessions_max=1)
        )
        busy = Legacy(served)
        await busy.initialize()
        tasks.start_soon(busy.call, "tools/call", ECHO)
        await stuck.arrived.wait()
        found = await Legacy(served).initialize()
        assert (found.status, found.error["type"]) == (503, "overloaded")
        stuck.goes_on.set()


async def test_progress_that_nobody_takes_is_left_out() -> None:
    async def floods(incoming: Incoming) -> Mapping[str, Any]:
        token = incoming.receive().get("_meta", {}).get("progressToken", "none")
        for value in range(1000):
            params = {"progressToken": token, "progress": value}
            incoming.notify("notifications/progress", params)
        return answer("done")

    async with served_by(desk(floods)) as served:
        found = await served.rpc("tools/call", {**ECHO, "_meta": {"progressToken": 1}})
    *events, last = sse_events(found.body)
    # One may be in the hands of whoever sends them.
    assert answering.EVENTS_MAX <= len(events) <= answering.EVENTS_MAX + 1
    assert set(events[0]["params"]) == {"progressToken", "progress"}
    assert last["result"]["content"][0]["text"] == "done"


async def test_a_tool_whose_name_holds_the_joint() -> None:
    server = desk(tools=[tool("a__b")])
    async with served_by(server) as served:
        assert (await served.rpc("tools/call", {"name": "desk__a__b"})).status == 200
        found = await served.rpc("tools/call", {"name": "x__desk__a"})
        assert found.error["data"]["type"] == "unknown_tool"
    assert server.arrived == [{}]
