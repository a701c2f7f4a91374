"""The REST dialect of the gateway, over plain HTTP as curl speaks it."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from sark_trio import BreakerOptions, Principal
from sark_trio.errors import (
    ConnectError,
    Denied,
    HTTPStatusError,
    Overloaded,
    ProtocolError,
    RemoteError,
    ServerDisconnected,
    status_error,
)
from sark_trio.gateway import asgi
from tests.support.audit_disk import MemoryDisk
from tests.support.client import Desk, Step, answer, audited, desk, hang, open_client, records, tool
from tests.support.gateway import Served, Stuck, connected, eventually, head, read, serving

pytestmark = pytest.mark.anyio

KEY, OTHER_KEY = "alices-key-alices-key", "other-key-other-key-1"
ALICE, BOB = Principal(id="alice"), Principal(id="bob", kind="service")
CALL = {"server": "desk", "tool": "echo", "parameters": {"a": 1}}


@asynccontextmanager
async def served_by(
    server: Desk | Any, disk: MemoryDisk | None = None, client: Any = None, **options: Any
) -> AsyncIterator[Served]:
    async with (
        open_client(server, disk, **(client or {})) as inner,
        serving(inner, **options) as served,
    ):
        yield served


async def verify(token: str) -> Principal:
    """Stands for a verifier that knows one token."""
    if token == "good.token.sig":
        return Principal(id="carol", roles=("analyst",))
    reasons = {"old.token.sig": "token_expired", "key.less.sig": "keys_unavailable"}
    raise Denied("never shown: secret", reason=reasons.get(token, "token_invalid"))


# -- what it says ---------------------------------------------------------------------------------


async def test_servers_and_their_pages() -> None:
    async with served_by(desk()) as served:
        listed = (await served.ask("GET", "/api/v1/servers?offset=0&limit=10")).json
        (server,) = listed["servers"]
        assert (listed["total"], listed["offset"]) == (1, 0)
        assert server["server_id"] == server["server_name"] == "desk"
        assert (server["server_url"], server["health_status"]) == ("memory:", "unknown")
        assert (server["tools_count"], server["sensitivity_level"]) == (0, "medium")
        assert (await served.ask("GET", "/api/v1/servers?offset=1")).json["servers"] == []
        one = await served.ask("GET", "/api/v1/servers/%64esk")
        assert one.json == server
        assert one.headers["content-type"] == "application/json"
        assert "server" not in one.headers


@pytest.mark.fault(28)
async def test_a_name_is_one_segment_and_an_unknown_one_tells_nothing() -> None:
    async with served_by(desk()) as served:
        for path in ("nobody", "..%2Fdesk", "desk%2F", "desk/", "%00"):
            found = await served.ask("GET", f"/api/v1/servers/{path}")
            assert found.status == 404
            assert "desk" not in found.error["message"]


async def test_tools_and_their_pages() -> None:
    schema = {
        "type": "object",
        "properties": {"a": {"type": "string"}, "b": {}},
        "required": ["a"],
    }
    tools = [tool(f"t{number}", inputSchema=schema) for number in range(25)]
    async with served_by(desk(tools=tools)) as served:
        page = (await served.ask("GET", "/api/v1/tools?offset=20&limit=10&server=desk")).json
        assert [one["tool_name"] for one in page["tools"]] == [f"t{n}" for n in range(20, 25)]
        assert page["total"] == 25
        assert page["tools"][0]["parameters"] == [
            {"name": "a", "type": "string", "required": True},
            {"name": "b", "type": "any", "required": False},
        ]
        assert page["tools"][0]["input_schema"] == schema
        assert len((await served.ask("GET", "/api/v1/tools")).json["tools"]) == 25
        assert (await served.ask("GET", "/api/v1/tools?server=nobody")).status == 404


async def test_a_server_that_cannot_be_asked_is_named_beside_the_list() -> None:
    async with served_by(desk(list_script=[ConnectError("secret address")] * 5)) as served:
        page = await served.ask("GET", "/api/v1/tools")
        assert (page.status, page.json["tools"]) == (200, [])
        assert page.json["failures"] == {"desk": "upstream_unreachable"}
        assert b"secret" not in page.body


async def test_invoke_calls_the_tool_and_says_what_it_said() -> None:
    failed = answer("no", isError=True)
    server = desk(answer("hi", structuredContent={"a": 1}), failed)
    async with served_by(server) as served:
        first = await served.ask("POST", "/api/v1/invoke", CALL)
        assert first.json["status"] == "success"
        assert first.json["result"]["structuredContent"] == {"a": 1}
        assert first.json["result"]["content"][0]["text"] == "hi"
        second = await served.ask("POST", "/api/v1/invoke", {"server": "desk", "tool": "echo"})
        assert (second.status, second.json["status"]) == (200, "error")
    assert server.arrived == [{"a": 1}, {}]


BROKEN_BODIES = [
    b"",
    b"{",
    b"[]",
    b'"x"',
    b'{"server":"desk"}',
    b'{"server":"desk","tool":3}',
    b'{"server":"desk","tool":"echo","parameters":[]}',
    b'{"server":"desk","server":"other","tool":"echo"}',
    b'{"server":"desk","tool":"echo","parameters":{"a":NaN}}',
    b"\xff\xfe",
    b'{"server":"desk","tool":"echo","parameters":' + b'{"a":' * 200 + b"1" + b"}" * 201,
]


@pytest.mark.parametrize("body", BROKEN_BODIES)
async def test_a_body_that_is_no_call_calls_nothing(body: bytes) -> None:
    server = desk()
    async with served_by(server) as served:
        headers = {"Content_Type": "application/json"}
        found = await served.ask("POST", "/api/v1/invoke", body, **headers)
        assert (found.status, found.error["type"]) == (400, "invalid_request")
    assert server.arrived == []


@pytest.mark.parametrize(
    ("method", "target", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/api/v1", 404),
        ("GET", "//api/v1/servers", 404),
        ("GET", "/api/v1/servers?limit=x", 400),
        ("GET", "/api/v1/servers?offset=-1", 400),
        ("GET", "/api/v1/servers?offset=99999999999999999999", 400),
        ("GET", "/api/v1/servers?offset=%C2%B2", 400),
        ("GET", "/api/v1/servers?limit=1&limit=2", 400),
        ("GET", "/api/v1/servers?" + "a=1&" * 40, 400),
        ("GET", "/api/v1/servers?limit=0", 200),
        ("POST", "/api/v1/servers", 405),
        ("GET", "/api/v1/invoke", 405),
        ("DELETE", "/health", 405),
        ("PATCH", "/metrics", 405),
    ],
)
async def test_requests_that_lead_nowhere(method: str, target: str, status: int) -> None:
    async with served_by(desk()) as served:
        found = await served.ask(method, target)
        assert found.status == status
        if status == 405:
            assert found.headers["allow"]


# -- who may ask ----------------------------------------------------------------------------------


@pytest.mark.fault(48)
async def test_credentials_are_needed_and_name_the_principal() -> None:
    disk = MemoryDisk()
    keys = {KEY: ALICE, OTHER_KEY: BOB}
    async with served_by(desk(), disk, api_keys=keys, verifier=verify) as served:
        for headers, status, reason in (
            ({}, 401, "credentials_missing"),
            ({"X_API_Key": KEY[:-1]}, 401, "key_invalid"),
            ({"X_API_Key": ""}, 401, "key_invalid"),
            ({"X_API_Key": "ä" * 20}, 401, "key_invalid"),
            ({"Authorization": "Bearer forged.token.sig"}, 401, "token_invalid"),
            ({"Authorization": "Bearer old.token.sig"}, 401, "token_expired"),
            ({"Authorization": "Bearer key.less.sig"}, 503, "keys_unavailable"),
            ({"Authorization": "Basic YTpi"}, 401, "scheme_unsupported"),
            ({"X_API_Key": KEY, "Authorization": "Bearer x.y.z"}, 401, "token_invalid"),
            ({"X_API_Key": "wrong", "Authorization": "Bearer good.token.sig"}, 401, "key_invalid"),
        ):
            found = await served.ask("POST", "/api/v1/invoke", CALL, **headers)
            assert (found.status, found.error["reason"]) == (status, reason)
            assert b"secret" not in found.body
            if status == 401:
                assert found.headers["www-authenticate"].startswith("Bearer")
        assert audited(disk, "intent") == []
        for headers in (
            {"X_API_Key": KEY},
            {"X_API_Key": OTHER_KEY},
            {"Authorization": "bearer good.token.sig"},
            {"X_API_Key": KEY, "Authorization": "Bearer good.token.sig"},
        ):
            assert (await served.ask("POST", "/api/v1/invoke", CALL, **headers)).status == 200
        # Probes have no key, and learn nothing; counters do tell something.
        assert (await served.ask("GET", "/health")).status == 200
        assert (await served.ask("GET", "/ready")).status == 200
        assert (await served.ask("GET", "/metrics")).status == 401
        assert (await served.ask("GET", "/nowhere")).status == 401
        counted = await served.ask("GET", "/metrics", X_API_Key=KEY)
        assert "sark_gateway_auth_failures_total 11" in counted.body.decode()
    callers = [one["principal_id"] for one in audited(disk, "intent")]
    assert callers == ["alice", "bob", "carol", "carol"]


@pytest.mark.security(32)
@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 403),
        ({"Host": "evil.example:8080"}, 403),
        ({"Host": "127.0.0.1.evil.example"}, 403),
        ({"Host": ""}, 403),
        ({"Host": "localhost:99"}, 200),
        ({"Host": "[::1]:80"}, 200),
        ({"Host": "LOCALHOST"}, 200),
        ({"Host": "gateway.example"}, 200),
        ({"Host": "exact.example:81"}, 200),
        ({"Host": "exact.example:82"}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://localhost:3000"}, 403),
        ({"Origin": "https://app.example"}, 200),
        ({"Host": "localhost:8080", "Origin": "http://localhost:8080"}, 200),
        ({"Host": "localhost:8080", "Origin": "https://localhost:8080"}, 403),
    ],
)
async def test_names_defend_against_rebinding(headers: dict[str, str], status: int) -> None:
    names = {
        "allowed_hosts": ["localhost", "127.0.0.1", "[::1]", "gateway.example", "exact.example:81"],
        "allowed_origins": ["https://app.example"],
    }
    async with served_by(desk(), **names) as served:
        for path in ("/health", "/api/v1/servers", "/mcp"):
            expected = 405 if path == "/mcp" and status == 200 else status
            assert (await served.ask("GET", path, **headers)).status == expected


async def test_a_header_that_must_be_single_is() -> None:
    async with served_by(desk(), api_keys={KEY: ALICE}) as served:
        data = head(served.url, "GET", "/api/v1/servers", b"", {"X_API_Key": KEY})
        twice = data.replace(b"x-api-key", b"X-Api-Key: other\r\nx-api-key")
        async with connected(served.url) as stream:
            await stream.send(twice)
            assert (await read(stream)).status == 400


async def test_a_body_must_say_that_it_is_json() -> None:
    server = desk()
    async with served_by(server) as served:
        for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
            found = await served.ask("POST", "/api/v1/invoke", CALL, Content_Type=kind)
            assert found.status == 415
        kind = "Application/JSON; charset=utf-8"
        assert (await served.ask("POST", "/api/v1/invoke", CALL, Content_Type=kind)).status == 200
    assert len(server.arrived) == 1


# -- limits ---------------------------------------------------------------------------------------


async def test_bodies_have_a_bound_said_or_not() -> None:
    server = desk()
    async with served_by(server, body_bytes_max=20_000) as served:
        big = {**CALL, "parameters": {"a": "x" * 40_000}}
        found = await served.ask("POST", "/api/v1/invoke", big)
        assert (found.status, found.error["type"]) == (413, "too_large")
        async with connected(served.url) as stream:
            chunked = {"Transfer_Encoding": "chunked", "Content_Type": "application/json"}
            await stream.send(head(served.url, "POST", "/api/v1/invoke", b"", chunked))
            for _ in range(20):
                await stream.send(b"7d0\r\n" + b" " * 2000 + b"\r\n")
            await stream.send(b"0\r\n\r\n")
            assert (await read(stream)).status == 413
        fits = {**CALL, "parameters": {"a": "x" * 10_000}}
        assert (await served.ask("POST", "/api/v1/invoke", fits)).status == 200
    assert len(server.arrived) == 1


@pytest.mark.parametrize("path", ["/api/v1/invoke", "/nowhere", "/api/v1/servers"])
async def test_a_huge_body_that_nobody_wants_hangs_nothing(path: str) -> None:
    async with served_by(desk(), body_bytes_max=1_000) as served:
        for _ in range(3):
            async with connected(served.url) as stream:
                data = head(served.url, "POST", path, b"", {"Content_Length": str(10**9)})
                with pytest.raises((anyio.BrokenResourceError, anyio.EndOfStream)):
                    await stream.send(data)
                    while True:
                        await stream.send(b" " * 100_000)
        assert (await served.ask("GET", "/health")).status == 200


@pytest.mark.security(34)
async def test_more_requests_than_allowed_are_turned_away() -> None:
    stuck = Stuck()
    async with served_by(desk(stuck), requests_max=1) as served, anyio.create_task_group() as tasks:
        tasks.start_soon(served.ask, "POST", "/api/v1/invoke", CALL)
        await stuck.arrived.wait()
        found = await served.ask("GET", "/api/v1/servers")
        assert (found.status, found.error["type"]) == (503, "overloaded")
        assert found.headers["retry-after"] == "1"
        assert (await served.ask("GET", "/health")).status == 200
        tasks.cancel_scope.cancel()


# -- failures -------------------------------------------------------------------------------------

FAILURES: list[tuple[Step, int, str, str]] = [
    (ConnectError("secret"), 502, "upstream_unreachable", "not_sent"),
    (ServerDisconnected("secret"), 502, "outcome_unknown", "unknown"),
    (ProtocolError("secret", delivery="answered"), 502, "upstream_broken", "answered"),
    (status_error(500, "secret"), 502, "upstream_error", "answered"),
    (HTTPStatusError("secret", status=404), 502, "upstream_error", "answered"),
    (status_error(429, "secret", retry_after_s=60), 503, "upstream_busy", "answered"),
    (Overloaded("secret", retry_after_s=60), 503, "overloaded", "not_sent"),
    (Denied("secret", reason="no_credentials"), 403, "denied", "not_sent"),
]


@pytest.mark.parametrize(("step", "status", "kind", "delivery"), FAILURES)
async def test_a_failure_has_a_status_and_a_word_and_keeps_the_rest(
    step: Step, status: int, kind: str, delivery: str
) -> None:
    async with served_by(desk(*[step] * 5)) as served:
        found = await served.ask("POST", "/api/v1/invoke", CALL)
    assert (found.status, found.error["type"]) == (status, kind)
    assert found.error["delivery"] == delivery
    assert found.error["request_id"]
    assert b"secret" not in found.body


@pytest.mark.security(35)
async def test_a_denial_says_one_word() -> None:
    disk = MemoryDisk()
    server = desk()
    async with served_by(server, disk, {"policy": None}) as served:
        found = await served.ask("POST", "/api/v1/invoke", CALL)
    assert found.status == 403
    assert found.error["type"] == "denied"
    assert found.error["message"] in {"policy denies this", "policy could not decide"}
    assert set(found.error) <= {"type", "reason", "delivery", "request_id", "message"}
    assert server.arrived == []
    (record,) = [one for one in records(disk) if one.get("tool") == "echo"]
    assert record["request_id"] == found.error["request_id"]


async def test_what_an_upstream_says_itself_is_passed_on() -> None:
    failed = RemoteError("no table 'x'" + "!" * 1000, code=-32050, data={"secret": 1})
    async with served_by(desk(failed)) as served:
        found = await served.ask("POST", "/api/v1/invoke", CALL)
    assert (found.status, found.error["upstream_code"]) == (502, -32050)
    assert found.error["message"].startswith("no table 'x'!!!")
    assert len(found.error["message"]) == 500
    assert b"secret" not in found.body


async def test_an_open_circuit_says_when_to_come_back() -> None:
    steps: list[Step] = [status_error(500, "no")] * 3
    breaker = {"server_breaker": BreakerOptions(failures=1)}
    async with served_by(desk(*steps), client=breaker) as served:
        first = await served.ask("POST", "/api/v1/invoke", CALL)
        second = await served.ask("POST", "/api/v1/invoke", CALL)
        metrics = (await served.ask("GET", "/metrics")).body.decode()
        about = (await served.ask("GET", "/api/v1/servers/desk")).json
    assert first.status == 502
    assert (second.status, second.error["type"]) == (503, "circuit_open")
    assert 1 <= int(second.headers["retry-after"]) <= 30
    assert second.error["retry_after_s"] > 0
    assert 'sark_gateway_circuit_state{server="desk",state="open"} 1' in metrics
    assert about["health_status"] == "unhealthy"


async def test_a_deadline_that_passes_is_a_gateway_timeout() -> None:
    async with served_by(desk(hang), client={"timeout_s": 0.2}) as served:
        found = await served.ask("POST", "/api/v1/invoke", CALL)
    assert (found.status, found.error["type"]) == (504, "timeout")
    assert found.error["delivery"] == "unknown"


@pytest.mark.security(35)
async def test_unknown_tools_and_servers_tell_nothing_of_the_known() -> None:
    async with served_by(desk()) as served:
        for call in ({"server": "x", "tool": "echo"}, {"server": "desk", "tool": "x"}):
            found = await served.ask("POST", "/api/v1/invoke", call)
            assert found.status == 404
            assert "echo" not in found.error["message"]
            assert "desk" not in found.error["message"]


# -- counters -------------------------------------------------------------------------------------


@pytest.mark.fault(51)
async def test_metrics_are_counted_and_their_labels_bounded() -> None:
    async with served_by(desk()) as served:
        await served.ask("POST", "/api/v1/invoke", CALL)
        for number in range(50):
            await served.ask("GET", f"/api/v1/servers/{number}")
            await served.ask(f"ODD{number}", f"/odd/{number}")
        found = await served.ask("GET", "/metrics")
    assert found.headers["content-type"].startswith("text/plain; version=0.0.4")
    lines, total = found.body.decode().splitlines(), "sark_gateway_requests_total"
    assert f'{total}{{method="POST",endpoint="/api/v1/invoke",status="200"}} 1' in lines
    # The list of tools, and the call.
    assert 'sark_gateway_attempts_total{server="desk",status="success"} 2' in lines
    assert "sark_gateway_calls_running 0" in lines
    assert "sark_gateway_requests_in_flight 1" in lines  # this one
    assert "sark_audit_available 1" in lines
    assert f'{total}{{method="GET",endpoint="/api/v1/servers/{{name}}",status="404"}} 50' in lines
    assert f'{total}{{method="other",endpoint="unknown",status="404"}} 50' in lines
    assert len([line for line in lines if line.startswith(total)]) == 3
    samples = [line for line in lines if not line.startswith("#")]
    assert all(json.loads(line.rpartition(" ")[2]) >= 0 for line in samples)
    described = {line.split(" ")[2] for line in lines if line.startswith("# TYPE")}
    names = {line.partition("{")[0].partition(" ")[0] for line in samples}
    assert {re.sub("_(sum|count|bucket)$", "", name) for name in names} <= described


async def test_ready_says_when_calls_can_be_made() -> None:
    async with served_by(desk()) as served:
        found = await served.ask("GET", "/ready")
        assert found.json == {"status": "ready", "checks": {"client": True, "audit": True}}
        await served.client.close()
        found = await served.ask("GET", "/ready")
        assert (found.status, found.json["checks"]["client"]) == (503, False)
        assert (await served.ask("GET", "/health")).status == 200
        refused = await served.ask("POST", "/api/v1/invoke", CALL)
        assert (refused.status, refused.error["type"]) == (503, "closing")


# -- what should not happen -----------------------------------------------------------------------


async def test_a_mistake_of_ours_is_logged_and_not_told(caplog: pytest.LogCaptureFixture) -> None:
    async def broken(_: str) -> Principal:
        raise ValueError("secret of the operator")

    async with served_by(desk(), api_keys={KEY: ALICE}, verifier=broken) as served:
        found = await served.ask("POST", "/api/v1/invoke", CALL, Authorization="Bearer t.t.t")
        assert (found.status, found.error["type"]) == (500, "internal")
        assert b"secret" not in found.body
        assert (await served.ask("POST", "/api/v1/invoke", CALL, X_API_Key=KEY)).status == 200
    assert "a request to /api/v1/invoke failed" in caplog.text
    assert "secret of the operator" in caplog.text


async def test_a_body_that_is_cut_short_calls_nothing() -> None:
    server = desk()
    async with served_by(server) as served:
        async with connected(served.url) as stream:
            length = {"Content_Length": "1000", "Content_Type": "application/json"}
            await stream.send(head(served.url, "POST", "/api/v1/invoke", b"{", length))
            await stream.send_eof()
            assert (await read(stream)).status in {0, 400}  # closed, or told so
        await eventually(lambda: served.app.traffic.in_flight == 0)
    assert server.arrived == []


async def test_a_body_that_does_not_come_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asgi, "BODY_S", 0.1)
    monkeypatch.setattr(asgi, "DISCARD_S", 0.1)
    async with served_by(desk()) as served, connected(served.url) as stream:
        length = {"Content_Length": "1000", "Content_Type": "application/json"}
        await stream.send(head(served.url, "POST", "/api/v1/invoke", b"{", length))
        assert (await read(stream)).status == 408


async def test_a_schema_without_properties_has_no_parameters() -> None:
    listed = tool("odd", inputSchema={"type": "object", "properties": {"a": True}, "required": "a"})
    async with served_by(desk(tools=[tool(), listed])) as served:
        page = (await served.ask("GET", "/api/v1/tools")).json["tools"]
    assert [one["parameters"] for one in page] == [
        [],
        [{"name": "a", "type": "any", "required": False}],
    ]
