"""The event streams of the gateway: who sees what, from where on, and how a stream ends."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import pytest

from sark_trio import AllowAll, GatewayClient, Principal, Rego
from sark_trio.client import gateway as client_gateway
from sark_trio.gateway import lapse, streaming
from sark_trio.gateway.limits import Limits
from sark_trio.governance.jwt import TokenVerifier
from sark_trio.machines.limiter import RateOptions
from tests.support.audit_disk import MemoryDisk
from tests.support.backends import BACKENDS
from tests.support.client import answer, audited, desk, open_client, records, tool
from tests.support.gateway import (
    HUNG_S,
    Legacy,
    Reader,
    Served,
    Stuck,
    connected,
    envelope,
    eventually,
    head,
    serving,
)
from tests.support.governance import POLICIES
from tests.support.tokens import AUDIENCE, ISSUER, Issuer

pytestmark = pytest.mark.anyio

ANN, BOB = Principal(id="ann", roles=("analyst",)), Principal(id="bob", roles=("analyst",))
AUDITOR = Principal(id="audrey", roles=("admin", "auditor"))
KEYS = {"anns-key-anns-key-1": ANN, "bobs-key-bobs-key-1": BOB, "audreys-key-audreys": AUDITOR}
NAMES = {principal.id: key for key, principal in KEYS.items()}
EVENTS, AUDIT, SERVERS = "/api/v1/events", "/api/v1/audit/stream", "/api/v1/servers"


@pytest.fixture(params=BACKENDS)
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    return request.param


@asynccontextmanager
async def reading(
    served: Served, path: str = EVENTS, who: str = "audrey", **headers: str
) -> AsyncIterator[Reader]:
    with anyio.fail_after(HUNG_S):
        async with connected(served.url) as stream:
            named = {"X_API_Key": NAMES[who], "Accept": "text/event-stream", **headers}
            await stream.send(head(served.url, "GET", path, b"", named))
            reader = Reader(stream)
            await reader.open()
            yield reader


@asynccontextmanager
async def served_by(
    server: Any, disk: MemoryDisk | None = None, client: Any = None, **options: Any
) -> AsyncIterator[Served]:
    policy = {"policy": Rego(POLICIES / "agents.rego")}
    async with (
        open_client(server, disk, **{**policy, **(client or {})}) as inner,
        serving(inner, **{"api_keys": KEYS, **options}) as served,
    ):
        yield served


async def invoke(served: Served, who: str, tool: str = "echo", server: str = "desk") -> int:
    call = {"server": server, "tool": tool, "parameters": {"n": 1}}
    return (await served.ask("POST", "/api/v1/invoke", call, X_API_Key=NAMES[who])).status


def names(events: Iterable[tuple[str, Any]]) -> list[str]:
    return [name for name, _ in events]


# -- events ---------------------------------------------------------------------------------------


async def test_a_call_is_told_from_its_beginning_to_its_end() -> None:
    late = Stuck()
    async with (
        served_by(desk(late, answer("no", isError=True))) as served,
        reading(served) as reader,
        anyio.create_task_group() as tasks,
    ):
        assert reader.headers["content-type"] == "text/event-stream"
        assert reader.headers["cache-control"] == "no-cache, no-transform"
        assert "ratelimit" in reader.headers
        tasks.start_soon(invoke, served, "audrey")
        ((name, data),) = await reader.events(1)
        assert name == "tool_invoked"
        assert (data["server_name"], data["tool_name"]) == ("desk", "echo")
        assert (data["user_id"], data["status"]) == ("audrey", "started")
        late.goes_on.set()
        (name, data), (health, state) = await reader.events(2)
        assert (name, data["status"]) == ("tool_completed", "ok")
        assert data["duration"] >= 0
        assert (health, state) == (
            "server_health",
            {"server_name": "desk", "status": "healthy"},
        )
        await invoke(served, "audrey")
        _, (name, data) = await reader.events(2)
        assert (name, data["status"], data["error"]) == ("tool_failed", "error", "error")
        assert b"retry: 3000\n\n" in reader.body


async def test_denials_and_operations_are_told() -> None:
    async with served_by(desk()) as served, reading(served) as reader:
        assert await invoke(served, "ann") == 403
        ((name, data),) = await reader.events(1)
        assert (name, data["user_id"], data["error"]) == ("authorization_denied", "ann", "denied")
        served.client.block("desk", "echo", reason="incident")
        await served.client.add_server("more", ["nothing"])
        found = await reader.events(2)
        assert names(found) == ["security_event", "server_registered"]
        assert found[0][1]["severity"] == "high"
        assert found[1][1] == {"server_name": "more", "status": "registered"}


async def test_callers_see_their_own_calls_and_the_servers_they_may_see() -> None:
    """Policy lets the auditor see everything (``gateway:events:read``), and nobody else."""
    open_to_all = {"policy": Rego(texts={"p": OWN})}
    async with (
        served_by(desk(), client=open_to_all) as served,
        reading(served, who="ann") as ann,
        reading(served, who="bob") as bob,
        reading(served, who="audrey") as audrey,
    ):
        for who in ("ann", "bob"):
            await invoke(served, who)
        await served.client.add_server("vault", ["nothing"])
        await served.client.add_server("db", ["nothing"])
        served.client.block("vault", reason="r")
        await invoke(served, "ann", "unheard-of")
        await invoke(served, "bob", "echo")
        everything = await audrey.events(10)
        for reader, who in ((ann, "ann"), (bob, "bob")):
            found = await reader.events(4)
            users = {data["user_id"] for _, data in found if "user_id" in data}
            assert users == {who}
            about = [d["server_name"] for n, d in found if n == "server_registered"]
            assert about == ["db"]
        assert {d.get("user_id") for _, d in everything} == {"ann", "bob", None}
        assert "security_event" in names(everything)


OWN = """
package mcp.gateway
default allow := false
allow if input.action == "gateway:tool:invoke"
allow if { input.action == "gateway:server:info"; input.server_name != "vault" }
allow if { input.action == "gateway:events:read"; "auditor" in input.user.roles }
"""


async def test_a_stream_of_one_server_and_of_some_types() -> None:
    async with served_by(desk()) as served:
        await served.client.add_server("other", ["nothing"])
        path = "/api/v1/servers/desk/stream?event_types=tool_completed,security_event"
        async with reading(served, path) as reader:
            served.client.block("other", reason="r")
            await invoke(served, "audrey")
            served.client.block("desk", reason="r")
            found = await reader.events(2)
            assert names(found) == ["tool_completed", "security_event"]
            assert {data["server_name"] for _, data in found} == {"desk"}
        for path, status in (
            ("/api/v1/servers/nobody/stream", 404),
            ("/api/v1/events?event_types=" + ",".join(f"t{n}" for n in range(40)), 400),
            ("/api/v1/events?event_types=a&event_types=b", 400),
        ):
            async with reading(served, path) as reader:
                assert reader.status == status
        async with reading(served, Accept="application/json") as reader:
            assert reader.status == 406
        found_status = (await served.ask("POST", EVENTS, {}, X_API_Key=NAMES["ann"])).status
        assert found_status == 405
        assert (await served.ask("GET", EVENTS)).status == 401


async def test_whoever_comes_back_misses_nothing_that_is_kept() -> None:
    async with served_by(desk(), events_max=6) as served:
        feed = served.app.streams.feed
        async with reading(served) as reader:
            feed.publish("tick", {"n": 0})
            (seen,) = await reader.raw(1)
        for number in range(1, 4):
            feed.publish("tick", {"n": number})
        last = {"Last_Event_ID": seen.id}
        async with reading(served, **last) as reader:
            assert [data["n"] for _, data in await reader.events(3)] == [1, 2, 3]
        async with reading(served, f"{EVENTS}?last_event_id={seen.id}") as reader:
            assert [data["n"] for _, data in await reader.events(3)] == [1, 2, 3]
        for number in range(4, 10):
            feed.publish("tick", {"n": number})
        async with reading(served, **last) as reader:
            found = await reader.events(7)
            assert found[0] == ("stream_gap", {"reason": "too_old"})
            assert [data["n"] for _, data in found[1:]] == [4, 5, 6, 7, 8, 9]
        async with reading(served, Last_Event_ID="of-another-run-3") as reader:
            assert (await reader.events(1))[0] == ("stream_gap", {"reason": "unknown_id"})


async def test_a_reader_that_is_too_slow_is_cut_and_told_where_it_was() -> None:
    async with served_by(desk(), events_max=5) as served:
        feed = served.app.streams.feed
        async with reading(served) as reader:
            feed.publish("tick", {"n": 0})
            (seen,) = await reader.raw(1)
            for number in range(1, 20):
                feed.publish("tick", {"n": number})
            found = await reader.rest()
            assert found == [("stream_cut", {"reason": "too_slow", "last_event_id": seen.id})]
            assert reader.ended
        # It costs nobody else anything, and it may come back.
        assert await invoke(served, "audrey") == 200


async def test_silence_is_filled_with_comments_that_are_no_events(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(streaming, "PING_S", 0.01)
    async with served_by(desk()) as served, reading(served) as reader:
        while reader.body.count(b": ping\n\n") < 3:
            await reader._read()
        served.app.streams.feed.publish("tick", {})
        assert names(await reader.events(1)) == ["tick"]


async def test_closing_ends_streams_at_once_and_says_so() -> None:
    async with served_by(desk()) as served:
        async with reading(served) as reader, anyio.create_task_group() as tasks:
            tasks.start_soon(served.app.close, 1000.0)
            assert await reader.rest() == [("stream_closed", {"reason": "closing"})]
        await eventually(lambda: served.app.traffic.in_flight == 0)


async def test_a_reader_that_goes_away_leaves_nothing_and_makes_room() -> None:
    limits = Limits(streams=2)
    async with served_by(desk(), limits=limits) as served:
        async with reading(served), reading(served):
            async with reading(served) as third:
                assert third.status == 429
                assert third.headers["retry-after"] == "1"
            async with reading(served, who="ann") as other:
                assert other.status == 200
        await eventually(lambda: served.app.traffic.in_flight == 0)
        async with reading(served) as again:
            assert again.status == 200


async def test_our_own_client_listens_and_comes_back(tmp_path: Path) -> None:
    """Both ends are ours: the gateway's streams, and the client's ``stream_events``."""
    async with (
        served_by(desk()) as served,
        GatewayClient(
            gateway_url=served.url,
            api_key=NAMES["audrey"],
            policy=AllowAll(),
            audit=tmp_path / "audit",
        ) as client,
    ):
        feed = served.app.streams.feed
        feed.publish("tick", {"n": 0})
        with anyio.fail_after(HUNG_S):
            last = feed.id_of(0)
            async with client.stream_events(
                event_types={"tool_invoked"}, last_event_id=last
            ) as events:
                await invoke(served, "audrey")
                async for event in events:
                    assert event.event_type == "tool_invoked"
                    assert json.loads(event.data)["tool_name"] == "echo"
                    break


# -- the audit log as a stream --------------------------------------------------------------------


async def test_the_audit_log_is_read_by_number_from_anywhere() -> None:
    disk = MemoryDisk()
    async with served_by(desk(tools=[tool("echo")]), disk) as served:
        for _ in range(3):
            await invoke(served, "audrey")
        await served.client.record("marker", {})
        so_far = records(disk)
        async with reading(served, AUDIT, Last_Event_ID="0") as reader:
            found = await reader.raw(len(so_far) - 1)
            assert [int(one.id) for one in found] == [r["seq"] for r in so_far[1:]]
            assert [json.loads(one.data) for one in found] == so_far[1:]
            assert {one.event for one in found} == {"audit_event"}
            # And on, as it is written.
            await served.client.record("later", {})
            while json.loads((await reader.raw(1))[0].data).get("name") != "later":
                pass
        last = len(so_far) + 5_000
        for wrong in (str(last), "x", "-1", "9" * 30):
            async with reading(served, AUDIT, Last_Event_ID=wrong) as reader:
                assert (await reader.events(1))[0] == ("stream_gap", {"reason": "unknown_id"})
        async with reading(served, AUDIT) as reader:
            await served.client.record("now", {})
            kinds = []
            while "now" not in kinds:
                kinds += [data.get("name") for _, data in await reader.events(1)]
            # That it was read, perhaps more than once: what was not durable yet is told, too.
            assert set(kinds) == {"audit_read", "now"}


@pytest.mark.fault(48)
async def test_the_audit_log_is_for_those_whom_policy_lets() -> None:
    disk = MemoryDisk()
    async with served_by(desk(), disk) as served:
        for who in ("ann", "bob"):
            async with reading(served, AUDIT, who) as reader:
                assert reader.status == 403
        async with reading(served, AUDIT) as reader:
            assert reader.status == 200
        assert (await served.ask("GET", AUDIT)).status == 401
        served.client.reload_policy(None)
        async with reading(served, AUDIT) as reader:
            assert reader.status == 403
    seen = [each["details"] for each in audited(disk, "event") if each["name"] == "audit_refused"]
    assert [each["principal_id"] for each in seen] == ["ann", "bob", "audrey"]


async def test_a_log_that_ends_ends_its_streams() -> None:
    async with served_by(desk()) as served, reading(served, AUDIT) as reader:
        await served.client.close()
        assert all(name == "audit_event" for name in names(await reader.rest()))
        assert reader.ended


# -- limits ---------------------------------------------------------------------------------------


async def test_each_caller_has_a_rate_of_its_own() -> None:
    server = desk()
    limits = Limits(rate=RateOptions(per_s=0.001, burst=3))
    async with served_by(server, limits=limits) as served:
        key = {"X_API_Key": NAMES["audrey"]}
        call = {"server": "desk", "tool": "echo"}
        left = []
        for _ in range(3):
            found = await served.ask("POST", "/api/v1/invoke", call, **key)
            assert found.status == 200
            left.append(found.headers["ratelimit"].partition(";t=")[0])
        assert left == ['"caller";r=2', '"caller";r=1', '"caller";r=0']
        for _ in range(3):
            found = await served.ask("POST", "/api/v1/invoke", call, **key)
            assert (found.status, found.error["type"]) == (429, "rate_limited")
            assert found.error["reason"] == "rate"
            assert 1 <= int(found.headers["retry-after"]) <= 1_000
            assert found.headers["ratelimit-policy"].startswith('"caller";q=3;w=')
        assert (await served.rpc("tools/list", {}, **key)).status == 429
        assert await invoke(served, "ann") == 403  # her own count, and policy's no
        assert (await served.ask("GET", "/health")).status == 200
        metrics = await served.ask("GET", "/metrics", X_API_Key=NAMES["bob"])
        assert "sark_gateway_rate_limit_exceeded_total 4" in metrics.body.decode()
    assert len(server.arrived) == 3


async def test_nobody_holds_all_places_at_once() -> None:
    """A cap on each caller, before policy is asked (denial of wallet)."""
    stuck = Stuck()
    async with served_by(desk(stuck), limits=Limits(concurrent=1)) as served:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(invoke, served, "audrey")
            await stuck.arrived.wait()
            found = await served.ask("GET", "/api/v1/servers", X_API_Key=NAMES["audrey"])
            assert (found.status, found.error["reason"]) == (429, "requests")
            assert (
                await served.ask("GET", "/api/v1/servers", X_API_Key=NAMES["ann"])
            ).status == 200
            stuck.goes_on.set()
        assert await invoke(served, "audrey") == 200


# -- readers who may not stay ---------------------------------------------------------------------


@pytest.mark.security(5)
async def test_streams_end_with_the_token_that_let_them_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """All kinds of streams: each is ended cleanly, and who comes back is told why not."""
    wall = SimpleNamespace(now=float(int(time.time())), time=lambda: wall.now)
    monkeypatch.setattr(lapse, "_wall", wall.time)
    monkeypatch.setattr(lapse, "LOOK_S", 0.01)
    monkeypatch.setattr(client_gateway, "time", wall)
    issuer = Issuer()
    identity = TokenVerifier(
        keys=issuer.jwks, issuer=ISSUER, audience=AUDIENCE, algorithms=["ES256"]
    )
    token = issuer.token("audrey", roles=["admin", "auditor"], exp=int(wall.now) + 60)
    bearer = {"Authorization": f"Bearer {token}"}
    policy = Rego(POLICIES / "agents.rego")
    async with (
        open_client(desk(), policy=policy, identity=identity) as client,
        serving(client, api_keys=KEYS, verifier=client.authenticate) as served,
        reading(served) as keyed,
        anyio.create_task_group() as tasks,
    ):
        legacy = Legacy(served, **bearer)
        assert (await legacy.initialize()).status == 200
        ended: dict[str, bytes] = {}
        for path in (EVENTS, AUDIT, f"{SERVERS}/desk/stream"):
            await tasks.start(_hear, served, path, bearer, ended)
        await tasks.start(_hear, served, "/mcp", legacy.headers, ended)
        await tasks.start(_listen, served, bearer, ended)
        wall.now += 60 + 29.5  # within the leeway
        assert (await served.ask("GET", SERVERS, **bearer)).status == 200
        assert not ended
        wall.now += 0.5
        await eventually(lambda: len(ended) == 5)
        assert b'"result"' in ended.pop("listen")
        assert b"reason" not in ended.pop("/mcp")
        for path, body in ended.items():
            assert body.endswith(b'{"reason":"credential_expired"}\n\n'), path
        for path in (*ended, "/mcp"):
            again = await served.ask("GET", path, **legacy.headers)
            assert (again.status, again.error["reason"]) == (401, "token_expired")
            assert again.headers["www-authenticate"] == 'Bearer error="invalid_token"'
        # A key has no end.
        served.app.streams.feed.publish("tick", {})
        while names(await keyed.events(1)) != ["tick"]:
            pass


async def _hear(
    served: Served, path: str, headers: dict[str, str], ended: dict[str, bytes], *, task_status: Any
) -> None:
    """Read a stream to its end."""
    async with reading(served, path, **headers) as reader:
        assert reader.status == 200
        task_status.started()
        await reader.rest()
        ended[path] = reader.body


async def _listen(
    served: Served, headers: dict[str, str], ended: dict[str, bytes], *, task_status: Any
) -> None:
    """The same of ``subscriptions/listen``, from its acknowledgement on."""
    own, body = envelope("subscriptions/listen", {"notifications": {"toolsListChanged": True}})
    async with connected(served.url) as stream:
        await stream.send(
            head(served.url, "POST", "/mcp", json.dumps(body).encode(), {**own, **headers})
        )
        reader = Reader(stream)
        await reader.raw(1)
        task_status.started()
        await reader.rest()
        ended["listen"] = reader.body


@pytest.mark.security(37)
async def test_who_is_switched_off_hears_no_more() -> None:
    async with (
        served_by(desk()) as served,
        reading(served, who="ann") as ann,
        reading(served, who="bob") as bob,
        reading(served) as audrey,
    ):
        served.client.block(principal="ann", reason="incident")
        assert await ann.rest() == [("stream_closed", {"reason": "blocked"})]
        async with reading(served, who="ann") as again:
            assert again.status == 403
        served.client.block("desk", reason="a server is not a caller")
        assert names(await audrey.events(2)) == ["security_event", "security_event"]
        served.client.unblock(principal="ann")
        async with reading(served, who="ann") as again:
            assert again.status == 200
        served.client.block(reason="everything")
        assert await bob.rest() == [("stream_closed", {"reason": "blocked"})]
        assert names(await audrey.rest())[-1] == "stream_closed"
