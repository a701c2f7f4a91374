"""What callers may do to the gateway on purpose, and what then does not happen."""

from __future__ import annotations

import json
from collections.abc import MutableMapping
from typing import Any

import anyio
import pytest

from sark_trio.gateway import create_app, sending
from sark_trio.gateway.limits import Limits
from sark_trio.gateway.methods import Methods
from sark_trio.governance.decision import Decision
from sark_trio.governance.query import Question
from sark_trio.machines.limiter import RateOptions
from tests.support.audit_disk import MemoryDisk
from tests.support.client import audited, desk, open_client
from tests.support.gateway import Legacy, Stuck, connected, eventually, head, serving

pytestmark = pytest.mark.anyio

CALL = {"server": "desk", "tool": "echo"}
AUDIT_KEY = "audit-key-audit-key-1"


# -- callers who leave, or do not take what they asked for ----------------------------------------


async def test_a_caller_that_goes_away_gives_up_its_call_in_the_registrys_dialect_too() -> None:
    disk, stuck = MemoryDisk(), Stuck()
    async with open_client(desk(stuck), disk) as client, serving(client) as served:
        async with connected(served.url) as stream:
            body = json.dumps(CALL).encode()
            await stream.send(head(served.url, "POST", "/api/v1/invoke", body, {}))
            await stuck.arrived.wait()
        await eventually(lambda: served.app.traffic.in_flight == 0)
        assert client.statistics().running_calls == 0
        assert (await served.ask("POST", "/api/v1/invoke", CALL)).status == 200
    first, second = audited(disk, "outcome")
    assert (first["outcome"], first["delivery"]) == ("cancelled", "unknown")
    assert second["outcome"] == "ok"


async def test_a_list_that_nobody_waits_for_is_given_up() -> None:
    asked = anyio.Event()

    class Slow:
        revision = None

        async def decide(self, _: Question) -> Decision:
            asked.set()
            await anyio.sleep_forever()
            raise AssertionError

    async with open_client(desk(), policy=Slow()) as client, serving(client) as served:
        async with connected(served.url) as stream:
            await stream.send(head(served.url, "GET", "/api/v1/tools", b"", {}))
            await asked.wait()
        await eventually(lambda: served.app.traffic.in_flight == 0)


async def test_an_answer_that_is_not_taken_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sending, "SEND_S", 0.05)
    sent: list[MutableMapping[str, Any]] = []

    async def receive() -> MutableMapping[str, Any]:
        await anyio.sleep_forever()
        raise AssertionError

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)
        if message["type"] == "http.response.body":
            await anyio.sleep_forever()

    async with open_client(desk()) as client:
        app = create_app(client)
        scope = {"type": "http", "method": "GET", "path": "/api/v1/events", "headers": []}
        scope["headers"] = [(b"host", b"localhost")]
        with anyio.fail_after(30):
            await app(scope, receive, send)
        assert app.traffic.in_flight == 0
    # The beginning, and the piece that was not taken: nothing after it, as if it had been.
    assert [one["type"] for one in sent] == ["http.response.start", "http.response.body"]


# -- messages that are not what they seem ---------------------------------------------------------


@pytest.mark.parametrize("wrong", [[1], {"a": 1}, True, None, 1.5, [], "nobody"], ids=repr)
async def test_a_cancellation_of_nothing_is_taken_and_cancels_nothing(wrong: Any) -> None:
    stuck = Stuck()
    async with open_client(desk(stuck)) as client, serving(client) as served:
        legacy = Legacy(served)
        await legacy.initialize()
        legacy.ids = iter([1])
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(legacy.call, "tools/call", {"name": "desk__echo"})
            await stuck.arrived.wait()
            assert (
                await legacy.notify("notifications/cancelled", {"requestId": wrong})
            ).status == 202
            assert client.statistics().running_calls == 1
            stuck.goes_on.set()


async def test_a_mistake_of_ours_is_an_answer(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(*_: Any) -> Any:
        raise ValueError("secret of the operator")

    monkeypatch.setattr(Methods, "discovery", broken)
    async with open_client(desk()) as client, serving(client) as served:
        found = await served.rpc("server/discover", {})
        assert (found.status, found.json["id"], found.error["code"]) == (500, 1, -32603)
        assert b"secret" not in found.body
        assert (await served.rpc("tools/list", {})).status == 200
    assert "secret of the operator" in caplog.text


async def test_a_broken_request_is_answered_under_its_id_and_a_broken_answer_under_none() -> None:
    async with open_client(desk()) as client, serving(client) as served:
        for body, request_id in (
            ({"jsonrpc": "1.0", "id": 7, "method": "ping"}, 7),
            ({"jsonrpc": "2.0", "id": "x", "method": "ping", "params": [1]}, "x"),
            ({"jsonrpc": "2.0", "id": True, "method": "ping"}, None),
            ({"jsonrpc": "2.0", "id": "ask-1", "result": {}, "error": {}}, None),
            ({"jsonrpc": "1.0", "id": 7, "result": {}}, None),
        ):
            found = await served.ask("POST", "/mcp", body)
            assert (found.status, found.json["id"], found.error["code"]) == (
                400,
                request_id,
                -32600,
            )


@pytest.mark.parametrize("named", ["1999-01-01", "2025-06-18", "garbage"])
async def test_a_version_that_is_not_the_sessions_is_refused_everywhere(named: str) -> None:
    async with open_client(desk()) as client, serving(client) as served:
        legacy = Legacy(served)
        await legacy.initialize("2025-11-25")
        note = {"jsonrpc": "2.0", "method": "notifications/initialized"}
        wrong = {**legacy.headers, "MCP_Protocol_Version": named}
        for method, body in (("POST", note), ("GET", None), ("DELETE", None)):
            assert (await served.ask(method, "/mcp", body, **wrong)).status == 400, method
        right = {**legacy.headers, "MCP_Protocol_Version": "2025-11-25"}
        assert (await served.ask("POST", "/mcp", note, **right)).status == 202
        assert (await served.ask("DELETE", "/mcp", **right)).status == 204


@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_the_stateless_revision_knows_post_alone(method: str) -> None:
    async with open_client(desk()) as client, serving(client) as served:
        legacy = Legacy(served)
        await legacy.initialize()
        # Whatever session it names: that header means nothing in this revision.
        modern = {**legacy.headers, "MCP_Protocol_Version": "2026-07-28"}
        found = await served.ask(method, "/mcp", **modern)
        assert (found.status, found.headers["allow"]) == (405, "POST")
        assert (await legacy.call("ping")).status == 200


# -- HTTP -----------------------------------------------------------------------------------------


async def test_head_is_get_without_a_body_wherever_get_has_an_end() -> None:
    async with open_client(desk()) as client, serving(client) as served:
        for path in ("/health", "/ready", "/metrics", "/api/v1/servers", "/api/v1/tools"):
            found = await served.ask("HEAD", path)
            assert (found.status, found.body) == (200, b""), path
        for path, allowed in (
            ("/api/v1/events", "GET"),
            ("/api/v1/invoke", "POST"),
            ("/mcp", "GET, POST, DELETE"),
        ):
            found = await served.ask("HEAD", path)
            assert (found.status, found.headers["allow"]) == (405, allowed)
        found = await served.ask("POST", "/health")
        assert (found.status, found.headers["allow"]) == (405, "GET, HEAD")


async def test_there_is_no_way_in_by_http_2() -> None:
    upgrade = {
        "Connection": "Upgrade, HTTP2-Settings",
        "Upgrade": "h2c",
        "HTTP2_Settings": "AAMAAABkAARAAAAAAAIAAAAA",
    }
    async with open_client(desk()) as client, serving(client) as served:
        async with connected(served.url) as stream:
            await stream.send(head(served.url, "GET", "/health", b"", upgrade))
            seen = b""
            while b"http_version" not in seen:
                seen += await stream.receive()
        assert b"healthy" not in seen
        assert served.app.traffic.in_flight == 0


@pytest.mark.security(34)
async def test_who_has_no_key_does_not_use_up_the_room_of_who_has() -> None:
    limits = Limits(rate=RateOptions(per_s=0.001, burst=2))
    async with (
        open_client(desk()) as client,
        serving(client, limits=limits, audit_key=AUDIT_KEY) as served,
    ):
        for _ in range(4):
            found = await served.ask(
                "POST", "/api/v1/gateway/audit", {}, X_Gateway_Api_Key="x" * 20
            )
            assert found.status == 401
        found = await served.ask("POST", "/api/v1/gateway/audit", {}, X_Gateway_Api_Key=AUDIT_KEY)
        assert found.status == 422  # let through, to be told what its event lacks


async def test_hurrying_takes_the_grace_away() -> None:
    disk, stuck = MemoryDisk(), Stuck()
    async with (
        open_client(desk(stuck), disk) as client,
        serving(client, grace_s=3_600) as served,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(served.ask, "POST", "/api/v1/invoke", CALL)
        await stuck.arrived.wait()
        served.scope.cancel()
        served.app.hurry()
        await served.ended.wait()
    (ended,) = audited(disk, "outcome")
    assert ended["outcome"] == "cancelled"
